"""Tools for tokens: authenticate, refresh, revoke."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared_context_server.auth.identity import IssuedToken
from shared_context_server.models import AgentId, AgentType, Permission
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, Result, Time
from shared_context_server.tools.registry import ADDS, REMOVES, Call, Tool


class AuthenticateAgent(Arguments):
    agent_id: AgentId
    agent_type: Annotated[
        AgentType | None, Field(description="Default: the type of your key, else generic.")
    ] = None
    api_key: Annotated[
        str | None, Field(max_length=512, description="Default: the X-API-Key header.")
    ] = None
    requested_permissions: Annotated[list[Permission], Field(max_length=10)] = [
        Permission.READ,
        Permission.WRITE,
    ]


class TokenResult(Result):
    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme's name, not a secret
    agent_handle: Annotated[
        str | None, Field(description="Null where the connection presents no key of the token.")
    ]
    agent_id: str
    agent_type: str
    permissions: list[Permission]
    expires_at: Time
    expires_in: int
    next: Annotated[str, Field(description="What to send from now on.")]


class RefreshToken(Arguments):
    pass


class RevokeToken(Arguments):
    jti: Annotated[str | None, Field(max_length=64, description="Default: the calling token.")] = (
        None
    )


class RevokeResult(Result):
    revoked: bool
    jti: str


_NEXT_WITH_TOKEN = "Send auth_token=<token> with each call."  # noqa: S105 - no token, but where it goes
_NEXT_WITH_HANDLE = "Send auth_token=<agent_handle> with each call on this connection."


def _token_result(issued: IssuedToken) -> TokenResult:
    return TokenResult(
        token=issued.token,
        agent_handle=issued.agent_handle,
        agent_id=issued.agent_id,
        agent_type=issued.agent_type,
        permissions=list(issued.permissions),
        expires_at=issued.expires_at,
        expires_in=issued.expires_in,
        next=_NEXT_WITH_TOKEN if issued.agent_handle is None else _NEXT_WITH_HANDLE,
    )


async def authenticate_agent(
    services: Services, call: Call, arguments: AuthenticateAgent
) -> TokenResult:
    """Exchange an API key for a token, once, unless the connection's headers say who you are. `next`
    says what to send as auth_token with each later call. You get the requested permissions that the
    key allows."""
    return _token_result(
        await services.identity.authenticate(
            connection=call.connection,
            agent_id=arguments.agent_id,
            agent_type=arguments.agent_type,
            api_key=arguments.api_key,
            requested_permissions=arguments.requested_permissions,
        )
    )


async def refresh_token(services: Services, call: Call, arguments: RefreshToken) -> TokenResult:
    """Get a new token before yours expires (expires_in, seconds). The old one stays valid until it
    expires or either is revoked."""
    return _token_result(await services.identity.refresh(call.caller, call.connection))


async def revoke_token(services: Services, call: Call, arguments: RevokeToken) -> RevokeResult:
    """Revoke the calling token, or another of yours by its jti, with all tokens of the same login
    and their handles."""
    jti = await services.identity.revoke(call.caller, arguments.jti)
    return RevokeResult(revoked=True, jti=jti)


TOOLS = (
    Tool("authenticate_agent", AuthenticateAgent, TokenResult, authenticate_agent, None, ADDS),
    Tool("refresh_token", RefreshToken, TokenResult, refresh_token, Permission.READ, ADDS),
    Tool(
        "revoke_token",
        RevokeToken,
        RevokeResult,
        revoke_token,
        Permission.READ,
        REMOVES,
    ),
)

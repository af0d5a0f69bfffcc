"""Authenticates credentials, and issues and revokes tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from cachetools import LRUCache

from shared_context_server import policy
from shared_context_server.auth.connection import (
    HEADER_FIELDS,
    Connection,
    KeyGrant,
    connect_by_key,
)
from shared_context_server.auth.created_keys import CreatedKeys, list_names
from shared_context_server.auth.key_cache import KeyCache, KeySnapshot
from shared_context_server.auth.key_lives import (
    KeyUses,
)
from shared_context_server.auth.keys import (
    AUTH_DISABLED,
    configured_keys,
    grant_without_authentication,
)
from shared_context_server.auth.name_claims import NameClaims
from shared_context_server.auth.tokens import (
    HANDLE_PREFIX,
    TokenClaims,
    TokenSigner,
    hash_handle,
    make_credential_id,
    make_handle,
)
from shared_context_server.auth.verification import Verifier, require_valid
from shared_context_server.errors import (
    ConfigurationError,
    InvalidArgument,
    PermissionDenied,
    SharedContextError,
    Unauthenticated,
)
from shared_context_server.models import (
    AuditEntry,
    Caller,
    Credential,
    JsonObject,
    Permission,
)
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import Store

_CORRECT_KEY = (
    "Correct the X-API-Key header; the operator of the server has the keys. Without the header you "
    "can list tools and call authenticate_agent(agent_id, api_key=...)."
)
_HOW_TO_RENEW = (
    "Get a new token from authenticate_agent with an API key (POST /mcp/tool/authenticate_agent "
    "accepts an expired bearer token), or send the key as X-API-Key instead of Authorization."
)
_HOW_TO_AUTHENTICATE = (
    "Pass api_key=... or send an X-API-Key header; the operator of the server has the keys."
)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token and its handle, which are shown only once. `expires_in` is in seconds.
    `agent_handle` is None if the connection presents neither the key of the token nor a token of that
    key: the handle would not work there."""

    token: str = field(repr=False)
    agent_handle: str | None = field(repr=False)
    agent_id: str
    agent_type: str
    permissions: tuple[Permission, ...]
    expires_at: datetime
    expires_in: int
    credential_id: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name, not a secret


MAX_REMEMBERED = 1024  # sets of headers with a key: about 1 KiB each
_Headers = tuple[str | None, str | None, str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class IdentityHeaders:
    """The headers that identify the caller, trimmed; None for missing or blank ones."""

    authorization: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    agent_id: str | None
    agent_type: str | None
    address: str
    fields: tuple[str, str]


class Identity:
    """Authenticates the callers of one server, for the tasks of one loop.

    Every async method may raise Unavailable. A revocation applies at once in its own process, and
    within a second in all others.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        if settings.jwt_secret_key is None:
            raise ConfigurationError("JWT_SECRET_KEY: is not set.")
        secret = settings.jwt_secret_key.get_secret_value().encode()
        self.names = NameClaims(store)
        self._store = store
        self._is_enabled = settings.auth_enabled
        self._life_s = settings.jwt_expires_in
        previous = settings.previous_secrets
        self._signer = TokenSigner(secret, previous)
        self._verifier = Verifier(store, self._signer)
        self._by_headers: LRUCache[_Headers, tuple[KeySnapshot, Connection]] = LRUCache(
            MAX_REMEMBERED
        )
        self._expiries: LRUCache[str, datetime] = LRUCache(MAX_REMEMBERED)
        always = () if settings.auth_enabled else (AUTH_DISABLED,)
        self._configured = configured_keys(settings, secret, previous)
        self._keys = KeyCache(store, self._configured, always)
        self.keys = CreatedKeys(store, self.names, self._keys)
        self.uses = KeyUses(store)
        self._last_seen: KeySnapshot | None = None

    # Who is calling

    async def authenticate_headers(
        self,
        *,
        authorization: str | None,
        api_key: str | None,
        agent_id: str | None,
        agent_type: str | None,
        address: str = "",
        fields: tuple[str, str] = HEADER_FIELDS,
    ) -> Connection:
        """Return the connection that these headers identify. None and blank mean no header. `fields`
        are the names of agent_id and agent_type in errors.

        A bearer token takes precedence over an API key. It names the agent, so X-Agent-ID and
        X-Agent-Type are used only with a key. An invalid credential is returned as `refused`.
        """
        snapshot = self._keys.find_recent() or await self._keys.get()
        cache_key = (authorization, api_key, agent_id, agent_type, address)
        cached = self._by_headers.get(cache_key)
        if cached is not None and cached[0] is snapshot:
            self.uses.note(cached[1].caller.key_id)
            return cached[1]
        headers = IdentityHeaders(
            _trim(authorization),
            _trim(api_key),
            _trim(agent_id),
            _trim(agent_type),
            address,
            fields,
        )
        connection = await self._authenticate(headers, snapshot)
        if headers.authorization is None and connection.refused is None:
            # Only a change of the keys can change this result. A token could expire.
            self._by_headers[cache_key] = snapshot, connection
        if isinstance(connection.refused, Unauthenticated):
            latest = await self._keys.get(max_age_s=0)
            if latest is not snapshot:  # the key may have been created just now
                connection = await self._authenticate(headers, latest)
        if not connection.caller.is_anonymous:
            self.uses.note(connection.caller.key_id)
        return connection

    async def connect_local(
        self,
        *,
        agent_id: str | None,
        agent_type: str | None,
        fields: tuple[str, str],
        is_admin: bool,
    ) -> Connection:
        """Return the connection of a process that can read the keys of the settings: of
        ADMIN_API_KEY if it `is_admin`, else of API_KEY. It may be any agent, under IDENTITY=bound
        too. `refused`: as in authenticate_headers."""
        grant = next(
            key.grant
            for key in self._configured
            if (Permission.ADMIN in key.grant.permissions) == is_admin
        )
        headers = IdentityHeaders(None, None, _trim(agent_id), _trim(agent_type), "", fields)
        if not self._is_enabled:
            grant = grant_without_authentication(grant)
        return await self._connect_by_key(replace(grant, agent_id=None), headers)

    async def resolve(self, auth_token: str, connection: Connection) -> Caller:
        """The caller that the argument auth_token identifies on this connection.

        A token is enough by itself. A handle needs a connection that presents the key that issued
        it, or a token of that key; otherwise this raises PermissionDenied. Raises Unauthenticated if
        auth_token is not valid. The caller's instance is the connection's.
        """
        caller = await self._resolve(auth_token, connection)
        self.uses.note(caller.key_id)
        instance = connection.caller.instance
        return replace(caller, instance=instance) if instance else caller

    async def _resolve(self, auth_token: str, connection: Connection) -> Caller:
        presented = auth_token.strip()
        if presented.count(".") == 2:
            token = self._verifier.read_token(presented, field="auth_token")
            return await self._retry(partial(require_valid, token, field="auth_token"))
        if not presented.startswith(HANDLE_PREFIX):
            raise Unauthenticated(
                "auth_token is neither a token nor an agent handle.", field="auth_token"
            )
        handle = await self._verifier.read_handle(presented, field="auth_token")
        caller = await self._retry(partial(require_valid, handle, field="auth_token"))
        if caller.key_id not in _key_ids(connection):
            raise PermissionDenied(
                "This connection presents no API key, which a handle needs."
                if connection.caller.is_anonymous
                else "This handle was issued with another API key.",
                field="auth_token",
                suggestion="A handle works only on connections that present the API key that issued "
                "it, or a token of that key. Otherwise pass the token itself.",
            )
        return caller

    async def refresh_state(self) -> None:
        """Ask the store which keys and tokens count, unless that was asked a moment ago: for what
        will soon call `require_current`."""
        if self._keys.find_recent() is None:
            await self._keys.get()

    async def have_keys_changed(self) -> bool:
        """Whether keys or revocations have changed since the last call of this method."""
        last, self._last_seen = self._last_seen, await self._keys.get()
        return last is not self._last_seen

    async def require_current(self, caller: Caller) -> None:
        """Raise Unauthenticated if this caller's credential is no longer valid. Streams and waiting
        calls use this: they can outlive their credential."""
        snapshot = self._keys.find_recent() or await self._keys.get()
        credential_id = caller.credential_id
        is_revoked = caller.family_id in snapshot.revoked_families
        is_current = caller.key_id in snapshot.grants and not is_revoked
        if is_current and credential_id is not None:
            expires_at = self._expiries.get(credential_id)
            if expires_at is None:
                credential = await self._store.credentials.find(credential_id)
                expires_at = datetime.min.replace(tzinfo=UTC)
                if credential is not None:
                    expires_at = self._expiries[credential_id] = credential.expires_at
            is_current = utc_now() < expires_at
        if not is_current:
            raise Unauthenticated("The credential is not valid any more.")

    # Tokens

    async def authenticate(
        self,
        *,
        connection: Connection,
        agent_id: str,
        agent_type: str | None,
        api_key: str | None,
        requested_permissions: Sequence[Permission],
    ) -> IssuedToken:
        """Issue a token for this agent, with `api_key` or else the connection's API key.

        The token has those requested permissions that the key allows. Raises Unauthenticated without
        a valid key (a token is not enough: an agent must not become another one), PermissionDenied
        if the key is bound to another agent or type.
        """
        grant = await self._choose_grant(connection, api_key)
        if wrong := await self.names.check_claim(grant, agent_id, agent_type):
            raise wrong
        permissions = grant.permissions & frozenset(requested_permissions)
        return await self._issue(
            "agent_authenticated",
            Caller(agent_id, grant.choose_type(agent_type), permissions, grant.key_id),
            connection,
        )

    async def refresh(self, caller: Caller, connection: Connection) -> IssuedToken:
        """Issue a new token of the same identity, with no more permissions than its key has now."""
        snapshot = await self._keys.get(max_age_s=0)
        grant = snapshot.grants.get(caller.key_id)
        if grant is None or caller.family_id in snapshot.revoked_families:
            raise Unauthenticated("The credential is not valid any more.")
        refreshed = replace(
            caller,
            permissions=caller.permissions & grant.permissions,
            credential_id=None,
            origin_id=caller.family_id,
        )
        return await self._issue("token_refreshed", refreshed, connection)

    async def sign_in(self, caller: Caller, connection: Connection) -> IssuedToken:
        """Issue a token of this identity, which a sign-in link has proved, with no more permissions
        than its key has now."""
        grant = (await self._keys.get(max_age_s=0)).grants.get(caller.key_id)
        if grant is None:
            raise Unauthenticated("The key of the sign-in link is not valid any more.")
        permissions = caller.permissions & grant.permissions
        return await self._issue(
            "signed_in_by_link", replace(caller, permissions=permissions), connection
        )

    async def revoke(self, caller: Caller, credential_id: str | None) -> str:
        """Revoke a token with all tokens of its login and their handles. Return its jti.

        None means the calling token. Revoking twice is no error. Raises InvalidArgument for an
        unknown jti, or for None if an API key is calling; PermissionDenied for another agent's token.
        """
        if credential_id is None:
            credential_id = caller.credential_id
        if credential_id is None:
            raise InvalidArgument(
                "You called with an API key, not with a token.",
                field="jti",
                suggestion="Pass the jti of the token to revoke.",
            )
        credential = await self._store.credentials.find(credential_id)
        if credential is None:
            raise InvalidArgument("There is no token with this jti.", field="jti")
        grant = (await self._keys.get()).grants.get(credential.key_id)
        key_id = credential.key_id if grant is None else grant.key_id
        if not policy.can_manage_credential(caller, credential.agent_id, key_id):
            raise PermissionDenied("This token belongs to another agent.", field="jti")
        audit = AuditEntry.by(
            caller,
            "token_revoked",
            details={"credential_id": credential_id, "of_agent_id": credential.agent_id},
        )
        await self._store.credentials.revoke_family(credential.family_id, utc_now(), audit)
        await self._keys.get(max_age_s=0)
        return credential_id

    # Headers

    async def _authenticate(self, headers: IdentityHeaders, snapshot: KeySnapshot) -> Connection:
        key, address = headers.api_key, headers.address
        grant = snapshot.find_grant(key) if key else None
        if headers.authorization:
            try:
                caller = self._read_authorization(headers.authorization, snapshot)
            except SharedContextError as exc:
                # Without its traceback: its frames contain the credential.
                refused = exc.with_traceback(None)
                if isinstance(refused, Unauthenticated):
                    refused.hint = _HOW_TO_RENEW
                return Connection(grant=grant, refused=refused, address=address)
            return Connection(caller, grant, None, True, address)
        if not self._is_enabled:
            named = replace(
                headers,
                agent_id=headers.agent_id or (grant.agent_id if grant else None),
                agent_type=headers.agent_type or (grant.agent_type if grant else None),
            )
            return await self._connect_by_key(grant_without_authentication(grant), named)
        if grant is not None:
            return await self._connect_by_key(grant, headers)
        if key is not None:
            wrong_key = snapshot.refuse_key(key, field="X-API-Key", suggestion=_CORRECT_KEY)
            return Connection(refused=wrong_key, address=address)
        return Connection(address=address)

    async def _connect_by_key(self, grant: KeyGrant, headers: IdentityHeaders) -> Connection:
        agent_id, agent_type = headers.agent_id, headers.agent_type
        wrong = await self.names.check_claim(grant, agent_id, agent_type, headers.fields)
        if wrong is not None:
            return Connection(grant=grant, refused=wrong, address=headers.address)
        return connect_by_key(grant, agent_id, agent_type, headers.address)

    def _read_authorization(self, authorization: str, snapshot: KeySnapshot) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Authorization must be 'Bearer <token>'.", field="Authorization")
        verified = self._verifier.read_token(token.strip(), field="Authorization")
        return require_valid(verified, snapshot, field="Authorization")

    async def _retry(self, check: Callable[[KeySnapshot], Caller]) -> Caller:
        """The result of the check. If it fails, it is repeated with the latest keys."""
        snapshot = self._keys.find_recent() or await self._keys.get()
        try:
            return check(snapshot)
        except Unauthenticated:
            latest = await self._keys.get(max_age_s=0)
            if latest is snapshot:
                raise
        return check(latest)

    async def _choose_grant(self, connection: Connection, api_key: str | None) -> KeyGrant:
        snapshot = await self._keys.get(max_age_s=0)
        if api_key is not None:
            grant = snapshot.find_grant(api_key.strip())
            if not self._is_enabled:
                return grant_without_authentication(grant)
            if grant is None:
                raise snapshot.refuse_key(
                    api_key.strip(), field="api_key", suggestion=_HOW_TO_AUTHENTICATE
                )
            return grant
        # The key may have been revoked since the connection was authenticated.
        if connection.grant is not None and connection.grant.key_id in snapshot.grants:
            return connection.grant
        if not self._is_enabled:
            return AUTH_DISABLED
        if connection.grant is None and not connection.caller.is_anonymous:
            raise Unauthenticated(
                "A token cannot authenticate another agent; an API key can.",
                field="api_key",
                suggestion=f"{_HOW_TO_AUTHENTICATE} refresh_token renews your own token.",
            )
        raise Unauthenticated(
            "No valid API key was presented.", field="api_key", suggestion=_HOW_TO_AUTHENTICATE
        )

    async def _issue(
        self, event_type: str, identity: Caller, connection: Connection
    ) -> IssuedToken:
        """Store and sign a new token of this identity."""
        issued_at_s = int(utc_now().timestamp())
        expires_at_s = issued_at_s + self._life_s
        grant = (await self._keys.get()).grants.get(identity.key_id)
        if grant is not None and grant.expires_at is not None:
            expires_at_s = min(expires_at_s, int(grant.expires_at.timestamp()))
        handle = make_handle()
        credential = Credential(
            id=make_credential_id(),
            agent_id=identity.agent_id,
            agent_type=identity.agent_type,
            permissions=identity.permissions,
            key_id=identity.key_id,
            handle_hash=hash_handle(handle),
            issued_at=datetime.fromtimestamp(issued_at_s, UTC),
            expires_at=datetime.fromtimestamp(expires_at_s, UTC),
            origin_id=identity.origin_id,
        )
        details: JsonObject = {
            "credential_id": credential.id,
            "key_id": credential.key_id,
            "agent_type": credential.agent_type,
            "permissions": list_names(credential.permissions),
        }
        acting = replace(identity, instance=connection.caller.instance)
        await self._store.credentials.add(
            credential, AuditEntry.by(acting, event_type, details=details)
        )
        is_handle_usable = credential.key_id in _key_ids(connection)
        return self._sign(credential, handle if is_handle_usable else None)

    def _sign(self, credential: Credential, handle: str | None) -> IssuedToken:
        claims = TokenClaims(
            credential_id=credential.id,
            agent_id=credential.agent_id,
            agent_type=credential.agent_type,
            permissions=credential.permissions,
            key_id=credential.key_id,
            issued_at=int(credential.issued_at.timestamp()),
            expires_at=int(credential.expires_at.timestamp()),
            origin_id=credential.origin_id,
        )
        return IssuedToken(
            token=self._signer.encode(claims),
            agent_handle=handle,
            agent_id=credential.agent_id,
            agent_type=credential.agent_type,
            permissions=tuple(p for p in Permission if p in credential.permissions),
            expires_at=credential.expires_at,
            expires_in=int((credential.expires_at - credential.issued_at).total_seconds()),
            credential_id=credential.id,
        )


def _trim(value: str | None) -> str | None:
    return value.strip() or None if value else None


def _key_ids(connection: Connection) -> tuple[str, ...]:
    """The ids of the keys whose key or token the connection presents."""
    own = connection.caller.key_id
    return (own,) if connection.grant is None else (own, connection.grant.key_id)

"""Who a credential stands for, and how credentials are issued and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from cachetools import LRUCache
from pydantic import JsonValue

from shared_context_server import policy
from shared_context_server.auth.connection import (
    HEADER_FIELDS,
    Connection,
    KeyGrant,
    connect_by_key,
)
from shared_context_server.auth.keys import (
    ALL_PERMISSIONS,
    AUTH_DISABLED,
    configured_keys,
    everyones_grant,
    generate_key,
    hash_key,
    make_key_id,
)
from shared_context_server.auth.known_keys import KeyStates, KnownKeys
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
    ApiKey,
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
    "Correct the X-API-Key header; whoever runs the server has the keys. Without the header you "
    "may list tools and call authenticate_agent(agent_id, api_key=...)."
)
_HOW_TO_RENEW = (
    "Get a new token with an API key, from authenticate_agent (POST /mcp/tool/authenticate_agent "
    "takes an expired bearer), or send the key itself as X-API-Key instead of Authorization."
)
_HOW_TO_AUTHENTICATE = (
    "Pass api_key=... or send an X-API-Key header; whoever runs the server has the keys."
)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token and its handle, shown this once. `expires_in` is in seconds. `agent_handle` is
    None where it would open nothing: on a connection that presents neither the key behind the token
    nor a token of that key."""

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
class Presented:
    """The headers that say who is calling, trimmed; None for those that are missing or blank."""

    authorization: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    agent_id: str | None
    agent_type: str | None
    address: str
    fields: tuple[str, str]


class Identity:
    """Turns credentials into callers, for one server.

    Every method that is awaited may raise Unavailable. A revocation counts at once in the process
    that makes it, and within a second in all others. For the tasks of one loop.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        if settings.jwt_secret_key is None:
            raise ConfigurationError("JWT_SECRET_KEY: is not set.")
        secret = settings.jwt_secret_key.get_secret_value().encode()
        self.names = NameClaims(store)
        self._store = store
        self._is_enabled = settings.auth_enabled
        self._life_s = settings.jwt_expires_in
        self._signer = TokenSigner(secret)
        self._verifier = Verifier(store, self._signer)
        self._by_headers: LRUCache[_Headers, tuple[KnownKeys, Connection]] = LRUCache(
            MAX_REMEMBERED
        )
        self._expiries: LRUCache[str, datetime] = LRUCache(MAX_REMEMBERED)
        everyones = () if settings.auth_enabled else (AUTH_DISABLED,)
        self._states = KeyStates(store, configured_keys(settings, secret), everyones)

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
        """Return who these headers say is calling; None and blank are the same as no header. `fields`: what
        errors call agent_id and agent_type.

        A bearer token wins over an API key, and names the agent: X-Agent-ID and X-Agent-Type count
        beside a key only. A bad credential is not raised but returned as `refused`.
        """
        known = self._states.find_recent() or await self._states.get()
        headers = (authorization, api_key, agent_id, agent_type, address)
        remembered = self._by_headers.get(headers)
        if remembered is not None and remembered[0] is known:
            return remembered[1]
        presented = Presented(
            _trim(authorization),
            _trim(api_key),
            _trim(agent_id),
            _trim(agent_type),
            address,
            fields,
        )
        connection = await self._authenticate(presented, known)
        if presented.authorization is None and connection.refused is None:
            # Nothing but another state of the keys can change this; a token would expire.
            self._by_headers[headers] = known, connection
        if isinstance(connection.refused, Unauthenticated):
            latest = await self._states.get(max_age_s=0)
            if latest is not known:  # it may be the credential of a key made just now
                connection = await self._authenticate(presented, latest)
        return connection

    async def resolve(self, auth_token: str, connection: Connection) -> Caller:
        """Who the argument auth_token stands for on this connection.

        A token is a credential by itself. A handle selects its identity where the connection
        presents the key that issued it, or a token of that key; elsewhere PermissionDenied.
        Anything else, expired or revoked: Unauthenticated.
        """
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
                "This handle belongs to another connection.",
                field="auth_token",
                suggestion="A handle works where the connection presents the API key that issued "
                "it, or a token of that key. Elsewhere pass the token itself.",
            )
        return caller

    async def refresh_state(self) -> None:
        """Ask the store which keys and tokens count, unless that was asked a moment ago: for what
        will soon call `require_current`."""
        if self._states.find_recent() is None:
            await self._states.get()

    async def require_current(self, caller: Caller) -> None:
        """Raise Unauthenticated if the credential behind this caller has ended since it was read:
        for what outlives the request that presented it."""
        known = self._states.find_recent() or await self._states.get()
        credential_id = caller.credential_id
        is_revoked = caller.family_id in known.revoked_families
        is_current = caller.key_id in known.grants and not is_revoked
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
        """Trade an API key, the argument or else the connection's, for a token of this agent.

        It has the requested permissions that the key allows. Unauthenticated without a valid key
        (a token is none: it does not let one agent become another); PermissionDenied for an agent or
        a type other than those the key is bound to.
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
        """A new token of the same identity, with no more than its key still allows."""
        known = await self._states.get(max_age_s=0)
        grant = known.grants.get(caller.key_id)
        if grant is None or caller.family_id in known.revoked_families:
            raise Unauthenticated("The credential is not valid any more.")
        refreshed = replace(
            caller,
            permissions=caller.permissions & grant.permissions,
            credential_id=None,
            origin_id=caller.family_id,
        )
        return await self._issue("token_refreshed", refreshed, connection)

    async def revoke(self, caller: Caller, credential_id: str | None) -> str:
        """End a token, those that were refreshed from it or that it was refreshed from, and their
        handles: the calling one, or another by its jti. Return the jti.

        Revoking twice is no error. InvalidArgument for a jti that was never issued, or none when
        the key itself calls; PermissionDenied for somebody else's.
        """
        if credential_id is None:
            credential_id = caller.credential_id
        if credential_id is None:
            raise InvalidArgument(
                "An API key is calling, not a token.",
                field="jti",
                suggestion="Name the token to revoke by its jti.",
            )
        credential = await self._store.credentials.find(credential_id)
        if credential is None:
            raise InvalidArgument("No token of this jti has been issued.", field="jti")
        if not policy.can_manage_credential(caller, credential.agent_id, credential.key_id):
            raise PermissionDenied("This token is another agent's.", field="jti")
        audit = AuditEntry(
            "token_revoked",
            caller.agent_id,
            details={"credential_id": credential_id, "of_agent_id": credential.agent_id},
        )
        await self._store.credentials.revoke_family(credential.family_id, utc_now(), audit)
        await self._states.get(max_age_s=0)
        return credential_id

    # Keys

    async def create_key(
        self,
        agent_id: str,
        permissions: Iterable[Permission],
        *,
        agent_type: str | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key bound to the agent, and to the type unless it is None, and the key itself, which
        is kept nowhere.

        `permissions` is its ceiling; admin includes read and write.
        """
        if wrong := await self.names.check_agent_ids([agent_id], "agent_id"):
            raise wrong
        if agent_type is not None and (
            wrong := await self.names.check_agent_type(agent_type, "agent_type")
        ):
            raise wrong
        ceiling = frozenset(permissions)
        if not ceiling:
            raise InvalidArgument("A key needs a permission.", field="permissions")
        if Permission.ADMIN in ceiling:
            ceiling = ALL_PERMISSIONS
        key = generate_key()
        record = ApiKey(
            make_key_id(),
            agent_id,
            ceiling,
            hash_key(key),
            utc_now(),
            agent_type=agent_type,
        )
        details: JsonObject = {
            "key_id": record.id,
            "permissions": _list_names(ceiling),
            "agent_type": agent_type,
        }
        await self._store.credentials.add_key(
            record, AuditEntry("key_created", agent_id, details=details)
        )
        await self._states.get(max_age_s=0)
        return record, key

    async def list_keys(self) -> list[ApiKey]:
        """All created keys, revoked ones too, by creation."""
        return await self._store.credentials.list_keys()

    async def revoke_key(self, key_id: str) -> bool:
        """End a created key and all its tokens; False if there is no such active key."""
        keys = {key.id: key for key in await self._store.credentials.list_keys()}
        if key_id not in keys:
            return False
        audit = AuditEntry("key_revoked", keys[key_id].agent_id, details={"key_id": key_id})
        is_revoked = await self._store.credentials.revoke_key(key_id, utc_now(), audit)
        await self._states.get(max_age_s=0)
        return is_revoked

    # Headers

    async def _authenticate(self, presented: Presented, known: KnownKeys) -> Connection:
        key, address = presented.api_key, presented.address
        grant = known.find_grant(key) if key else None
        if presented.authorization:
            try:
                caller = self._read_authorization(presented.authorization, known)
            except SharedContextError as exc:
                # Without its traceback, whose frames hold the credential.
                refused = exc.with_traceback(None)
                if isinstance(refused, Unauthenticated):
                    refused.hint = _HOW_TO_RENEW
                return Connection(grant=grant, refused=refused, address=address)
            return Connection(caller, grant, None, True, address)
        if not self._is_enabled:
            named = replace(
                presented,
                agent_id=presented.agent_id or (grant.agent_id if grant else None),
                agent_type=presented.agent_type or (grant.agent_type if grant else None),
            )
            return await self._connect_by_key(everyones_grant(grant), named)
        if grant is not None:
            return await self._connect_by_key(grant, presented)
        if key is not None:
            wrong_key = Unauthenticated(
                "The API key is not valid.", field="X-API-Key", suggestion=_CORRECT_KEY
            )
            return Connection(refused=wrong_key, address=address)
        return Connection(address=address)

    async def _connect_by_key(self, grant: KeyGrant, presented: Presented) -> Connection:
        agent_id, agent_type = presented.agent_id, presented.agent_type
        wrong = await self.names.check_claim(grant, agent_id, agent_type, presented.fields)
        if wrong is not None:
            return Connection(grant=grant, refused=wrong, address=presented.address)
        return connect_by_key(grant, agent_id, agent_type, presented.address)

    def _read_authorization(self, authorization: str, known: KnownKeys) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Authorization must be 'Bearer <token>'.", field="Authorization")
        verified = self._verifier.read_token(token.strip(), field="Authorization")
        return require_valid(verified, known, field="Authorization")

    async def _retry(self, check: Callable[[KnownKeys], Caller]) -> Caller:
        """The check's answer; what the recent state refuses, the latest is asked about."""
        known = self._states.find_recent() or await self._states.get()
        try:
            return check(known)
        except Unauthenticated:
            latest = await self._states.get(max_age_s=0)
            if latest is known:
                raise
        return check(latest)

    async def _choose_grant(self, connection: Connection, api_key: str | None) -> KeyGrant:
        known = await self._states.get(max_age_s=0)
        if api_key is not None:
            grant = known.find_grant(api_key.strip())
            if not self._is_enabled:
                return everyones_grant(grant)
            if grant is None:
                raise Unauthenticated(
                    "The API key is not valid.", field="api_key", suggestion=_HOW_TO_AUTHENTICATE
                )
            return grant
        # The connection may be older than the key's revocation.
        if connection.grant is not None and connection.grant.key_id in known.grants:
            return connection.grant
        if not self._is_enabled:
            return AUTH_DISABLED
        if connection.grant is None and not connection.caller.is_anonymous:
            raise Unauthenticated(
                "A token does not authenticate another agent; an API key does.",
                field="api_key",
                suggestion=f"{_HOW_TO_AUTHENTICATE} refresh_token renews the token you have.",
            )
        raise Unauthenticated(
            "No valid API key was presented.", field="api_key", suggestion=_HOW_TO_AUTHENTICATE
        )

    async def _issue(
        self, event_type: str, identity: Caller, connection: Connection
    ) -> IssuedToken:
        """Record a new token of this identity, which has no credential yet, and sign it."""
        issued_at_s = int(utc_now().timestamp())
        handle = make_handle()
        credential = Credential(
            id=make_credential_id(),
            agent_id=identity.agent_id,
            agent_type=identity.agent_type,
            permissions=identity.permissions,
            key_id=identity.key_id,
            handle_hash=hash_handle(handle),
            issued_at=datetime.fromtimestamp(issued_at_s, UTC),
            expires_at=datetime.fromtimestamp(issued_at_s + self._life_s, UTC),
            origin_id=identity.origin_id,
        )
        details: JsonObject = {
            "credential_id": credential.id,
            "key_id": credential.key_id,
            "agent_type": credential.agent_type,
            "permissions": _list_names(credential.permissions),
        }
        await self._store.credentials.add(
            credential, AuditEntry(event_type, credential.agent_id, details=details)
        )
        is_handle_of_use = credential.key_id in _key_ids(connection)
        return self._sign(credential, handle if is_handle_of_use else None)

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
            expires_in=self._life_s,
            credential_id=credential.id,
        )


def _trim(value: str | None) -> str | None:
    return value.strip() or None if value else None


def _list_names(permissions: frozenset[Permission]) -> list[JsonValue]:
    return [p.value for p in Permission if p in permissions]


def _key_ids(connection: Connection) -> tuple[str, ...]:
    """The keys that a connection presents, or whose token it presents."""
    own = connection.caller.key_id
    return (own,) if connection.grant is None else (own, connection.grant.key_id)

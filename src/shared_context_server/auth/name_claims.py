"""Checks agent names that callers claim for themselves or give to others."""

from __future__ import annotations

from collections.abc import Sequence

from shared_context_server.auth.agent_names import check_agent_name
from shared_context_server.auth.connection import ARGUMENT_FIELDS, KeyGrant, check_binding
from shared_context_server.errors import SharedContextError
from shared_context_server.storage.contract import Store


class NameClaims:
    """Checks names. Every method may raise Unavailable.

    The rules are those for new names. Names of agents and types that the server already knows are
    always accepted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check_agent_ids(self, names: Sequence[str], field: str) -> SharedContextError | None:
        """The first error in these agent ids, naming `field`; None if all are valid."""
        if not names:
            return None
        wrong = {name: error for name in names if (error := check_agent_name(name, field))}
        known = await self._store.agents.find_known(list(wrong)) if wrong else frozenset()
        return next((error for name, error in wrong.items() if name not in known), None)

    async def check_agent_type(self, agent_type: str, field: str) -> SharedContextError | None:
        """The error in an agent type, naming `field`; None if it is valid."""
        wrong = check_agent_name(agent_type, field)
        if wrong is not None and await self._store.agents.is_type_known(agent_type):
            return None
        return wrong

    async def check_claim(
        self,
        grant: KeyGrant,
        agent_id: str | None,
        agent_type: str | None,
        fields: tuple[str, str] = ARGUMENT_FIELDS,
    ) -> SharedContextError | None:
        """The error in the id and type that the holder of a key claims; None if both are valid. If
        the key is bound to an id or type, only that one is valid. `fields` are their names in
        errors."""
        if wrong := check_binding(grant, agent_id, agent_type, fields):
            return wrong
        if agent_id not in (None, grant.agent_id) and (
            refused := await self.check_agent_ids([agent_id], fields[0])
        ):
            return refused
        if agent_type not in (None, grant.agent_type):
            return await self.check_agent_type(agent_type, fields[1])
        return None

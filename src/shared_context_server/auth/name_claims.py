"""Check of the names that callers claim for themselves and give to others."""

from __future__ import annotations

from collections.abc import Sequence

from shared_context_server.auth.agent_names import check_agent_name
from shared_context_server.auth.connection import ARGUMENT_FIELDS, KeyGrant, check_binding
from shared_context_server.errors import SharedContextError
from shared_context_server.storage.contract import Store


class NameClaims:
    """Says what is wrong with names. Every method may raise Unavailable.

    The rules are those for new names: agents and types that the server has heard of may be named as
    they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check_agent_ids(self, names: Sequence[str], field: str) -> SharedContextError | None:
        """What is wrong with these agents' ids, said of `field`; None if nothing is."""
        wrong = {name: error for name in names if (error := check_agent_name(name, field))}
        known = await self._store.agents.find_known(list(wrong)) if wrong else frozenset()
        return next((error for name, error in wrong.items() if name not in known), None)

    async def check_agent_type(self, agent_type: str, field: str) -> SharedContextError | None:
        """What is wrong with an agent's type, said of `field`; None if nothing is."""
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
        """What is wrong with the id and the type that the holder of a key claims; None if nothing
        is. Those that the key is bound to are right, and others are not. `fields`: what errors
        call them."""
        if wrong := check_binding(grant, agent_id, agent_type, fields):
            return wrong
        if agent_id not in (None, grant.agent_id) and (
            refused := await self.check_agent_ids([agent_id], fields[0])
        ):
            return refused
        if agent_type not in (None, grant.agent_type):
            return await self.check_agent_type(agent_type, fields[1])
        return None

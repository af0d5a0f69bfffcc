"""The contract of a store: the ports that services call. Tests hold every store to these docstrings.

Common promises
- A method that writes returns after its transaction is committed: its result survives a killed
  process. If it raises, it has written nothing, with one exception: an Unavailable whose cause is a
  connection that was lost during the commit. Then, and if its caller is cancelled, the write has
  happened either wholly or not at all.
- A guard runs inside the transaction (or read snapshot) on the session as it is there, and may
  raise any SharedContextError, which is passed on unchanged. It must be quick and must not block.
  It may also be called earlier, on a cached session; only the last call counts.
- A session that does not exist raises SessionNotFound, before any guard.
- Reads see every write, by any process, that was acknowledged before they began.
- A store that cannot answer raises Unavailable.
- Methods that list messages, sessions or memory entries return at most `limit` of them, and stop
  before the first that does not fit into pages.page_budget(limit). They return at least one if there
  is any. What does not fit is not loaded.
- All methods are safe to call from any number of tasks of the loop that opened the store.
- JSON values come back equal to what was stored; object keys keep their order. Other text has no
  U+0000: it is refused before.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.storage.contract.agents import MAX_INSTANCES, Agents, PresenceChange
from shared_context_server.storage.contract.audit import Audit, AuditChain, AuditQuery
from shared_context_server.storage.contract.changes import (
    Anchor,
    ChangePosition,
    Changes,
    ChangeStream,
    WakeupChannel,
)
from shared_context_server.storage.contract.credentials import (
    KEY_USE_ACCURACY,
    AuthState,
    Credentials,
    KeyUse,
)
from shared_context_server.storage.contract.expiry import AuditExpiry, Expiry, ExpiryStep, Removal
from shared_context_server.storage.contract.fleet import (
    Fleet,
    Survey,
    SurveyedAgent,
    SurveyedInstance,
    SurveyQuery,
    UnreadIn,
)
from shared_context_server.storage.contract.leases import MAX_HELD, Fence, LeaseAttempt, Leases
from shared_context_server.storage.contract.maintenance import Maintenance, StoreStats
from shared_context_server.storage.contract.memory import (
    Memory,
    MemoryListing,
    MemoryUpdate,
    MemoryWrite,
    WrittenMemory,
)
from shared_context_server.storage.contract.messages import (
    Acknowledgement,
    AddedMessage,
    MessagePage,
    MessageQuery,
    Messages,
    NewMessage,
    NewMessages,
    SenderCount,
)
from shared_context_server.storage.contract.pages import Page
from shared_context_server.storage.contract.sessions import (
    ExaminedSessions,
    NewSession,
    SessionContents,
    SessionGuard,
    Sessions,
)
from shared_context_server.storage.contract.tasks import (
    Claim,
    ClaimAttempt,
    Finish,
    NewTask,
    Outlook,
    TaskCounts,
    TaskDetail,
    TaskLink,
    TaskPage,
    Tasks,
    TaskWrite,
)
from shared_context_server.storage.contract.usage import Miscount, Usage

__all__ = [
    "KEY_USE_ACCURACY",
    "MAX_HELD",
    "MAX_INSTANCES",
    "Acknowledgement",
    "AddedMessage",
    "Agents",
    "Anchor",
    "Audit",
    "AuditChain",
    "AuditExpiry",
    "AuditQuery",
    "AuthState",
    "ChangePosition",
    "ChangeStream",
    "Changes",
    "Claim",
    "ClaimAttempt",
    "Credentials",
    "ExaminedSessions",
    "Expiry",
    "ExpiryStep",
    "Fence",
    "Finish",
    "Fleet",
    "KeyUse",
    "LeaseAttempt",
    "Leases",
    "Maintenance",
    "Memory",
    "MemoryListing",
    "MemoryUpdate",
    "MemoryWrite",
    "MessagePage",
    "MessageQuery",
    "Messages",
    "Miscount",
    "NewMessage",
    "NewMessages",
    "NewSession",
    "NewTask",
    "Outlook",
    "Page",
    "PresenceChange",
    "Removal",
    "SenderCount",
    "SessionContents",
    "SessionGuard",
    "Sessions",
    "Store",
    "StoreStats",
    "Survey",
    "SurveyQuery",
    "SurveyedAgent",
    "SurveyedInstance",
    "TaskCounts",
    "TaskDetail",
    "TaskLink",
    "TaskPage",
    "TaskWrite",
    "Tasks",
    "UnreadIn",
    "Usage",
    "WakeupChannel",
    "WrittenMemory",
]


@dataclass(frozen=True, slots=True)
class Store:
    """A store: one port for each subject."""

    sessions: Sessions
    messages: Messages
    memory: Memory
    leases: Leases
    tasks: Tasks
    credentials: Credentials
    agents: Agents
    fleet: Fleet
    audit: Audit
    changes: ChangeStream
    expiry: Expiry
    maintenance: Maintenance

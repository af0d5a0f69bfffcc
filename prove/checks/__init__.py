"""The checker: finds the broken promises in a history. It imports nothing of the server."""

from __future__ import annotations

from prove.checks.answers import check_answers
from prove.checks.leases import check_leases
from prove.checks.logs import Logs, check_logs
from prove.checks.memory import check_memory
from prove.checks.reading import check_reading
from prove.checks.tasks import check_tasks
from prove.checks.waking import check_waking
from prove.history import History
from prove.promises import Broken


def check(history: History, *, bound_s: float = 5.0, grace_s: float = 15.0) -> list[Broken]:
    """Return what is broken, in the order of the history.

    `bound_s`: how soon somebody who waits has to be told of a write after its acknowledgement.
    `grace_s`: how long after a fault the bound does not count, since the system is still recovering.
    """
    logs = Logs(history)
    found = [
        *check_logs(history, logs),
        *check_reading(history, logs),
        *check_waking(history, logs, bound_s=bound_s, grace_s=grace_s),
        *check_memory(history),
        *check_leases(history, bound_s=bound_s, grace_s=grace_s),
        *check_tasks(history),
        *check_answers(history),
    ]
    return sorted(set(found), key=lambda broken: (min(broken.calls, default=0), broken.promise))

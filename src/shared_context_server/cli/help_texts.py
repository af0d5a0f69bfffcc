"""What the help of the commands says beside their descriptions: groups, examples and exit codes."""

from __future__ import annotations

from functools import cache

from cyclopts import Group

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 3 not found, 4 refused, 5 conflict, "
    "130 Ctrl-C."
)

_GROUPS = {
    "Server": ("Run it, and see whether it is well.", ("serve", "clock", "status", "doctor", "ui")),
    "Look": (
        "See what agents do and say.",
        ("top", "agents", "sessions", "tail", "search", "leases", "demo"),
    ),
    "Do": (
        "Act as one of them; `memory` and `tasks` also list.",
        ("post", "memory", "tasks", "watch", "wait"),
    ),
    "Set up": (
        "Connect clients, and give them keys.",
        ("client-config", "keys", "token", "hook", "guard", "channel", "completion"),
    ),
    "Data": ("Look after the database.", ()),
}
"""What each group is for, and its commands. The last one has all others."""

EXAMPLES = {
    "serve": "scs serve --port 8000 --with-clock",
    "clock": "scs clock --ntp pool.ntp.org",
    "demo": "scs demo --duration 60",
    "status": "scs status --json",
    "doctor": "scs doctor --quiet",
    "top": "scs top --sort seen",
    "agents": "scs agents --json",
    "sessions": "scs sessions --status all",
    "tail": "scs tail -f session_0123456789abcdef",
    "search": 'scs search "flaky test" --since 2026-11-01T00:00:00Z',
    "post": 'scs post session_0123456789abcdef "Stop: the schema changes." --kind stop --to builder',
    "memory get": "scs memory get build/target",
    "memory set": """scs memory set build/target '{"branch": "main"}' --expected-version 0""",
    "memory list": "scs memory list build/",
    "memory delete": "scs memory delete build/target",
    "tasks list": "scs tasks list session_0123456789abcdef --state ready",
    "tasks add": 'scs tasks add session_0123456789abcdef "Update the changelog" --priority 5',
    "tasks done": 'scs tasks done session_0123456789abcdef 3 --result "merged"',
    "leases": "scs leases --session session_0123456789abcdef",
    "client-config": "scs client-config claude",
    "watch": "scs watch session_0123456789abcdef",
    "wait": "scs wait session_0123456789abcdef --timeout 600",
    "hook": "scs hook --verbose",
    "guard": "scs guard session_0123456789abcdef",
    "channel": "scs channel",
    "ui": "scs ui",
    "token": "scs token --agent-id reviewer",
    "keys create": "scs keys create --agent-id reviewer --expires-in 90d",
    "keys list": "scs keys list --json",
    "keys rotate": "scs keys rotate key_0123456789abcdef --overlap 1h",
    "keys revoke": "scs keys revoke key_0123456789abcdef",
    "migrate": "scs migrate --check",
    "backup": "scs backup backup.db",
    "restore": "scs restore backup.db",
    "export": "scs export all.jsonl.gz",
    "import": "scs import all.jsonl.gz --dry-run",
    "audit list": "scs audit list --agent reviewer",
    "audit export": "scs audit export audit.jsonl",
    "audit verify": "scs audit verify",
    "verify": "scs verify all.jsonl.gz",
    "vacuum": "scs vacuum",
    "completion": "scs completion bash",
}
"""One example of each command."""


def find_group(command: str) -> Group:
    """The group of a command in the help."""
    names = list(_GROUPS)
    return _make_group(next((one for one in names if command in _GROUPS[one][1]), names[-1]))


@cache
def _make_group(name: str) -> Group:
    return Group(name, help=_GROUPS[name][0], sort_key=list(_GROUPS).index(name))


def end_of_help(words: str) -> str:
    """What the help of this command ends with."""
    return f"Example: `{EXAMPLES[words]}`\n\n{EXIT_CODES}"

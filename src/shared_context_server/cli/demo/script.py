"""What the agents of the demo do: a planner who adds tasks round by round, and workers who do them.

The tasks say by their metadata which files they need and how long they take. The first two of each
round need the same file, so one worker has to wait for the lease of the other.
"""

from __future__ import annotations

from typing import Any, Final

from shared_context_server.cli.demo.agents import Answer, DemoAgent

PLANNER: Final = "demo-planner"
WORKERS: Final = ("demo-builder", "demo-tester")
_THEMES: Final = ["login", "search", "export", "billing", "upload", "settings", "reports", "cache"]
_LEASE_S: Final = (
    60  # renewed by nobody: no task takes as long, and a killed demo leaves it so long
)


def plan(agent: DemoAgent, session_id: str) -> None:
    """Add tasks, answer questions, and decide what comes next, until the demo ends."""
    themes = list(_THEMES)
    agent.chance.shuffle(themes)
    version = 0
    number = 0
    while True:
        theme = themes[number % len(themes)]
        number += 1
        agent.set_status("working", f"plans round {number}: {theme}")
        stored = agent.call(
            "set_memory",
            session_id=session_id,
            scope="shared",
            key="plan",
            value={"round": number, "theme": theme, "done": themes[: number - 1]},
            expected_version=version,
        )
        version = stored["version"]
        _add_tasks(agent, session_id, theme)
        agent.say(
            session_id,
            f"@{WORKERS[0]} @{WORKERS[1]} Round {number}: {theme}. Three tasks are on the board.",
            metadata={"type": "plan", "round": number},
        )
        agent.tell(f"adds three tasks for {theme}, and mentions both workers")
        agent.set_status("idle", f"waits for the results of round {number}")
        _answer_until_done(agent, session_id)
        agent.say(
            session_id,
            f"{theme} is done: we ship it.",
            metadata={"type": "decision", "round": number},
        )
        agent.tell(f"decides that {theme} is done")
        agent.pause(2)


def _add_tasks(agent: DemoAgent, session_id: str, theme: str) -> None:
    def add(title: str, path: str, seconds: float, *after: int) -> int:
        added = agent.call(
            "add_task",
            session_id=session_id,
            title=title,
            depends_on=list(after),
            metadata={"path": path, "seconds": seconds},
        )
        return int(added["task"]["id"])

    seconds = agent.chance.uniform(6, 9)
    write = add(f"Write {theme}", f"src/{theme}/**", seconds)
    check = add(f"Test the errors of {theme}", f"src/{theme}/errors.py", seconds / 2)
    add(f"Describe {theme}", f"docs/{theme}.md", seconds / 2, write, check)


def _answer_until_done(agent: DemoAgent, session_id: str) -> None:
    while True:
        for message in agent.take_mentions(session_id, timeout_s=agent.wait_s):
            if message["metadata"].get("type") == "question":
                agent.say(
                    session_id,
                    f"@{message['sender']} Yes, go on.",
                    parent_message_id=message["id"],
                )
        counts = agent.call("list_tasks", session_id=session_id, limit=1)["counts"]
        if not counts["ready"] + counts["blocked"] + counts["claimed"]:
            return


def work(agent: DemoAgent, session_id: str) -> None:
    """Do task after task, until the demo ends."""
    while True:
        agent.set_status("idle", "waits for a task")
        task = None
        while task is None:
            claimed = agent.call(
                "claim_task", session_id=session_id, ttl_seconds=120, wait_seconds=agent.wait_s
            )
            task = claimed["task"]
        _do(agent, session_id, task)


def _do(agent: DemoAgent, session_id: str, task: Answer) -> None:
    path = task["metadata"]["path"]
    lease = _acquire(agent, session_id, path)
    agent.set_status("working", f"{task['title']}, in {path}")
    agent.pause(task["metadata"]["seconds"] / 2)
    agent.say(
        session_id,
        f"{task['title']}: half of it is written.",
        metadata={"type": "progress", "task": task["id"]},
        lease=path,
        fencing_token=lease,
    )
    agent.pause(task["metadata"]["seconds"] / 2)
    shared: dict[str, Any] = {"session_id": session_id, "scope": "shared"}
    agent.call("set_memory", **shared, key="files changed", mode="increment", value=1)
    agent.call("release_lease", session_id=session_id, name=path, fencing_token=lease)
    agent.call(
        "finish_task",
        session_id=session_id,
        task_id=task["id"],
        fencing_token=task["fencing_token"],
        result={"path": path},
    )
    agent.say(session_id, f"@{PLANNER} Done: {task['title']}.", metadata={"type": "result"})
    agent.tell(f"has done: {task['title']}")
    for message in agent.take_mentions(session_id):
        if message["metadata"].get("type") == "request":
            agent.say(
                session_id,
                f"@{message['sender']} It is free now.",
                visibility="private",
                recipients=[message["sender"]],
                parent_message_id=message["id"],
            )


def _acquire(agent: DemoAgent, session_id: str, path: str) -> int:
    """Take the lease of these files, whoever holds it first."""
    wanted: dict[str, Any] = {"session_id": session_id, "name": path, "paths": [path]}
    found = agent.call("acquire_lease", **wanted, ttl_seconds=_LEASE_S)
    if not found["acquired"]:
        holder = found["holder"]
        agent.set_status("blocked", f"needs {path}, which {holder} holds")
        agent.say(session_id, f"@{holder} I need {path} next.", metadata={"type": "request"})
        agent.tell(f"is blocked: {holder} holds the lease of {path}")
        while not found["acquired"]:
            found = agent.call(
                "acquire_lease", **wanted, ttl_seconds=_LEASE_S, wait_seconds=agent.wait_s
            )
        agent.tell(f"goes on: the lease of {path} is free")
    return int(found["fencing_token"])

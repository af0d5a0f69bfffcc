"""Check tasks: each is there once, and done once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from prove.history import Call, History, Operation, Outcome, find_operations
from prove.promises import Broken, Promise


def check_tasks(history: History) -> Iterator[Broken]:
    adds = find_operations(history.of("add_task"))
    yield from _check_added(adds)
    done: dict[tuple[str, int], list[Operation]] = defaultdict(list)
    for finish in find_operations(history.of("finish_task")):
        arguments = finish.arguments
        if finish.outcome is Outcome.OK and arguments.get("outcome", "done") == "done":
            done[arguments["session_id"], arguments["task_id"]].append(finish)
    for (_, task_id), finishes in done.items():
        if len(finishes) > 1:
            calls = tuple(number for finish in finishes for number in finish.numbers)
            who = " and ".join(finish.agent for finish in finishes)
            yield Broken(Promise.TASK_DONE_TWICE, f"task {task_id} was done by {who}", calls)
    yield from _check_log(history)
    yield from _check_board(history, adds, done)


def _check_added(adds: list[Operation]) -> Iterator[Broken]:
    ids: dict[tuple[str, int], Operation] = {}
    for add in adds:
        found = {call.answer["task"]["id"] for call in add.answers}
        if len(found) > 1:
            yield Broken(Promise.DOUBLED, f"one task was added as {sorted(found)}", add.numbers)
        for task_id in found:
            other = ids.setdefault((add.arguments["session_id"], task_id), add)
            if other is not add:
                calls = (*other.numbers, *add.numbers)
                yield Broken(Promise.DOUBLED, f"two tasks have the id {task_id}", calls)


def _check_log(history: History) -> Iterator[Broken]:
    """The log tells of each task once that it is done."""
    told: Counter[tuple[str, int]] = Counter()
    pages: dict[str, list[int]] = defaultdict(list)
    for call in history.of("get_messages"):
        if call.is_final and call.is_ok:
            pages[call.arguments["session_id"]].append(call.number)
            for message in call.answer["messages"]:
                metadata = message["metadata"]
                if metadata.get("type") == "task" and metadata.get("state") == "done":
                    told[message["session_id"], metadata["task_id"]] += 1
    for (session_id, task_id), count in told.items():
        if count > 1:
            text = f"the log tells {count} times that task {task_id} is done"
            yield Broken(Promise.TASK_DONE_TWICE, text, tuple(pages[session_id]))


def _check_board(
    history: History,
    adds: list[Operation],
    done: dict[tuple[str, int], list[Operation]],
) -> Iterator[Broken]:
    """What the board shows at the end."""
    boards: dict[str, list[Call]] = defaultdict(list)
    for call in history.of("list_tasks"):
        if call.is_final and call.is_ok:
            boards[call.arguments["session_id"]].append(call)
    for session_id, pages in boards.items():
        tasks = {task["id"]: task for page in pages for task in page.answer["tasks"]}
        numbers = tuple(page.number for page in pages)
        titles = Counter(task["title"] for task in tasks.values())
        for title, count in titles.items():
            if count > 1:
                yield Broken(Promise.DOUBLED, f"{count} tasks are {title!r}", numbers)
        for add in adds:
            is_here = add.arguments["session_id"] == session_id and add.outcome is Outcome.OK
            if is_here and add.answer["task"]["id"] not in tasks:
                text = f"task {add.answer['task']['id']} was added and is not there"
                yield Broken(Promise.LOST, text, add.numbers)
        for (place, task_id), finishes in done.items():
            if place == session_id and tasks.get(task_id, {}).get("state") != "done":
                text = f"task {task_id} was done and is {tasks.get(task_id, {}).get('state')}"
                yield Broken(Promise.LOST, text, finishes[0].numbers)

"""The command `search`: finds messages and memory by their words."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from cyclopts import Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.calls import list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit
from shared_context_server.cli.show.tables import tell_more
from shared_context_server.cli.show.values import (
    is_terminal,
    note,
    print_json,
    show_agent,
    show_cell,
    show_moment,
    without_success,
)
from shared_context_server.cli.texts import read_time
from shared_context_server.remote import exits


class Within(StrEnum):
    MESSAGES = "messages"
    MEMORY = "memory"
    ALL = "all"


class SortOrder(StrEnum):
    SCORE = "score"
    NEWEST = "newest"


class Mode(StrEnum):
    FUZZY = "fuzzy"
    SEMANTIC = "semantic"
    HYBRID = "hybrid"


def search(
    *query: Annotated[str, Parameter(help="The words to find.")],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    session: Annotated[str | None, Parameter(help="Only in this session.")] = None,
    sender: Annotated[str | None, Parameter(help="Only messages of this agent.")] = None,
    since: Annotated[str | None, Parameter(help="Only later ones: RFC 3339.")] = None,
    until: Annotated[str | None, Parameter(help="Only earlier ones: RFC 3339.")] = None,
    within: Annotated[Within, Parameter(help="Where to look.")] = Within.MESSAGES,
    mode: Annotated[Mode, Parameter(help="By words, by meaning, or both.")] = Mode.FUZZY,
    sort: Annotated[SortOrder, Parameter(help="What comes first.")] = SortOrder.SCORE,
    threshold: Annotated[float, Parameter(help="Lowest score, 0 to 100.")] = 60.0,
    limit: Limit = 10,
    as_json: AsJson = False,
) -> None:
    """Find messages and memory by their words, in one session or in all; typos are tolerated."""
    if not query:
        raise CommandFailed("Name the words to find.", exit_code=exits.USAGE)
    with hub_options.open_hub() as hub:
        answer = list_pages(
            hub,
            "search_context",
            "results",
            limit,
            query=" ".join(query),
            session_id=session,
            sender=sender,
            start_time=None if since is None else read_time(since, "--since").isoformat(),
            end_time=None if until is None else read_time(until, "--until").isoformat(),
            within=within.value,
            mode=mode.value,
            sort=sort.value,
            fuzzy_threshold=threshold,
        )
    if as_json:
        print_json(without_success(answer))
        return
    for found in answer["results"]:
        message = found["message"]
        place = f"{message['session_id']} #{message['seq']}"
        _print_found(found, place, message["sender"], message["timestamp"])
    for found in answer["memory"]:
        place = f"memory {found['key']}"
        if found["session_id"] is not None:
            place = f"{found['session_id']} {place}"
        _print_found(found, place, found["updated_by"], found["updated_at"])
    if not answer["results"] and not answer["memory"] and is_terminal():
        note("Nothing was found. --threshold 40 also finds what is less alike.")
    if not answer["exhaustive"]:
        note("Not everything was looked at: the search index is behind, or there is too much.")
    tell_more(answer)


def _print_found(found: dict[str, Any], place: str, author: str, moment: str) -> None:
    score, preview = f"{found['score']:.0f}", found["match_preview"]
    if not is_terminal():
        cells = (score, show_cell(place), show_agent(author), show_cell(moment), show_cell(preview))
        print("\t".join(cells))
        return
    from rich.console import Console  # noqa: PLC0415 - a pipe needs none of it
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    head = Text(f"{score:>3}  ")
    head.append(show_cell(place), style="bold")
    head.append(f"  {show_agent(author)}  {show_moment(moment)}", style="dim")
    console.print(head)
    line = Text("     ")
    for text, is_match in split_matches(preview, found["highlights"]):
        line.append(show_cell(text) if text.strip() else text, "bold yellow" if is_match else "")
    console.print(line)


def split_matches(text: str, highlights: list[list[int]]) -> list[tuple[str, bool]]:
    """Split a text into parts, and say of each whether it is a match. `highlights`: start and end of
    each match, in order."""
    parts: list[tuple[str, bool]] = []
    end = 0
    for start, stop in highlights:
        parts += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    parts.append((text[end:], False))
    return [part for part in parts if part[0]]

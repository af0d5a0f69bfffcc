"""What real clients were recorded to send is answered by the lane, and as the SDK answers it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.transport.pairs import Request, open_pair
from tests.transport.recording.recorder import Recorded, read_corpus

CORPUS = Path(__file__).parent / "corpus"
CLIENTS = sorted(file.stem for file in CORPUS.glob("*.jsonl"))
WANTED = {
    *("claude-code", "codex", "gemini-cli", "inspector", "mcp-proxy", "mcp-remote"),
    *("python-sdk", "typescript-sdk"),
}
LANE_METHODS = {"initialize", "ping", "server/discover", "tools/list", "tools/call"}
LEFT_TO_SDK = {"no_such_tool", "wait_for_messages"}  # of tools


def is_for_lane(recorded: Recorded) -> bool:
    """Whether it is an ordinary request of a method that the lane knows. ping went with the handshake."""
    if recorded.method != "POST" or recorded.path != "/mcp":
        return False
    message = json.loads(recorded.body)
    is_modern = dict(recorded.headers).get("mcp-protocol-version") == "2026-07-28"
    if message.get("method") == "notifications/initialized":
        return True
    if "id" not in message or message.get("method") not in LANE_METHODS:
        return False
    if message["method"] == "tools/call":
        return message["params"]["name"] not in LEFT_TO_SDK
    return not (is_modern and message["method"] == "ping")


def test_the_corpus_has_every_client() -> None:
    assert {name.rpartition("-")[0] for name in CLIENTS} == WANTED


@pytest.mark.parametrize("client", CLIENTS)
async def test_recorded_requests_take_the_lane_and_are_answered_alike(
    tmp_path: Path, client: str
) -> None:
    """Twice: what is alike for everybody the lane has from the SDK's first answer."""
    corpus = read_corpus(CORPUS / f"{client}.jsonl")
    taken: Counter[str] = Counter()
    left: list[str] = []
    async with open_pair(tmp_path) as pair:
        for is_second in (False, True):
            for recorded in corpus:
                request = Request(
                    recorded.body.encode(), recorded.headers, recorded.method, recorded.path
                )
                is_answered = await pair.compare(request)
                if is_second and is_answered:
                    taken[json.loads(recorded.body)["method"]] += 1
                elif is_second and is_for_lane(recorded):
                    left.append(recorded.to_line())
        assert pair.compared == 2 * len(corpus)
    print(
        f"\n{client}: {len(corpus)} requests, {taken.total()} answered by the lane: {dict(taken)}"
    )
    assert not left, "left to the SDK:\n" + "\n".join(left)
    assert {"tools/list", "tools/call"} <= taken.keys()
    assert taken.keys() & {"initialize", "server/discover"}

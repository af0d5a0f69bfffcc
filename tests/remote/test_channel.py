"""The channel, as Claude Code talks to it. No model has seen what it pushes."""

from __future__ import annotations

import json
import queue
from typing import Any

from tests.remote.conftest import Hub, Lines


def test_a_channel_answers_its_client_and_pushes_what_others_say(hub: Hub) -> None:
    session = hub.session()

    def send(method: str, number: int | None = None, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        line = json.dumps(message if number is None else {**message, "id": number})
        channel.process.stdin.write(f"{line}\n")
        channel.process.stdin.flush()

    with Lines(hub.start("channel", session)) as channel:
        send("server/discover", 1)
        assert json.loads(channel.next())["error"]["code"] == -32601
        send("initialize", 2, protocolVersion="2025-06-18", capabilities={}, clientInfo={})
        result = json.loads(channel.next())["result"]
        assert result["protocolVersion"] == "2025-06-18"
        assert result["capabilities"] == {"experimental": {"claude/channel": {}}}
        send("notifications/initialized")
        send("ping", 3)
        assert json.loads(channel.next()) == {"jsonrpc": "2.0", "id": 3, "result": {}}
        pushed = None
        while pushed is None:
            hub.say(session, "of alice itself", agent="alice")
            hub.say(session, "hello\nyou")
            try:
                pushed = json.loads(channel.next(0.2))
            except queue.Empty:
                continue
        assert pushed["method"] == "notifications/claude/channel"
        meta = pushed["params"]["meta"]
        assert meta["sender"] == "bob"
        line = f"{session} #{meta['seq']} bob: hello ⏎ you"
        assert pushed["params"]["content"] == line
        channel.process.stdin.close()
        code, _, err = channel.end()
        assert (code, err) == (0, "")

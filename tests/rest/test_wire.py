"""The ends of answers."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from shared_context_server.rest.wire import finish_answer


async def test_an_answer_that_stops_in_the_middle_is_ended_and_a_complete_one_is_left_alone() -> (
    None
):
    for is_complete in (False, True):
        sent: list[Message] = []

        async def answer(
            scope: Scope, receive: Receive, send: Send, is_complete: bool = is_complete
        ) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": not is_complete})

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        await finish_answer(answer, {"type": "http"}, receive, send)
        assert len(sent) == (2 if is_complete else 3)
        assert not sent[-1]["more_body"]

"""One id connects a request, its answer and the lines of the log about it."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette

from shared_context_server.auth.middleware.request_ids import MAX_ID_CHARS, RequestIds
from shared_context_server.observability.metrics import Metrics
from shared_context_server.rest.routes import make_routes
from shared_context_server.server import Server
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, Result
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.tools.registry import READS, Call, Tool
from tests.rest.conftest import BASE_URL, OpenClient, assert_error

HEADER = "X-Request-ID"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/mcp/tool/list_sessions", "/mcp", "/ui"])
async def test_every_answer_has_the_id_of_its_request(agent: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST"):
        named = await agent.request(method, path, headers={HEADER: " trace-7/a:b "})
        assert named.headers.get_list(HEADER) == ["trace-7/a:b"]
        ids = {(await agent.request(method, path)).headers[HEADER] for _ in range(3)}
        assert len(ids) == 3


@pytest.mark.parametrize("sent", ["", "a b", "x" * (MAX_ID_CHARS + 1), 'a"b', "\x1b[31m", "é"])
async def test_what_could_mislead_in_a_log_is_replaced(agent: httpx.AsyncClient, sent: str) -> None:
    answer = await agent.get("/health", headers={HEADER.encode(): sent.encode()})
    assert answer.headers[HEADER] not in (sent, "")
    assert answer.headers[HEADER].isalnum()


async def test_a_browser_may_read_the_id(open_agent: OpenClient) -> None:
    async with open_agent(cors_origins=("https://app.example",)) as agent:
        answer = await agent.get("/health", headers={"Origin": "https://app.example"})
    assert HEADER in answer.headers["Access-Control-Expose-Headers"]


async def test_a_defect_is_found_in_the_log_by_the_id_in_its_error(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down(services: Services, call: Call, arguments: Arguments) -> Result:
        """Fails."""
        raise RuntimeError("the cause")

    broken = Tool("break_down", Arguments, Result, break_down, None, READS)
    metrics = Metrics()
    dispatcher = Dispatcher(server.services, [broken], metrics)
    app = RequestIds(Starlette(routes=make_routes(dispatcher, metrics)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        answer = await client.post("/mcp/tool/break_down", headers={HEADER: "mine"})
    body = assert_error(answer, 500, "INTERNAL_ERROR")
    assert body["details"]["request_id"] == "mine"
    assert "mine" in body["error"]
    (line,) = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert (line["event"], line["request_id"]) == ("tool failed", "mine")
    assert "the cause" in line["exception"]

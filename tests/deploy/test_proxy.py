"""Clients reach two servers through nginx with config/nginx.conf, and notice nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.errors import ContentTooLarge, SharedContextError, Unavailable
from shared_context_server.settings import Settings
from tests.cli.conftest import PATIENCE_S, STOP_S, ServerProcess, make_env, make_serve
from tests.deploy.conftest import make_proxy

CALLS = 30  # enough to come to both replicas many times


class Replicas:
    """Two servers on one data dir, and the URL of the nginx in front of them."""

    def __init__(
        self, url: str, servers: tuple[ServerProcess, ServerProcess], directory: Path
    ) -> None:
        self.url = url
        self.directory = directory
        self.servers = servers
        self.headers = {"X-API-Key": servers[0].secrets["API_KEY"], "X-Agent-ID": "alice"}

    def call(self, tool: str, **arguments: object) -> httpx.Response:
        return httpx.post(
            f"{self.url}/mcp/tool/{tool}",
            headers=self.headers,
            json=arguments,
            timeout=PATIENCE_S,
        )

    def create_session(self) -> str:
        return str(self.call("create_session", purpose="Behind a proxy").json()["session_id"])


@contextmanager
def open_replicas(directory: Path) -> Iterator[Replicas]:
    serve, proxy = make_serve(make_env(directory), directory), make_proxy(directory)
    with serve() as first, serve() as second, proxy(first, second) as url:
        yield Replicas(url, (first, second), directory)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """For tests that leave them as they are."""
    with open_replicas(tmp_path_factory.mktemp("replicas")) as replicas:
        yield replicas


@pytest.fixture
def mortal_replicas(tmp_path: Path) -> Iterator[Replicas]:
    """For one test, which may kill them."""
    with open_replicas(tmp_path) as replicas:
        yield replicas


def requests_served_by(server: ServerProcess, headers: dict[str, str]) -> float:
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    return sum(
        float(line.rpartition(" ")[2])
        for line in answer.text.splitlines()
        if line.startswith("mcp_requests_total")
    )


def test_calls_come_to_both_replicas(replicas: Replicas) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: replicas.call("list_sessions"), range(CALLS)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(requests_served_by(server, replicas.headers) for server in replicas.servers)


def test_an_event_comes_through_while_the_stream_is_open(replicas: Replicas) -> None:
    session_id = replicas.create_session()
    with httpx.stream(
        "GET",
        f"{replicas.url}/events",
        params={"session_id": session_id},
        headers=replicas.headers,
        timeout=STOP_S,  # an event that nginx held back would not come in time
    ) as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        for content in ("first", "second"):
            replicas.call("add_message", session_id=session_id, content=content)
            data = next(line for line in lines if line.startswith("data: "))
            assert json.loads(data.removeprefix("data: "))["content"] == content


def test_a_waiter_is_answered_when_there_is_a_message(replicas: Replicas) -> None:
    session_id = replicas.create_session()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            replicas.call,
            "wait_for_messages",
            session_id=session_id,
            after_seq=0,
            timeout_seconds=20,
            include_own=True,
        )
        replicas.call("add_message", session_id=session_id, content="Here it is.")
        answer = waiting.result(PATIENCE_S).json()
    assert [message["content"] for message in answer["messages"]] == ["Here it is."]


async def test_an_mcp_client_is_served(replicas: Replicas) -> None:
    transport = StreamableHttpTransport(f"{replicas.url}/mcp", headers=replicas.headers)
    async with Client(transport) as client:
        made = await client.call_tool("create_session", {"purpose": "By MCP"})
        found = await client.call_tool(
            "get_session", {"session_id": made.structured_content["session_id"]}
        )
    assert found.structured_content["session"]["purpose"] == "By MCP"


def test_killed_replicas_are_passed_over_as_long_as_there_is_one(
    mortal_replicas: Replicas,
) -> None:
    replicas = mortal_replicas
    session_id = replicas.create_session()
    replicas.servers[0].kill()
    for number in range(CALLS):
        answer = replicas.call("add_message", session_id=session_id, content=f"Message {number}")
        assert answer.status_code == 200, answer.text
    assert answer.json()["seq"] == CALLS
    replicas.servers[1].kill()
    answer = replicas.call("list_sessions")
    assert_has_the_shape_of(answer, Unavailable())
    assert answer.headers["retry-after"] == "1"
    assert httpx.get(f"{replicas.url}/proxy-health").status_code == 200


def assert_has_the_shape_of(answer: httpx.Response, error: SharedContextError) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"], body["retryable"], body["success"]) == (
        error.status,
        error.code,
        error.retryable,
        False,
    )
    assert set(body) == set(error.body())
    assert answer.headers["content-type"] == "application/json"


def test_a_body_over_the_limit_is_refused_in_the_usual_shape(replicas: Replicas) -> None:
    limit = Settings.model_fields["max_body_bytes"].default
    answer = httpx.post(
        f"{replicas.url}/mcp/tool/add_message",
        headers=replicas.headers,
        content=b" " * (limit + 1),
        timeout=PATIENCE_S,
    )
    assert_has_the_shape_of(answer, ContentTooLarge("…"))


def test_errors_of_the_server_come_through_as_they_are(replicas: Replicas) -> None:
    assert replicas.call("get_session", session_id="none").json()["code"] == "SESSION_NOT_FOUND"


def test_the_server_sees_the_name_that_the_client_used(replicas: Replicas) -> None:
    def ask(host: str) -> int:
        return httpx.get(f"{replicas.url}/health", headers={"Host": host}).status_code

    assert ask("localhost:8000") == 200
    assert ask("elsewhere.example.org") == 421


def test_numbers_of_one_replica_are_not_shown(replicas: Replicas) -> None:
    assert httpx.get(f"{replicas.url}/metrics", headers=replicas.headers).status_code == 404


def test_the_access_log_shows_no_queries(replicas: Replicas) -> None:
    httpx.get(f"{replicas.url}/health?api_key=mistaken")
    httpx.get(f"{replicas.url}/ready")
    logged = [
        json.loads(line) for line in (replicas.directory / "access.log").read_text().splitlines()
    ]
    assert {"/health"} <= {entry["path"] for entry in logged}
    assert "mistaken" not in json.dumps(logged)

"""Traces of servers in processes of their own: what a collector gets from them, and when it is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shared_context_server.observability.traces import open_traces
from tests.cli.conftest import Serve
from tests.cli.test_stdio import INITIALIZE, INITIALIZED, by_hand, receive, send, use

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Collector:
    """Takes spans over OTLP, as an OpenTelemetry collector does."""

    url: str
    spans: list[tuple[str, str, str]] = field(default_factory=list)  # service, name, parent
    headers: list[str | None] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            described = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert described["service.version"]
            assert described["service.instance.id"]
            self.spans += [
                (described["service.name"], span.name, span.parent_span_id.hex())
                for scope in resource.scope_spans
                for span in scope.spans
            ]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.headers.append(self.headers["x-collector-key"])
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def test_the_standard_variables_choose_where_spans_are_sent(serve: Serve) -> None:
    with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=its-key",
        }
        with serve(**variables) as server:
            headers = {"X-API-Key": server.secrets["API_KEY"], "traceparent": PARENT}
            httpx.post(f"{server.url}/mcp/tool/list_sessions", json={}, headers=headers)
            assert server.stop() == 0
            assert "its-key" not in server.stderr
    assert collector.spans == [
        ("shared-context-server", "tools/call list_sessions", "b7ad6b7169203331")
    ]
    assert collector.headers == ["its-key"]


def test_a_collector_that_is_not_there_holds_nothing_up(serve: Serve) -> None:
    with serve(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as server:
        headers = {"X-API-Key": server.secrets["API_KEY"]}
        answer = httpx.post(f"{server.url}/mcp/tool/list_sessions", json={}, headers=headers)
        assert answer.json()["success"]
        assert server.stop() == 0


def test_over_stdio_spans_for_a_terminal_are_not_written_to_stdout(
    env: dict[str, str], tmp_path: Path
) -> None:
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "of-the-client"}
    with by_hand(env | variables, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        assert use(process, "list_sessions")["success"]
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.stderr is not None
        said = process.stderr.read()
    assert '"name": "tools/call list_sessions"' in said
    assert '"service.name": "of-the-client"' in said


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "nonsense"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
async def test_variables_that_cannot_be_used_keep_no_server_from_starting(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with open_traces() as traces:
        assert traces.find_tracer() is None
    assert "no traces are sent" in caplog.text

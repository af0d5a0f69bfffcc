"""The list of HTTP routes, for Starlette."""

from __future__ import annotations

from functools import cache

from pydantic_core import to_json
from starlette.routing import BaseRoute, Route

from shared_context_server.observability.metrics import Metrics
from shared_context_server.rest.calls import BatchEndpoint, ToolEndpoint
from shared_context_server.rest.events import EVENTS_PATH, EventsEndpoint
from shared_context_server.rest.fleet import FLEET_PATH, FleetEndpoint
from shared_context_server.rest.openapi import (
    BATCH_PATH,
    TOOL_PATH,
    JsonObject,
    openapi_document,
)
from shared_context_server.rest.probes import (
    MetricsEndpoint,
    Readiness,
    ReadyEndpoint,
    health_endpoint,
)
from shared_context_server.rest.wire import FixedAnswer, LateAnswer
from shared_context_server.tools.dispatch import Dispatcher

METRICS_PATH = "/metrics"
PUBLIC_PATHS = frozenset({"/health", "/ready", "/openapi.json", "/docs"})
"""Answered alike for everyone, whatever credential they present."""


def make_routes(dispatcher: Dispatcher, metrics: Metrics) -> list[BaseRoute]:
    """Return the routes of one server, the busiest first."""
    services = dispatcher.services

    # Made on demand: most servers never need it, and it takes as long as the rest of the startup.
    @cache
    def make_document() -> JsonObject:
        return openapi_document(
            dispatcher.tools.values(), is_metrics_public=services.settings.metrics_public
        )

    def make_docs() -> FixedAnswer:
        from shared_context_server.rest.docs import docs_endpoint  # noqa: PLC0415 - brings jinja2

        return docs_endpoint(make_document())

    return [
        Route(TOOL_PATH, ToolEndpoint(dispatcher), methods=["POST"]),
        Route(BATCH_PATH, BatchEndpoint(dispatcher), methods=["POST"]),
        Route(EVENTS_PATH, EventsEndpoint(services), methods=["GET"]),
        Route(FLEET_PATH, FleetEndpoint(services), methods=["GET"]),
        Route("/health", health_endpoint(), methods=["GET"]),
        Route(
            "/ready",
            ReadyEndpoint(Readiness(services.store), services.quotas.disk),
            methods=["GET"],
        ),
        Route(METRICS_PATH, MetricsEndpoint(services, metrics), methods=["GET"]),
        Route(
            "/openapi.json",
            LateAnswer(lambda: FixedAnswer(to_json(make_document()))),
            methods=["GET"],
        ),
        Route("/docs", LateAnswer(make_docs), methods=["GET"]),
    ]

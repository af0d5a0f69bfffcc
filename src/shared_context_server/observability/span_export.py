"""Sends spans as the standard OTEL_ variables say, with OpenTelemetry's SDK, which the extra otel brings."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from shared_context_server import __version__

SERVICE: Final = "shared-context-server"
UNNAMED: Final = "unknown_service"  # the SDK's name of a service without one
EXPORTERS: Final = "opentelemetry_traces_exporter"  # the group of entry points of all exporters


def make_provider(exporters: Iterable[str]) -> TracerProvider:
    """Return a provider that sends spans in the background. Sampler, limits and queues are those of the
    OTEL_ variables. Raises LookupError for an exporter that is not installed, and ValueError for a
    value that an exporter refuses."""
    made = [_make_exporter(name) for name in exporters]
    provider = TracerProvider(resource=describe_process(), shutdown_on_exit=False)
    for exporter in made:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def describe_process() -> Resource:
    """Describe this process, as far as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES do not."""
    own = Resource({"service.version": __version__, "service.instance.id": str(uuid.uuid4())})
    resource = own.merge(Resource.create())
    if str(resource.attributes[SERVICE_NAME]).startswith(UNNAMED):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource


def _make_exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)  # over stdio, stdout is the protocol's
    found = next(iter(entry_points(group=EXPORTERS, name=name)), None)
    if found is None:
        raise LookupError(f"no exporter named {name} is installed")
    exporter: SpanExporter = found.load()()
    return exporter

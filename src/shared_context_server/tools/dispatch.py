"""Call a tool, the same way for every surface: identify, authorise, check, run, count."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, Protocol

from opentelemetry.trace import Span
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, from_json, to_json

from shared_context_server import policy
from shared_context_server.auth.connection import Connection
from shared_context_server.errors import (
    ContentTooLarge,
    InternalError,
    InvalidArgument,
    RateLimited,
    SharedContextError,
    ToolNotFound,
    Unauthenticated,
)
from shared_context_server.json_size import MAX_VALUES, count_values, has_too_many_values
from shared_context_server.models import Caller
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.request_ids import name_request
from shared_context_server.observability.traces import (
    Traces,
    record_caller,
    record_failure,
    record_session,
    trace_call,
)
from shared_context_server.services.context import Services
from shared_context_server.services.fingerprint import fingerprint
from shared_context_server.services.follow import ReportProgress
from shared_context_server.services.json_rules import JSON_DEPTH, find_name_of_overlong_integer
from shared_context_server.services.mentions import UnreadMentions
from shared_context_server.tools.arguments import DEEP_JSON, TOO_LARGE, Arguments
from shared_context_server.tools.names import MAX_NAME_CHARS, suggest_name
from shared_context_server.tools.registry import IDEMPOTENCY_KEY, Call, Tool
from shared_context_server.tools.written import Written, write_json

UNKNOWN_TOOL = "unknown"
TOOL_USE_PREFIX = "tool-use:"  # of idempotency keys that are made here
LONG_BODY_BYTES = 16 * 1024
_FEW_VALUES = 64
_PARSER_DEPTH = "recursion limit"  # in the message of pydantic's parser
_LARGE_NUMBER = re.compile(rb"[eE]\+?0*[0-9]{3}|[0-9]{200}")
UNKNOWN_ARGUMENT = "extra_forbidden"
MAX_LISTED_ERRORS = 10
_CREDENTIALS = frozenset({"api_key", "auth_token"})  # arguments that contain credentials

_log = get_logger("tools")


@dataclass(slots=True)
class Outcome:
    """The outcome of a call: a result, or an error in the one error shape. `unread`: what is to be
    told to the caller beside the result."""

    status: int
    body: BaseModel | Written[Any] | dict[str, Any]
    retry_after_s: int | None = None
    unread: UnreadMentions | None = None

    @property
    def is_error(self) -> bool:
        return self.status >= 400

    def json(self) -> bytes:
        return write_json(self.body)


class CallObserver(Protocol):
    """Counts the calls of tools, as the metrics do."""

    def observe(self, tool: str, status: int, seconds: float) -> None: ...
    def count_limited(self, limit: str) -> None: ...


class Dispatcher:
    """Calls tools by name, for all surfaces of one server."""

    def __init__(
        self,
        services: Services,
        tools: Iterable[Tool[Any, Any]],
        observer: CallObserver | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.services = services
        self.tools: Mapping[str, Tool[Any, Any]] = {tool.name: tool for tool in tools}
        self.traces = traces or Traces()
        self._observer = observer

    async def call(
        self,
        name: str,
        arguments: Any,
        connection: Connection,
        report_progress: ReportProgress | None = None,
    ) -> Outcome:
        """Run one tool. Never raises for a caller's mistake, nor for a defect of ours.

        `arguments` as bytes are JSON that is not parsed yet.
        """
        tracer = self.traces.find_tracer()
        if tracer is None:
            return await self._call(name, arguments, connection, report_progress)
        label = name if name in self.tools else UNKNOWN_TOOL
        with trace_call(tracer, label, connection.trace_parent) as span:
            outcome = await self._call(name, arguments, connection, report_progress, span)
            if isinstance(outcome.body, dict) and outcome.is_error:
                request_id = outcome.body["details"].get("request_id")
                record_failure(span, outcome.body["code"], request_id)
        return outcome

    async def _call(
        self,
        name: str,
        arguments: Any,
        connection: Connection,
        report_progress: ReportProgress | None,
        span: Span | None = None,
    ) -> Outcome:
        started = time.perf_counter()
        tool = self.tools.get(name)
        try:
            if tool is None:
                raise ToolNotFound(name[:MAX_NAME_CHARS], question=suggest_name(name, self.tools))
            outcome = await self._run(tool, arguments, connection, report_progress, span)
        except InternalError as exc:
            outcome = failure(name_request(exc))
        except SharedContextError as exc:
            if exc.limit and self._observer is not None:
                self._observer.count_limited(exc.limit)
            outcome = failure(self._count_failure(exc, connection))
        except Exception:  # noqa: BLE001 - the surface meets the world: not the caller's fault
            error = name_request(InternalError("The server failed at this call."))
            _log.exception("tool failed", tool=name, request_id=error.details["request_id"])
            outcome = failure(error)
        if self._observer is not None:
            label = UNKNOWN_TOOL if tool is None else name
            self._observer.observe(label, outcome.status, time.perf_counter() - started)
        return outcome

    async def _run(
        self,
        tool: Tool[Any, Any],
        arguments: Any,
        connection: Connection,
        report_progress: ReportProgress | None,
        span: Span | None,
    ) -> Outcome:
        if isinstance(arguments, bytes):
            arguments = parse_json(arguments)
        caller, limits = connection.caller, self.services.limits
        if tool.permission is not None:
            caller = await self._identify(arguments, connection)
            if span is not None:
                record_caller(span, caller.agent_id)
            limits.count_argument_request(caller, connection)
        if limits.has_tool_rates:
            limits.count_call(tool.name, caller, connection)
        if tool.permission is not None:
            policy.require_permission(caller, tool.permission)
            self.services.presence.note(caller, tool.name)
            if connection.tool_use and tool.takes_idempotency_key:
                arguments = self._add_idempotency_key(tool, arguments, caller, connection)
        parsed = parse_arguments(tool.arguments, arguments)
        if (session_id := getattr(parsed, "session_id", None)) is not None:
            self.services.presence.note(caller, tool.name, session_id)
            if span is not None:
                record_session(span, session_id)
        result: BaseModel | Written[Any] = await tool.handler(
            self.services, Call(caller, connection, report_progress), parsed
        )
        is_known = tool.permission is not None
        unread = await self.services.mentions.find_news(caller) if is_known else None
        return Outcome(200, result, unread=unread)

    def _add_idempotency_key(
        self, tool: Tool[Any, Any], arguments: Any, caller: Caller, connection: Connection
    ) -> Any:
        """Return the arguments with a key made of the client's id of the tool use, unless they have
        one. A client that repeats a call repeats the id.

        Keys are an agent's own in the store. The thread, the tool and the arguments are part of
        this one, so that an id that is used twice, by mistake or by another thread, repeats nothing.
        """
        if not self.services.settings.tool_use_ids or not isinstance(arguments, dict):
            return arguments
        if arguments.get(IDEMPOTENCY_KEY) not in (None, ""):
            return arguments
        given = {name: value for name, value in arguments.items() if name != "auth_token"}
        key = fingerprint(caller.instance, tool.name, connection.tool_use, given)
        return {**arguments, IDEMPOTENCY_KEY: TOOL_USE_PREFIX + key}

    def _count_failure(
        self, error: SharedContextError, connection: Connection
    ) -> SharedContextError:
        """Return the error, or RateLimited for a caller that has sent too many wrong credentials as
        arguments. Those in headers are counted where headers are read."""
        if isinstance(error, Unauthenticated) and error.details.get("field") in _CREDENTIALS:
            try:
                self.services.limits.count_failure(connection.address)
            except RateLimited as limited:
                return limited
        return error

    async def _identify(self, arguments: Any, connection: Connection) -> Caller:
        """Return the caller: the one that auth_token names, else the connection's. This comes
        before the arguments are checked, so that strangers learn nothing else."""
        if connection.refused is not None:
            raise connection.refused
        auth_token = arguments.get("auth_token") if isinstance(arguments, dict) else None
        if isinstance(auth_token, str) and auth_token:
            return await self.services.identity.resolve(auth_token, connection)
        return connection.caller


def failure(error: SharedContextError) -> Outcome:
    """Return the error as an outcome in the one error shape."""
    return Outcome(error.status, error.body(), error.retry_after_s)


def parse_json(body: bytes, field: str = "body") -> Any:
    """Parse strict JSON. NaN, Infinity, 1e999, lone surrogates and invalid UTF-8 raise
    InvalidArgument; more than MAX_VALUES values raise ContentTooLarge. `field`: what errors name."""
    count = count_values(body)
    if has_too_many_values(body, count):
        raise ContentTooLarge(
            f"The {field} has more than {MAX_VALUES} JSON values.",
            field=field,
            limit_values=MAX_VALUES,
        )
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        name = find_name_of_overlong_integer(body)
        if name is not None:
            name = _printable(name)
            raise InvalidArgument(
                f"{name} has an integer beyond 64 bits. Send it as text.", field=name
            ) from exc
        error = InvalidArgument(
            f"The {field} is not valid JSON: {exc}.", field=field, suggestion="Send strict JSON."
        )
        error.limit = JSON_DEPTH if _PARSER_DEPTH in str(exc) else ""
        raise error from exc
    if may_exceed_doubles(body, value, count):
        require_strict_json(value if isinstance(value, dict) else {field: value})
    return value


def may_exceed_doubles(body: bytes, value: Any, count: int | None) -> bool:
    """Whether this JSON of `count` values, parsed as `value`, may have a number like 1e999.
    from_json reads it as infinity whatever allow_inf_nan says.

    Few values are checked one by one. With many, the text is searched for a number with an exponent
    of three digits or with very many digits. True for long texts with many values, where searching
    would take longer than serialising the value once more.
    """
    if count is not None and count <= _FEW_VALUES:
        return _has_infinity(value)
    return len(body) > LONG_BODY_BYTES or _LARGE_NUMBER.search(body) is not None


def _has_infinity(value: Any) -> bool:
    level = [value]
    while level:
        part = level.pop()
        kind = type(part)
        if kind is dict:
            level.extend(part.values())
        elif kind is list:
            level.extend(part)
        elif kind is float and math.isinf(part):
            return True
    return False


def require_strict_json(arguments: Mapping[str, Any]) -> None:
    """Check arguments that did not come through `parse_json` by the same rules, naming the
    argument."""
    if _is_strict_json(arguments):
        return
    for name, value in arguments.items():
        if not _is_strict_json([name, value]):
            shown = _printable(name)
            raise InvalidArgument(f"{shown} is not strict JSON.", field=shown)


def _is_strict_json(value: Any) -> bool:
    try:
        from_json(to_json(value, inf_nan_mode="constants"), allow_inf_nan=False)
    except (ValueError, PydanticSerializationError, RecursionError):
        return False
    return True


def _printable(name: str) -> str:
    """Return an argument's name as an answer can show it: shortened and without lone surrogates."""
    return name[:100].encode(errors="replace").decode()


def parse_arguments(model: type[Arguments], arguments: Any) -> Arguments:
    """Return the validated arguments. Raises InvalidArgument or ContentTooLarge, naming the first
    wrong argument."""
    if not isinstance(arguments, dict):
        raise InvalidArgument("The arguments must be a JSON object.", field="body")
    try:
        return model.model_validate(_without_most_unknown(model, model.tidy(arguments)))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        _raise_invalid(model, errors)


def _without_most_unknown(model: type[Arguments], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with no more unknown ones than an error lists."""
    if len(arguments) <= MAX_LISTED_ERRORS:
        return arguments
    known = model.model_fields
    if len(arguments) <= len(known) + MAX_LISTED_ERRORS:
        return arguments
    unknown = (name for name in arguments if name not in known)
    listed = set(islice(unknown, MAX_LISTED_ERRORS))
    return {name: v for name, v in arguments.items() if name in known or name in listed}


def _raise_invalid(model: type[Arguments], errors: list[ErrorDetails]) -> NoReturn:
    # Unknown names first: one may be a misspelt name of a missing argument.
    first = next((error for error in errors if error["type"] == UNKNOWN_ARGUMENT), errors[0])
    field = str(first["loc"][0]) if first["loc"] else "arguments"
    reasons: list[JsonValue] = [
        {"field": ".".join(str(part) for part in error["loc"]), "error": error["msg"]}
        for error in errors[:MAX_LISTED_ERRORS]
    ]
    if first["type"] == UNKNOWN_ARGUMENT:
        field = field[:MAX_NAME_CHARS]
        listed = f"The arguments are: {', '.join(model.model_fields)}."
        raise InvalidArgument(
            f"Unknown argument {field!r}.",
            field=field,
            suggestion=f"{suggest_name(field, model.model_fields)} {listed}".lstrip(),
            errors=reasons,
        )
    if first["type"] == "missing":
        raise InvalidArgument(f"{field} is missing.", field=field, errors=reasons)
    kind = ContentTooLarge if first["type"] == TOO_LARGE else InvalidArgument
    error = kind(f"{field}: {first['msg']}.", field=field, errors=reasons)
    if first["type"] == DEEP_JSON:
        error.limit = JSON_DEPTH
    raise error

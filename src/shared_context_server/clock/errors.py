"""Errors of the clock and its sensors. Their base class is ClockError."""


class ClockError(Exception):
    """Base class of all errors of this package."""


class ClockNotRunningError(ClockError):
    """No clock daemon runs under this prefix."""

    def __init__(self, prefix: str, segment: str) -> None:
        self.prefix = prefix
        self.segment = segment
        self.command = start_command(prefix)
        super().__init__(
            f"no clock daemon is running: shared memory segment {segment!r} has no record. "
            f"Start one with: {self.command}"
        )


class SegmentNotFoundError(ClockError):
    """No segment has this name, or nothing was written to it yet."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        super().__init__(
            f"there is no record in shared memory segment {segment!r}: its writer does not run"
        )


class SegmentInUseError(ClockError):
    """Another program writes to the segment, without the lock of our writers."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        super().__init__(
            f"another program writes to shared memory segment {segment!r}. Stop that program, or "
            f"choose another prefix or name"
        )


class SegmentClosedError(ClockError):
    """The writer was closed, or belongs to the process from which this one was forked."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        super().__init__(
            f"the writer of segment {segment!r} is closed, or belongs to the parent process"
        )


class UnstableRecordError(ClockError):
    """All attempts to read a complete record failed, and this reader has no earlier one.

    `command` starts the writer again, if it is known.
    """

    def __init__(self, segment: str, sequence: int, command: str | None = None) -> None:
        self.segment = segment
        self.sequence = sequence
        self.command = command
        restart = f"Start it again with: {command}" if command else "Start it again"
        super().__init__(
            f"segment {segment!r} has no complete record (sequence word {sequence}): its writer "
            f"was stopped or killed in the middle of a write. {restart}"
        )


class SegmentLayoutError(ClockError):
    """This program does not support the segment's size or layout version."""

    def __init__(self, segment: str, reason: str) -> None:
        self.segment = segment
        super().__init__(f"segment {segment!r} has an unsupported layout: {reason}")


class SegmentAccessError(ClockError):
    """The system denies access to the segment, or its owner is not trusted."""

    def __init__(self, segment: str, reason: str) -> None:
        self.segment = segment
        super().__init__(f"segment {segment!r} cannot be used: {reason}")


class ReaderClosedError(ClockError):
    """The reader was closed before this call."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        super().__init__(f"the reader of segment {segment!r} is closed")


class WriterAlreadyRunningError(ClockError):
    """Another process holds the lock of the segment's writer."""

    def __init__(self, lock: str, pid: int | None) -> None:
        self.lock = lock
        self.pid = pid
        holder = f"pid {pid}" if pid else "unknown pid"
        super().__init__(f"another process ({holder}) holds the writer's lock {lock!r}")


class DaemonAlreadyRunningError(ClockError):
    """Another clock daemon is running under this prefix."""

    def __init__(self, prefix: str, pid: int | None) -> None:
        self.prefix = prefix
        self.pid = pid
        holder = f"pid {pid}" if pid else "unknown pid"
        super().__init__(
            f"a clock daemon already runs under prefix {prefix!r} ({holder}). "
            f"Stop it, or choose another prefix with --prefix"
        )


class OptionError(ClockError, ValueError):
    """An option has an invalid value."""

    def __init__(self, option: str, reason: str) -> None:
        self.option = option
        super().__init__(f"{option}: {reason}")


class SourceError(ClockError):
    """A sensor source could not be read."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        super().__init__(f"sensor source {source!r}: {reason}")


class TimeServerError(ClockError):
    """A time server gave no usable answer."""

    def __init__(self, server: str, reason: str) -> None:
        self.server = server
        super().__init__(f"time server {server}: {reason}")


class TimeServerRefusedError(TimeServerError):
    """The server answered with a kiss-o'-death packet (RFC 5905, section 7.4)."""

    def __init__(self, server: str, code: str) -> None:
        self.code = code
        super().__init__(server, f"refused service (kiss-o'-death {code!r})")


def start_command(prefix: str) -> str:
    """The shell command that starts the daemon of `prefix`."""
    command = "shared-context-server clock"
    return f"{command} --prefix {prefix}" if prefix else command

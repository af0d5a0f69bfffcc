"""Errors of the clock and its sensors. Everything raised on purpose here is a ClockError."""


class ClockError(Exception):
    """Something about the clock or its sensors is not as it should be."""


class ClockNotRunningError(ClockError):
    """No daemon keeps time under this prefix."""

    def __init__(self, prefix: str, segment: str) -> None:
        self.prefix = prefix
        self.segment = segment
        self.command = start_command(prefix)
        super().__init__(
            f"no clock daemon is running: there is no record in shared memory segment "
            f"{segment!r}. Start one with: {self.command}"
        )


class UnstableRecordError(ClockError):
    """No whole record could be read within the allowed attempts, nor had been before."""

    def __init__(self, segment: str, prefix: str, sequence: int) -> None:
        self.segment = segment
        self.sequence = sequence
        self.command = start_command(prefix)
        super().__init__(
            f"segment {segment!r} gave no stable record (sequence word {sequence}): its daemon was "
            f"stopped or killed in the middle of a write. Start it again with: {self.command}"
        )


class SegmentLayoutError(ClockError):
    """The segment has a size or version that this program does not know."""

    def __init__(self, segment: str, reason: str) -> None:
        self.segment = segment
        super().__init__(f"segment {segment!r} has a foreign layout: {reason}")


class SegmentAccessError(ClockError):
    """The segment may not be used: the system refuses it, or it is not trusted."""

    def __init__(self, segment: str, reason: str) -> None:
        self.segment = segment
        super().__init__(f"segment {segment!r} may not be used: {reason}")


class ReaderClosedError(ClockError):
    """The reader was closed before this call."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        super().__init__(f"the reader of segment {segment!r} is closed")


class DaemonAlreadyRunningError(ClockError):
    """Another living daemon serves this prefix."""

    def __init__(self, prefix: str, pid: int | None) -> None:
        self.prefix = prefix
        self.pid = pid
        holder = f"pid {pid}" if pid else "of unknown pid"
        super().__init__(
            f"a clock daemon already serves prefix {prefix!r} ({holder}); "
            f"stop it first or choose another prefix with --prefix"
        )


class OptionError(ClockError, ValueError):
    """An option has a value that cannot be used."""

    def __init__(self, option: str, reason: str) -> None:
        self.option = option
        super().__init__(f"{option}: {reason}")


class SourceError(ClockError):
    """A sensor source could not give a reading."""

    def __init__(self, source: str, reason: str) -> None:
        self.source = source
        super().__init__(f"sensor source {source!r}: {reason}")


class TimeServerError(ClockError):
    """A time server gave no usable answer."""

    def __init__(self, server: str, reason: str) -> None:
        self.server = server
        super().__init__(f"time server {server}: {reason}")


class TimeServerRefusedError(TimeServerError):
    """The server answered with a kiss-o'-death (RFC 5905, section 7.4)."""

    def __init__(self, server: str, code: str) -> None:
        self.code = code
        super().__init__(server, f"refused service (kiss-o'-death {code!r})")


def start_command(prefix: str) -> str:
    """The shell command that starts the daemon readers of `prefix` wait for."""
    command = "shared-context-server clock"
    return f"{command} --prefix {prefix}" if prefix else command

import pytest

from shared_context_server.clock import OptionError
from shared_context_server.clock.__main__ import build_parser, main
from shared_context_server.clock.options import DaemonOptions, open_sources, open_timekeeper
from shared_context_server.clock.timesync.servers import NtpTime
from shared_context_server.clock.timesync.timekeeper import SystemTime


@pytest.mark.parametrize(
    "values, option",
    [
        ({"prefix": "a/b"}, "prefix"),
        ({"hz": 0.0}, "--hz"),
        ({"hz": 100_000.0}, "--hz"),
        ({"hz": float("nan")}, "--hz"),
        ({"ntp_interval_s": 0.0}, "--ntp-interval"),
        ({"ntp_hold_s": -1.0}, "--ntp-hold"),
        ({"sensor_interval_s": -1.0}, "--sensor-interval"),
        ({"sensor_interval_s": 1e-6}, "--sensor-interval"),
        ({"ntp": ("kernel", "a")}, "--ntp"),
        ({"ntp": ("none", "a")}, "--ntp"),
        ({"ntp": ("a", "a")}, "--ntp"),
        ({"ntp": ("a:b",)}, "--ntp"),
        ({"ntp": "kernel"}, "--ntp"),
        ({"sources": ("none", "psutil")}, "--source"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(values, option):
    with pytest.raises(OptionError) as caught:
        DaemonOptions(**values)
    assert caught.value.option == option
    assert isinstance(caught.value, ValueError)


def test_the_command_lines_defaults_are_the_options_own(capsys):
    given = build_parser().parse_args([])
    options = DaemonOptions()
    assert (given.prefix, given.hz) == (options.prefix, options.hz)
    assert given.ntp_interval == options.ntp_interval_s
    assert given.ntp_hold == options.ntp_hold_s
    assert given.sensor_interval == options.sensor_interval_s
    assert tuple(given.ntp) == options.ntp
    assert given.source == []


@pytest.mark.parametrize(
    "ntp, keeper_type", [((), SystemTime), (("none",), SystemTime), (("127.0.0.1",), NtpTime)]
)
def test_the_timekeeper_follows_from_ntp(ntp, keeper_type):
    assert isinstance(open_timekeeper(DaemonOptions(ntp=ntp)), keeper_type)


def test_no_sources_can_be_asked_for():
    assert open_sources(DaemonOptions(sources=("none",))) == []
    assert open_sources(DaemonOptions(sources=())) == []
    assert [s.name for s in open_sources(DaemonOptions())] == ["hwmon", "iio", "psutil"]


def test_an_unknown_source_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--source", "thermometer"])
    assert caught.value.code == 2
    assert "python:package.module:function" in capsys.readouterr().err

import math
import shlex
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from shared_context_server.clock.errors import OptionError, SourceError
from shared_context_server.clock.sources.channels import Channels, take_channels
from shared_context_server.clock.sources.command import CommandSource
from shared_context_server.clock.sources.function import FunctionSource
from shared_context_server.clock.sources.host import HostSource
from shared_context_server.clock.sources.hwmon import HwmonSource
from shared_context_server.clock.sources.iio import IioSource
from shared_context_server.clock.sources.registry import DEFAULT_SOURCES, open_source
from shared_context_server.clock.sources.simulated import SimulatedSource

NOTHING = Channels()


class Room(NamedTuple):
    """A tuple in another order, whose names count."""

    humidity: float
    temperature: float


def make_files(directory, **files):
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")


def test_hwmon_gives_millidegrees_and_millipercent(tmp_path):
    make_files(tmp_path / "hwmon0", name="sht3x", temp1_input=21500, humidity1_input=45250)
    assert HwmonSource(root=tmp_path).read() == Channels(temperature=21.5, humidity=45.25)


def test_a_thermometer_for_the_air_comes_before_one_of_a_component(tmp_path):
    make_files(tmp_path / "hwmon0", name="coretemp", temp1_input=70000)
    make_files(tmp_path / "hwmon1", name="sht3x", temp1_input=21500, humidity1_input=45000)
    assert HwmonSource(root=tmp_path).read().temperature == 21.5
    assert HwmonSource("coretemp", root=tmp_path).read() == Channels(temperature=70.0)


def test_sensors_are_taken_in_the_order_of_their_numbers(tmp_path):
    make_files(tmp_path / "hwmon2", name="a", temp10_input=10000, temp2_input=2000)
    make_files(tmp_path / "hwmon10", name="b", temp1_input=1000)
    assert HwmonSource(root=tmp_path).read().temperature == 2.0


def test_a_sensor_that_reports_a_fault_is_passed_over(tmp_path):
    make_files(tmp_path / "hwmon0", name="a", temp1_input=-128000, temp1_fault=1, temp2_input=30000)
    assert HwmonSource(root=tmp_path).read().temperature == 30.0


def test_a_sensor_that_cannot_be_read_is_passed_over_and_an_error_if_it_is_the_only_one(tmp_path):
    make_files(tmp_path / "hwmon0", name="a", temp1_input="")
    with pytest.raises(SourceError, match="temp1_input"):
        HwmonSource(root=tmp_path).read()
    make_files(tmp_path / "hwmon1", name="b", temp1_input=25000)
    assert HwmonSource(root=tmp_path).read().temperature == 25.0


@pytest.mark.parametrize("source_type", [HwmonSource, IioSource])
def test_a_machine_without_thermometers_gives_nothing_and_no_error(tmp_path, source_type):
    assert source_type(root=tmp_path / "missing").read() == NOTHING
    (tmp_path / "hwmon0").mkdir()
    (tmp_path / "iio:device0").mkdir()
    assert source_type(root=tmp_path).read() == NOTHING


@pytest.mark.parametrize("source_type", [HwmonSource, IioSource])
def test_a_chip_that_was_asked_for_by_name_and_is_not_there_is_an_error(tmp_path, source_type):
    with pytest.raises(SourceError, match="no such"):
        source_type("sht3x", root=tmp_path).read()


def test_iio_takes_processed_values(tmp_path):
    make_files(
        tmp_path / "iio:device0", name="dht11", in_temp_input=23000, in_humidityrelative_input=41000
    )
    assert IioSource(root=tmp_path).read() == Channels(temperature=23.0, humidity=41.0)


def test_iio_adds_the_offset_to_raw_values_before_it_scales_them(tmp_path):
    make_files(
        tmp_path / "iio:device0",
        name="si7020",
        in_temp_raw=7200,
        in_temp_offset=-4368,
        in_temp_scale=10.725058,
        in_humidityrelative_raw=3000,
        in_humidityrelative_scale=15.258789,
    )
    channels = IioSource("si7020", root=tmp_path).read()
    assert channels.temperature == pytest.approx((7200 - 4368) * 10.725058 / 1000)
    assert channels.humidity == pytest.approx(3000 * 15.258789 / 1000)


def test_the_host_gives_what_psutil_gives():
    source = HostSource()
    assert source.read().memory == pytest.approx(psutil.virtual_memory().percent, abs=20)
    assert source.read().load1 is not None


def test_the_host_gives_no_processor_time_over_a_span_too_short_to_count():
    source = HostSource()
    assert source.read().cpu is None
    end_s = time.monotonic() + 5
    while (cpu := source.read().cpu) is None:
        assert time.monotonic() < end_s
    assert 0 <= cpu <= 100
    assert source.read().cpu == cpu  # read again within the window


def test_simulated_values_say_so_and_are_those_of_a_room():
    channels = SimulatedSource().read()
    assert channels.is_simulated
    assert 18 < channels.temperature < 24
    assert 39 < channels.humidity < 51


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"temperature": 20, "humidity": 50.5}, Channels(temperature=20.0, humidity=50.5)),
        (SimpleNamespace(temperature=20.0), Channels(temperature=20.0)),
        ({"temperature": None, "humidity": math.nan, "pressure": 1013}, NOTHING),
        ({}, NOTHING),
        ((20, 50.5), Channels(temperature=20.0, humidity=50.5)),
        ((None, 50.5), Channels(humidity=50.5)),
        (Room(humidity=50.5, temperature=20.0), Channels(temperature=20.0, humidity=50.5)),
        ((Decimal("20.5"), Fraction(101, 2)), Channels(temperature=20.5, humidity=50.5)),
    ],
)
def test_what_a_source_gives_is_taken_channel_by_channel(given, expected):
    assert take_channels(given, "x") == expected


@pytest.mark.parametrize(
    "given",
    [
        None,
        20.5,
        "20.5",
        [20.5],
        (20.5,),
        (20.5, 40.0, 3.0),
        ("20.5", 40.0),
        SimpleNamespace(warmth=20.0),
        {"temperature": 10**400},
        {"temperature": "20"},
        {"temperature": True},
        {"temperature": -300},
        {"temperature": math.inf},
        {"humidity": 101},
        {"humidity": -1},
    ],
)
def test_what_no_sensor_can_give_is_refused(given):
    with pytest.raises(SourceError, match="x"):
        take_channels(given, "x")


def test_a_function_is_imported_at_its_first_reading_and_again_if_that_failed(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = FunctionSource("late_sensor:Room.read")
    with pytest.raises(SourceError, match="late_sensor"):
        source.read()
    (tmp_path / "late_sensor.py").write_text(
        "class Room:\n    @staticmethod\n    def read(): return {'temperature': 18}\n"
    )
    assert source.read() == Channels(temperature=18.0)


@pytest.mark.parametrize("target", ["json:nothing", "json:decoder", "no_such_module:f"])
def test_a_function_that_is_not_there_is_an_error(target):
    with pytest.raises(SourceError, match=target.split(":")[0]):
        FunctionSource(target).read()


def run(script: str) -> Channels:
    return CommandSource(shlex.join([sys.executable, "-c", script])).read()


def test_a_commands_object_is_read():
    assert run("import json; print(json.dumps({'temperature': 4.5}))") == Channels(temperature=4.5)


@pytest.mark.parametrize(
    "script, message",
    [
        ("print(21)", "must be an object"),
        ("print(str())", "not JSON"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print(chr(120) * 100000)", "more than"),
    ],
)
def test_a_command_that_gives_no_reading_is_an_error(script, message):
    with pytest.raises(SourceError, match=message):
        run(script)


def test_a_command_that_is_not_there_is_an_error():
    with pytest.raises(SourceError, match="no-such-command"):
        CommandSource("no-such-command").read()


def test_a_command_that_does_not_end_is_ended_with_all_it_started(tmp_path, wait_until):
    pid_file = tmp_path / "pid"
    command = shlex.join(["sh", "-c", f"sleep 1000 & echo $! > {pid_file}; wait"])
    with pytest.raises(SourceError, match=r"longer than 0\.5 s"):
        CommandSource(command, timeout_s=0.5).read()
    child = Path("/proc") / pid_file.read_text().strip()
    wait_until(lambda: not child.exists())


def test_a_command_that_prints_for_ever_is_ended():
    with pytest.raises(SourceError, match="more than"):
        CommandSource("yes").read()


def test_closing_a_command_ends_the_run_that_is_under_way(tmp_path, wait_until):
    marker = tmp_path / "started"
    source = CommandSource(f"sh -c 'touch {marker}; exec sleep 1000'")
    failures = []

    def read():
        try:
            source.read()
        except SourceError as exc:
            failures.append(exc)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(marker.exists)
    source.close()
    thread.join(timeout=8)
    assert not thread.is_alive()
    assert len(failures) == 1
    with pytest.raises(SourceError, match="closed"):
        source.read()


@pytest.mark.parametrize(
    "text, source_type",
    [
        ("hwmon", HwmonSource),
        ("hwmon:sht3x", HwmonSource),
        ("iio", IioSource),
        ("iio:dht11", IioSource),
        ("psutil", HostSource),
        ("simulated", SimulatedSource),
        ("python:package.module:function", FunctionSource),
        ("exec:sensors --json", CommandSource),
    ],
)
def test_a_source_is_named_by_its_kind(text, source_type):
    source = open_source(text)
    assert isinstance(source, source_type)
    assert source.name == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "thermometer",
        "psutil:x",
        "simulated:",
        "hwmon:",
        "python",
        "python:",
        "python:m",
        "python::f",
        "python:m:",
        "exec",
        "exec:",
        "exec: ",
        "exec:'",
    ],
)
def test_a_source_of_no_kind_is_refused(text):
    with pytest.raises(OptionError, match="--source"):
        open_source(text)


def test_no_default_source_makes_values_up():
    assert all(not open_source(text).read().is_simulated for text in DEFAULT_SOURCES)

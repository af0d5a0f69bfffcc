"""Times that never go back, whoever sets the system clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared_context_server.services.clock_alignment import MAX_STEP_US, MIN_STEP_US, ClockAlignment
from shared_context_server.settings import Settings
from shared_context_server.steady_time import MACHINE_CLOCK, SteadyClock
from shared_context_server.storage import Store, open_storage

SECOND_NS = 1_000_000_000
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machine:
    """Its system clock can be set; the time since its start goes on by itself."""

    def __init__(self) -> None:
        self.system_ns = int(NOON.timestamp()) * SECOND_NS
        self.elapsed_ns = 50 * SECOND_NS

    def pass_s(self, seconds: float) -> None:
        self.system_ns += int(seconds * SECOND_NS)
        self.elapsed_ns += int(seconds * SECOND_NS)

    def set_clock_by_s(self, seconds: float) -> None:
        self.system_ns += int(seconds * SECOND_NS)

    def make_clock(self, boot_id: str | None = "boot") -> SteadyClock:
        return SteadyClock(lambda: self.system_ns, lambda: self.elapsed_ns, boot_id)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_storage(Settings(data_dir=tmp_path, database_url=None)) as store:
        yield store


def test_it_is_the_time_of_the_system_clock_while_nobody_sets_that(machine: Machine) -> None:
    clock = machine.make_clock()
    machine.pass_s(10)
    assert clock.now() == NOON + timedelta(seconds=10)
    assert clock.lead_s == 0


def test_a_clock_that_is_set_back_does_not_set_it_back(machine: Machine) -> None:
    clock = machine.make_clock()
    machine.set_clock_by_s(-3600)
    machine.pass_s(5)
    assert clock.now() == NOON + timedelta(seconds=5)
    assert clock.lead_s == 3600


def test_a_clock_that_is_set_forward_is_followed(machine: Machine) -> None:
    clock = machine.make_clock()
    machine.set_clock_by_s(3600)
    assert clock.now() == NOON + timedelta(hours=1)


def test_the_system_clock_is_followed_again_once_it_has_caught_up(machine: Machine) -> None:
    clock = machine.make_clock()
    machine.set_clock_by_s(-60)
    clock.now()
    machine.set_clock_by_s(90)
    assert clock.now() == NOON + timedelta(seconds=30)
    assert clock.lead_s == 0


def test_the_machines_own_clock_tells_the_time_of_day() -> None:
    assert MACHINE_CLOCK.now() >= datetime.now(UTC) - timedelta(seconds=1)
    assert MACHINE_CLOCK.boot_id


async def test_a_process_that_starts_after_the_clock_was_set_back_goes_on_with_the_others(
    machine: Machine, store: Store
) -> None:
    first = machine.make_clock()
    await ClockAlignment(store, first).align()
    machine.set_clock_by_s(-3600)
    machine.pass_s(5)
    second = machine.make_clock()
    assert second.now() < NOON
    await ClockAlignment(store, second).align()
    assert second.now() == first.now() == NOON + timedelta(seconds=5)


async def test_a_step_forward_is_noted_for_processes_that_start_after_a_step_back(
    machine: Machine, store: Store
) -> None:
    first = machine.make_clock()
    alignment = ClockAlignment(store, first)
    await alignment.align()
    machine.set_clock_by_s(600)
    await alignment.align()
    machine.set_clock_by_s(-600)
    second = machine.make_clock()
    await ClockAlignment(store, second).align()
    assert second.now() == first.now() == NOON + timedelta(seconds=600)


async def test_after_a_reboot_the_system_clock_counts(machine: Machine, store: Store) -> None:
    await ClockAlignment(store, machine.make_clock("boot")).align()
    machine.set_clock_by_s(-3600)
    machine.elapsed_ns = 0
    clock = machine.make_clock("another boot")
    await ClockAlignment(store, clock).align()
    assert clock.now() == NOON - timedelta(hours=1)


async def test_more_than_a_day_is_not_taken_over(machine: Machine, store: Store) -> None:
    """It may be a copy of a machine, with the same boot id and another time since its start."""
    clock = machine.make_clock()
    await store.maintenance.note_clock_offset("boot", clock.offset_us + MAX_STEP_US + 1)
    await ClockAlignment(store, clock).align()
    assert clock.now() == NOON


async def test_little_is_not_written(machine: Machine, store: Store) -> None:
    clock = machine.make_clock()
    alignment = ClockAlignment(store, clock)
    await alignment.align()
    noted = clock.offset_us
    machine.set_clock_by_s(MIN_STEP_US / 2e6)
    await alignment.align()
    assert await store.maintenance.find_clock_offset("boot") == noted


async def test_a_system_that_names_no_boot_shares_nothing(machine: Machine, store: Store) -> None:
    clock = machine.make_clock(boot_id=None)
    await ClockAlignment(store, clock).align()
    assert clock.now() == NOON

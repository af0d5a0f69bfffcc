"""The sync client, from one thread and from many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared_context_client import (
    Breaker,
    MemoryNotFound,
    Retries,
    ServerUnavailable,
    SyncSharedContextClient,
)
from tests.client.conftest import API_KEY, PATIENCE_S


@pytest.fixture
def client(server_url: str) -> Iterator[SyncSharedContextClient]:
    with SyncSharedContextClient(server_url, api_key=API_KEY, agent_id="alice") as client:
        yield client


def test_a_session_without_await(client: SyncSharedContextClient) -> None:
    client.authenticate()
    session = client.session(client.create_session("sync").session_id)
    assert session.add("The tests are green.").seq == 1
    assert [message.seq for message in session.messages().messages] == [1]
    assert session.search("tests grean").count == 1
    assert session.wait(after_seq=0, timeout_seconds=1, include_own=True).messages[0].seq == 1
    session.memory.set("state", {"green": True})
    assert session.memory.get("state").value == {"green": True}
    client.memory.set("mine", 1)
    assert client.get_memory("mine").value == 1
    with pytest.raises(MemoryNotFound):
        session.memory.get("nothing")
    with session.lease("deploy") as lease:
        session.add("Deploying.", lease=lease)
        assert client.list_leases(session_id=session.id).leases[0].holder == "alice"
    with client.batch() as batch:
        added = [batch.add_message(session.id, str(n)) for n in range(3)]
    assert [item.result.seq for item in added] == [3, 4, 5]
    session.close()
    assert [message.seq for message in session.follow(0)] == [1, 2, 3, 4, 5]


def test_following_may_be_given_up(client: SyncSharedContextClient) -> None:
    session = client.session(client.create_session("sync").session_id)
    session.add("one")
    for message in session.follow(0):
        assert message.content == "one"
        break
    messages = session.follow(0)
    assert next(messages).seq == 1
    messages.close()


def test_eight_threads_share_a_client(client: SyncSharedContextClient) -> None:
    session_id = client.create_session("threads").session_id

    def write(thread: int) -> list[int]:
        return [client.add_message(session_id, f"{thread}.{n}").seq for n in range(20)]

    with ThreadPoolExecutor(8) as pool:
        seqs = [seq for seqs in pool.map(write, range(8)) for seq in seqs]
    assert sorted(seqs) == list(range(1, 161))


def test_closing_ends_the_thread_and_what_is_under_way(server_url: str) -> None:
    before = set(threading.enumerate())
    client = SyncSharedContextClient(server_url, api_key=API_KEY, agent_id="alice")
    session = client.session(client.create_session("closing").session_id)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.wait, after_seq=0, timeout_seconds=60)
        client.list_sessions()
        client.close()
        assert waiting.exception(PATIENCE_S) is not None
    client.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="closed"):
        client.list_sessions()


def test_a_callback_cannot_wait_for_itself() -> None:
    caught: list[BaseException] = []

    def on_change(*_: object) -> None:
        try:
            client.list_sessions()
        except RuntimeError as exc:
            caught.append(exc)

    client = SyncSharedContextClient(
        "http://127.0.0.1:9",
        api_key=API_KEY,
        breaker=Breaker(failures=1),
        retries=Retries(deadline_s=0),
        on_state_change=on_change,
    )
    with client, pytest.raises(ServerUnavailable):
        client.list_sessions()
    assert len(caught) == 1

"""Subscriptions to resources, by the official SDK's client, in both eras."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated

from shared_context_server import subscriptions
from shared_context_server.events.bus import News
from shared_context_server.models import Caller, Event, EventKind, Permission
from shared_context_server.server import Server
from shared_context_server.subscriptions import SubscribedResource, SubscribedResources
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings
from tests.surfaces.conftest import RestSurface, headers_of, serve
from tests.until import until

MODERN = "2026-07-28"
PATIENCE_S = 30

pytestmark = [
    pytest.mark.timeout(90),
    # What the SDK says of the legacy era's own methods, which are the subject here.
    pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed"),
]


class Subscriber:
    """One client of either era, and the URIs it has been told of."""

    def __init__(self, client: Client, told: asyncio.Queue[str]) -> None:
        self.client = client
        self._told = told

    async def hear(self, *uris: str, but_not: str | None = None) -> None:
        """Wait until told of each of these. One may be told twice of a change, and at the beginning
        of none."""
        missing = set(uris)
        async with asyncio.timeout(PATIENCE_S):
            while missing:
                told = await self._told.get()
                assert told != but_not
                missing.discard(told)


@asynccontextmanager
async def connect(
    url: str, headers: dict[str, str], mode: str, **options: Any
) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http,
        Client(
            streamable_http_client(f"{url}/mcp", http_client=http), mode=mode, **options
        ) as client,
    ):
        yield client


@asynccontextmanager
async def subscribe_modern(
    url: str, headers: dict[str, str], *uris: str
) -> AsyncIterator[Subscriber]:
    told: asyncio.Queue[str] = asyncio.Queue()
    async with (
        connect(url, headers, MODERN) as client,
        client.listen(resource_subscriptions=uris) as stream,
    ):

        async def listen() -> None:
            async for event in stream:
                assert isinstance(event, ResourceUpdated)
                told.put_nowait(event.uri)

        listening = asyncio.create_task(listen())
        try:
            yield Subscriber(client, told)
        finally:
            listening.cancel()


@asynccontextmanager
async def subscribe_legacy(
    url: str, headers: dict[str, str], *uris: str
) -> AsyncIterator[Subscriber]:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def hear(message: Any) -> None:
        if isinstance(message, mcp_types.ResourceUpdatedNotification):
            told.put_nowait(message.params.uri)

    async with connect(url, headers, "legacy", message_handler=hear) as client:
        for uri in uris:
            await client.subscribe_resource(uri)
        yield Subscriber(client, told)


Subscribe = Callable[..., AbstractAsyncContextManager[Subscriber]]


@pytest.fixture(params=[subscribe_modern, subscribe_legacy], ids=["modern", "legacy"])
def subscribe(request: pytest.FixtureRequest) -> Subscribe:
    found: Subscribe = request.param
    return found


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    async with serve(make_settings(tmp_path / "data", mcp_sessions="stateful")) as started:
        yield started


@pytest.fixture
async def alice(url: str) -> AsyncIterator[RestSurface]:
    async with RestSurface(url, headers_of("alice")) as alice:
        yield alice


async def refusal(
    subscribe: Subscribe, url: str, headers: dict[str, str], uri: str
) -> mcp_types.ErrorData:
    """The error that asking to subscribe is answered with."""
    mode = MODERN if subscribe is subscribe_modern else "legacy"
    async with connect(url, headers, mode) as client:
        try:
            if subscribe is subscribe_legacy:
                await client.subscribe_resource(uri)
            else:
                async with client.listen(resource_subscriptions=[uri]):
                    pass
        except MCPError as exc:
            return exc.error
    raise AssertionError(f"{uri} was not refused")


async def new_session(surface: RestSurface, **arguments: Any) -> str:
    session_id: str = (await surface.call("create_session", purpose="x", **arguments))["session_id"]
    return session_id


async def test_who_subscribes_to_a_session_is_told_of_another_s_writes(
    subscribe: Subscribe, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    here = f"session://{session_id}"
    async with subscribe(url, headers_of("bob"), here, f"{here}/messages") as bob:
        await alice.call("add_message", session_id=session_id, content="hello")
        await bob.hear(here, f"{here}/messages")
        read = await bob.client.read_resource(f"{here}/messages")
        assert "hello" in read.contents[0].text  # type: ignore[union-attr]
        await alice.call("close_session", session_id=session_id)
        await bob.hear(here, f"{here}/messages")


async def test_memory_and_leases_are_told_by_place_and_owner(
    subscribe: Subscribe, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    here = f"session://{session_id}"
    uris = (f"{here}/memory", f"{here}/leases", "agent://alice/memory")
    async with subscribe(url, headers_of("alice"), *uris) as subscriber:
        await alice.call("set_memory", key="k", value=1)
        await subscriber.hear("agent://alice/memory")
        await alice.call("set_memory", key="k", value=1, session_id=session_id, scope="shared")
        await subscriber.hear(f"{here}/memory")
        await alice.call("acquire_lease", name="l", session_id=session_id)
        await subscriber.hear(f"{here}/leases")


LOG_KINDS = {"message_added", "messages_expired", "session_closed", "session_deleted"}


@pytest.mark.parametrize(
    "uri, changing",
    [
        *((uri, LOG_KINDS) for uri in ("session://s", "session://s/messages")),
        ("session://s/memory", {"shared in s", "session_deleted"}),
        ("session://s/leases", {"lease_changed", "session_deleted"}),
        ("session://s/tasks", {"message_added", "session_deleted"}),
        ("agent://alice%20b/memory", {"alice b's"}),
        ("session://s/memory/k", {"shared in s", "session_deleted"}),
        ("session://s/memory/other", {"session_deleted"}),
        ("agent://alice%20b/memory/k", {"alice b's"}),
        ("agent://alice%20b/memory/other", set()),
    ],
)
def test_a_resource_is_changed_by(uri: str, changing: set[str]) -> None:
    in_s = {kind.value: Event(kind, "s") for kind in EventKind if kind.value != "memory_changed"}
    memory = {
        "shared in s": Event(EventKind.MEMORY_CHANGED, "s", name="k"),
        "alice b's in s": Event(EventKind.MEMORY_CHANGED, "s", name="k", owner="alice b"),
        "alice b's": Event(EventKind.MEMORY_CHANGED, name="k", owner="alice b"),
        "bob's": Event(EventKind.MEMORY_CHANGED, name="k", owner="bob"),
        "shared": Event(EventKind.MEMORY_CHANGED, name="k"),
    }
    elsewhere = {f"{kind} in t": Event(kind, "t") for kind in EventKind}
    resource = SubscribedResource.parse(uri)
    events = in_s | memory | elsewhere
    assert {name for name, event in events.items() if resource.is_changed_by(event)} == changing


async def test_a_message_that_one_does_not_see_tells_nothing(
    subscribe: Subscribe, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    messages, memory = f"session://{session_id}/messages", f"session://{session_id}/memory"
    async with (
        subscribe(url, headers_of("bob"), messages) as bob,
        subscribe(url, headers_of("eve"), messages, memory) as eve,
    ):
        private = {"visibility": "private", "recipients": ["bob"]}
        await alice.call("add_message", session_id=session_id, content="psst", **private)
        await bob.hear(messages)
        # Eve's stream tells in order, so what would have come first is this.
        await alice.call("set_memory", key="k", value=1, session_id=session_id, scope="shared")
        await eve.hear(memory, but_not=messages)
        await alice.call("add_message", session_id=session_id, content="all")
        await eve.hear(messages)


@pytest.mark.parametrize("needs_resync", [True, False])
async def test_only_visible_messages_that_are_new_are_a_change(
    server: Server, alice: RestSurface, needs_resync: bool
) -> None:
    session_id = await new_session(alice)
    uri = f"session://{session_id}/messages"
    bob, eve = (
        SubscribedResources(
            server.services, Caller(name, "generic", frozenset({Permission.READ}), "key")
        )
        for name in ("bob", "eve")
    )
    await bob.add(uri)
    await eve.add(uri)

    async def tell(resources: SubscribedResources, seq: int) -> list[str]:
        event = Event(EventKind.MESSAGE_ADDED, session_id, seq=seq)
        return await resources.find_changed(News([event], needs_resync))

    private = {"visibility": "private", "recipients": ["bob"]}
    await alice.call("add_message", session_id=session_id, content="psst", **private)
    assert (await tell(bob, 1), await tell(eve, 1)) == ([uri], [])
    assert await tell(bob, 1) == []  # heard twice
    await alice.call("add_message", session_id=session_id, content="all")
    assert (await tell(bob, 2), await tell(eve, 2)) == ([uri], [uri])


async def test_each_resource_is_refused_as_reading_it_is(
    subscribe: Subscribe, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice, access="invited")
    missing = [f"session://{session_id}", f"session://{session_id}/leases", "session://x", "no://x"]
    for uri in missing:
        error = await refusal(subscribe, url, headers_of("eve"), uri)
        assert error.code == mcp_types.INVALID_PARAMS
        assert "not found" in error.message
        assert error.data == {"uri": uri}
    denied = await refusal(subscribe, url, headers_of("eve"), "agent://alice/memory")
    assert denied.data["code"] == "PERMISSION_DENIED"
    async with subscribe(url, headers_of("the-admin", api_key=ADMIN_API_KEY), missing[0]) as admin:
        await alice.call("add_message", session_id=session_id, content="hello")
        await admin.hear(missing[0])


async def test_the_anonymous_subscribe_to_nothing(
    subscribe: Subscribe, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    error = await refusal(subscribe, url, {}, f"session://{session_id}")
    assert error.data["code"] == "UNAUTHENTICATED"


async def test_who_goes_frees_the_subscription(
    subscribe: Subscribe, server: Server, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    async with subscribe(url, headers_of("bob"), f"session://{session_id}"):
        await until(lambda: server.services.bus.subscriber_count == 1)
    await until(lambda: server.services.bus.subscriber_count == 0)


async def test_a_listen_stream_ends_with_its_token_and_says_so(
    url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    granted, bearer = await authenticate_bob(alice)
    async with (
        connect(url, bearer, MODERN) as client,
        client.listen(resource_subscriptions=[f"session://{session_id}"]) as stream,
    ):
        await alice.call("revoke_token", auth_token=granted)
        await alice.call("add_message", session_id=session_id, content="secret")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(SubscriptionLost) as lost:
                await anext(stream)
    assert isinstance(lost.value.__cause__, MCPError)
    assert lost.value.__cause__.error.data["code"] == "UNAUTHENTICATED"


async def test_a_legacy_subscriber_reads_that_the_token_has_ended(
    server: Server, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    granted, bearer = await authenticate_bob(alice)
    uri = f"session://{session_id}"
    async with subscribe_legacy(url, bearer, uri) as bob:
        await alice.call("add_message", session_id=session_id, content="hello")
        await bob.hear(uri)  # there is a stream
        await alice.call("revoke_token", auth_token=granted)
        server.services.bus.wake_all()
        await bob.hear(uri)
        await until(lambda: server.services.bus.subscriber_count == 0)


async def authenticate_bob(alice: RestSurface) -> tuple[str, dict[str, str]]:
    """A token of bob's, and the headers with it."""
    granted = await alice.call("authenticate_agent", agent_id="bob", api_key=API_KEY)
    return granted["token"], {"Authorization": f"Bearer {granted['token']}"}


async def test_what_always_changes_is_left_out_of_a_listen_stream(url: str) -> None:
    uris = ["clock://now", "sensors://all", "agent://bob/memory"]
    async with (
        connect(url, headers_of("bob"), MODERN) as client,
        client.listen(resource_subscriptions=uris) as stream,
    ):
        assert stream.honored.resource_subscriptions == ["agent://bob/memory"]


async def test_listen_streams_end_as_closed_when_the_server_stops(
    server: Server, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    async with (
        connect(url, headers_of("bob"), MODERN) as client,
        client.listen(resource_subscriptions=[f"session://{session_id}"]) as stream,
    ):
        server.stop()
        async with asyncio.timeout(PATIENCE_S):
            assert [event async for event in stream] == []  # SubscriptionLost otherwise


async def test_unsubscribing_ends_the_telling(url: str, alice: RestSurface) -> None:
    session_id = await new_session(alice)
    messages, memory = f"session://{session_id}/messages", f"session://{session_id}/memory"
    async with subscribe_legacy(url, headers_of("bob"), messages, memory) as bob:
        await bob.client.unsubscribe_resource(messages)
        await alice.call("add_message", session_id=session_id, content="hello")
        await alice.call("set_memory", key="k", value=1, session_id=session_id, scope="shared")
        await bob.hear(memory, but_not=messages)


async def test_a_session_bound_by_authenticating_may_subscribe(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, mcp_sessions="stateful", mcp_session_identity=True)
    async with (
        serve(settings) as (_, url),
        RestSurface(url, headers_of("alice")) as alice,
        subscribe_legacy(url, {}) as bob,
    ):
        session_id = await new_session(alice)
        await bob.client.call_tool("authenticate_agent", {"agent_id": "bob", "api_key": API_KEY})
        await bob.client.subscribe_resource("agent://bob/memory")
        await bob.client.call_tool("set_memory", {"key": "k", "value": 1})
        await bob.hear("agent://bob/memory")
        await bob.client.subscribe_resource(f"session://{session_id}")
        await alice.call("add_message", session_id=session_id, content="hello")
        await bob.hear(f"session://{session_id}")


async def test_a_stateless_server_offers_legacy_clients_no_subscriptions(tmp_path: Path) -> None:
    async with (
        serve(make_settings(tmp_path / "stateless")) as (_, url),
        connect(url, headers_of("bob"), "legacy") as legacy,
        connect(url, headers_of("bob"), "auto") as modern,
    ):
        assert not legacy.server_capabilities.resources.subscribe  # type: ignore[union-attr]
        assert modern.server_capabilities.resources.subscribe  # type: ignore[union-attr]


async def test_events_that_were_forgotten_are_made_good_under_one_s_own_rights(
    server: Server, url: str, alice: RestSurface
) -> None:
    session_id = await new_session(alice)
    messages, leases = f"session://{session_id}/messages", f"session://{session_id}/leases"
    async with subscribe_modern(url, headers_of("eve"), messages, leases) as eve:
        private = {"visibility": "private", "recipients": ["bob"]}
        await alice.call("add_message", session_id=session_id, content="psst", **private)
        server.services.bus.deliver_resync()
        await eve.hear(leases, but_not=messages)
        await alice.call("add_message", session_id=session_id, content="all")
        await eve.hear(messages)


async def test_open_streams_are_limited(
    url: str, alice: RestSurface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_STREAMS", 1)
    uri = f"session://{await new_session(alice)}"
    async with subscribe_modern(url, headers_of("bob"), uri) as bob:
        error = await refusal(subscribe_modern, url, headers_of("eve"), uri)
        assert error.data["code"] == "UNAVAILABLE"
        await alice.call("add_message", session_id=uri.removeprefix("session://"), content="x")
        await bob.hear(uri)

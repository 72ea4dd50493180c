"""Sessions that are shared, drained, kept, prioritised; events and statistics of nodes."""

import asyncio
from typing import TypeVar

import pytest
from conftest import ECHO, Pair, echo, until

import hcp
from hcp import NodeEvent
from hcp.errors import ClosedError, InvalidInputError, UnreachableError

SOON = hcp.Backoff(hcp.MIN_BACKOFF, 0.05)

_T = TypeVar("_T", bound=NodeEvent)


async def follow(events: hcp.NodeEvents, kind: type[_T]) -> _T:
    """The next event of a kind."""
    async for event in events:
        if isinstance(event, kind):
            return event
    pytest.fail("the node is gone")


async def echoes(session: hcp.Session) -> None:
    async with await session.open(ECHO) as stream:
        await stream.send(b"here")
        assert await stream.recv() == b"here"


async def test_two_nodes_share_one_session() -> None:
    network = hcp.MemoryNetwork()
    protocols = {ECHO: (hcp.Access.IDENTIFIED, echo)}
    one = await hcp.Node.bind(hcp.Identity.generate(), network, protocols)
    other = await hcp.Node.bind(hcp.Identity.generate(), network, protocols)
    session = await one.connect(other.address)
    await echoes(session)
    back = await other.connect(one.address)
    assert (session.dialled_by, back.dialled_by) == (hcp.DialledBy.US, hcp.DialledBy.PEER)
    await echoes(back)
    assert (one.stats().sessions_dialled, one.stats().sessions_accepted, one.stats().sessions_open) == (1, 0, 1)
    assert (other.stats().sessions_dialled, other.stats().sessions_accepted) == (0, 1)


async def test_a_throw_away_identity_is_somebody_else() -> None:
    network = hcp.MemoryNetwork()

    async def who(stream: hcp.Stream, session: hcp.Session) -> None:
        await stream.send(str(session.peer).encode())

    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"who": (hcp.Access.IDENTIFIED, who)})
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    somebody = hcp.Identity.generate()
    async with await client.connect_as(server.address, somebody) as session:
        assert await (await session.open("who")).recv() == str(somebody.address).encode()
    assert await (await (await client.connect(server.address)).open("who")).recv() == str(client.address).encode()


async def test_draining_lets_open_streams_end(pair: Pair) -> None:
    session = await pair.client.connect(pair.server.address)
    stream = await session.open(ECHO)
    await stream.send(b"before")
    assert await stream.recv() == b"before"
    draining = asyncio.create_task(session.drain(30))
    while True:
        try:
            (await session.open(ECHO)).reset()
        except ClosedError as error:
            assert error.reason == "Draining"
            break
        await asyncio.sleep(0.001)
    await stream.send(b"still")
    assert await stream.recv() == b"still"
    await stream.finish()
    assert await stream.recv() is None
    assert await draining
    # With a stream that nobody ends, it takes as long as it may.
    session = await pair.client.connect(pair.server.address)
    stream = await session.open(ECHO)
    await stream.send(b"open")
    assert await stream.recv() == b"open"
    assert not await session.drain(0.05)
    assert (await session.closed()).reason == "Shutdown"
    with pytest.raises(InvalidInputError):
        await session.drain(-1)


async def test_bulk_travels_on_lanes(pair: Pair) -> None:
    priorities: list[hcp.Priority] = []

    async def count(stream: hcp.Stream, _session: hcp.Session) -> None:
        priorities.append(stream.priority)
        total = sum([len(message) async for message in stream])
        await stream.send(str(total).encode())

    async with (
        await hcp.Node.bind(
            hcp.Identity.generate(), pair.network, {"count": (hcp.Access.ANYONE, count)}
        ) as server,
        await hcp.Node.bind(hcp.Identity.generate(), pair.network, lanes=1) as client,
    ):
        events = client.events()
        session = await client.connect(server.address)
        assert session.stats().lanes == 0
        stream = await session.open("count", hcp.Priority.BULK)
        assert stream.priority == hcp.Priority.BULK
        assert (await follow(events, NodeEvent.LaneBegan)).peer == server.address
        await until(lambda: session.stats().lanes == 1)
        for _ in range(40):
            await stream.send(bytes(100_000))
        await stream.finish()
        assert await stream.recv() == b"4000000"
        stats = session.stats()
        assert stats.bytes_sent > 4_000_000
        assert stats.padding_sent > 0
        assert stats.frames_sent > 40
        assert stats.frames_received > 0
        assert stats.bytes_received > 0
        assert stats.frames_resent == 0
        assert (client.stats().lanes_joined, server.stats().lanes_joined) == (1, 1)
        control = await session.open("count", priority=hcp.Priority.CONTROL)
        await control.finish()
        assert await control.recv() == b"0"
        await session.shutdown()
    assert priorities == [hcp.Priority.BULK, hcp.Priority.CONTROL]


async def test_too_many_lanes_are_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        await hcp.Node.bind(hcp.Identity.generate(), hcp.MemoryNetwork(), lanes=hcp.MAX_LANES + 1)
    assert caught.value.reason == "Lanes"


async def test_events_tell_what_happens(pair: Pair) -> None:
    near, far = pair.client.events(), pair.server.events()
    nobody = hcp.Identity.generate().address
    with pytest.raises(UnreachableError):
        await pair.client.connect(nobody)
    match await anext(near):
        case NodeEvent.DialFailed(address, kind, reason):
            assert (address, kind) == (nobody, hcp.ErrorKind.UNREACHABLE)
            assert "nobody serves" in reason
        case event:
            pytest.fail(f"not expected: {event}")
    assert pair.client.stats().dials_failed == 1
    session = await pair.client.connect(pair.server.address)
    began = await follow(near, NodeEvent.SessionBegan)
    assert (began.peer, began.dialled_by) == (pair.server.address, hcp.DialledBy.US)
    accepted = await follow(far, NodeEvent.SessionBegan)
    assert (accepted.peer, accepted.dialled_by) == (pair.client.address, hcp.DialledBy.PEER)
    # A cancelled reader loses nothing.
    waiting = asyncio.create_task(anext(near))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await session.shutdown()
    ended = await follow(near, NodeEvent.SessionEnded)
    assert (ended.peer, ended.dialled_by, ended.error.reason) == (pair.server.address, hcp.DialledBy.US, "Shutdown")
    assert isinstance((await follow(far, NodeEvent.SessionEnded)).error, ClosedError)
    await pair.client.shutdown()
    assert [event async for event in near] == []
    with pytest.raises(ClosedError):
        pair.client.events()
    with pytest.raises(ClosedError):
        pair.client.stats()


async def test_a_slow_reader_is_told_what_it_missed(pair: Pair) -> None:
    events = pair.client.events()
    nobody = hcp.Identity.generate().address
    for _ in range(hcp.EVENT_QUEUE + 3):
        with pytest.raises(UnreachableError):
            await pair.client.connect(nobody)
    missed = await anext(events)
    assert isinstance(missed, NodeEvent.Missed)
    assert missed.count == 3
    assert isinstance(await anext(events), NodeEvent.DialFailed)


async def test_a_kept_session_comes_back() -> None:
    network, identity = hcp.MemoryNetwork(), hcp.Identity.generate()
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    async with client.maintain(identity.address, SOON) as kept:
        assert kept.current() is None
        for _ in range(2):
            async with await hcp.Node.bind(identity, network, {ECHO: (hcp.Access.ANYONE, echo)}):
                await echoes(await kept.session())
                assert kept.current() is not None
            await until(lambda: kept.current() is None)
        waiting = asyncio.create_task(kept.session())
        await asyncio.sleep(0)
    # What waited is told that nobody dials any more.
    with pytest.raises(ClosedError):
        await waiting
    assert kept.current() is None


async def test_a_node_that_is_shut_down_keeps_no_session(pair: Pair) -> None:
    kept = pair.client.maintain(pair.server.address, SOON)
    await echoes(await kept.session())
    await pair.client.shutdown()
    with pytest.raises(ClosedError):
        await kept.session()
    with pytest.raises(ClosedError):
        pair.client.maintain(pair.server.address)
    await until(lambda: pair.server.stats().sessions_open == 0)
    accepted = pair.server.stats().sessions_accepted
    await asyncio.sleep(0.2)
    assert pair.server.stats().sessions_accepted == accepted


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (2, 1), (1, hcp.MAX_BACKOFF + 1), (float("nan"), 1)])
def test_impossible_backoff_is_refused(first: float, longest: float) -> None:
    with pytest.raises(InvalidInputError):
        hcp.Backoff(first, longest)


def test_backoff_has_the_defaults_of_the_core() -> None:
    assert (hcp.Backoff().first, hcp.Backoff().longest) == (1, 60)
    assert hcp.Backoff(1, 60) == hcp.Backoff() != SOON


async def test_a_session_is_kept_as_whoever_is_to_dial() -> None:
    network = hcp.MemoryNetwork()
    peers: list[hcp.OnionAddress | None] = []

    async def who(_stream: hcp.Stream, session: hcp.Session) -> None:
        peers.append(session.peer)

    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"who": (hcp.Access.ANYONE, who)})
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    somebody = hcp.Identity.generate()
    for me in (hcp.DialAs.node(), hcp.DialAs.anonymous(), hcp.DialAs.identity(somebody)):
        async with client.maintain_as(server.address, me, SOON) as kept:
            first = await kept.session()
            assert await (await first.open("who")).recv() is None
            assert first.replica is None
            await first.shutdown()
            assert await (await (await kept.after(first)).open("who")).recv() is None
        with pytest.raises(ClosedError):
            await kept.after(first)
    assert peers == [client.address, client.address, None, None, somebody.address, somebody.address]
    assert [repr(me()) for me in (hcp.DialAs.node, hcp.DialAs.anonymous)] == ["DialAs.node()", "DialAs.anonymous()"]
    assert repr(hcp.DialAs.identity(somebody)) == "DialAs.identity([redacted])"

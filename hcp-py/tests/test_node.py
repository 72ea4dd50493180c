"""Nodes, sessions and streams on a memory network."""

import asyncio
import gc
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import ECHO, Pair, echo, until

import hcp
from hcp.errors import ClosedError, InUseError, InvalidInputError, RefusedError, UnreachableError

LOCAL: ContextVar[str] = ContextVar("LOCAL")


async def open_echo(pair: Pair) -> tuple[hcp.Session, hcp.Stream]:
    session = await pair.client.connect(pair.server.address)
    return session, await session.open(ECHO)


async def test_echo(pair: Pair) -> None:
    assert await pair.server.reachable()
    session, stream = await open_echo(pair)
    assert session.peer == pair.server.address
    for message in (b"hello", bytearray(b"array"), memoryview(b"view"), b""):
        await stream.send(message)
        assert await stream.recv() == bytes(message)
    await stream.finish()
    assert await stream.recv() is None
    assert await stream.recv() is None
    await session.shutdown()


async def test_local_network_echoes(tmp_path: Path) -> None:
    network = hcp.LocalNetwork(tmp_path)
    async with (
        await hcp.Node.bind(hcp.Identity.generate(), network, {ECHO: (hcp.Access.IDENTIFIED, echo)}) as server,
        await hcp.Node.bind(hcp.Identity.generate(), network) as client,
        await client.connect(server.address) as session,
        await session.open(ECHO) as stream,
    ):
        await stream.send(b"hello")
        assert await stream.recv() == b"hello"
    assert not list(tmp_path.iterdir())


async def test_handler_sees_who_dials() -> None:
    network = hcp.MemoryNetwork()

    async def who(stream: hcp.Stream, session: hcp.Session) -> None:
        await stream.send(str(session.peer or "nobody").encode())

    protocols = {
        "who": (hcp.Access.ANYONE, who),
        "known": (hcp.Access.IDENTIFIED, who),
    }
    server = await hcp.Node.bind(hcp.Identity.generate(), network, protocols)
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    session = await client.connect(server.address)
    stream = await session.open("who")
    assert await stream.recv() == str(client.address).encode()
    # A handler that returns finishes its stream.
    assert await stream.recv() is None

    anonymous = await client.connect_anonymously(server.address)
    assert await (await anonymous.open("who")).recv() == b"nobody"
    with pytest.raises(RefusedError) as caught:
        await (await anonymous.open("known")).recv()
    assert caught.value.reason == "AnonymousRefused"
    with pytest.raises(RefusedError) as unknown:
        await (await session.open("unknown")).recv()
    assert unknown.value.reason == "UnknownProtocol"


async def test_handler_opens_a_stream_back() -> None:
    network = hcp.MemoryNetwork()

    async def call_back(stream: hcp.Stream, session: hcp.Session) -> None:
        async with await session.open(ECHO) as back:
            await back.send(b"back")
            await stream.send(await back.recv() or b"")

    async with (
        await hcp.Node.bind(hcp.Identity.generate(), network, {"call": (hcp.Access.IDENTIFIED, call_back)}) as server,
        await hcp.Node.bind(hcp.Identity.generate(), network, {ECHO: (hcp.Access.IDENTIFIED, echo)}) as client,
        await client.connect(server.address) as session,
        await session.open("call") as stream,
    ):
        assert await stream.recv() == b"back"


async def test_iteration_ends_when_the_peer_finishes(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    expected = [bytes([number]) * number for number in range(50)]
    sender = stream.sender()

    async def send_all() -> None:
        for message in expected:
            await sender.send(message)
        await sender.finish()

    sending = asyncio.create_task(send_all())
    assert [message async for message in stream] == expected
    await sending
    with pytest.raises(ClosedError) as caught:
        await stream.send(b"after the end")
    assert caught.value.reason == "Finished"


async def test_sender_does_not_keep_the_stream(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    sender = stream.sender()
    await sender.send(b"one")
    assert await stream.recv() == b"one"
    del stream

    async def refused() -> None:
        while True:
            await sender.send(b"nobody")

    with pytest.raises(ClosedError):
        await refused()


async def test_operations_are_coroutines(pair: Pair) -> None:
    connecting = asyncio.create_task(pair.client.connect(pair.server.address))
    async with asyncio.TaskGroup() as group:
        reaching = group.create_task(pair.server.reachable())
    session = await connecting
    assert reaching.result()
    opening = session.open(ECHO)
    stream = await opening
    with pytest.raises(RuntimeError, match="ended already"):
        await opening
    # One that is never awaited does nothing and says nothing.
    stream.recv()  # pyright: ignore[reportUnusedCoroutine]
    await stream.send(b"hello")
    assert await asyncio.wait_for(stream.recv(), 30) == b"hello"


async def test_cancelling_a_receive_loses_nothing(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    for number in range(300):
        message = number.to_bytes(2)
        receiving = asyncio.create_task(stream.recv())
        await stream.send(message)
        # At every possible moment: before it waits, while it waits, and when the message is there already.
        for _ in range(number % 12):
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            received = await receiving
        except asyncio.CancelledError:
            received = await stream.recv()
        assert received == message


async def test_message_is_kept_when_the_task_is_cancelled_after_it_came(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    receiving = stream.recv()
    future = cast("asyncio.Future[None]", receiving.send(None))
    assert isinstance(future, asyncio.Future)
    await stream.send(b"precious")
    await asyncio.wait([future])
    # The future has its result; the task that waits for it is cancelled before it runs.
    with pytest.raises(asyncio.CancelledError):
        receiving.throw(asyncio.CancelledError())
    assert await stream.recv() == b"precious"


async def test_two_receivers_share_the_messages(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    receivers = [asyncio.create_task(stream.recv()) for _ in range(8)]
    for number in range(8):
        await stream.send(bytes([number]))
    received = await asyncio.gather(*receivers)
    assert sorted(message for message in received if message) == [bytes([number]) for number in range(8)]


async def test_cancelling_a_connect_drops_the_attempt(tmp_path: Path) -> None:
    silent = hcp.Identity.generate().address
    client = await hcp.Node.bind(hcp.Identity.generate(), hcp.LocalNetwork(tmp_path))
    dialled, ended = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / f"{silent}.{hcp.HCP_PORT}.silent").write_text(str(port))
        connecting = asyncio.create_task(client.connect(silent))
        await dialled.wait()
        assert not ended.is_set()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await ended.wait()


async def test_connecting_to_an_address_that_nobody_serves_says_so() -> None:
    client = await hcp.Node.bind(hcp.Identity.generate(), hcp.MemoryNetwork())
    with pytest.raises(UnreachableError) as caught:
        await client.connect(hcp.Identity.generate().address)
    assert caught.value.reason == "NotFound"
    assert str(caught.value) == "cannot reach the peer: nobody serves this address and port"


async def test_an_address_is_free_as_soon_as_its_node_is_shut_down() -> None:
    network, identity = hcp.MemoryNetwork(), hcp.Identity.generate()
    server = await hcp.Node.bind(identity, network)
    with pytest.raises(InUseError):
        await hcp.Node.bind(identity, network)
    await server.shutdown()
    await (await hcp.Node.bind(identity, network)).shutdown()


async def test_cancelled_send_drops_the_future_that_holds_the_window(pair: Pair) -> None:
    async def deaf(stream: hcp.Stream, session: hcp.Session) -> None:
        assert (await session.closed()).kind is hcp.ErrorKind.CLOSED

    async with await hcp.Node.bind(
        hcp.Identity.generate(), pair.network, {"deaf": (hcp.Access.ANYONE, deaf)}
    ) as server:
        session = await pair.client.connect(server.address)
        stream = await session.open("deaf")
        full = bytes(hcp.MAX_MESSAGE)
        await stream.send(full)
        blocked = asyncio.create_task(stream.send(full))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(blocked)
        # A small one waits behind it, as sends keep their order; it goes as soon as the big one is dropped.
        small = asyncio.create_task(stream.send(b"small"))
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        await small
        await session.shutdown()


async def test_too_long_a_message_is_refused(pair: Pair) -> None:
    _session, stream = await open_echo(pair)
    with pytest.raises(InvalidInputError) as caught:
        await stream.send(bytes(hcp.MAX_MESSAGE + 1))
    assert caught.value.reason == "TooLong"
    longest = bytes(hcp.MAX_MESSAGE)
    await stream.send(longest)
    assert await stream.recv() == longest


async def test_streams_of_a_session_are_bounded(pair: Pair) -> None:
    session = await pair.client.connect(pair.server.address)
    streams = [await session.open(ECHO) for _ in range(hcp.MAX_STREAMS)]
    with pytest.raises(hcp.errors.LimitExceededError):
        await session.open(ECHO)
    for stream in streams:
        stream.reset()
    with pytest.raises(InvalidInputError):
        await session.open("x" * (hcp.MAX_PROTOCOL_NAME + 1))


async def test_reset_wakes_what_waits_and_shows_at_the_peer() -> None:
    network = hcp.MemoryNetwork()
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def wait(stream: hcp.Stream, _session: hcp.Session) -> None:
        await stream.send(b"ready")
        try:
            await stream.recv()
        except hcp.HcpError as error:
            ended.set_result(error)

    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"wait": (hcp.Access.ANYONE, wait)})
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    stream = await (session := await client.connect(server.address)).open("wait")
    assert await stream.recv() == b"ready"
    waiting = asyncio.create_task(stream.recv())
    await asyncio.sleep(0)
    stream.reset()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await stream.send(b"late")
    error = await ended
    assert isinstance(error, ClosedError)
    assert error.reason == "Reset"
    await session.shutdown()


async def test_exception_inside_a_stream_resets_it(pair: Pair) -> None:
    session = await pair.client.connect(pair.server.address)
    stream = await session.open(ECHO)
    with pytest.raises(ZeroDivisionError):
        async with stream:
            raise ZeroDivisionError
    with pytest.raises(ClosedError):
        await stream.recv()


async def test_handler_that_raises_is_reported_and_resets_its_stream(reports: list[dict[str, Any]]) -> None:
    network = hcp.MemoryNetwork()

    async def fail(stream: hcp.Stream, _session: hcp.Session) -> None:
        if await stream.recv() == b"fail":
            raise ZeroDivisionError
        await stream.send(b"fine")

    def no_coroutine(_stream: hcp.Stream, _session: hcp.Session) -> Any:
        return 1

    protocols = {"fail": (hcp.Access.ANYONE, fail), "wrong": (hcp.Access.ANYONE, no_coroutine)}
    server = await hcp.Node.bind(hcp.Identity.generate(), network, protocols)
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    session = await client.connect(server.address)
    for protocol, error in (("fail", ZeroDivisionError), ("wrong", TypeError)):
        stream = await session.open(protocol)
        if protocol == "fail":
            await stream.send(b"fail")
        with pytest.raises(ClosedError) as caught:
            await stream.recv()
        assert caught.value.reason == "Reset"
        report = reports.pop()
        assert isinstance(report["exception"], error)
        assert report["message"] == f'the handler of the protocol "{protocol}" failed'
        assert not reports
    # The node, the session and the handler live on.
    stream = await session.open("fail")
    await stream.send(b"do not")
    assert await stream.recv() == b"fine"


async def test_peer_that_leaves_is_no_failure_of_the_handler(reports: list[dict[str, Any]]) -> None:
    network = hcp.MemoryNetwork()
    ends: list[str] = []

    async def wait(stream: hcp.Stream, _session: hcp.Session) -> None:
        await stream.send(b"ready")
        try:
            async for _ in stream:
                pass
        except hcp.HcpError as error:
            ends.append(error.reason)
            raise
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"wait": (hcp.Access.ANYONE, wait)})
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    session = await client.connect(server.address)
    stream = await session.open("wait")
    assert await stream.recv() == b"ready"
    stream.reset()
    await until(lambda: ends == ["Reset"])

    stream = await session.open("wait")
    assert await stream.recv() == b"ready"
    await session.shutdown()
    await until(lambda: len(ends) == 2)
    assert ends[1] in ("cancelled", "SessionEnded")
    assert not reports


async def test_handler_runs_in_the_context_of_its_bind() -> None:
    network = hcp.MemoryNetwork()

    async def show(stream: hcp.Stream, _session: hcp.Session) -> None:
        await stream.send(LOCAL.get().encode())
        LOCAL.set("changed by a handler")

    LOCAL.set("bound here")
    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"show": (hcp.Access.ANYONE, show)})
    LOCAL.set("later")
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    session = await client.connect(server.address)
    for _ in range(2):
        assert await (await session.open("show")).recv() == b"bound here"


async def test_closed_tells_why(pair: Pair) -> None:
    session = await pair.client.connect(pair.server.address)
    closing = asyncio.create_task(session.closed())
    await pair.server.shutdown()
    error = await closing
    assert isinstance(error, hcp.HcpError)
    assert error.reason in ("Lost", "ClosedByPeer")
    with pytest.raises(ClosedError):
        await session.open(ECHO)

    other = await pair.client.connect_anonymously(pair.client.address)
    await other.shutdown()
    assert (await other.closed()).reason == "Shutdown"


async def test_round_trip_is_measured(pair: Pair) -> None:
    async with (
        await hcp.Node.bind(hcp.Identity.generate(), pair.network, keepalive=(0.01, 10)) as client,
        await client.connect(pair.server.address) as session,
    ):
        await until(lambda: session.round_trip is not None)
        assert session.round_trip is not None
        assert 0 < session.round_trip < 10


@pytest.mark.parametrize("keepalive", [(0, 1), (2, 1), (1, hcp.MAX_KEEPALIVE + 1), (-1, 1), (1, float("nan"))])
async def test_impossible_keepalive_is_refused(keepalive: tuple[float, float]) -> None:
    with pytest.raises(InvalidInputError):
        await hcp.Node.bind(hcp.Identity.generate(), hcp.MemoryNetwork(), keepalive=keepalive)


async def test_impossible_protocols_are_refused() -> None:
    network = hcp.MemoryNetwork()
    with pytest.raises(InvalidInputError):
        await hcp.Node.bind(hcp.Identity.generate(), network, {"": (hcp.Access.ANYONE, echo)})
    with pytest.raises(TypeError):
        await hcp.Node.bind(hcp.Identity.generate(), network, {"x": (hcp.Access.ANYONE, 1)})  # type: ignore[dict-item]  # pyright: ignore
    with pytest.raises(TypeError):
        await hcp.Node.bind(hcp.Identity.generate(), network, {"x": echo})  # type: ignore[dict-item]  # pyright: ignore


async def test_address_is_served_once_and_free_after_shutdown() -> None:
    network = hcp.MemoryNetwork()
    identity = hcp.Identity.generate()
    node = await hcp.Node.bind(identity, network)
    with pytest.raises(InUseError):
        await hcp.Node.bind(identity, network)
    await node.shutdown()
    await node.shutdown()
    assert node.address == identity.address
    with pytest.raises(ClosedError):
        await node.connect(identity.address)
    with pytest.raises(ClosedError):
        node.status()
    await (await hcp.Node.bind(identity, network)).shutdown()


async def test_forgotten_node_is_withdrawn() -> None:
    network = hcp.MemoryNetwork()
    identity = hcp.Identity.generate()
    node = await hcp.Node.bind(identity, network)
    status = node.status()
    del node
    gc.collect()
    assert [each async for each in status] == [hcp.ListenerStatus.Reachable()]
    await (await hcp.Node.bind(identity, network)).shutdown()


async def test_status_can_be_watched(pair: Pair) -> None:
    status = pair.server.status()
    assert status.value == hcp.ListenerStatus.Reachable()
    assert await anext(status) == hcp.ListenerStatus.Reachable()
    waiting = asyncio.create_task(anext(status, None))
    await pair.server.shutdown()
    seen = await waiting
    while seen is not None:
        assert seen == hcp.ListenerStatus.Stopped()
        seen = await anext(status, None)
    statuses: list[hcp.ListenerStatus] = [hcp.ListenerStatus.Broken("a problem"), hcp.ListenerStatus.Stopped()]
    problems: list[str | None] = []
    for each in statuses:
        match each:
            case hcp.ListenerStatus.Broken(problem):
                problems.append(problem)
            case _:
                problems.append(None)
    assert problems == ["a problem", None]

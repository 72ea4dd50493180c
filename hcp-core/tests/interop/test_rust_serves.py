"""This implementation dials the library's node."""

import hashlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Rust
from hcp_reader import frames as fr
from hcp_reader.delegation import DelegationRefused, Floors
from hcp_reader.drive import PATIENCE, Tcp, begin, connect, dial, join
from hcp_reader.frames import BULK_STREAM, CONTROL_STREAM, LIVE_STREAM, Frame, control, padme
from hcp_reader.keys import Secret, onion
from hcp_reader.opening import Dialling, LaneDialling, Link, join_mac
from hcp_reader.schedule import MAX_FRAGMENT, SUITES
from hcp_reader.stream import MAX_MESSAGE, Kept

Connect = Callable[..., Tcp]


@pytest.fixture
def dialled(rust: Rust) -> Iterator[Connect]:
    """Sessions with the node; the keyword arguments are those of Dialling."""
    opened = list[Tcp]()

    def make(**arguments: Any) -> Tcp:
        tcp = dial(Dialling(rust.node, **arguments), connect(rust.folder, rust.node))
        opened.append(tcp)
        return tcp

    yield make
    for tcp in opened:
        tcp.shut()


def ask(tcp: Tcp, protocol: str, *messages: bytes, priority: int = LIVE_STREAM) -> int:
    stream = tcp.session.open(protocol, priority)
    for message in messages:
        tcp.session.send(stream, message)
    return stream


def barrier(tcp: Tcp) -> None:
    """Waits until the node has answered all that was sent before."""
    tcp.session.ping()
    tcp.event("pong")


def check_padding(records: list[int], only_messages: bool) -> None:
    """Whether records of these lengths can be flushes that are padded as section 9 says.

    TLS cuts a flush at 16 KiB, so flushes show as whole fragments with at most one shorter record behind them.
    """
    assert records[0] == 1_024
    whole = 0
    for length in records:
        if length == MAX_FRAGMENT:
            whole += 1
            continue
        if only_messages:
            # 65,536 are four fragments; the other classes are one record each.
            assert length in (1_024, 4_096), records
        else:
            rests = [whole % 4 * MAX_FRAGMENT + length, length]
            assert length in (1_024, 4_096) or any(padme(rest) == rest for rest in rests), records
            assert any(padme(n * MAX_FRAGMENT + length) == n * MAX_FRAGMENT + length for n in range(4)), records
        whole = 0


@pytest.mark.parametrize("suite", SUITES)
def test_an_identified_dialler_is_known_and_an_anonymous_one_is_not(rust: Rust, dialled: Connect, suite: int) -> None:
    me = Secret()
    known, unknown = dialled(me=me, suites=[suite]), dialled(suites=[suite])
    assert known.session.conns[0].tls.suite == suite
    assert known.message(ask(known, "test/who/1")) == onion(me.public).encode()
    assert unknown.message(ask(unknown, "test/who/1")) == b"anonymous"
    for tcp in (known, unknown):
        assert tcp.session.theirs.window == 655_360 and tcp.session.theirs.max_streams == 32
        check_padding(tcp.session.conns[0].tls.records, True)


def test_streams_that_are_not_served_are_reset_with_the_codes_of_the_document(dialled: Connect) -> None:
    tcp = dialled()
    for protocol, code in (("test/none/1", 1), ("test/members/1", 2), ("test/drop/1", 3)):
        stream = ask(tcp, protocol)
        assert (tcp.event("reset").number, tcp.session.ended[stream].reset) == (stream, code)


@pytest.mark.parametrize("priority", [LIVE_STREAM, BULK_STREAM, CONTROL_STREAM, 77])
@pytest.mark.parametrize("chunk", [None, 4_096, 100])
def test_messages_of_every_size_come_back_and_both_directions_end(
    dialled: Connect, priority: int, chunk: int | None
) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/echo/1", priority=priority)
    sizes = [0, 1, 4_095, 65_526, 65_536, 70_000, 3, MAX_MESSAGE if chunk != 100 else 200_000]
    for number, size in enumerate(sizes):
        message = bytes([number + 1]) * size
        tcp.session.send(stream, message, chunk)
        assert tcp.message(stream) == message
    tcp.session.finish(stream)
    tcp.event("finished")
    tcp.until(lambda: stream in tcp.session.ended)
    assert tcp.session.ended[stream].reset is None
    check_padding(tcp.session.conns[0].tls.records, priority != BULK_STREAM)


def test_small_frames_are_padded_to_the_smallest_class_and_larger_ones_to_the_next(dialled: Connect) -> None:
    tcp = dialled()
    records = tcp.session.conns[0].tls.records
    stream = ask(tcp, "test/echo/1")
    barrier(tcp)
    for size, wanted in ((1, [1_024]), (1_000, [1_024]), (2_000, [4_096]), (10_000, [16_384]), (20_000, [16_384] * 4)):
        del records[:]
        tcp.session.send(stream, bytes(size))
        tcp.message(stream)
        barrier(tcp)
        # Credit and PONG come in flushes of their own or together with the echo.
        assert [length for length in records if length != 1_024] == [length for length in wanted if length != 1_024]
        assert 1_024 in records


def test_a_bulk_flush_has_a_padme_length(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/echo/1", priority=BULK_STREAM)
    tcp.until(lambda: tcp.session.streams[stream].heard)
    for size in (1, 700, 5_000, 15_000):
        records = tcp.session.conns[0].tls.records
        del records[:]
        tcp.session.send(stream, bytes(size))
        tcp.message(stream)
        # The flush with the echo may begin with CREDIT, which takes less than 20 bytes here.
        lengths = {padme(10 + 8 + size + more) for more in range(64)}
        assert lengths & set(records), (size, records)


def test_a_source_stops_where_credit_ends_and_goes_on_with_more(dialled: Connect) -> None:
    for priority in (LIVE_STREAM, BULK_STREAM):
        tcp = dialled()
        stream = ask(tcp, "test/source/1", (40).to_bytes(4, "big") + (65_000).to_bytes(4, "big"), priority=priority)
        found = tcp.session.streams[stream]
        tcp.until(lambda found=found: len(found.messages) >= 9)
        barrier(tcp)
        barrier(tcp)
        # It used what it had, and less than one more frame is left; `Stream` raises when it takes more.
        assert len(found.messages) <= 10 and 0 <= found.granted < 65_600
        assert [tcp.message(stream)[:1] for _ in range(40)] == [bytes([number]) for number in range(40)]
        tcp.event("finished")
        tcp.session.finish(stream)
        tcp.until(lambda tcp=tcp, stream=stream: stream in tcp.session.ended)


def test_the_node_gives_credit_for_what_was_consumed_and_not_for_what_was_not(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/hold/1", b"first")
    for _ in range(20):
        tcp.session.send(stream, bytes(65_472))
    tcp.flush()
    barrier(tcp)
    barrier(tcp)
    left = tcp.session.streams[stream].allowed
    assert 0 <= left < 65_536
    barrier(tcp)
    assert tcp.session.streams[stream].allowed == left and len(tcp.session.streams) == 1
    tcp.session.reset(stream, 1_024)
    sink, hashed = ask(tcp, "test/sink/1"), hashlib.sha256()
    for number in range(60):
        tcp.session.send(sink, bytes([number]) * 60_000)
        hashed.update(bytes([number]) * 60_000)
    tcp.session.finish(sink)
    assert tcp.message(sink) == (60).to_bytes(4, "big") + hashed.digest()
    assert tcp.session.conns[0].frames[fr.CREDIT] > 0


def test_the_node_opens_streams_too_with_even_numbers(dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    stream = ask(tcp, "test/call-back/1", b"py/upper/1", b"hello")
    back = tcp.event("opened").number
    assert back == 2 and tcp.session.streams[back].protocol == "py/upper/1"
    message = tcp.message(back)
    tcp.session.send(back, message.upper())
    tcp.session.finish(back)
    assert tcp.message(stream) == b"HELLO"
    refused = ask(tcp, "test/call-back/1", b"py/none/1", b"hello")
    tcp.session.reset(tcp.event("opened").number, 1)
    assert b"does not serve" in tcp.message(refused)


def test_optional_frames_and_unknown_fields_are_skipped(dialled: Connect) -> None:
    tcp = dialled()
    for frame in (Frame(128, 77, bytes(60_000), 255), Frame(255), Frame(200, 2**32 - 1, b"\0\1\2")):
        tcp.session.raw(frame)
    stream = tcp.session.open("test/echo/1")
    tcp.session.conns[0].queues[0].pop()
    opened = control(fr.OPEN, stream, protocol="test/echo/1")
    tcp.session.raw(Frame(fr.OPEN, stream, opened.payload + bytes.fromhex("7803 fa0703616263")))
    tcp.session.send(stream, b"still here")
    assert tcp.message(stream) == b"still here"
    data = b"".join(
        bytes(zeros) + frame.encode()
        for zeros, frame in ((1, Frame(fr.DATA, stream, b"one", fr.MORE)), (70_000, Frame(fr.DATA, stream, b"two")))
    )
    tcp.session.conns[0].tls.write(data + bytes(3))
    tcp.session.streams[stream].allowed -= 2 * 67
    assert tcp.message(stream) == b"onetwo"


OPEN_ECHO = control(fr.OPEN, 1, protocol="test/echo/1")
OPEN_BULK = control(fr.OPEN, 1, protocol="test/echo/1", priority=1)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([Frame(13)], id="unknown kind"),
        pytest.param([Frame(fr.PING, 0, bytes(8), 1)], id="flag"),
        pytest.param([Frame(fr.PING, 1, bytes(8))], id="PING on a stream"),
        pytest.param([Frame(fr.PING, 0, bytes(7))], id="short PING"),
        pytest.param([Frame(fr.PONG, 0, bytes(8))], id="PONG that answers nothing"),
        pytest.param([control(fr.HELLO, window=655_360)], id="HELLO"),
        pytest.param([control(fr.PROOF, window=655_360)], id="a second PROOF"),
        pytest.param([Frame(fr.JOIN, 0, bytes(52))], id="JOIN"),
        pytest.param([Frame(fr.DATA, 0)], id="DATA on stream 0"),
        pytest.param([Frame(fr.DATA, 1)], id="DATA never opened"),
        pytest.param([control(fr.CREDIT, 2, bytes=1)], id="CREDIT never opened"),
        pytest.param([control(fr.RESET, 9, code=1)], id="RESET never opened"),
        pytest.param([control(fr.OPEN, 2, protocol="test/echo/1")], id="OPEN even"),
        pytest.param([OPEN_ECHO, OPEN_ECHO], id="OPEN twice"),
        pytest.param([control(fr.OPEN, 1)], id="OPEN without a name"),
        pytest.param([control(fr.OPEN, 1, protocol="a" * 256)], id="OPEN with a long name"),
        pytest.param([Frame(fr.OPEN, 1, b"\x0a\x01\xff")], id="OPEN with what is no text"),
        pytest.param([Frame(fr.OPEN, 1, b"\x0a\x05ab")], id="OPEN cut short"),
        pytest.param([control(fr.OPEN, n, protocol="test/hold/1") for n in range(1, 67, 2)], id="too many streams"),
        pytest.param([OPEN_ECHO, fr.bulk(1, 0, b"")], id="BULK on another stream"),
        pytest.param([OPEN_BULK, Frame(fr.DATA, 1)], id="DATA on a bulk stream"),
        pytest.param([OPEN_BULK, Frame(fr.BULK, 1, bytes(7))], id="BULK without a place"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.FIN), Frame(fr.DATA, 1)], id="DATA behind FIN"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.FIN | fr.MORE)], id="FIN and MORE"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"x", fr.FIN)], id="FIN with a payload"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.MORE), Frame(fr.DATA, 1, b"", fr.FIN)], id="FIN inside"),
        pytest.param([OPEN_ECHO, *[Frame(fr.DATA, 1, bytes(60_000), fr.MORE)] * 9], id="a message too long"),
        pytest.param(
            [control(fr.OPEN, 1, protocol="test/hold/1"), *[Frame(fr.DATA, 1, bytes(60_000))] * 12], id="beyond credit"
        ),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, bytes=8_388_608 - 655_359)], id="too much credit"),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, bytes=2**64 - 1)], id="far too much credit"),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, received=1)], id="received of what is not bulk"),
        pytest.param([OPEN_BULK, control(fr.CREDIT, 1, received=1)], id="received of what was not sent"),
        pytest.param([OPEN_BULK, fr.bulk(1, 0, b"", fr.FIN), fr.bulk(1, 1, b"")], id="BULK behind FIN"),
        pytest.param([OPEN_BULK, fr.bulk(1, 1, b""), fr.bulk(1, 0, b"", fr.FIN)], id="BULK that is behind FIN"),
        pytest.param([Frame(200)] * 4_000, id="a flood of optional frames"),
        pytest.param([OPEN_ECHO, *[control(fr.CREDIT, 1)] * 4_000], id="a flood of empty credit"),
    ],
)
def test_a_broken_rule_is_answered_by_close_with_code_protocol(dialled: Connect, frames: list[Frame]) -> None:
    tcp, other = dialled(), dialled()
    tcp.session._highest[1] = 99  # pyright: ignore[reportPrivateUsage]
    for frame in frames:
        tcp.session.raw(frame)
    assert tcp.event("closed").code == 1
    tcp.gone()
    assert tcp.session.conns[0].tls.closed, "close_notify is missing"
    check_padding(tcp.session.conns[0].tls.records, False)
    # Another session of the same node is not harmed.
    stream = ask(other, "test/echo/1", b"unharmed")
    assert other.message(stream) == b"unharmed"


@pytest.mark.parametrize(
    "header",
    ["01 00 00000000 00001001", "05 00 00000001 00010001", "06 00 00000001 00010009", "80 00 00000000 ffffffff"],
)
def test_a_length_beyond_the_limit_is_an_error_as_soon_as_the_header_is_there(dialled: Connect, header: str) -> None:
    tcp = dialled()
    tcp.session.conns[0].tls.write(bytes.fromhex(header))
    assert tcp.event("closed").code == 1


def test_a_lane_that_is_closed_in_order_leaves_the_session(rust: Rust, dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    conn, _ = join(tcp, connect(rust.folder, rust.node))
    tcp.session.raw(control(fr.CLOSE), conn)
    tcp.until(lambda: conn not in tcp.session.conns)
    barrier(tcp)


def test_a_lane_does_not_serve_a_stream_that_was_never_opened(rust: Rust, dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    conn, _ = join(tcp, connect(rust.folder, rust.node))
    tcp.session.raw(fr.bulk(1, 0, b"x"), conn)
    tcp.flush()
    assert tcp.event("closed").code == 1


def test_frames_without_a_payload_may_stand_anywhere_in_a_message(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/echo/1")
    for frame in (
        Frame(fr.DATA, stream, b"", fr.MORE),
        Frame(fr.DATA, stream, b"a", fr.MORE),
        Frame(fr.DATA, stream, b"", fr.MORE),
        Frame(fr.DATA, stream, b""),
    ):
        tcp.session.raw(frame)
    assert tcp.message(stream) == b"a"


def test_a_place_that_came_already_is_ignored_and_costs_nothing(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/sink/1", priority=BULK_STREAM)
    # More than a window in all: only the first of each place may count.
    for place in (1, 0):
        for _ in range(20):
            tcp.session.raw(fr.bulk(stream, place, bytes([place]) * 60_000))
    for _ in range(2):
        tcp.session.raw(fr.bulk(stream, 2, b"", fr.FIN))
    found = tcp.session.streams[stream]
    found.next_out, found.sent_fin = 3, True
    found.kept = {place: Kept(Frame(fr.BULK), 0) for place in range(3)}
    wanted = hashlib.sha256(bytes(60_000) + b"\1" * 60_000).digest()
    assert tcp.message(stream) == (2).to_bytes(4, "big") + wanted
    tcp.event("finished")
    tcp.until(lambda: stream in tcp.session.ended)


def test_credit_for_a_direction_that_has_ended_changes_nothing(dialled: Connect) -> None:
    for priority in (LIVE_STREAM, BULK_STREAM):
        tcp = dialled()
        stream = ask(tcp, "test/source/1", (1).to_bytes(4, "big") + (9).to_bytes(4, "big"), priority=priority)
        tcp.event("finished")
        received = tcp.session.streams[stream].next_in
        tcp.session.raw(control(fr.CREDIT, stream, bytes=700_000, received=received))
        barrier(tcp)
        tcp.session.finish(stream)
        tcp.until(lambda tcp=tcp, stream=stream: stream in tcp.session.ended)


def test_a_peer_that_serves_no_streams_is_opened_none(rust: Rust) -> None:
    def none(proof: Frame) -> Frame:
        return Frame(fr.PROOF, 0, proof.payload + bytes.fromhex("2800"))

    tcp = dial(Dialling(rust.node, Secret(), tamper=none), connect(rust.folder, rust.node))
    stream = ask(tcp, "test/call-back/1", b"py/none/1", b"x")
    tcp.until(lambda: bool(tcp.session.streams[stream].messages), 5)
    assert not [event for event in tcp.session.events if event.what == "opened"]
    tcp.shut()


def test_frames_for_a_stream_that_is_over_are_ignored(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/echo/1")
    tcp.session.reset(stream, 1_024)
    for frame in (Frame(fr.DATA, stream, b"late"), control(fr.CREDIT, stream, bytes=1), control(fr.RESET, stream)):
        tcp.session.raw(frame)
    barrier(tcp)
    assert tcp.session.closed is None


def change(**fields: Any) -> Callable[[Frame], Frame]:
    """Sets fields of PROOF behind the others: of two, the last counts."""
    return lambda proof: Frame(fr.PROOF, 0, proof.payload + control(fr.PROOF, **fields).payload)


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(change(address=Secret().public), id="another address"),
        pytest.param(change(address=b"\1" + bytes(31)), id="an address of small order"),
        pytest.param(change(address=bytes(31)), id="a short address"),
        pytest.param(change(signature=bytes(64)), id="another signature"),
        pytest.param(lambda _: control(fr.PROOF, address=Secret().public, window=655_360, max_streams=32), id="unsigned"),
        pytest.param(lambda _: control(fr.PROOF, signature=bytes(64), window=655_360, max_streams=32), id="nobody"),
        pytest.param(change(known=bytes(15)), id="a short session id"),
        pytest.param(
            lambda _: control(fr.PROOF, known=bytes(16), window=655_360, max_streams=32), id="a session of nobody"
        ),
        pytest.param(change(window=532_479), id="a window that is too small"),
        pytest.param(change(window=8_388_609), id="a window that is too large"),
        pytest.param(lambda _: OPEN_ECHO, id="no PROOF"),
        pytest.param(lambda _: Frame(200), id="optional before PROOF"),
        pytest.param(lambda _: Frame(fr.PROOF, 0, b"\x08"), id="malformed"),
    ],
)
def test_a_proof_that_is_wrong_ends_the_connection(rust: Rust, tamper: Callable[[Frame], Frame]) -> None:
    tcp = dial(Dialling(rust.node, Secret(), tamper=tamper), connect(rust.folder, rust.node))
    tcp.gone()
    assert tcp.session.closed in (1, -1), "the session went on"
    tcp.shut()


def test_a_proof_for_another_connection_is_refused(rust: Rust, dialled: Connect) -> None:
    seen = list[Frame]()
    me = Secret()
    dialled(me=me, tamper=lambda proof: seen.append(proof) or proof)
    replayed = dialled(me=me, tamper=lambda _: seen[0])
    replayed.gone()
    assert replayed.session.closed in (1, -1)


def test_the_node_takes_no_more_than_16_kib_before_proof(rust: Rust) -> None:
    for amount, ends in ((16_384, False), (16_385, True)):
        with connect(rust.folder, rust.node) as connection:
            dialling = Dialling(rust.node)
            connection.sendall(dialling.take())
            while dialling.hello is None:
                dialling._hello(connection.recv(1 << 16))  # pyright: ignore[reportPrivateUsage]
            dialling.client.finish()
            dialling.client.write(bytes(amount))
            connection.sendall(dialling.take())
            connection.settimeout(PATIENCE if ends else 0.5)
            try:
                while connection.recv(1 << 16):
                    pass
                ended = True
            except ConnectionError:
                ended = True
            except TimeoutError:
                ended = False
            assert ended == ends


def test_lanes_carry_bulk_both_ways_and_their_loss_loses_nothing(rust: Rust, dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    conns = [join(tcp, connect(rust.folder, rust.node))[0] for _ in range(2)]
    for conn in conns:
        tcp.session.ping(conn)
        assert tcp.event("pong").number == conn
        assert tcp.session.conns[conn].tls.records[0] == 1_024
    stream = ask(tcp, "test/echo/1", priority=BULK_STREAM)
    tcp.until(lambda: tcp.session.streams[stream].heard)
    messages = [bytes([number]) * 50_000 for number in range(60)]
    got = list[bytes]()
    for number, message in enumerate(messages):
        # By turns on both lanes and the primary, so that frames overtake each other.
        way = (*conns, 0)[number % 3]
        if number == 40:
            # Some of what this lane was given has not arrived, or is not known to have.
            assert conns[0] in [kept.conn for kept in tcp.session.streams[stream].kept.values()]
            tcp.cut(conns[0])
        tcp.session.send(stream, message, way=way if way in tcp.session.conns else 0)
        tcp.flush()
        if number >= 3:
            got.append(tcp.message(stream))
    while len(got) < len(messages):
        got.append(tcp.message(stream))
    assert got == messages
    tcp.session.finish(stream, way=conns[1])
    tcp.event("finished")
    tcp.until(lambda: stream in tcp.session.ended)
    lane = tcp.session.conns[conns[1]]
    assert lane.frames[fr.BULK] > 0 and set(lane.frames) <= {fr.BULK, fr.PING, fr.PONG}
    check_padding(lane.tls.records, False)


def refused(rust: Rust, tcp: Tcp, join: Callable[[LaneDialling, bytes], bytes], code: int = 2) -> list[int]:
    """Tries a JOIN made by `join`; gives the lengths of what the node sent, after it was refused."""
    connection = connect(rust.folder, rust.node)
    lane = tcp.session.lane_dialling(99)
    while lane.hello is None:
        connection.sendall(lane.take())
        lane._hello(connection.recv(1 << 16))  # pyright: ignore[reportPrivateUsage]
    link = lane.send(join(lane, lane.tls.export("EXPORTER-hcp/1 lane")))
    connection.sendall(lane.take())
    while data := connection.recv(1 << 16):
        link.tls.feed(data)
    frames = list(link.parser.feed(link.tls.received))
    assert frames == [control(fr.CLOSE, code=code)] and link.tls.closed
    connection.close()
    return link.tls.records


def test_joins_that_do_not_fit_are_all_refused_alike(rust: Rust, dialled: Connect) -> None:
    tcp, other = dialled(me=Secret()), dialled(me=Secret())
    conn, good = join(tcp, connect(rust.folder, rust.node))

    def mac(session: bytes, number: int, key: bytes) -> Callable[[LaneDialling, bytes], bytes]:
        return lambda _, exporter: session + number.to_bytes(4, "big") + join_mac(key, session, number, exporter)

    mine, key = tcp.session.id, tcp.session.lane_key
    attempts = {
        "replayed on another connection": lambda _lane, _exporter: good.join,
        "a session that is not there": mac(bytes(16), 50, key),
        "another session's key": mac(mine, 51, other.session.lane_key),
        "moved to another session": mac(other.session.id, 52, key),
        "a number that was used": mac(mine, conn, key),
        "another mac": lambda _lane, _exporter: mine + (53).to_bytes(4, "big") + bytes(32),
    }
    shapes = {name: refused(rust, tcp, attempt) for name, attempt in attempts.items()}
    # Lanes are numbered from 1.
    refused(rust, tcp, mac(mine, 0, key), code=1)
    assert len({tuple(shape) for shape in shapes.values()}) == 1, shapes
    # The lane and both sessions go on.
    tcp.session.ping(conn)
    tcp.event("pong")
    for session in (tcp, other):
        assert session.message(ask(session, "test/echo/1", b"on")) == b"on"
    for _ in range(3):
        join(tcp, connect(rust.folder, rust.node))
    assert refused(rust, tcp, mac(mine, 60, key)) == next(iter(shapes.values()))
    # What was refused does not use a number up, and a lane that ended makes room.
    tcp.cut(conn)
    deadline = time.monotonic() + 10
    while True:
        try:
            lane, _ = join(tcp, connect(rust.folder, rust.node), 60)
            tcp.session.ping(lane)
            tcp.event("pong", 2)
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
    barrier(tcp)


def test_a_lane_takes_nothing_but_bulk_pings_and_what_is_optional(rust: Rust, dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    conn, _ = join(tcp, connect(rust.folder, rust.node))
    tcp.session.raw(Frame(200, 5, b"optional", 7), conn)
    tcp.session.ping(conn)
    tcp.event("pong")
    tcp.session.raw(OPEN_ECHO, conn)
    tcp.flush()
    assert tcp.event("closed").code == 1


def test_a_draining_node_serves_what_is_open_and_closes_then(dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    stream = ask(tcp, "test/drain/1", b"one")
    assert tcp.message(stream) == b"one"
    assert tcp.event("drain").number == stream
    tcp.session.send(stream, b"two")
    assert tcp.message(stream) == b"two"
    tcp.session.finish(stream)
    assert tcp.event("closed").code == 0
    tcp.gone()
    assert tcp.session.conns[0].tls.closed


def test_a_drain_from_here_is_kept_to(dialled: Connect) -> None:
    tcp = dialled(me=Secret())
    stream = ask(tcp, "test/call-back/1", b"py/late/1")
    barrier(tcp)
    tcp.session.drain()
    tcp.session.send(stream, b"x")
    answer = tcp.message(stream)
    assert not [event for event in tcp.session.events if event.what == "opened"], answer
    tcp.session.finish(stream)
    # Nothing is open any more, so this side closes.
    tcp.gone()
    assert tcp.session.closed == 0


def test_a_close_from_here_is_answered_by_the_end(dialled: Connect) -> None:
    tcp = dialled()
    tcp.session.close(1_024)
    tcp.gone()


def test_a_replica_shows_a_delegation_that_this_implementation_checks(rust: Rust) -> None:
    now, floors = int(time.time()), Floors()
    me = Secret()
    dialling = Dialling(rust.service, me, now=now, floors=floors)
    tcp = dial(dialling, connect(rust.folder, rust.service))
    assert dialling.delegated and tcp.session.server_key not in (rust.service, rust.node)
    assert floors.highest == {rust.service: 5}
    assert tcp.session.conns[0].tls.records[0] == 1_024
    # The proof was over the service's address, or the node would have refused it.
    stream = ask(tcp, "test/echo/1", b"hello")
    assert tcp.message(stream) == b"hello"
    conn, _ = join(tcp, connect(rust.folder, rust.service))
    tcp.session.ping(conn)
    tcp.event("pong")
    tcp.shut()
    for late, floor, reason in ((86_400 + 900, 0, "expired"), (-86_400 - 900, 0, "not yet valid"), (0, 8, "below")):
        floors = Floors({rust.service: floor})
        dialling = Dialling(rust.service, me, now=now + late, floors=floors)
        with connect(rust.folder, rust.service) as connection:
            with pytest.raises(DelegationRefused, match=reason):
                begin(dialling, connection)
        assert dialling.take() == b""
    with connect(rust.folder, rust.service) as connection, pytest.raises(DelegationRefused):
        begin(Dialling(rust.node, me, now=now), connection)


def test_the_nodes_flights_have_one_length_each(rust: Rust) -> None:
    """What a stranger sees of a node and of a replica, in bytes of the transport, is equally long each time."""
    for address in (rust.node, rust.service):
        lengths = set[int]()
        for _ in range(4):
            connection = connect(rust.folder, address)
            dialling = Dialling(address, now=int(time.time()))
            connection.sendall(dialling.take())
            length = 0
            while dialling.hello is None:
                data = connection.recv(1 << 16)
                length += len(data)
                dialling._hello(data)  # pyright: ignore[reportPrivateUsage]
            lengths.add(length)
            connection.close()
        assert len(lengths) == 1


def test_who_is_silent_is_asked_and_then_given_up(rust: Rust) -> None:
    """A session whose peer says nothing ends after 15 s, a beginning that does not end after 20 s."""
    begun = time.monotonic()
    silent = connect(rust.folder, rust.node)
    dialling = Dialling(rust.node, Secret())
    link = begin(dialling, silent)
    assert isinstance(link, Link)
    nothing, half, hello_only = (connect(rust.folder, rust.node) for _ in range(3))
    hello = Dialling(rust.node).take()
    half.sendall(hello[:700])
    hello_only.sendall(hello)
    pings, ends = list[float](), dict[socket.socket, float]()
    waiting = {silent, nothing, half, hello_only}
    while waiting:
        readable, _, _ = select.select(list(waiting), [], [], 30)
        assert readable, "a connection that nobody needs stays"
        for connection in readable:
            try:
                data = connection.recv(1 << 16)
            except ConnectionError:
                data = b""
            now = time.monotonic() - begun
            if not data:
                ends[connection] = now
                waiting.remove(connection)
                connection.close()
            elif connection is silent:
                link.tls.feed(data)
                for frame in link.parser.feed(link.tls.received):
                    if frame.kind == fr.PING and now < 1:
                        # One that measures the round trip: from here on there is silence.
                        link.tls.write(fr.flush([Frame(fr.PONG, 0, frame.payload)]))
                        silent.sendall(link.tls.take())
                    elif frame.kind == fr.PING:
                        pings.append(now)
                link.tls.received.clear()
    # One PING alone, since it is not answered. Seconds of slack: the machine may be busy.
    assert len(pings) == 1 and 4.9 <= pings[0] <= 9
    assert 14.9 <= ends.pop(silent) <= 19
    assert all(19.9 <= at <= 24 for at in ends.values()), ends

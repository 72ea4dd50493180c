"""This implementation joins lanes to its sessions with a node."""

import time
from collections.abc import Callable

from conftest import Rust
from hcp_reader import frames as fr
from hcp_reader.drive import Tcp, connect, join
from hcp_reader.frames import BULK_STREAM, Frame, control
from hcp_reader.keys import Secret
from hcp_reader.opening import join_mac
from helpers import OPEN_ECHO, Connect, ask, barrier, check_padding

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


Join = Callable[[bytes], bytes]
"""Makes the payload of a JOIN from the lane's exporter."""


def refused(rust: Rust, tcp: Tcp, join: Join, code: int = 2) -> list[int]:
    """Tries a JOIN made by `join`; gives the lengths of what the node sent, after it was refused."""
    connection = connect(rust.folder, rust.node)
    lane = tcp.session.lane_dialling(99)
    while lane.hello is None:
        connection.sendall(lane.take())
        lane._hello(connection.recv(1 << 16))  # pyright: ignore[reportPrivateUsage]
    link = lane.send(join(lane.tls.export("EXPORTER-hcp/1 lane")))
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

    def mac(session: bytes, number: int, key: bytes) -> Join:
        return lambda exporter: session + number.to_bytes(4, "big") + join_mac(key, session, number, exporter)

    mine, key = tcp.session.id, tcp.session.lane_key
    attempts: dict[str, Join] = {
        "replayed on another connection": lambda _exporter: good.join,
        "a session that is not there": mac(bytes(16), 50, key),
        "another session's key": mac(mine, 51, other.session.lane_key),
        "moved to another session": mac(other.session.id, 52, key),
        "a number that was used": mac(mine, conn, key),
        "another mac": lambda _exporter: mine + (53).to_bytes(4, "big") + bytes(32),
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

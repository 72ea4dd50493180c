"""This implementation dials a node: how sessions begin, and how silence ends them."""

import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Rust
from hcp_reader import frames as fr
from hcp_reader.delegation import DelegationRefused, Floors
from hcp_reader.drive import PATIENCE, begin, connect, dial, join
from hcp_reader.frames import Frame, control
from hcp_reader.keys import Secret, onion
from hcp_reader.opening import Dialling, Limits, Link
from hcp_reader.schedule import SUITES
from helpers import OPEN_ECHO, Connect, ask, barrier, check_padding

Change = Callable[[Frame], Frame]


def change(**fields: Any) -> Change:
    """Sets fields of PROOF behind the others: of two, the last counts."""
    return lambda proof: Frame(fr.PROOF, 0, proof.payload + control(fr.PROOF, **fields).payload)


def instead(frame: Frame) -> Change:
    """Sends another frame in the place of PROOF."""
    return lambda _proof: frame


def noting(seen: list[Frame]) -> Change:
    """Leaves PROOF as it is, and notes it."""

    def note(proof: Frame) -> Frame:
        seen.append(proof)
        return proof

    return note


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


LIMITS = {"window": 655_360, "max_streams": 32}


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(change(address=Secret().public), id="another address"),
        pytest.param(change(address=b"\1" + bytes(31)), id="an address of small order"),
        pytest.param(change(address=bytes(31)), id="a short address"),
        pytest.param(change(signature=bytes(64)), id="another signature"),
        pytest.param(instead(control(fr.PROOF, address=Secret().public, **LIMITS)), id="unsigned"),
        pytest.param(instead(control(fr.PROOF, signature=bytes(64), **LIMITS)), id="nobody"),
        pytest.param(change(known=bytes(15)), id="a short session id"),
        pytest.param(instead(control(fr.PROOF, known=bytes(16), **LIMITS)), id="a session of nobody"),
        pytest.param(change(window=532_479), id="a window that is too small"),
        pytest.param(change(window=8_388_609), id="a window that is too large"),
        pytest.param(instead(OPEN_ECHO), id="no PROOF"),
        pytest.param(instead(Frame(200)), id="optional before PROOF"),
        pytest.param(instead(Frame(fr.PROOF, 0, b"\x08")), id="malformed"),
    ],
)
def test_a_proof_that_is_wrong_ends_the_connection(rust: Rust, tamper: Change) -> None:
    tcp = dial(Dialling(rust.node, Secret(), tamper=tamper), connect(rust.folder, rust.node))
    tcp.gone()
    assert tcp.session.closed in (1, -1), "the session went on"
    tcp.shut()


def test_a_proof_for_another_connection_is_refused(rust: Rust, dialled: Connect) -> None:
    seen = list[Frame]()
    me = Secret()
    dialled(me=me, tamper=noting(seen))
    replayed = dialled(me=me, tamper=instead(seen[0]))
    replayed.gone()
    assert replayed.session.closed in (1, -1)


def test_a_peer_that_serves_no_streams_is_opened_none(dialled: Connect) -> None:
    tcp = dialled(me=Secret(), ours=Limits(max_streams=0))
    stream = ask(tcp, "test/call-back/1", b"py/none/1", b"x")
    tcp.until(lambda: bool(tcp.session.streams[stream].messages))
    assert not [event for event in tcp.session.events if event.what == "opened"]


def test_the_node_keeps_to_the_limits_of_proof(dialled: Connect) -> None:
    """`Session` and `Stream` raise when it opens or sends more."""
    tcp = dialled(me=Secret(), ours=Limits(window=532_480, max_streams=2))
    stream = ask(tcp, "test/source/1", (20).to_bytes(4, "big") + (60_000).to_bytes(4, "big"))
    found = tcp.session.streams[stream]
    tcp.until(lambda: len(found.messages) == 8)
    barrier(tcp)
    assert len(found.messages) == 8 and 0 <= found.granted < 65_600
    for _ in range(20):
        tcp.message(stream)
    asked = [ask(tcp, "test/call-back/1", b"py/upper/1", bytes([97 + number])) for number in range(2)]
    for number in range(2):
        back = tcp.event("opened").number
        tcp.session.send(back, tcp.message(back).upper())
        assert tcp.message(asked[number]) in (b"A", b"B")
        tcp.session.finish(back)


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


def test_the_flights_of_a_node_and_of_a_replica_have_one_length(rust: Rust) -> None:
    """What a stranger sees who only dials, in bytes of the transport."""
    lengths = set[int]()
    for address in (rust.node, rust.service) * 3:
        with connect(rust.folder, address) as connection:
            dialling = Dialling(address, now=int(time.time()))
            connection.sendall(dialling.take())
            length = 0
            while dialling.hello is None or sum(dialling.tls.records) < 1_024:
                data = connection.recv(1 << 16)
                length += len(data)
                dialling._hello(data)  # pyright: ignore[reportPrivateUsage]
            # Nothing comes behind it.
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            lengths.add(length)
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

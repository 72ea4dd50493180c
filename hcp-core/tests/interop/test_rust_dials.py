"""The library's node dials this implementation."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from conftest import Rust
from hcp_reader import frames as fr
from hcp_reader.delegation import certify, delegate
from hcp_reader.drive import Host, Tcp, connect, dial
from hcp_reader.frames import BULK_STREAM, CONTROL_STREAM, LIVE_STREAM
from hcp_reader.handshake import (
    APPLICATION_PROTOCOLS,
    HYBRID,
    NEW_SESSION_TICKET,
    PRE_SHARED_KEY,
    SERVER_CERTIFICATE_TYPE,
    SERVER_NAME,
    SUPPORTED_GROUPS,
)
from hcp_reader.keys import Secret, onion
from hcp_reader.opening import Credentials, Dialling, lane_protocols
from hcp_reader.places import Places
from hcp_reader.schedule import SUITES
from hcp_reader.session import BUSY
from hcp_reader.tls13 import MAX_UPDATES, Server
from helpers import ask, check_padding

Serve = Callable[..., Host]


@pytest.fixture
def serve(rust: Rust) -> Iterator[Serve]:
    """Hosts on the folder of the node's network; they end with the test."""
    hosts = list[Host]()

    def make(credentials: Credentials | None = None, suites: list[int] | None = None) -> Host:
        hosts.append(Host(rust.folder, credentials or Credentials.of(Secret()), suites))
        return hosts[-1]

    yield make
    for host in hosts:
        host.shut()


def echo(tcp: Tcp) -> Callable[[], bool]:
    """Sends back what comes on the first stream, and ends it when the peer does."""
    session, number = tcp.session, 1
    ended = False

    def step() -> bool:
        nonlocal ended
        stream = session.streams.get(number)
        if stream is not None:
            # By turns on every connection that there is, when it is bulk.
            while (message := session.take(number)) is not None:
                ways = sorted(session.conns)
                session.send(number, message, way=ways[len(stream.kept) % len(ways)])
            # Once: it may wait for credit behind messages, and then is not sent yet.
            if stream.got_fin and not ended:
                ended = True
                session.finish(number)
        return session.closed is not None

    return step


@pytest.mark.parametrize("how", ["known", "anonymous"])
@pytest.mark.parametrize(
    ("word", "priority"), [("live", LIVE_STREAM), ("control", CONTROL_STREAM), ("bulk", BULK_STREAM)]
)
def test_a_node_dials_opens_a_stream_and_takes_its_echoes(
    rust: Rust, serve: Serve, how: str, word: str, priority: int
) -> None:
    host = serve()
    rust.say(f"dial {onion(host.credentials.address)} {how} py/echo/1 {word} 50 30000")
    tcp = host.session()
    assert tcp.session.peer == (rust.node if how == "known" else None)
    assert host.proofs[0].known == b"" and host.proofs[0].limits.window == 655_360
    assert host.proofs[0].limits.max_streams == 32
    host.until(lambda: bool(tcp.session.streams))
    stream = tcp.session.streams[1]
    assert (stream.protocol, stream.priority) == ("py/echo/1", priority)
    host.until(echo(tcp))
    assert rust.line() == "ok" and tcp.session.closed == 0
    check_padding(tcp.session.conns[0].tls.records, word != "bulk")


@pytest.mark.parametrize("suite", SUITES)
def test_a_node_speaks_every_suite_and_offers_nothing_that_the_document_excludes(
    rust: Rust, serve: Serve, suite: int
) -> None:
    host = serve(suites=[suite])
    rust.say(f"greet {onion(host.credentials.address)} anonymous")
    tls = host.session().session.conns[0].tls
    assert rust.line("ok ") == onion(host.credentials.address)
    assert tls.suite == suite
    assert isinstance(tls, Server) and tls.client_hello is not None
    hello = tls.client_hello
    # An empty renegotiation_info, as a suite number, is how some say that they do not renegotiate.
    assert set(hello.suites) - {0x00FF} == set(SUITES)
    assert hello.extensions[SUPPORTED_GROUPS] == b"\0\2" + HYBRID
    assert not {SERVER_NAME, PRE_SHARED_KEY, 35, 42, 27} & set(hello.extensions)
    assert tls.records[0] == 1_024


def test_a_bulk_stream_travels_on_lanes_and_one_that_dies_loses_nothing(rust: Rust, serve: Serve) -> None:
    host = serve()
    rust.say(f"dial {onion(host.credentials.address)} known py/echo/1 bulk 300 100000")
    tcp = host.session()
    session, step, cut = tcp.session, echo(tcp), list[int]()
    ended = dict[int, int]()

    def running() -> bool:
        # A lane is cut once it has carried something.
        lanes = {number: conn for number, conn in session.conns.items() if number}
        for number, conn in lanes.items():
            ended[number] = conn.frames[fr.BULK]
            assert set(conn.frames) <= {fr.BULK, fr.PING, fr.PONG, fr.CLOSE}
            assert isinstance(conn.tls, Server) and conn.tls.client_hello
            assert conn.tls.client_hello.extensions[APPLICATION_PROTOCOLS] == lane_protocols(session.id)
        busy = [number for number in lanes if ended[number] > 20]
        if busy and len(cut) < 2:
            cut.append(busy[0])
            check_padding(lanes[busy[0]].tls.records, False)
            tcp.cut(busy[0])
        return step()

    host.until(running, 50)
    assert rust.line() == "ok" and session.closed == 0
    assert len(cut) == 2 and not host.refused
    # Numbers go up and none is used twice, or `join` had refused it.
    assert len(session.lane_numbers) >= 2


def test_a_lane_that_reaches_another_replica_shows_nothing_and_is_dialled_again(rust: Rust, serve: Serve) -> None:
    service, owner = Secret(), Secret()
    now = int(time.time())
    certificate = certify(service, owner.public, now - 100, now + 100)

    def replica() -> Credentials:
        session = Secret()
        delegation = delegate(owner, service.public, session.public, now - 100, now + 100)
        return Credentials(session, service.public, certificate, delegation)

    host = serve(replica())
    rust.say(f"dial {onion(service.public)} anonymous py/echo/1 bulk 300 100000")
    tcp = host.session()
    host.replicas += [replica(), replica()]
    host.until(echo(tcp), 50)
    assert rust.line() == "ok" and not host.replicas
    assert len(host.ended) == 2 and tcp.session.lane_numbers
    for ended in host.ended:
        # Nothing came behind the ClientHello, not even Finished.
        assert not ended.tls.records and not ended.tls.finished


def test_a_lane_that_brings_garbage_ends_alone(rust: Rust, serve: Serve) -> None:
    host = serve()
    rust.say(f"dial {onion(host.credentials.address)} known py/echo/1 bulk 300 100000")
    tcp = host.session()
    step, spoiled = echo(tcp), list[int]()

    def running() -> bool:
        for number, conn in list(tcp.session.conns.items()):
            if number and not spoiled and conn.frames[fr.BULK] > 20:
                spoiled.append(number)
                tcp.spoil(number)
        return step()

    host.until(running, 50)
    assert rust.line() == "ok" and tcp.session.closed == 0 and spoiled
    assert spoiled[0] not in tcp.session.conns


def test_a_dialler_whose_lanes_are_refused_goes_on_without(rust: Rust, serve: Serve) -> None:
    host = serve()
    host.takes_lanes = False
    rust.say(f"dial {onion(host.credentials.address)} known py/echo/1 bulk 300 100000")
    tcp = host.session()
    host.until(echo(tcp), 50)
    assert rust.line() == "ok" and host.refused and tcp.session.closed == 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({APPLICATION_PROTOCOLS: None}, id="no protocol"),
        pytest.param({APPLICATION_PROTOCOLS: b"\0\6\5hcp/2"}, id="another protocol"),
        pytest.param({SERVER_CERTIFICATE_TYPE: None}, id="certificates"),
        pytest.param({SERVER_CERTIFICATE_TYPE: b"\0"}, id="certificates, said"),
    ],
)
def test_a_node_refuses_a_server_of_another_profile(
    rust: Rust, serve: Serve, changes: dict[int, bytes | None]
) -> None:
    host = serve()
    host.changes = changes
    rust.say(f"greet {onion(host.credentials.address)} known")
    host.until(lambda: bool(host.ended))
    rust.line("error ")
    assert not host.ended[0].tls.records and not host.ended[0].tls.finished


# Its lifetime and what hides its age, a nonce, the ticket, no extensions.
TICKET = bytes(8) + b"\1\0" + b"\0\4" + bytes(4) + b"\0\0"


@pytest.mark.parametrize("flood", ["ticket", "updates", "updates that ask"])
def test_a_node_ends_a_session_whose_server_sends_what_the_document_excludes(
    rust: Rust, serve: Serve, flood: str
) -> None:
    host = serve()
    rust.say(f"greet {onion(host.credentials.address)} known")
    tcp = host.session()
    rust.line("ok ")
    tls = tcp.session.conns[0].tls
    if flood == "ticket":
        tls.say(NEW_SESSION_TICKET, TICKET)
    else:
        for _ in range(MAX_UPDATES + 1):
            tls.update_key(flood == "updates that ask")
    host.until(lambda: tcp.session.closed is not None)
    assert tcp.session.closed in (1, -1)


def test_a_node_that_finds_no_place_is_told_so(rust: Rust, serve: Serve) -> None:
    host = serve()
    host.places = Places(1)
    rust.say(f"greet {onion(host.credentials.address)} anonymous")
    first = host.session()
    rust.line("ok ")
    rust.say(f"dial {onion(host.credentials.address)} anonymous py/echo/1 live 1 1")
    second = host.session()
    second.flush()
    rust.line("error ")
    assert second.session.closed == BUSY and first.session.closed is None


DAY = 86_400


@dataclass
class Papers:
    """What a service shows, and what the node says of it: `ok`, or a part of why it refuses."""

    name: str
    verdict: str = "error"
    certified_for: int = DAY
    delegated_for: int = DAY
    delegated_from: int = -DAY
    serial: int = 7
    flipped: int | None = None
    """The byte of certificate and delegation, one behind the other, that is changed on the way."""
    length: int = 240
    other: str = ""
    """Which of the keys is another than it should be."""

    def make(self, keys: dict[str, Secret]) -> tuple[bytes, bytes]:
        now = int(time.time())
        for_service = keys | ({self.other: Secret()} if self.other in ("service", "session") else {})
        certificate = certify(for_service["service"], keys["owner"].public, now - DAY, now + self.certified_for)
        begin, end = now + self.delegated_from, now + self.delegated_for
        owner = Secret() if self.other == "owner" else keys["owner"]
        service, session = for_service["service"].public, for_service["session"].public
        both = bytearray(certificate + delegate(owner, service, session, begin, end, self.serial, 5))
        if self.flipped is not None:
            both[self.flipped] ^= 1
        return bytes(both[: min(112, self.length)]), bytes(both[112 : self.length])


PAPERS = [
    Papers("good", "ok"),
    Papers("nothing at all", length=0),
    Papers("no delegation", length=112),
    Papers("delegation expired", "expired", delegated_for=-400),
    Papers("delegation not yet valid", "not valid yet", delegated_from=400),
    Papers("certificate expired", "expired", certified_for=-400),
    Papers("below its own floor", "below the lowest", serial=4),
    Papers("tampered certificate", flipped=60),
    Papers("tampered delegation", flipped=112 + 80),
    Papers("another session key", other="session"),
    Papers("a foreign service", other="service"),
    Papers("another owner", other="owner"),
    Papers("one byte short", length=239),
]


@pytest.mark.parametrize("papers", PAPERS, ids=lambda papers: papers.name)
def test_a_node_checks_a_delegation_before_it_shows_anything(rust: Rust, serve: Serve, papers: Papers) -> None:
    keys = {name: Secret() for name in ("service", "owner", "session")}
    service = keys["service"].public
    host = serve(Credentials(keys["session"], service, *papers.make(keys)))
    rust.say(f"greet {onion(service)} known")
    if papers.verdict == "ok":
        assert host.session().session.peer == rust.node
        assert rust.line("ok ") == onion(service)
        return
    host.until(lambda: bool(host.ended))
    line = rust.line("error ")
    assert papers.verdict in f"error {line}"
    assert not host.ended[0].tls.records and not host.ended[0].tls.finished, "the dialler showed itself"


def test_a_node_remembers_the_highest_floor_of_a_service(rust: Rust, serve: Serve) -> None:
    service, owner, session = Secret(), Secret(), Secret()
    now = int(time.time())
    certificate = certify(service, owner.public, now - 100, now + 100)
    for serial, floor, good in ((9, 9, True), (8, 2, False), (9, 2, True)):
        delegation = delegate(owner, service.public, session.public, now - 100, now + 100, serial, floor)
        host = serve(Credentials(session, service.public, certificate, delegation))
        rust.say(f"greet {onion(service.public)} anonymous")
        host.until(lambda host=host, good=good: bool(host.sessions if good else host.ended))
        rust.line("ok " if good else "error ")
        host.shut()


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(fr.control(fr.HELLO, window=532_479, max_streams=32), id="a window that is too small"),
        pytest.param(fr.control(fr.HELLO, window=8_388_609, max_streams=32), id="a window that is too large"),
        pytest.param(fr.control(fr.PROOF, window=655_360), id="PROOF"),
        pytest.param(fr.control(fr.CLOSE), id="CLOSE"),
        pytest.param(fr.Frame(fr.HELLO, 0, b"\x0a"), id="malformed"),
        pytest.param(fr.Frame(13), id="unknown kind"),
        pytest.param(fr.Frame(200), id="optional"),
    ],
)
def test_a_node_refuses_an_acceptor_that_greets_wrongly(rust: Rust, serve: Serve, greeting: fr.Frame) -> None:
    host = serve()
    host.greeting = greeting
    rust.say(f"greet {onion(host.credentials.address)} known")
    host.until(lambda: bool(host.ended))
    rust.line("error ")
    assert not host.ended[0].tls.records and not host.ended[0].tls.finished


def lower_and_higher(rust: Rust) -> tuple[Secret, Secret]:
    """Keys of this side: one with a lower address than the node's, and one with a higher one."""
    while not (lower := Secret()).public < rust.node:
        pass
    while not (higher := Secret()).public > rust.node:
        pass
    return lower, higher


def both_dial(rust: Rust, host: Host, me: Secret, names_the_other: bool) -> tuple[Tcp, Tcp]:
    """A session that the node dialled, and behind it one that this side did."""
    rust.say(f"greet {onion(me.public)} known")
    theirs = host.session()
    assert rust.line("ok ") == onion(me.public)
    # The node counts its own as established by now, since it has said so.
    known = theirs.session.id if names_the_other else b""
    ours = dial(Dialling(rust.node, me, known=known), connect(rust.folder, rust.node))
    return theirs, ours


@pytest.mark.parametrize("names_the_other", [False, True])
def test_of_two_sessions_the_side_with_the_lower_address_chooses(
    rust: Rust, serve: Serve, names_the_other: bool
) -> None:
    lower, higher = lower_and_higher(rust)
    # The node chooses: the last one goes on, unless its dialler says that it still holds the other.
    theirs, ours = both_dial(rust, serve(Credentials.of(higher)), higher, names_the_other)
    goes_on, replaced = (theirs, ours) if names_the_other else (ours, theirs)
    replaced.event("drain")
    assert replaced.event("closed").code == 4
    stream = ask(goes_on, "test/echo/1", b"goes on")
    assert goes_on.message(stream) == b"goes on"
    ours.shut()
    # This side would choose: the node keeps both until it does.
    theirs, ours = both_dial(rust, serve(Credentials.of(lower)), lower, names_the_other)
    for tcp in (theirs, ours):
        stream = ask(tcp, "test/echo/1", b"both")
        assert tcp.message(stream) == b"both"
    theirs.session.close(4)
    theirs.gone()
    stream = ask(ours, "test/echo/1", b"goes on")
    assert ours.message(stream) == b"goes on"
    ours.shut()

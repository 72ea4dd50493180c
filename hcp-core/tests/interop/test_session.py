"""Sessions through memory: this implementation against itself."""

import pytest
from hcp_reader import frames as fr
from hcp_reader.delegation import DelegationRefused, certify, delegate
from hcp_reader.drive import Pair, open_in_memory
from hcp_reader.frames import BULK_STREAM, CONTROL_STREAM, Frame, Parser, ProtocolError, control
from hcp_reader.keys import Secret
from hcp_reader.opening import Accepted, Accepting, Credentials, Dialling, JoinRequest, WrongKey
from hcp_reader.session import Session
from hcp_reader.stream import MAX_MESSAGE, MIN_WINDOW

SERVER, CLIENT = Secret(b"\1" * 32), Secret(b"\2" * 32)


@pytest.fixture
def pair() -> Pair:
    return Pair(Dialling(SERVER.public, CLIENT), Accepting(Credentials.of(SERVER)))


def drained(session: Session, stream: int) -> list[bytes]:
    messages = list[bytes]()
    while (message := session.take(stream)) is not None:
        messages.append(message)
    return messages


def test_the_acceptor_knows_who_dialled(pair: Pair) -> None:
    assert pair.acceptor.peer == CLIENT.public and pair.dialler.peer == SERVER.public
    assert pair.acceptor.id == pair.dialler.id and len(pair.dialler.id) == 16
    anonymous = Pair(Dialling(SERVER.public), Accepting(Credentials.of(SERVER)))
    assert anonymous.acceptor.peer is None


def test_the_first_flights_have_1024_bytes(pair: Pair) -> None:
    assert pair.dialler.conns[0].tls.records == [1_024] and pair.acceptor.conns[0].tls.records == [1_024]


def test_a_dialler_shows_nothing_to_a_server_with_another_key() -> None:
    dialling, accepting = Dialling(Secret().public, CLIENT), Accepting(Credentials.of(SERVER))
    with pytest.raises(DelegationRefused, match="missing"):
        open_in_memory(dialling, accepting)
    assert dialling.take() == b""


def test_a_proof_that_is_changed_or_forwarded_is_refused() -> None:
    def flip(proof: Frame) -> Frame:
        return Frame(proof.kind, 0, proof.payload.replace(CLIENT.public, Secret().public))

    with pytest.raises(ProtocolError):
        open_in_memory(Dialling(SERVER.public, CLIENT, tamper=flip), Accepting(Credentials.of(SERVER)))
    seen = list[Frame]()
    open_in_memory(
        Dialling(SERVER.public, CLIENT, tamper=lambda proof: seen.append(proof) or proof),
        Accepting(Credentials.of(SERVER)),
    )
    with pytest.raises(ProtocolError):
        open_in_memory(Dialling(SERVER.public, tamper=lambda _: seen[0]), Accepting(Credentials.of(SERVER)))


def test_a_replica_is_taken_for_its_service_and_its_flight_is_as_long_as_any() -> None:
    service, owner, replica = Secret(), Secret(), Secret()
    certificate = certify(service, owner.public, 0, 100)
    delegation = delegate(owner, service.public, replica.public, 0, 100)
    credentials = Credentials(replica, service.public, certificate, delegation)
    pair = Pair(Dialling(service.public, CLIENT, now=50), Accepting(credentials))
    assert pair.dialler.peer == service.public and pair.dialler.server_key == replica.public
    assert pair.acceptor.peer == CLIENT.public and pair.dialler.conns[0].tls.records == [1_024]
    with pytest.raises(DelegationRefused, match="expired"):
        Pair(Dialling(service.public, CLIENT, now=401), Accepting(credentials))


def test_messages_of_every_size_arrive_in_order_in_both_directions(pair: Pair) -> None:
    sizes = [0, 1, 65_535, 65_536, 65_537, MAX_MESSAGE, 3]
    for opener, other in ((pair.dialler, pair.acceptor), (pair.acceptor, pair.dialler)):
        for priority in (fr.LIVE_STREAM, BULK_STREAM, CONTROL_STREAM, 99):
            stream = opener.open("test", priority)
            got = list[bytes]()
            for size in sizes:
                opener.send(stream, bytes(size))
                pair.pump()
                got += drained(other, stream)
            opener.finish(stream)
            other.finish(stream)
            pair.pump()
            assert [len(message) for message in got] == sizes
            assert stream in opener.ended and stream in other.ended


def test_a_sender_stops_at_its_credit_and_goes_on_with_more(pair: Pair) -> None:
    stream = pair.dialler.open("test")
    for _ in range(20):
        pair.dialler.send(stream, bytes(65_472))
    pair.pump()
    # A frame of a message of this length costs 65,536, and the window is 655,360.
    assert len(pair.acceptor.streams[stream].messages) == 10 and pair.dialler.streams[stream].allowed == 0
    assert pair.acceptor.take(stream) is not None
    pair.pump()
    assert len(pair.acceptor.streams[stream].messages) == 10
    pair.acceptor.grant(stream, 8_388_608 - 655_360)
    pair.pump()
    assert len(drained(pair.acceptor, stream)) == 19


def broken(pair: Pair, *frames: Frame, conn: int = 0) -> None:
    for frame in frames:
        pair.dialler.raw(frame, conn)
    with pytest.raises(ProtocolError):
        pair.acceptor.receive(conn, pair.dialler.transmit(conn))
    # The peer is told, and nothing comes behind.
    tls = pair.dialler.conns[0].tls
    tls.feed(pair.acceptor.transmit(0))
    *_, last = Parser().feed(tls.received)
    assert last == control(fr.CLOSE, code=1) and tls.closed and pair.acceptor.closed == 1


LONG = [Frame(fr.DATA, 1, bytes(65_536), fr.MORE)] * 9


@pytest.mark.parametrize(
    "frames",
    [
        [control(fr.HELLO, window=655_360)],
        [control(fr.PROOF, window=655_360)],
        [Frame(fr.JOIN, 0, bytes(52))],
        [control(fr.OPEN, 2, protocol="even")],
        [control(fr.OPEN, 3, protocol="once"), control(fr.OPEN, 3, protocol="twice")],
        [control(fr.OPEN, 3, protocol="high"), control(fr.OPEN, 1, protocol="low")],
        [control(fr.OPEN, 1)],
        [control(fr.OPEN, 1, protocol="a" * 256)],
        [control(fr.OPEN, number, protocol="many") for number in range(1, 67, 2)],
        [Frame(fr.DATA, 1)],
        [Frame(fr.DATA, 2)],
        [control(fr.RESET, 7, code=1)],
        [control(fr.CREDIT, 2, bytes=1)],
        [Frame(fr.PONG, 0, bytes(8))],
        [control(fr.OPEN, 1, protocol="data"), fr.bulk(1, 0, b"")],
        [control(fr.OPEN, 1, protocol="bulk", priority=1), Frame(fr.DATA, 1)],
        [control(fr.OPEN, 1, protocol="fin"), Frame(fr.DATA, 1, b"", fr.FIN), Frame(fr.DATA, 1)],
        [control(fr.OPEN, 1, protocol="fin"), Frame(fr.DATA, 1, b"", fr.MORE), Frame(fr.DATA, 1, b"", fr.FIN)],
        [control(fr.OPEN, 1, protocol="long"), *LONG],
        [control(fr.OPEN, 1, protocol="window"), *[Frame(fr.DATA, 1, bytes(60_000))] * 11],
        [control(fr.OPEN, 1, protocol="credit"), control(fr.CREDIT, 1, bytes=8_388_608 - 655_359)],
        [control(fr.OPEN, 1, protocol="received"), control(fr.CREDIT, 1, received=1)],
        [control(fr.OPEN, 1, protocol="bulk", priority=1), fr.bulk(1, 0, b"", fr.FIN), fr.bulk(1, 1, b"")],
        [control(fr.OPEN, 1, protocol="bulk", priority=1), fr.bulk(1, 1, b""), fr.bulk(1, 0, b"", fr.FIN)],
        [Frame(200)] * 2_001,
    ],
)
def test_a_peer_that_breaks_a_rule_ends_the_session(pair: Pair, frames: list[Frame]) -> None:
    broken(pair, *frames)


def test_what_is_unknown_and_optional_is_skipped(pair: Pair) -> None:
    pair.dialler.raw(Frame(128, 77, bytes(65_536), 255))
    pair.dialler.raw(Frame(255))
    pair.dialler.ping()
    pair.pump()
    assert [event.what for event in pair.dialler.events] == ["pong"]


def test_a_reset_ends_both_directions_and_late_frames_are_ignored(pair: Pair) -> None:
    stream = pair.dialler.open("test")
    pair.pump()
    pair.acceptor.reset(stream, 1_024)
    pair.dialler.send(stream, b"late")
    pair.pump()
    assert pair.dialler.ended[stream].reset == 1_024 and pair.acceptor.closed is None


def test_a_lane_carries_bulk_and_what_it_loses_is_sent_again(pair: Pair) -> None:
    lane = pair.lane()
    stream = pair.dialler.open("test", BULK_STREAM)
    pair.pump()
    messages = [bytes([number]) * 50_000 for number in range(9)]
    for message in messages:
        pair.dialler.send(stream, message, way=lane)
    pair.dialler.finish(stream)
    # The lane's bytes are lost; what went by the primary waits for them.
    assert len(pair.dialler.transmit(lane)) > 400_000
    pair.pump([0])
    assert not pair.acceptor.streams[stream].messages and len(pair.acceptor.streams[stream].early) == 1
    pair.dialler.lost(lane)
    pair.acceptor.lost(lane)
    pair.pump()
    assert drained(pair.acceptor, stream) == messages
    assert pair.acceptor.streams[stream].got_fin and not pair.dialler.streams[stream].kept


def test_bulk_does_not_use_a_lane_before_the_peer_is_known_to_have_seen_open(pair: Pair) -> None:
    lane = pair.lane()
    stream = pair.dialler.open("test", BULK_STREAM)
    pair.dialler.send(stream, b"early", way=lane)
    assert pair.dialler.transmit(lane) == b""
    pair.pump()
    assert drained(pair.acceptor, stream) == [b"early"] and pair.acceptor.conns[lane].frames[fr.BULK] == 0


def test_only_bulk_and_pings_may_be_on_a_lane(pair: Pair) -> None:
    lane = pair.lane()
    pair.dialler.ping(lane)
    pair.pump()
    assert pair.dialler.events.pop().what == "pong"
    broken(pair, control(fr.OPEN, 1, protocol="on a lane"), conn=lane)


def test_joins_that_are_stolen_replayed_or_elsewhere_are_refused(pair: Pair) -> None:
    lane = pair.lane()

    def attempt(join: bytes, credentials: Credentials = pair.credentials) -> bool:
        dialling = pair.dialler.lane_dialling(99)
        accepting = Accepting(credentials)
        accepting.feed(dialling.take())
        dialling._hello(accepting.take())  # pyright: ignore[reportPrivateUsage]
        dialling.send(join)
        request = accepting.feed(dialling.take())
        assert isinstance(request, JoinRequest)
        if pair.acceptor.join(request):
            return True
        assert request.refuse()
        return False

    good = pair.dialler.lane_dialling(7)
    link, request = open_in_memory(good, Accepting(pair.credentials))
    assert link and isinstance(request, JoinRequest)
    # Replayed on another connection, though it was never used on its own.
    assert not attempt(good.join)
    assert not attempt(bytes(16) + good.join[16:])
    assert not attempt(good.join[:16] + (8).to_bytes(4, "big") + good.join[20:])
    assert pair.acceptor.join(request)
    for number in (0, lane):
        again = pair.dialler.lane_dialling(number or None)
        again.number = number
        _, request = open_in_memory(again, Accepting(pair.credentials))
        assert isinstance(request, JoinRequest) and not pair.acceptor.join(request)
    with pytest.raises(WrongKey):
        open_in_memory(pair.dialler.lane_dialling(), Accepting(Credentials(Secret(), SERVER.public)))


def test_a_session_has_at_most_four_lanes(pair: Pair) -> None:
    for _ in range(4):
        pair.lane()
    with pytest.raises(AssertionError):
        pair.lane()
    pair.acceptor.lost(2)
    pair.lane()


def test_a_drained_session_closes_once_nothing_is_open(pair: Pair) -> None:
    stream = pair.dialler.open("test")
    pair.pump()
    late = pair.dialler.open("late")
    pair.acceptor.drain()
    pair.pump()
    assert [event.what for event in pair.dialler.events] == ["drain", "never served"]
    assert late in pair.dialler.ended and pair.dialler.closed is None
    pair.dialler.finish(stream)
    pair.acceptor.finish(stream)
    pair.pump()
    assert pair.dialler.closed == pair.acceptor.closed == 0


def test_silence_is_asked_and_then_given_up(pair: Pair) -> None:
    pair.dialler.tick(5.0)
    assert pair.dialler.transmit(0)
    pair.dialler.tick(15.0)
    assert pair.dialler.closed == -1


def test_an_acceptor_reads_no_more_than_16_kib_before_proof() -> None:
    dialling, accepting = Dialling(SERVER.public, CLIENT), Accepting(Credentials.of(SERVER))
    accepting.feed(dialling.take())
    dialling.tls.feed(accepting.take())
    dialling.client.finish()
    dialling.client.write(bytes(16_384))
    assert accepting.feed(dialling.take()) is None
    dialling.client.write(bytes(1))
    with pytest.raises(ProtocolError):
        accepting.feed(dialling.take())


def test_an_accepted_window_holds_the_longest_message() -> None:
    def small(proof: Frame) -> Frame:
        return control(fr.PROOF, window=MIN_WINDOW - 1)

    with pytest.raises(ProtocolError):
        open_in_memory(Dialling(SERVER.public, tamper=small), Accepting(Credentials.of(SERVER)))
    dialling = Dialling(SERVER.public, tamper=lambda _: control(fr.PROOF, window=MIN_WINDOW))
    _, accepted = open_in_memory(dialling, Accepting(Credentials.of(SERVER)))
    assert isinstance(accepted, Accepted) and accepted.limits.window == MIN_WINDOW

"""This implementation dials a node: streams, credit, padding, drain."""

import hashlib

import pytest
from hcp_reader import frames as fr
from hcp_reader.frames import BULK_STREAM, CONTROL_STREAM, LIVE_STREAM, Frame, control, padme
from hcp_reader.keys import Secret
from hcp_reader.stream import MAX_MESSAGE, Kept
from helpers import Connect, ask, barrier, check_padding

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


def test_frames_for_a_stream_that_is_over_are_ignored(dialled: Connect) -> None:
    tcp = dialled()
    stream = ask(tcp, "test/echo/1")
    tcp.session.reset(stream, 1_024)
    for frame in (Frame(fr.DATA, stream, b"late"), control(fr.CREDIT, stream, bytes=1), control(fr.RESET, stream)):
        tcp.session.raw(frame)
    barrier(tcp)
    assert tcp.session.closed is None


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

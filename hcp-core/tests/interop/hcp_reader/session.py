"""A session and its lanes, without I/O: sections 6 to 11 of the document.

Bytes of connection `n` go in by `receive` and come out by `send`; 0 is the primary. What happened stands in `events`.
"""

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Iterable

from . import frames as fr
from .frames import BULK_STREAM, CONTROL_STREAM, LIVE_STREAM, Frame, Parser, ProtocolError, control, flush
from .opening import MAX_LANES, Accepted, Dialling, JoinRequest, LaneDialling, Limits, Link, farewell, session_id
from .schedule import TlsError
from .stream import MAX_CREDIT, Stream
from .tls13 import Connection

SHUTDOWN, PROTOCOL, REFUSED, BUSY, REPLACED = range(5)
BURST, PER_SECOND = 2_000, 1_000
MAX_ANSWERS = 1_024
PING_AFTER, DEAD_AFTER = 5.0, 15.0
MAX_NUMBER = 2**32 - 1


@dataclass(frozen=True)
class Event:
    """`opened`, `message`, `finished`, `reset`, `never served`, `pong`, `drain`, `lane ended`, `closed`."""

    what: str
    number: int = 0
    """The stream, or the connection."""
    code: int = 0


class Conn:
    """A connection of the session."""

    def __init__(self, tls: Connection, parser: Parser, now: float) -> None:
        self.tls, self.parser = tls, parser
        self.queues: tuple[deque[Frame], ...] = (deque(), deque(), deque(), deque())
        self.ping: bytes | None = None
        self.parted = False
        self.heard = now
        self.flushes = 0
        self.frames = Counter[int]()
        """How many frames of each kind have come."""

    def check_answers(self) -> None:
        """Raises when the peer asks on and reads nothing of what it was answered."""
        if sum(frame.kind in (fr.PONG, fr.RESET) for frame in self.queues[0]) >= MAX_ANSWERS:
            raise ProtocolError("answers that the peer does not read")


@dataclass
class Work:
    """Frames that cost the sender no credit, as a bucket that runs empty with time."""

    level: float = 0.0
    since: float = 0.0

    def add(self, now: float) -> None:
        self.level = max(0.0, self.level - (now - self.since) * PER_SECOND) + 1
        self.since = now
        if self.level > BURST:
            raise ProtocolError("too much work")


@dataclass
class Session:
    """One side of an established session."""

    link: Link
    is_dialler: bool
    theirs: Limits
    peer: bytes | None
    """The peer's address, None for an anonymous dialler."""
    now: float = 0.0
    ours: Limits = field(default_factory=Limits)
    eager: bool = True
    """Gives credit back for every message that is taken, not only when it is worth a frame."""
    streams: dict[int, Stream] = field(default_factory=dict[int, Stream])
    ended: dict[int, Stream] = field(default_factory=dict[int, Stream])
    events: deque[Event] = field(default_factory=deque[Event])
    conns: dict[int, Conn] = field(default_factory=dict[int, Conn])
    closed: int | None = None
    """The code of the CLOSE that was sent or received; -1 when the transport was lost."""
    drained: int | None = None
    peer_drained: int | None = None
    lane_numbers: set[int] = field(default_factory=set[int])
    work: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        self._highest = {1: -1, 0: 0}
        self._next = 1 if self.is_dialler else 2
        tls = self.link.tls
        assert tls.server_key is not None
        self.server_key, self.id = tls.server_key, session_id(tls)
        self.lane_key = tls.export("EXPORTER-hcp/1 lane key")
        self.conns[0] = Conn(tls, self.link.parser, self.now)
        self._guarded(self.conns[0], 0, self.link.rest)

    @staticmethod
    def dialled(dialling: Dialling, link: Link, now: float = 0.0) -> "Session":
        return Session(link, True, dialling.limits, dialling.target, now, dialling.ours)

    @staticmethod
    def accepted(accepted: Accepted, now: float = 0.0) -> "Session":
        return Session(accepted.link, False, accepted.limits, accepted.address, now)

    # What the application does.

    def open(self, protocol: str, priority: int = LIVE_STREAM) -> int:
        """Opens a stream; the caller keeps to the peer's limit unless it wants to break it."""
        assert self.peer_drained is None and self.drained is None
        number, self._next = self._next, self._next + 2
        self._highest[number & 1] = number
        self.streams[number] = Stream(number, protocol, priority, True, self.theirs.window, self.ours.window)
        self._queue(control(fr.OPEN, number, protocol=protocol, priority=priority))
        return number

    def send(self, stream: int, message: bytes, chunk: int | None = None, way: int | None = None) -> None:
        self.streams[stream].queue(message, chunk, way)

    def finish(self, stream: int, way: int | None = None) -> None:
        self.streams[stream].queue_fin(way)

    def reset(self, stream: int, code: int) -> None:
        self.streams[stream].reset = code
        self._queue(control(fr.RESET, stream, code=code))
        self._end(stream)

    def take(self, stream: int) -> bytes | None:
        """The next message, if there is one; its credit goes back."""
        found = self.streams.get(stream) or self.ended[stream]
        if not found.messages:
            return None
        message = found.pop()
        if stream in self.streams and not found.got_fin and (self.eager or found.owed > self.ours.window // 4):
            self.grant(stream, found.owed)
            found.owed = 0
        return message

    def grant(self, stream: int, amount: int) -> None:
        """Gives credit, also more than was used: the window grows."""
        found = self.streams[stream]
        found.granted += amount
        assert found.granted <= MAX_CREDIT
        received = found.next_in if found.is_bulk else 0
        self._queue(control(fr.CREDIT, stream, bytes=amount, received=received))

    def ping(self, conn: int = 0) -> None:
        assert self.conns[conn].ping is None
        payload = self.conns[conn].ping = os.urandom(8)
        self._queue(Frame(fr.PING, 0, payload), conn)

    def drain(self) -> None:
        self.drained = max(0, self._highest[0 if self.is_dialler else 1])
        self._queue(control(fr.DRAIN, last=self.drained))

    def close(self, code: int = SHUTDOWN) -> None:
        """Ends the session behind what is queued already."""
        self._queue(control(fr.CLOSE, code=code))
        self.closed = code

    def raw(self, frame: Frame, conn: int = 0) -> None:
        """Queues any frame, for tests that break rules."""
        self._queue(frame, conn)

    # Lanes.

    def lane_dialling(self, number: int | None = None) -> LaneDialling:
        number = number or max(self.lane_numbers, default=0) + 1
        self.lane_numbers.add(number)
        return LaneDialling(self.server_key, self.lane_key, self.id, number)

    def add_lane(self, dialling: LaneDialling, link: Link) -> int:
        self.conns[dialling.number] = Conn(link.tls, link.parser, self.now)
        self._guarded(self.conns[dialling.number], dialling.number, link.rest)
        return dialling.number

    def join(self, request: JoinRequest) -> bool:
        """Whether the JOIN fits; if not, the caller sends what `refuse` gives and closes."""
        if (
            self.is_dialler
            or request.session != self.id
            or not request.fits(self.lane_key)
            or request.link.tls.server_key != self.server_key
            or request.number == 0
            or request.number in self.lane_numbers
            or len(self.conns) - 1 >= MAX_LANES
        ):
            return False
        self.lane_numbers.add(request.number)
        self.conns[request.number] = Conn(request.link.tls, request.link.parser, self.now)
        self._guarded(self.conns[request.number], request.number, request.link.rest)
        return True

    def lost(self, conn: int) -> None:
        """The transport of a connection has ended."""
        if conn == 0:
            if self.closed is None:
                self.closed = -1
                self.events.append(Event("closed", code=-1))
            return
        if self.conns.pop(conn, None) is None:
            return
        self.events.append(Event("lane ended", conn))
        for stream in self.streams.values():
            for kept in stream.kept.values():
                if kept.conn == conn:
                    kept.conn = 0
                    self._queue(kept.frame)

    # Bytes and time.

    def receive(self, conn: int, data: bytes) -> None:
        """Takes bytes of a connection. A broken rule ends the session and is raised after CLOSE was queued."""
        if conn not in self.conns or self.closed is not None:
            return
        link = self.conns[conn]
        link.heard = self.now
        try:
            link.tls.feed(data)
        except TlsError:
            self.lost(conn)
            raise
        received = bytes(link.tls.received)
        link.tls.received.clear()
        self._guarded(link, conn, link.parser.feed(received))
        if link.tls.closed:
            self.lost(conn)

    def transmit(self, conn: int) -> bytes:
        """What is to be written to a connection now: flushes, each padded."""
        link = self.conns.get(conn)
        if link is None:
            return b""
        for stream in list(self.streams.values()):
            for frame, way in stream.ready():
                # Who opened a bulk stream waits until the peer is known to have seen OPEN.
                if way not in self.conns or stream.ours and not stream.heard:
                    way = 0
                if stream.is_bulk:
                    stream.kept[int.from_bytes(frame.payload[:8], "big")].conn = way
                self._queue(frame, way)
            self._settle(stream)
        while any(link.queues):
            self._flush(link)
        if self.closed is not None and self.closed >= 0 and conn == 0 and not link.parted:
            link.parted = True
            link.tls.close()
        return link.tls.take()

    def tick(self, now: float) -> None:
        """Asks who was silent, and gives up who stayed it."""
        self.now = now
        for number, link in list(self.conns.items()):
            if now - link.heard >= DEAD_AFTER:
                self.lost(number)
            elif now - link.heard >= PING_AFTER and link.ping is None:
                self.ping(number)

    def _flush(self, link: Conn) -> None:
        link.flushes += 1
        # Every fourth flush begins at the other end, so that nothing starves; but nothing comes before its OPEN.
        first, *classes = link.queues
        if link.flushes % 4 == 0:
            classes.reverse()
        frames, size = list[Frame](), 0
        for queue in (first, *classes):
            while queue and size + len(queue[0]) <= fr.MAX_FLUSH:
                size += len(queue[0])
                frames.append(queue.popleft())
            if queue:
                break
        if frames:
            link.tls.write(flush(frames))
            return
        # A frame that the format allows and no flush does; only `raw` makes one.
        link.tls.write(next(queue for queue in link.queues if queue).popleft().encode())

    def _queue(self, frame: Frame, conn: int = 0) -> None:
        stream = self.streams.get(frame.stream)
        queue = 0
        if frame.kind in (fr.DATA, fr.BULK) and stream is not None:
            queue = {CONTROL_STREAM: 1, BULK_STREAM: 3}.get(stream.priority, 2)
        self.conns[conn].queues[queue].append(frame)

    # Frames.

    def _guarded(self, link: Conn, conn: int, frames: Iterable[Frame]) -> None:
        try:
            for frame in frames:
                if self.closed is not None or conn not in self.conns:
                    return
                link.frames[frame.kind] += 1
                self._frame(link, conn, frame)
        except ProtocolError:
            self.close(PROTOCOL)
            raise
        self._maybe_close()

    def _frame(self, link: Conn, conn: int, frame: Frame) -> None:
        kind = frame.kind
        if kind >= fr.OPTIONAL or kind in (fr.OPEN, fr.RESET, fr.PING, fr.DRAIN):
            self.work.add(self.now)
        if kind >= fr.OPTIONAL:
            return
        if kind in (fr.OPEN, fr.PING):
            link.check_answers()
        if conn and kind not in (fr.BULK, fr.PING, fr.PONG, fr.CLOSE):
            raise ProtocolError(f"frame of kind {kind} on a lane")
        if kind == fr.PING:
            self._queue(Frame(fr.PONG, 0, frame.payload), conn)
        elif kind == fr.PONG:
            if link.ping != frame.payload:
                raise ProtocolError("a PONG that answers nothing")
            link.ping = None
            self.events.append(Event("pong", conn))
        elif kind == fr.CLOSE:
            if conn:
                self.lost(conn)
                return
            self.closed = frame.fields().number("code")
            self.events.append(Event("closed", code=self.closed))
        elif kind == fr.DRAIN:
            if self.peer_drained is not None:
                raise ProtocolError("a second DRAIN")
            self.peer_drained = frame.fields().number("last")
            self.events.append(Event("drain", self.peer_drained))
            for stream in [s for s in self.streams.values() if s.ours and s.number > self.peer_drained]:
                stream.reset = -1
                self.events.append(Event("never served", stream.number))
                self._end(stream.number)
        elif kind == fr.OPEN:
            self._opened(frame)
        elif kind in fr.OF_A_STREAM:
            self._of_a_stream(frame)
        else:
            raise ProtocolError(f"frame of kind {kind} in a session")

    def _opened(self, frame: Frame) -> None:
        number, values = frame.stream, frame.fields()
        protocol, priority = values.text("protocol"), values.number("priority")
        if number & 1 == self.is_dialler or number <= self._highest[number & 1]:
            raise ProtocolError(f"OPEN with the number {number}")
        if not 1 <= len(protocol.encode()) <= 255:
            raise ProtocolError("a protocol without a name, or with a long one")
        if self.peer_drained is not None:
            raise ProtocolError("OPEN behind DRAIN")
        if sum(not stream.ours for stream in self.streams.values()) >= self.ours.max_streams:
            raise ProtocolError("too many streams")
        self._highest[number & 1] = number
        if self.drained is not None:
            return
        self.streams[number] = Stream(number, protocol, priority, False, self.theirs.window, self.ours.window)
        self.events.append(Event("opened", number))
        if priority == BULK_STREAM:
            self._queue(control(fr.CREDIT, number))

    def _of_a_stream(self, frame: Frame) -> None:
        if frame.stream > self._highest[frame.stream & 1]:
            raise ProtocolError("a frame for a stream that was never opened")
        values = frame.fields() if frame.kind in fr.MESSAGES else None
        if frame.kind == fr.CREDIT and values is not None and not values.number("bytes"):
            self.work.add(self.now)
        stream = self.streams.get(frame.stream)
        if stream is None:
            return
        stream.heard = True
        if frame.kind == fr.RESET and values is not None:
            stream.reset = values.number("code")
            self.events.append(Event("reset", stream.number, stream.reset))
        elif frame.kind == fr.CREDIT and values is not None:
            stream.credit(values.number("bytes"), values.number("received"))
        else:
            before, had_fin = len(stream.messages), stream.got_fin
            stream.take(frame)
            for _ in range(len(stream.messages) - before):
                self.events.append(Event("message", stream.number))
            if stream.got_fin and not had_fin:
                self.events.append(Event("finished", stream.number))
                if stream.is_bulk:
                    self._queue(control(fr.CREDIT, stream.number, received=stream.next_in))
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        if stream.over and stream.number in self.streams:
            self._end(stream.number)

    def _end(self, number: int) -> None:
        self.ended[number] = self.streams.pop(number)
        self._maybe_close()

    def _maybe_close(self) -> None:
        mine = self.drained is not None and (self.peer_drained is None or self.is_dialler)
        if mine and not self.streams and self.closed is None:
            self.close()


def refuse(request: JoinRequest) -> bytes:
    """What an acceptor without a session for this JOIN sends."""
    return farewell(request.link.tls, REFUSED)

"""One stream: messages cut into frames and put together again, credit, places. Sections 7 and 8 of the document."""

from collections import deque
from dataclasses import dataclass, field

from .frames import BULK, BULK_STREAM, DATA, FIN, MAX_FLUSH, MORE, Frame, ProtocolError, bulk

MAX_MESSAGE = 524_288
FRAME_COST = 64
MAX_CREDIT = 8_388_608
MIN_WINDOW = 532_480
# The longest payload of a frame that fits into a flush.
CHUNK = MAX_FLUSH - 10
BULK_CHUNK = CHUNK - 8
# No end could follow what has this place.
NO_PLACE = 2**64 - 1


def cost(frame: Frame) -> int:
    """What a frame takes of the credit."""
    if frame.flags & FIN:
        return 0
    return len(frame.payload) - (8 if frame.kind == BULK else 0) + FRAME_COST


@dataclass
class Kept:
    """A bulk frame that is not yet known to have arrived, and the connection by which it went."""

    frame: Frame
    conn: int


@dataclass
class Stream:
    """A stream as one side sees it. `allowed` and `granted` are what may still be sent, and what the peer may."""

    number: int
    protocol: str
    priority: int
    ours: bool
    allowed: int
    granted: int
    messages: deque[bytes] = field(default_factory=deque[bytes])
    """Whole messages that the application has not taken."""
    sent_fin: bool = False
    got_fin: bool = False
    reset: int | None = None
    """The code, after RESET from either side, or -1 when the peer drained and never served the stream."""
    heard: bool = False
    """Whether any frame for this stream has come."""
    owed: int = 0
    """What messages that were taken cost, and was not yet given back."""
    next_out: int = 0
    confirmed: int = 0
    kept: dict[int, Kept] = field(default_factory=dict[int, Kept])
    next_in: int = 0
    early: dict[int, Frame] = field(default_factory=dict[int, Frame])
    fin_place: int | None = None
    _waiting: deque[tuple[bytes, int, int | None]] = field(default_factory=deque[tuple[bytes, int, int | None]])
    _partial: bytearray = field(default_factory=bytearray)
    _inside: bool = False
    _partial_cost: int = 0
    _costs: deque[int] = field(default_factory=deque[int])

    @property
    def is_bulk(self) -> bool:
        return self.priority == BULK_STREAM

    @property
    def over(self) -> bool:
        """Whether nothing is to come or to go any more, save what `received` has not covered."""
        if self.reset is not None:
            return True
        return self.sent_fin and self.got_fin and not self._waiting and not self.kept

    # Sending.

    def queue(self, message: bytes, chunk: int | None = None, way: int | None = None) -> None:
        """Cuts a message into frames of `chunk` bytes, to go by the connection `way` when it is BULK."""
        if len(message) > MAX_MESSAGE:
            raise ValueError("a message that is too long")
        chunk = chunk or (BULK_CHUNK if self.is_bulk else CHUNK)
        starts = list(range(0, len(message), chunk)) or [0]
        for start in starts:
            self._waiting.append((message[start : start + chunk], 0 if start == starts[-1] else MORE, way))

    def queue_fin(self, way: int | None = None) -> None:
        self._waiting.append((b"", FIN, way))

    def ready(self) -> list[tuple[Frame, int]]:
        """The frames that credit lets out now, and the connection that each asked for."""
        out = list[tuple[Frame, int]]()
        while self._waiting and self.reset is None:
            payload, flags, way = self._waiting[0]
            price = 0 if flags & FIN else len(payload) + FRAME_COST
            if price > self.allowed:
                break
            self._waiting.popleft()
            self.allowed -= price
            self.sent_fin |= bool(flags & FIN)
            if self.is_bulk:
                frame = bulk(self.number, self.next_out, payload, flags)
                self.kept[self.next_out] = Kept(frame, way or 0)
                self.next_out += 1
            else:
                frame = Frame(DATA, self.number, payload, flags)
            out.append((frame, way or 0))
        return out

    def credit(self, amount: int, received: int) -> None:
        """Takes a CREDIT. What the peer has not acknowledged counts as if it was still to be sent."""
        self.allowed += amount
        if received and not self.is_bulk:
            raise ProtocolError("received on a stream that is not bulk")
        if self.is_bulk:
            if received > self.next_out or received < self.confirmed:
                raise ProtocolError("received goes back, or beyond what was sent")
            for place in range(self.confirmed, received):
                del self.kept[place]
            self.confirmed = received
        if self.allowed + sum(cost(kept.frame) for kept in self.kept.values()) > MAX_CREDIT:
            raise ProtocolError("more credit than may be out")

    # Receiving.

    def take(self, frame: Frame) -> None:
        """Takes DATA or BULK."""
        if (frame.kind == BULK) != self.is_bulk:
            raise ProtocolError("DATA on a bulk stream, or BULK on another")
        if not self.is_bulk:
            self._charge(frame)
            self._in_order(frame, frame.payload)
            return
        place = int.from_bytes(frame.payload[:8], "big")
        if place < self.next_in or place in self.early:
            return
        if place == NO_PLACE:
            raise ProtocolError("a place that no end can follow")
        if frame.flags & FIN:
            if self.fin_place is not None or any(other > place for other in self.early):
                raise ProtocolError("a second FIN, or one before what was sent")
            self.fin_place = place
        elif self.fin_place is not None and place > self.fin_place:
            raise ProtocolError("a frame behind FIN")
        self._charge(frame)
        self.early[place] = frame
        while self.next_in in self.early:
            next_frame = self.early.pop(self.next_in)
            self.next_in += 1
            self._in_order(next_frame, next_frame.payload[8:])

    def _charge(self, frame: Frame) -> None:
        self.granted -= cost(frame)
        if self.granted < 0:
            raise ProtocolError("more than was allowed")

    def _in_order(self, frame: Frame, content: bytes) -> None:
        if self.got_fin:
            raise ProtocolError("a frame behind FIN")
        if frame.flags & FIN:
            if self._inside:
                raise ProtocolError("FIN inside of a message")
            self.got_fin = True
            return
        self._partial += content
        self._partial_cost += cost(frame)
        self._inside = bool(frame.flags & MORE)
        if len(self._partial) > MAX_MESSAGE:
            raise ProtocolError("a message that is too long")
        if not self._inside:
            self.messages.append(bytes(self._partial))
            self._costs.append(self._partial_cost)
            self._partial.clear()
            self._partial_cost = 0

    def pop(self) -> bytes:
        """Hands the next message out; what it cost is then owed to the peer."""
        self.owed += self._costs.popleft()
        return self.messages.popleft()

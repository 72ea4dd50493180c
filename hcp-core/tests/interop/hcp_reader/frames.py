"""Frames and padding: sections 3 and 9 of the document."""

from dataclasses import dataclass
from typing import Iterable, Iterator

from . import protobuf
from .protobuf import Fields, Malformed

HELLO, PROOF, JOIN, OPEN, DATA, BULK, CREDIT, RESET, PING, PONG, DRAIN, CLOSE = range(1, 13)
MORE, FIN = 1, 2

LIVE_STREAM, BULK_STREAM, CONTROL_STREAM = 0, 1, 2

HEADER = 10
LIMITS = {
    HELLO: 4_096,
    PROOF: 1_024,
    JOIN: 52,
    OPEN: 1_024,
    DATA: 65_536,
    BULK: 65_544,
    CREDIT: 64,
    RESET: 64,
    PING: 8,
    PONG: 8,
    DRAIN: 64,
    CLOSE: 64,
}
OPTIONAL, MAX_OPTIONAL = 128, 65_536
EXACT = {JOIN: 52, PING: 8, PONG: 8}
OF_A_STREAM = {OPEN, DATA, BULK, CREDIT, RESET}
MESSAGES: dict[int, Fields] = {
    HELLO: protobuf.HELLO,
    PROOF: protobuf.PROOF,
    OPEN: protobuf.OPEN,
    CREDIT: protobuf.CREDIT,
    RESET: protobuf.CODE,
    DRAIN: protobuf.DRAIN,
    CLOSE: protobuf.CODE,
}

MAX_FLUSH = 65_536
FIRST_FLIGHT = 1_024
CLASSES = (1_024, 4_096, 16_384, 65_536)


class ProtocolError(Exception):
    """The peer broke a rule: CLOSE with code `protocol`."""


@dataclass(frozen=True)
class Frame:
    """One frame as it stands on the wire."""

    kind: int
    stream: int = 0
    payload: bytes = b""
    flags: int = 0

    def encode(self) -> bytes:
        head = bytes([self.kind, self.flags]) + self.stream.to_bytes(4, "big")
        return head + len(self.payload).to_bytes(4, "big") + self.payload

    def __len__(self) -> int:
        return HEADER + len(self.payload)

    def fields(self) -> "Values":
        """The fields of a control message."""
        try:
            return Values(protobuf.decode(MESSAGES[self.kind], self.payload))
        except Malformed as error:
            raise ProtocolError(f"a control message that is none: {error}") from error


class Values:
    """The fields of a control message, by name and type."""

    def __init__(self, values: dict[str, protobuf.Value]) -> None:
        self._values = values

    def all(self) -> dict[str, protobuf.Value]:
        return self._values

    def number(self, name: str) -> int:
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def data(self, name: str) -> bytes:
        value = self._values[name]
        assert isinstance(value, bytes)
        return value

    def text(self, name: str) -> str:
        value = self._values[name]
        assert isinstance(value, str)
        return value


def control(kind: int, stream: int = 0, **values: protobuf.Value) -> Frame:
    """A frame with a control message."""
    return Frame(kind, stream, protobuf.encode(MESSAGES[kind], **values))


def bulk(stream: int, place: int, payload: bytes, flags: int = 0) -> Frame:
    return Frame(BULK, stream, place.to_bytes(8, "big") + payload, flags)


def check_header(kind: int, flags: int, stream: int, length: int) -> None:
    """What a header alone can have wrong."""
    if kind >= OPTIONAL:
        if length > MAX_OPTIONAL:
            raise ProtocolError("an optional frame that is too long")
        return
    if kind not in LIMITS:
        raise ProtocolError(f"frame of the unknown kind {kind}")
    if length > LIMITS[kind] or length != EXACT.get(kind, length) or kind == BULK and length < 8:
        raise ProtocolError(f"frame of kind {kind} with the length {length}")
    if flags & ~(MORE | FIN if kind in (DATA, BULK) else 0):
        raise ProtocolError(f"frame of kind {kind} with the flags {flags}")
    if flags & FIN and (flags & MORE or length != (8 if kind == BULK else 0)):
        raise ProtocolError("FIN on a frame that holds something, or that has more to come")
    if (stream != 0) != (kind in OF_A_STREAM):
        raise ProtocolError(f"frame of kind {kind} on stream {stream}")


class Parser:
    """Cuts what arrives into frames and skips padding. Optional frames are given too: they count as work."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.padding = 0

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._data)

    def feed(self, data: bytes | bytearray) -> Iterator[Frame]:
        """Takes bytes at once; frames are checked and given one by one, and raise ProtocolError where they are due."""
        self._data += data
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        while True:
            if self._data.startswith(b"\0"):
                stripped = self._data.lstrip(b"\0")
                self.padding += len(self._data) - len(stripped)
                self._data = stripped
            if len(self._data) < HEADER:
                return
            kind, flags = self._data[0], self._data[1]
            stream = int.from_bytes(self._data[2:6], "big")
            length = int.from_bytes(self._data[6:10], "big")
            check_header(kind, flags, stream, length)
            if len(self._data) < HEADER + length:
                return
            payload = bytes(self._data[HEADER : HEADER + length])
            del self._data[: HEADER + length]
            yield Frame(kind, stream, payload, flags)


def padme(length: int) -> int:
    """The Padmé length of a flush with BULK."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    step = 1 << exponent - exponent.bit_length()
    return -(-length // step) * step


def padded(length: int, has_bulk: bool) -> int:
    """How long a flush of `length` bytes is on the wire."""
    if not 0 < length <= MAX_FLUSH:
        raise ValueError(f"a flush of {length} bytes")
    return padme(length) if has_bulk else next(size for size in CLASSES if length <= size)


def flush(frames: Iterable[Frame], size: int | None = None) -> bytes:
    """Frames that go out together, padded to their class, or to `size`."""
    frames = list(frames)
    data = b"".join(frame.encode() for frame in frames)
    return data.ljust(size or padded(len(data), any(frame.kind == BULK for frame in frames)), b"\0")

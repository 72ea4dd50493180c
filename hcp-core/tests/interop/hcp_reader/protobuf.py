"""As much of proto3 as the control messages of section 3 need: numbers, bytes, strings; the unknown is skipped."""

from typing import Mapping

Value = int | bytes | str
# The number of a field: its name, and whether it is a number, bytes or text.
Fields = Mapping[int, tuple[str, type[int] | type[bytes] | type[str]]]

HELLO: Fields = {
    1: ("certificate", bytes),
    2: ("delegation", bytes),
    3: ("window", int),
    4: ("max_streams", int),
}
PROOF: Fields = {
    1: ("address", bytes),
    2: ("signature", bytes),
    3: ("known", bytes),
    4: ("window", int),
    5: ("max_streams", int),
}
OPEN: Fields = {1: ("protocol", str), 2: ("priority", int)}
CREDIT: Fields = {1: ("bytes", int), 2: ("received", int)}
CODE: Fields = {1: ("code", int)}
DRAIN: Fields = {1: ("last", int)}

# How deep groups, which no message here has, may stand in each other.
MAX_DEPTH = 100


class Malformed(Exception):
    """Bytes that are no protobuf message of this type."""


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def encode(fields: Fields, **values: Value) -> bytes:
    """A message; what has its default value is left out."""
    numbers = {name: number for number, (name, _) in fields.items()}
    out = b""
    for name, value in sorted(values.items(), key=lambda item: numbers[item[0]]):
        if isinstance(value, int):
            out += varint(numbers[name] << 3) + varint(value) if value else b""
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(numbers[name] << 3 | 2) + varint(len(data)) + data if data else b""
    return out


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise Malformed("too short")
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise Malformed("a number beyond 64 bits")
                return value
        raise Malformed("a number that does not end")

    def key(self) -> tuple[int, int]:
        key = self.varint()
        if key >> 32 or key >> 3 == 0:
            raise Malformed("not a field")
        return key >> 3, key & 7

    def skip(self, number: int, wire: int, depth: int = 0) -> None:
        if wire == 0:
            self.varint()
        elif wire == 1:
            self.take(8)
        elif wire == 2:
            self.take(self.varint())
        elif wire == 5:
            self.take(4)
        elif wire == 3 and depth < MAX_DEPTH:
            while (inner := self.key()) != (number, 4):
                self.skip(*inner, depth + 1)
        else:
            raise Malformed("a wire type that is none")


def decode(fields: Fields, data: bytes) -> dict[str, Value]:
    """All fields by name; of one that stands there twice the last counts."""
    values: dict[str, Value] = {name: kind() for name, kind in fields.values()}
    reader = _Reader(data)
    while reader.at < len(data):
        number, wire = reader.key()
        if number not in fields:
            reader.skip(number, wire)
            continue
        name, kind = fields[number]
        if wire != (0 if kind is int else 2):
            raise Malformed("a field of another type")
        if kind is int:
            values[name] = reader.varint()
            continue
        content = reader.take(reader.varint())
        try:
            values[name] = content.decode() if kind is str else content
        except UnicodeDecodeError as error:
            raise Malformed("text that is not UTF-8") from error
    return values

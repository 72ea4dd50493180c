"""Segments, links and checkpoints of a service's log: section 19 of the document."""

from collections.abc import Callable
from dataclasses import dataclass, field

from blake3 import blake3

from .keys import KeyRefused, Secret, SignatureRefused, verify
from .owner import Fields, Refused

MAX_PAYLOAD, MAX_MESSAGE, MAX_SUMMARY = 262_144, 442_581, 327_680
SALT = 16
PLAIN, AGAIN, MANIFEST, FORK, RETENTION, VOTE = range(6)
HELLO, FRONTIER, SEGMENT, RECEIPT, CREDIT, NEED, OFFER, FETCH, PIECE, HOLDS = range(1, 11)
SKIPPED = 128


def hashed(what: str, data: bytes) -> bytes:
    """BLAKE3's key derivation with the context of something of the log's."""
    return blake3(data, derive_key_context=f"HCP/1 {what}").digest()


class Reader(Fields):
    """Reads what this section has beside numbers."""

    def number_of_segment(self) -> int:
        return self.number(8, lambda number: 0 < number < 2**64 - 1)

    def counted(self, size: int, most: int, read: Callable[[], bytes]) -> list[bytes]:
        return [read() for _ in range(self.number(size, lambda count: count <= most))]

    def tip(self) -> "Tip":
        return Tip(self.take(48), self.number_of_segment(), self.take(32))

    def rest(self) -> bytes:
        return self.take(len(self.left))


@dataclass(frozen=True)
class Tip:
    """Names a segment."""

    log: bytes
    number: int
    hash: bytes

    def raw(self) -> bytes:
        return self.log + self.number.to_bytes(8, "big") + self.hash

    def signed(self, purpose: str, service: bytes) -> bytes:
        """What a segment's author, or who confirms to hold it, signs."""
        return f"HCP/1 {purpose}\0".encode() + service + self.raw()


@dataclass(frozen=True)
class Header:
    """What stands before a payload."""

    log: bytes
    number: int
    before: bytes
    millis: int
    counter: int
    manifest: int
    root: bytes
    system: bool = False
    dependencies: list[Tip] = field(default_factory=list[Tip])

    def raw(self) -> bytes:
        return b"".join(
            (
                bytes((1, self.system)),
                self.log,
                self.number.to_bytes(8, "big"),
                self.before,
                self.millis.to_bytes(8, "big"),
                self.counter.to_bytes(4, "big"),
                self.manifest.to_bytes(8, "big"),
                self.root,
                len(self.dependencies).to_bytes(2, "big"),
                *(tip.raw() for tip in self.dependencies),
            )
        )


def read_header(data: bytes) -> Header:
    """Reads a header, or raises Refused."""
    reader = Reader(data)
    reader.number(1, lambda layout: layout == 1)
    system = bool(reader.number(1) & 1)
    log, number, before = reader.take(48), reader.number_of_segment(), reader.take(32)
    if (number == 1) != (before == bytes(32)):
        raise Refused("what stands before it")
    millis, counter, manifest, root = reader.number(8), reader.number(4), reader.number(8), reader.take(32)
    dependencies = [reader.tip() for _ in range(reader.number(2, lambda count: count <= 2_048))]
    reader.end()
    raw = [tip.raw() for tip in dependencies]
    if raw != sorted(set(raw)) or any(tip.log == log for tip in dependencies):
        raise Refused("dependencies")
    return Header(log, number, before, millis, counter, manifest, root, system, dependencies)


@dataclass(frozen=True)
class Segment:
    """A header and its payload, with a signature that was not looked at."""

    header: bytes
    signature: bytes
    payload: bytes

    @property
    def head(self) -> Header:
        return read_header(self.header)

    @property
    def tip(self) -> Tip:
        return Tip(self.head.log, self.head.number, hashed("segment hash", self.header))

    def check_form(self) -> None:
        """Raises Refused unless all but the signature is good."""
        head = self.head
        if len(self.payload) > MAX_PAYLOAD or head.root != hashed("payload root", self.payload):
            raise Refused("payload")
        own = {AGAIN, MANIFEST, FORK, RETENTION, VOTE}
        if not head.system and any(kind in own for kind, _ in entries(self.payload)):
            raise Refused("hidden entries")

    def check(self, service: bytes) -> None:
        """Raises Refused unless its author wrote it for this service."""
        self.check_form()
        _check_signature(self.head.log[:32], self.tip.signed("segment", service), self.signature)


def _check_signature(key: bytes, message: bytes, signature: bytes) -> None:
    try:
        verify(key, message, signature)
    except (KeyRefused, SignatureRefused) as error:
        raise Refused("signature") from error


def write(author: Secret, service: bytes, header: Header, payload: bytes) -> Segment:
    """Signs a segment of this payload."""
    header = Header(**{**header.__dict__, "root": hashed("payload root", payload)})
    tip = Tip(header.log, header.number, hashed("segment hash", header.raw()))
    return Segment(header.raw(), author.sign(tip.signed("segment", service)), payload)


def payload_of(salt: bytes, content: list[tuple[int, bytes]]) -> bytes:
    """A payload with these entries: kinds and bodies."""
    return salt + b"".join(kind.to_bytes(2, "big") + len(body).to_bytes(4, "big") + body for kind, body in content)


def entries(payload: bytes) -> list[tuple[int, bytes]]:
    """Kinds and bodies of a payload's entries; Refused when one is malformed."""
    reader = Reader(payload)
    reader.take(SALT)
    found: list[tuple[int, bytes]] = []
    while reader.left:
        kind, body = reader.number(2), reader.take(reader.number(4))
        most = {PLAIN: 65_536, MANIFEST: 81_920}.get(kind, 65_608)
        if len(body) > most:
            raise Refused("an entry beyond its limit")
        if check := ENTRIES.get(kind):
            inside = Reader(body)
            check(inside)
            inside.end()
        found.append((kind, body))
    return found


def _again(reader: Reader) -> None:
    reader.take(48)
    reader.number_of_segment()
    reader.take(4 + 8 + 4)
    reader.rest()


def _fork(reader: Reader) -> None:
    reader.tip()
    reader.take(64 + 32 + 64)


def _vote(reader: Reader) -> None:
    reader.tip()
    reader.take(32 + 64)


ENTRIES: dict[int, Callable[[Reader], object]] = {
    AGAIN: _again,
    FORK: _fork,
    RETENTION: lambda reader: reader.take(32),
    VOTE: _vote,
}


@dataclass(frozen=True)
class Statement:
    """What members sign of a state."""

    asked: Tip
    manifest: int
    summary: bytes
    root: bytes
    length: int

    def raw(self) -> bytes:
        numbers = (self.manifest.to_bytes(8, "big"), self.length.to_bytes(8, "big"))
        return b"\1" + self.asked.raw() + numbers[0] + self.summary + self.root + numbers[1]

    @property
    def hash(self) -> bytes:
        return hashed("checkpoint statement", self.raw())

    def signed(self, service: bytes) -> bytes:
        return b"HCP/1 checkpoint\0" + service + self.hash


@dataclass(frozen=True)
class Certificate:
    """A statement with members' signatures."""

    statement: Statement
    signatures: list[tuple[bytes, bytes]]

    def raw(self) -> bytes:
        signatures = b"".join(node + signature for node, signature in self.signatures)
        return self.statement.raw() + bytes((len(self.signatures),)) + signatures

    def is_good(self, service: bytes, covered: list[bytes], newest: list[bytes]) -> bool:
        """Whether it stands, by the members of the newest manifest in it and by those of the newest that is known."""

        def holds(node: bytes, signature: bytes) -> bool:
            try:
                verify(node, self.statement.signed(service), signature)
            except (KeyRefused, SignatureRefused):
                return False
            return True

        signers = {node for node, signature in self.signatures if holds(node, signature)}
        enough = (len(covered) + _may_lie(covered)) // 2
        return len(signers & set(covered)) > enough and len(signers & set(newest)) > _may_lie(newest)


def _may_lie(members: list[bytes]) -> int:
    return (len(members) - 1) // 3


def _statement(reader: Reader) -> Statement:
    reader.number(1, lambda layout: layout == 1)
    return Statement(reader.tip(), reader.number(8), reader.take(32), reader.take(32), reader.number(8))


def read_certificate(data: bytes) -> Certificate:
    """Reads a certificate, or raises Refused; signatures are not looked at."""
    reader = Reader(data)
    statement = _statement(reader)
    count = reader.number(1, lambda count: count <= 128)
    signatures = [(reader.take(32), reader.take(64)) for _ in range(count)]
    reader.end()
    nodes = [node for node, _ in signatures]
    if nodes != sorted(set(nodes)):
        raise Refused("the order of nodes")
    return Certificate(statement, signatures)


def state_root(pieces: list[bytes]) -> bytes:
    """The root of a state, of the hashes of its pieces."""
    return hashed("checkpoint state", b"".join(pieces))


@dataclass(frozen=True)
class Writer:
    """How far a checkpoint has a writer, and what its author had seen, by places in the order of writers."""

    branch: bytes
    stands_on: int
    first: int
    last: int
    hash: bytes
    seen: list[tuple[int, int]]


# A log, a branch, a number.
Place = tuple[bytes, bytes, int]


@dataclass(frozen=True)
class Told:
    """A manifest, and where it stands."""

    version: int
    hash: bytes
    places: list[Place]


@dataclass(frozen=True)
class Log:
    """A log in a summary."""

    log: bytes
    began: int
    flags: int
    closed: list[Place]
    writers: list[Writer]


@dataclass(frozen=True)
class Summary:
    """The log's own part of a checkpoint."""

    newest: bytes
    manifests: list[Told]
    # With the newest manifest that lacks it.
    members: list[tuple[bytes, int, bytes]]
    over: list[tuple[bytes, int]]
    again: list[tuple[bytes, list[tuple[int, int]]]]
    logs: list[Log]

    def raw(self) -> bytes:
        out = [b"\2", _u32(len(self.newest)), self.newest, _u32(len(self.manifests))]
        for told in self.manifests:
            out += [_u64(told.version), told.hash, _places(told.places)]
        out += [_u32(len(self.members)), *(node + _u64(version) + hash for node, version, hash in self.members)]
        out += [_u32(len(self.over)), *(log + _u64(last) for log, last in self.over)]
        out.append(_u32(len(self.again)))
        for log, places in self.again:
            out += [log, _u32(len(places)), *(_u64(number) + _u32(index) for number, index in places)]
        out.append(_u32(len(self.logs)))
        for log in self.logs:
            out += [log.log, _u64(log.began), bytes((log.flags,))]
            out += [_places(log.closed), _u32(len(log.writers))]
            for writer in log.writers:
                out += [writer.branch, _u32(writer.stands_on), _u64(writer.first), _u64(writer.last), writer.hash]
                out += [_u32(len(writer.seen)), *(_u32(place) + _u64(number) for place, number in writer.seen)]
        return b"".join(out)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _places(places: list[Place]) -> bytes:
    return _u32(len(places)) + b"".join(log + branch + _u64(number) for log, branch, number in places)


def read_summary(data: bytes) -> Summary:
    """Reads a summary, or raises Refused."""
    if len(data) > MAX_SUMMARY:
        raise Refused("a summary beyond its limit")
    reader = Reader(data)

    def count() -> range:
        return range(reader.number(4))

    def places() -> list[Place]:
        return [(reader.take(48), reader.take(32), reader.number(8)) for _ in count()]

    def told() -> Told:
        return Told(reader.number(8), reader.take(32), places())

    def log() -> Log:
        head = reader.take(48), reader.number(8), reader.number(1)
        return Log(*head, places(), [writer() for _ in count()])

    def writer() -> Writer:
        head = reader.take(32), reader.number(4), reader.number(8), reader.number(8), reader.take(32)
        return Writer(*head, [(reader.number(4), reader.number(8)) for _ in count()])

    reader.number(1, lambda layout: layout == 2)
    newest = reader.take(reader.number(4))
    manifests = [told() for _ in count()]
    members = [(reader.take(32), reader.number(8), reader.take(32)) for _ in count()]
    if any((*lacking,) not in {(told.version, told.hash) for told in manifests} | {(0, bytes(32))} for _, *lacking in members):
        raise Refused("a manifest that is not there")
    over = [(reader.take(48), reader.number(8)) for _ in count()]
    again = [(reader.take(48), [(reader.number(8), reader.number(4)) for _ in count()]) for _ in count()]
    summary = Summary(newest, manifests, members, over, again, [log() for _ in count()])
    reader.end()
    writers = [writer for log in summary.logs for writer in log.writers]
    if any(place >= len(writers) for writer in writers for place, _ in writer.seen):
        raise Refused("a writer that is not there")
    return summary


@dataclass(frozen=True)
class Message:
    """A message of a link: its kind, and its fields in the order of the document."""

    kind: int
    fields: tuple[object, ...]


def _versions(reader: Reader) -> tuple[int, ...]:
    return tuple(reader.number(2) for _ in range(3))


def _hello(reader: Reader) -> tuple[object, ...]:
    return reader.take(32), reader.take(48), _versions(reader), _versions(reader), reader.number(8)


def _frontier(reader: Reader) -> tuple[object, ...]:
    tips = [reader.tip() for _ in range(reader.number(2, lambda count: count <= 512))]
    linked = reader.number(1, lambda flag: flag < 2)
    return tips, reader.counted(2, 128, lambda: reader.take(32)) if linked else None


def _segment(reader: Reader) -> tuple[object, ...]:
    segment = Segment(reader.take(reader.number(4)), reader.take(64), reader.rest())
    segment.check_form()
    return (segment,)


def _offer(reader: Reader) -> tuple[object, ...]:
    lengths = reader.number(4), reader.number(4, lambda length: length <= MAX_SUMMARY)
    certificate, summary = (reader.take(length) for length in lengths)
    pieces = [reader.take(32) for _ in range(-(-len(reader.left) // 32))]
    if len(pieces) > 4_096:
        raise Refused("too many pieces")
    return read_certificate(certificate), summary, pieces


def _piece(reader: Reader) -> tuple[object, ...]:
    root, index, piece = reader.take(32), reader.number(4), reader.rest()
    if len(piece) > 131_072:
        raise Refused("a piece beyond its limit")
    return root, index, piece


MESSAGES: dict[int, Callable[[Reader], tuple[object, ...]]] = {
    HELLO: _hello,
    FRONTIER: _frontier,
    SEGMENT: _segment,
    RECEIPT: lambda reader: (reader.tip(), reader.take(64)),
    CREDIT: lambda reader: (reader.number(8),),
    NEED: lambda reader: (reader.tip(), reader.number(4)),
    OFFER: _offer,
    FETCH: lambda reader: (reader.take(32), reader.number(4)),
    PIECE: _piece,
    HOLDS: lambda reader: (reader.take(32),),
}


def read_message(data: bytes) -> Message | None:
    """Reads a message, or raises Refused; None for one that is skipped."""
    if len(data) > MAX_MESSAGE:
        raise Refused("a message beyond its limit")
    reader = Reader(data)
    kind = reader.number(1)
    if kind >= SKIPPED:
        return None
    if kind not in MESSAGES:
        raise Refused("an unknown kind")
    message = Message(kind, MESSAGES[kind](reader))
    reader.end()
    return message


def write_message(message: Message) -> bytes:
    """The bytes of a message."""
    kind = bytes((message.kind,))
    match message.kind, message.fields:
        case 1, (bytes(service), bytes(log), tuple(software), tuple(lowest), int(manifest)):
            numbers = b"".join(int(number).to_bytes(2, "big") for number in (*software, *lowest))
            return kind + service + log + numbers + _u64(manifest)
        case 2, (list(tips), None):
            return kind + _u16(len(tips)) + b"".join(tip.raw() for tip in tips) + b"\0"
        case 2, (list(tips), list(nodes)):
            told = _u16(len(tips)) + b"".join(tip.raw() for tip in tips)
            return kind + told + b"\1" + _u16(len(nodes)) + b"".join(nodes)
        case 3, (Segment() as segment,):
            return kind + _u32(len(segment.header)) + segment.header + segment.signature + segment.payload
        case 4, (Tip() as tip, bytes(signature)):
            return kind + tip.raw() + signature
        case 5, (int(credit),):
            return kind + _u64(credit)
        case 6, (Tip() as tip, int(back)):
            return kind + tip.raw() + _u32(back)
        case 7, (Certificate() as certificate, bytes(summary), list(pieces)):
            lengths = _u32(len(certificate.raw())) + _u32(len(summary))
            return kind + lengths + certificate.raw() + summary + b"".join(pieces)
        case 8, (bytes(root), int(index)):
            return kind + root + _u32(index)
        case 9, (bytes(root), int(index), bytes(piece)):
            return kind + root + _u32(index) + piece
        case 10, (bytes(statement),):
            return kind + statement
        case _:
            raise ValueError("fields of another kind")


def _u16(number: int) -> bytes:
    return number.to_bytes(2, "big")

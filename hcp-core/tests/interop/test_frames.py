"""Frames, control messages, padding, delegation: this implementation alone."""

import pytest
from hcp_reader import delegation, protobuf
from hcp_reader import frames as fr
from hcp_reader.frames import Frame, Parser, ProtocolError, control, flush, padded, padme
from hcp_reader.keys import Secret

FRAMES = [
    control(fr.HELLO, window=655_360, max_streams=32),
    control(fr.OPEN, 1, protocol="a/b/1", priority=1),
    Frame(fr.DATA, 1, b"\0\0\0", fr.MORE),
    Frame(fr.DATA, 1),
    Frame(fr.DATA, 1, b"", fr.FIN),
    fr.bulk(3, 2**40, b"x" * 65_536),
    Frame(fr.PING, 0, bytes(8)),
    Frame(200, 9, bytes(65_536), 255),
]


def test_frames_come_back_at_every_split_and_with_any_padding() -> None:
    data = b"\0\0\0".join(frame.encode() for frame in FRAMES) + bytes(5)
    assert list(Parser().feed(data)) == FRAMES
    splits = [*range(200), *range(200, len(data), 4_099)]
    for split in splits:
        parser = Parser()
        assert [*parser.feed(data[:split]), *parser.feed(data[split:])] == FRAMES
        assert not parser.inside and parser.padding == 3 * (len(FRAMES) - 1) + 5


@pytest.mark.parametrize(
    "header",
    [
        "0d 00 00000000 00000000",  # an unknown kind
        "7f 00 00000000 00000000",
        "01 01 00000000 00000000",  # a flag that HELLO does not have
        "05 04 00000001 00000000",  # a flag that nobody has
        "05 03 00000001 00000000",  # FIN with MORE
        "05 02 00000001 00000001",  # FIN with a payload
        "06 02 00000001 00000009",
        "06 00 00000001 00000007",  # BULK without its place
        "01 00 00000000 00001001",  # too long
        "05 00 00000001 00010001",
        "06 00 00000001 00010009",
        "80 00 00000000 00010001",
        "09 00 00000000 00000007",  # too short
        "03 00 00000000 00000033",
        "09 00 00000001 00000008",  # PING on a stream
        "05 00 00000000 00000000",  # DATA on none
    ],
)
def test_headers_that_are_errors_are_refused_before_their_payload(header: str) -> None:
    with pytest.raises(ProtocolError):
        list(Parser().feed(bytes.fromhex(header)))


def test_unknown_fields_are_skipped_and_malformed_messages_refused() -> None:
    known = protobuf.encode(protobuf.CREDIT, bytes=300, received=2**63)
    # A number, eight bytes, text, a group with a number, four bytes: all of the field 15.
    unknown = bytes.fromhex("7801 790000000000000000 7a03616263 7b78017c 7d00000000")
    assert protobuf.decode(protobuf.CREDIT, unknown + known) == {"bytes": 300, "received": 2**63}
    for wrong in ("08", "0aff", "08ffffffffffffffffff7f", "00", "0f", "0a0161", "7b"):
        with pytest.raises(protobuf.Malformed):
            protobuf.decode(protobuf.CREDIT, bytes.fromhex(wrong))


def test_padding_goes_to_its_classes_and_padme() -> None:
    assert [padded(length, False) for length in (10, 1_024, 1_025, 4_097, 16_385, 65_536)] == [
        1_024,
        1_024,
        4_096,
        16_384,
        65_536,
        65_536,
    ]
    # From the paper: 9 bytes become 10, and the overhead never exceeds 12 per cent.
    assert padme(9) == 10
    for length in range(10, 65_537):
        size = padme(length)
        assert length <= size <= length * 1.12 and padme(size) == size and size <= 65_536
    assert len(flush([fr.bulk(1, 0, bytes(1_000))])) == padme(1_018)
    assert len(flush([Frame(fr.PING, 0, bytes(8))])) == 1_024


SERVICE, OWNER, SESSION = Secret(b"s" * 32), Secret(b"o" * 32), Secret(b"k" * 32)


def verdict(
    now: int = 1_000,
    times: tuple[int, int, int, int] = (0, 2_000, 500, 1_500),
    serial: int = 5,
    floor: int = 5,
    seen: int = 5,
    change: int | None = None,
    length: int = 240,
) -> str:
    certificate = delegation.certify(SERVICE, OWNER.public, times[0], times[1])
    delegated = delegation.delegate(OWNER, SERVICE.public, SESSION.public, times[2], times[3], serial, floor)
    both = bytearray(certificate + delegated)
    if change is not None:
        both[change] ^= 1
    floors = delegation.Floors({SERVICE.public: seen})
    try:
        args = bytes(both[:112]), bytes(both[112:length]), SESSION.public
        delegation.check(SERVICE.public, *args, now, floors)
    except delegation.DelegationRefused as refused:
        return str(refused)
    assert floors.highest == {SERVICE.public: max(seen, floor)}
    return "good"


def test_delegations_get_the_verdict_that_the_document_gives() -> None:
    assert verdict() == "good"
    assert verdict(now=200) == "good" and verdict(now=1_800) == "good"
    assert verdict(now=199) == "delegation not yet valid" and verdict(now=1_801) == "delegation expired"
    assert verdict(times=(1_301, 2_000, 500, 1_500)) == "certificate not yet valid"
    assert verdict(times=(0, 699, 500, 1_500)) == "certificate expired"
    assert verdict(serial=4, floor=5, seen=0) == "below the floor"
    assert verdict(serial=4, floor=3, seen=5) == "below the floor"
    assert verdict(serial=6, floor=6) == "good"
    assert verdict(length=112) == "missing" and verdict(length=239) == "malformed"
    # A change of the times alone may also put them into the wrong order.
    for at in range(32, 112):
        assert verdict(change=at) in ("certificate's signature", "malformed" if at < 48 else "")
    for at in range(144, 240):
        assert verdict(change=at) in ("delegation's signature", "malformed" if at < 160 else "")

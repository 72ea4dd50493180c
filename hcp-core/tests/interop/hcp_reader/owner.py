"""What owner and nodes of a service give each other: sections 14 to 17 of the document."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .delegation import CERTIFICATE, CERTIFICATE_PURPOSE, DELEGATION, DELEGATION_PURPOSE, TOLERANCE
from .keys import KeyRefused, Secret, SignatureRefused, blinded, check_public, verify

FIELD = 2**255 - 19
# The points of small order that are below it (RFC 7748, section 6.1, and the errata to it).
SMALL_ORDER = {
    0,
    1,
    FIELD - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}
NAME = b"abcdefghijklmnopqrstuvwxyz0123456789-"


class Refused(Exception):
    """Not what a node or an owner may take."""


@dataclass(frozen=True)
class Period:
    """A time period of Tor's."""

    number: int
    minutes: int
    offset: int

    def raw(self) -> bytes:
        return self.number.to_bytes(8, "big") + self.minutes.to_bytes(4, "big") + self.offset.to_bytes(4, "big")

    @property
    def end(self) -> int:
        return (self.number + 1) * self.minutes * 60 + self.offset


def derive(seed: bytes, purpose: bytes, service: bytes, what: bytes) -> bytes:
    """A derivation of section 14."""
    return hmac.new(seed, purpose + service + what, hashlib.sha256).digest()


def session_key(seed: bytes, service: bytes, number: int) -> bytes:
    """The public session key with this number."""
    return Secret(derive(seed, b"HCP/1 session key\0", service, number.to_bytes(8, "big"))).public


def discovery_key(seed: bytes) -> bytes:
    """The public half of a node's discovery key."""
    secret = X25519PrivateKey.from_private_bytes(derive(seed, b"HCP/1 discovery key\0", b"", b""))
    return secret.public_key().public_bytes_raw()


def descriptor_key(seed: bytes, service: bytes, period: Period) -> bytes:
    """The public descriptor-signing key of a period."""
    return Secret(derive(seed, b"HCP/1 descriptor-signing key\0", service, period.raw())).public


class Fields:
    """Reads one field after the other."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        if len(self.left) < count:
            raise Refused("too short")
        field, self.left = self.left[:count], self.left[count:]
        return field

    def number(self, count: int, fits: Callable[[int], bool] = lambda _: True) -> int:
        number = int.from_bytes(self.take(count), "big")
        if not fits(number):
            raise Refused("a number that may not be")
        return number

    def key(self) -> bytes:
        try:
            return check_public(self.take(32))
        except KeyRefused as error:
            raise Refused("not a key") from error

    def discovery_keys(self) -> list[bytes]:
        keys = [self.take(32) for _ in range(self.number(1))]
        for key in keys:
            number = int.from_bytes(key, "little")
            if number >= FIELD or number in SMALL_ORDER:
                raise Refused("not a discovery key")
        return keys

    def end(self) -> None:
        if self.left:
            raise Refused("something behind the end")


def _check_signature(key: bytes, message: bytes, signature: bytes) -> None:
    try:
        verify(key, message, signature)
    except (KeyRefused, SignatureRefused) as error:
        raise Refused("signature") from error


def _owner_key(service: bytes, certificate: bytes, now: int) -> bytes:
    _check_signature(service, CERTIFICATE_PURPOSE + service + certificate[:48], certificate[48:])
    not_before, not_after = int.from_bytes(certificate[32:40], "big"), int.from_bytes(certificate[40:48], "big")
    if not not_before - TOLERANCE <= now <= not_after + TOLERANCE or not_before > not_after:
        raise Refused("the certificate's time")
    return Fields(certificate).key()


def _signed(purpose: bytes, key: bytes, service: bytes, data: bytes) -> Fields:
    """Checks the signature at the end and the layout at the beginning."""
    if len(data) < 65:
        raise Refused("too short")
    _check_signature(key, purpose + service + data[:-64], data[-64:])
    fields = Fields(data[:-64])
    fields.number(1, lambda layout: layout == 1)
    return fields


@dataclass
class Manifest:
    """A manifest that was checked: its order among others, and whether each member publishes."""

    rank: tuple[int, int]
    members: dict[bytes, bool]


def check_manifest(service: bytes, certificate: bytes, data: bytes, now: int) -> Manifest:
    """A manifest with the owner certificate beside it."""
    return check_signed_manifest(service, _owner_key(service, certificate, now), data)


def check_signed_manifest(service: bytes, owner: bytes, data: bytes) -> Manifest:
    """A manifest that this owner key signed."""
    fields = _signed(b"HCP/1 manifest\0", owner, service, data)
    version = fields.number(8)
    fields.take(6)
    count = fields.number(2, lambda count: 1 <= count <= 128)
    keys, names, members = list[bytes](), list[bytes](), dict[bytes, bool]()
    found, hidden = list[bytes](), False
    for _ in range(count):
        address, log = fields.key(), fields.key()
        members[address] = fields.number(1, lambda role: role in (0, 1)) == 1
        name = fields.take(fields.number(1, lambda length: length <= 32))
        if any(letter not in NAME for letter in name):
            raise Refused("name")
        keys += [address, log]
        names += [name] if name else []
        discovery = fields.discovery_keys()
        if len(discovery) > 1:
            raise Refused("two discovery keys of one member")
        found += discovery
        hidden |= not discovery
    fields.take(fields.number(4, lambda length: length <= 65_536))
    clients = fields.discovery_keys()
    fields.end()
    if len(set(keys)) != len(keys) or len(set(names)) != len(names) or len(set(found)) != len(found):
        raise Refused("something twice")
    if clients and (hidden or clients != sorted(set(clients) - set(found)) or len(clients) + len(found) > 160):
        raise Refused("clients")
    if list(members) != sorted(members) or not any(members.values()) or service in members:
        raise Refused("members")
    digest = hashlib.sha256(b"HCP/1 manifest\0" + service + data[:-64]).digest()
    return Manifest((version, -int.from_bytes(digest, "big")), members)


def _clock(fields: Fields) -> tuple[int, int]:
    return fields.number(4, lambda minutes: 5 <= minutes <= 14_400), fields.number(4, lambda offset: offset <= 864_000)


def check_request(service: bytes, data: bytes) -> None:
    """A request for `service`."""
    if data[1:33] != service:
        raise Refused("another service")
    fields = _signed(b"HCP/1 request\0", data[33:65], service, data)
    fields.take(64)
    first = fields.number(8)
    keys = fields.number(2, lambda count: 1 <= count <= 1_200)
    for _ in range(keys):
        fields.key()
    _clock(fields)
    first_period = fields.number(8)
    periods = fields.number(2, lambda count: count <= 400)
    for _ in range(periods):
        fields.key()
    fields.end()
    if max(first + keys, first_period + periods) >= 1 << 64:
        raise Refused("numbers beyond the last")


def _check_period(service: bytes, period: Period, key: bytes, certificate: bytes) -> None:
    signer = blinded(service, period.number, period.minutes)
    if certificate[:2] + certificate[6:76] != b"\1\x08\1" + key + b"\1\0\x20\4\0" + signer:
        raise Refused("a period's certificate")
    if int.from_bytes(certificate[2:6], "big") * 3_600 < period.end:
        raise Refused("a period's certificate ends early")
    _check_signature(signer, certificate[:76], certificate[76:])


def check_grant(service: bytes, node: bytes, seed: bytes, data: bytes, now: int) -> None:
    """A grant for the node with this seed."""
    if data[1:33] != service or data[33:65] != node:
        raise Refused("for somebody else")
    owner = _owner_key(service, data[65 : 65 + CERTIFICATE], now)
    fields = _signed(b"HCP/1 grant\0", owner, service, data)
    fields.take(64 + CERTIFICATE)
    manifest = check_signed_manifest(service, owner, fields.take(fields.number(4)))
    serials, ends = list[int](), list[int]()
    for _ in range(fields.number(2, lambda count: 1 <= count <= 1_200)):
        number, delegation = fields.number(8), fields.take(DELEGATION)
        _check_signature(owner, DELEGATION_PURPOSE + service + delegation[:64], delegation[64:])
        if delegation[:32] != session_key(seed, service, number) or delegation[48:56] < delegation[56:64]:
            raise Refused("a delegation")
        serials.append(int.from_bytes(delegation[48:56], "big"))
        ends.append(int.from_bytes(delegation[40:48], "big"))
    clock, first = _clock(fields), fields.number(8)
    count = fields.number(2, lambda count: count <= 400)
    if node not in manifest.members or count and not manifest.members[node]:
        raise Refused("not a member, or no publisher")
    for number in range(first, first + count):
        period = Period(number, *clock)
        _check_period(service, period, descriptor_key(seed, service, period), fields.take(140))
        fields.take(32)
    fields.end()
    if serials != sorted(set(serials)) or max(ends) + TOLERANCE < now:
        raise Refused("serials, or over")

"""Speaking for a service: section 5 of the document."""

from dataclasses import dataclass, field

from .keys import KeyRefused, Secret, SignatureRefused, check_public, verify

CERTIFICATE, DELEGATION = 112, 128
CERTIFICATE_PURPOSE, DELEGATION_PURPOSE = b"HCP/1 owner certificate\0", b"HCP/1 delegation\0"
TOLERANCE = 300


class DelegationRefused(Exception):
    """Why a server key does not speak for the service; the argument is one of a few words."""


@dataclass
class Floors:
    """The highest floor that was verified for each service."""

    highest: dict[bytes, int] = field(default_factory=dict[bytes, int])


def _u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def certify(service: Secret, owner: bytes, not_before: int, not_after: int) -> bytes:
    """An owner certificate."""
    body = owner + _u64(not_before, not_after)
    return body + service.sign(CERTIFICATE_PURPOSE + service.public + body)


def delegate(
    owner: Secret, service: bytes, session: bytes, not_before: int, not_after: int, serial: int = 1, floor: int = 0
) -> bytes:
    """A delegation."""
    body = session + _u64(not_before, not_after, serial, floor)
    return body + owner.sign(DELEGATION_PURPOSE + service + body)


def _check_signature(key: bytes, message: bytes, signature: bytes, reason: str) -> None:
    try:
        verify(key, message, signature)
    except (KeyRefused, SignatureRefused) as error:
        raise DelegationRefused(reason) from error


def _check_times(times: bytes, now: int, what: str) -> None:
    not_before, not_after = int.from_bytes(times[:8], "big"), int.from_bytes(times[8:], "big")
    if now < not_before - TOLERANCE:
        raise DelegationRefused(f"{what} not yet valid")
    if now > not_after + TOLERANCE:
        raise DelegationRefused(f"{what} expired")


def check(service: bytes, certificate: bytes, delegation: bytes, server_key: bytes, now: int, floors: Floors) -> None:
    """Checks in the order of the document that `server_key` speaks for `service`, or raises DelegationRefused."""
    if not certificate or not delegation:
        raise DelegationRefused("missing")
    if len(certificate) != CERTIFICATE or len(delegation) != DELEGATION:
        raise DelegationRefused("malformed")
    try:
        owner, session = check_public(certificate[:32]), check_public(delegation[:32])
    except KeyRefused as error:
        raise DelegationRefused("malformed") from error
    # Big-endian numbers of one length compare as their bytes do.
    if any(paper[32:40] > paper[40:48] for paper in (certificate, delegation)):
        raise DelegationRefused("malformed")
    _check_signature(
        service, CERTIFICATE_PURPOSE + service + certificate[:48], certificate[48:], "certificate's signature"
    )
    _check_times(certificate[32:48], now, "certificate")
    _check_signature(owner, DELEGATION_PURPOSE + service + delegation[:64], delegation[64:], "delegation's signature")
    _check_times(delegation[32:48], now, "delegation")
    if session != server_key:
        raise DelegationRefused("another session key")
    serial, floor = int.from_bytes(delegation[48:56], "big"), int.from_bytes(delegation[56:64], "big")
    if serial < max(floor, floors.highest.get(service, 0)):
        raise DelegationRefused("below the floor")
    floors.highest[service] = max(floor, floors.highest.get(service, 0))

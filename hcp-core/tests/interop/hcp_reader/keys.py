"""Ed25519 as section 1 of the document wants it: which keys are refused, and strict verification.

The arithmetic is that of RFC 8032, section 6, and is used for public values only: it is not constant in time.
"""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")

Point = tuple[int, int, int, int]
IDENTITY: Point = (0, 1, 1, 0)


class KeyRefused(Exception):
    """Not 32 bytes, not a point in its one encoding, or a point outside of the prime-order group."""


class SignatureRefused(Exception):
    """A signature that does not verify strictly."""


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _is_identity(point: Point) -> bool:
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


def _decompress(encoded: bytes) -> Point:
    if len(encoded) != 32:
        raise KeyRefused("not 32 bytes")
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        raise KeyRefused("not canonical")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if (x * x - square) % P:
        raise KeyRefused("not a point")
    if x == 0 and sign:
        raise KeyRefused("not canonical")
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _compress(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def blinded(key: bytes, number: int, minutes: int) -> bytes:
    """The key that an address is blinded to in a time period (Tor's rend-spec-v3, appendix A.2)."""
    base = b"(15112221349535400772501151409588531511454012693041857206046113283949847762202, "
    base += b"46316835694926478169428394003475163141307993866256225615783033603165251855960)"
    hashed = b"Derive temporary signing key\0" + key + base + b"key-blind"
    hashed += number.to_bytes(8, "big") + minutes.to_bytes(8, "big")
    factor = int.from_bytes(hashlib.sha3_256(hashed).digest(), "little")
    factor = factor & ((1 << 254) - 8) | 1 << 254
    return _compress(_times(factor, _decompress(key)))


def check_public(key: bytes) -> bytes:
    """Gives the key back, or raises KeyRefused."""
    point = _decompress(key)
    if _is_identity(_times(8, point)):
        raise KeyRefused("small order")
    if not _is_identity(_times(ORDER, point)):
        raise KeyRefused("torsion")
    return key


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Verifies strictly, or raises KeyRefused or SignatureRefused."""
    check_public(key)
    if len(signature) != 64:
        raise SignatureRefused("not 64 bytes")
    if int.from_bytes(signature[32:], "little") >= ORDER:
        raise SignatureRefused("s is not reduced")
    try:
        if _is_identity(_times(8, _decompress(signature[:32]))):
            raise SignatureRefused("R is of small order")
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (KeyRefused, InvalidSignature) as error:
        raise SignatureRefused("wrong") from error


class Secret:
    """An ed25519 key of our own."""

    def __init__(self, seed: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.generate() if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def onion(key: bytes) -> str:
    """The v3 onion address of a key (Tor's rend-spec-v3, section 6)."""
    checksum = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    return base64.b32encode(key + checksum + b"\x03").decode().lower() + ".onion"


def from_onion(address: str) -> bytes:
    """The key that an onion address spells; raises KeyRefused when it spells none."""
    try:
        key = base64.b32decode(address.removesuffix(".onion").upper())[:32]
    except ValueError as error:
        raise KeyRefused("not base32") from error
    if len(key) != 32 or onion(key) != address:
        raise KeyRefused("not an address")
    return check_public(key)

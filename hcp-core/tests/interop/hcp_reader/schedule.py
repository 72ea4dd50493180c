"""The key schedule and the record protection of TLS 1.3 (RFC 8446, sections 5 and 7)."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
MAX_FRAGMENT = 16_384


class TlsError(Exception):
    """The peer broke TLS or this profile of it, or sent an alert that is an error."""


@dataclass(frozen=True)
class Suite:
    """A cipher suite: its number, its hash, its AEAD."""

    number: int
    hash: str
    key_length: int
    aead: Callable[[bytes], AESGCM | ChaCha20Poly1305]

    @property
    def hash_length(self) -> int:
        return hashlib.new(self.hash).digest_size

    def digest(self, data: bytes) -> bytes:
        return hashlib.new(self.hash, data).digest()


SUITES = {
    suite.number: suite
    for suite in (
        Suite(0x1302, "sha384", 32, AESGCM),
        Suite(0x1301, "sha256", 16, AESGCM),
        Suite(0x1303, "sha256", 32, ChaCha20Poly1305),
    )
}


def extract(suite: Suite, salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, suite.hash)


def expand_label(suite: Suite, secret: bytes, label: str, context: bytes, length: int) -> bytes:
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + bytes([len(context)]) + context
    result, block, counter = b"", b"", 1
    while len(result) < length:
        block = hmac.digest(secret, block + info + bytes([counter]), suite.hash)
        result, counter = result + block, counter + 1
    return result[:length]


def derive_secret(suite: Suite, secret: bytes, label: str, transcript_hash: bytes) -> bytes:
    return expand_label(suite, secret, label, transcript_hash, suite.hash_length)


class Schedule:
    """The secrets of one connection without a PSK, in the order in which they come to be.

    Transcripts are given by their hashes.
    """

    def __init__(self, suite: Suite, shared: bytes, hellos: bytes) -> None:
        self.suite = suite
        none, empty = bytes(suite.hash_length), suite.digest(b"")
        self.early = extract(suite, none, none)
        self.handshake = extract(suite, derive_secret(suite, self.early, "derived", empty), shared)
        self.client_handshake = derive_secret(suite, self.handshake, "c hs traffic", hellos)
        self.server_handshake = derive_secret(suite, self.handshake, "s hs traffic", hellos)
        self.master = extract(suite, derive_secret(suite, self.handshake, "derived", empty), none)
        self.client_application = self.server_application = self.exporter_master = b""

    def server_finished(self, transcript: bytes) -> None:
        """Takes the transcript up to and with the server's Finished."""
        self.client_application = derive_secret(self.suite, self.master, "c ap traffic", transcript)
        self.server_application = derive_secret(self.suite, self.master, "s ap traffic", transcript)
        self.exporter_master = derive_secret(self.suite, self.master, "exp master", transcript)

    def finished(self, traffic_secret: bytes, transcript: bytes) -> bytes:
        """What a Finished message holds, for the transcript before it."""
        key = expand_label(self.suite, traffic_secret, "finished", b"", self.suite.hash_length)
        return hmac.digest(key, transcript, self.suite.hash)

    def export(self, label: str, length: int) -> bytes:
        """An exporter without a context (RFC 8446, section 7.5)."""
        empty = self.suite.digest(b"")
        secret = derive_secret(self.suite, self.exporter_master, label, empty)
        return expand_label(self.suite, secret, "exporter", empty, length)


class RecordCipher:
    """One direction of record protection under one traffic secret."""

    def __init__(self, suite: Suite, secret: bytes) -> None:
        self.suite, self.secret, self.sequence = suite, secret, 0
        self.key = expand_label(suite, secret, "key", b"", suite.key_length)
        self.iv = expand_label(suite, secret, "iv", b"", 12)
        self._aead = suite.aead(self.key)

    def updated(self) -> "RecordCipher":
        """The cipher after a KeyUpdate."""
        return RecordCipher(self.suite, expand_label(self.suite, self.secret, "traffic upd", b"", len(self.secret)))

    def _nonce(self) -> bytes:
        nonce = int.from_bytes(self.iv, "big") ^ self.sequence
        self.sequence += 1
        return nonce.to_bytes(12, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        """A whole record with `content` inside."""
        header = bytes([APPLICATION_DATA, 3, 3]) + (len(content) + 17).to_bytes(2, "big")
        return header + self._aead.encrypt(self._nonce(), content + bytes([kind]), header)

    def open(self, header: bytes, body: bytes) -> tuple[int, bytes]:
        """The kind and the content of a record."""
        try:
            inner = self._aead.decrypt(self._nonce(), body, header)
        except (InvalidTag, ValueError) as error:
            raise TlsError("a record that does not open") from error
        stripped = inner.rstrip(b"\0")
        if not stripped or len(inner) > MAX_FRAGMENT + 1:
            raise TlsError("a record without a kind, or too long")
        return stripped[-1], stripped[:-1]

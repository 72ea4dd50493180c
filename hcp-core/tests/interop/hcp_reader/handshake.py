"""The messages of the TLS handshake in this profile (RFC 8446, RFC 7250, RFC 7301, draft-ietf-tls-ecdhe-mlkem)."""

import os
from dataclasses import dataclass
from typing import Mapping

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .keys import SPKI_PREFIX, KeyRefused, Secret, SignatureRefused, check_public, verify
from .schedule import SUITES, TlsError

CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, ENCRYPTED_EXTENSIONS = 1, 2, 4, 8
CERTIFICATE, CERTIFICATE_VERIFY, FINISHED, KEY_UPDATE = 11, 15, 20, 24
SERVER_NAME, SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, APPLICATION_PROTOCOLS = 0, 10, 13, 16
SERVER_CERTIFICATE_TYPE, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE = 20, 41, 42, 43, 51
CLIENT_CERTIFICATE_TYPE = 19

TLS_1_2, TLS_1_3 = b"\x03\x03", b"\x03\x04"
HYBRID, ED25519, RAW_PUBLIC_KEY = b"\x11\xec", b"\x08\x07", 2
ALPN = b"hcp/1"
KEM_KEY, KEM_CIPHERTEXT, CURVE_KEY = 1_184, 1_088, 32
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
SIGNED_PREFIX = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"


def vector(width: int, content: bytes) -> bytes:
    """A variable-length vector whose length takes `width` bytes."""
    return len(content).to_bytes(width, "big") + content


class Reader:
    """Reads fields one behind the other; whatever is too short is a TlsError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, length: int) -> bytes:
        if len(self._data) - self._at < length:
            raise TlsError("a message that is too short")
        self._at += length
        return self._data[self._at - length : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise TlsError("a message that is too long")


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(3, body)


def _extensions(fields: Mapping[int, bytes | None]) -> bytes:
    present = (kind.to_bytes(2, "big") + vector(2, body) for kind, body in fields.items() if body is not None)
    return vector(2, b"".join(present))


def _read_extensions(data: bytes) -> dict[int, bytes]:
    reader, fields = Reader(data), dict[int, bytes]()
    while reader.more():
        kind = reader.number(2)
        if kind in fields:
            raise TlsError("an extension twice")
        fields[kind] = reader.vector(2)
    return fields


def _pairs(data: bytes) -> list[bytes]:
    if len(data) % 2:
        raise TlsError("a list of odd length")
    return [data[i : i + 2] for i in range(0, len(data), 2)]


def _within(width: int, data: bytes) -> bytes:
    """The content of an extension that is one vector."""
    reader = Reader(data)
    content = reader.vector(width)
    reader.end()
    return content


class HybridClient:
    """The client's side of X25519MLKEM768: ML-KEM comes first in the shares and in the secret."""

    def __init__(self) -> None:
        self._kem, self._curve = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        self.share = self._kem.public_key().public_bytes_raw() + self._curve.public_key().public_bytes_raw()

    def secret(self, share: bytes) -> bytes:
        if len(share) != KEM_CIPHERTEXT + CURVE_KEY:
            raise TlsError("a share of the wrong length")
        try:
            curve = self._curve.exchange(X25519PublicKey.from_public_bytes(share[KEM_CIPHERTEXT:]))
        except ValueError as error:
            raise TlsError("a share of small order") from error
        return self._kem.decapsulate(share[:KEM_CIPHERTEXT]) + curve


def hybrid_server(share: bytes) -> tuple[bytes, bytes]:
    """The server's share and the secret."""
    if len(share) != KEM_KEY + CURVE_KEY:
        raise TlsError("a share of the wrong length")
    own = X25519PrivateKey.generate()
    try:
        secret, ciphertext = MLKEM768PublicKey.from_public_bytes(share[:KEM_KEY]).encapsulate()
        curve = own.exchange(X25519PublicKey.from_public_bytes(share[KEM_KEY:]))
    except ValueError as error:
        raise TlsError("a share that is not one") from error
    return ciphertext + own.public_key().public_bytes_raw(), secret + curve


@dataclass
class ClientHello:
    """What matters of a ClientHello."""

    session_id: bytes
    suites: list[int]
    share: bytes
    extensions: dict[int, bytes]


def client_hello(share: bytes, suites: list[int], changes: dict[int, bytes | None] | None = None) -> bytes:
    """A ClientHello; `changes` replaces extensions or, with None, leaves them out, for tests that break rules."""
    fields: dict[int, bytes | None] = {
        SUPPORTED_VERSIONS: vector(1, TLS_1_3),
        SUPPORTED_GROUPS: vector(2, HYBRID),
        SIGNATURE_ALGORITHMS: vector(2, ED25519),
        KEY_SHARE: vector(2, HYBRID + vector(2, share)),
        APPLICATION_PROTOCOLS: vector(2, vector(1, ALPN)),
        SERVER_CERTIFICATE_TYPE: vector(1, bytes([RAW_PUBLIC_KEY])),
        **(changes or {}),
    }
    offered = b"".join(suite.to_bytes(2, "big") for suite in suites)
    return message(
        CLIENT_HELLO,
        TLS_1_2 + os.urandom(32) + vector(1, b"") + vector(2, offered) + vector(1, b"\0") + _extensions(fields),
    )


def read_client_hello(body: bytes) -> ClientHello:
    reader = Reader(body)
    version, _random, session_id = reader.take(2), reader.take(32), reader.vector(1)
    suites, compression = _pairs(reader.vector(2)), reader.vector(1)
    fields = _read_extensions(reader.vector(2))
    reader.end()
    if version != TLS_1_2 or compression != b"\0" or len(session_id) > 32:
        raise TlsError("not a ClientHello of TLS 1.3")
    try:
        if TLS_1_3 not in _pairs(_within(1, fields[SUPPORTED_VERSIONS])):
            raise TlsError("TLS 1.3 is not offered")
        if HYBRID not in _pairs(_within(2, fields[SUPPORTED_GROUPS])):
            raise TlsError("X25519MLKEM768 is not offered")
        if ED25519 not in _pairs(_within(2, fields[SIGNATURE_ALGORITHMS])):
            raise TlsError("ed25519 is not offered")
        if RAW_PUBLIC_KEY not in _within(1, fields[SERVER_CERTIFICATE_TYPE]):
            raise TlsError("raw public keys are not offered")
        protocols, offered = Reader(_within(2, fields[APPLICATION_PROTOCOLS])), list[bytes]()
        while protocols.more():
            offered.append(protocols.vector(1))
        shares, share = Reader(_within(2, fields[KEY_SHARE])), None
        while shares.more():
            group, key = shares.take(2), shares.vector(2)
            share = key if group == HYBRID else share
    except KeyError as error:
        raise TlsError("an extension is missing") from error
    if ALPN not in offered or share is None:
        raise TlsError("the protocol or the key share is missing")
    return ClientHello(session_id, [int.from_bytes(suite, "big") for suite in suites], share, fields)


def server_hello(session_id: bytes, suite: int, share: bytes) -> bytes:
    fields = {SUPPORTED_VERSIONS: TLS_1_3, KEY_SHARE: HYBRID + vector(2, share)}
    head = TLS_1_2 + os.urandom(32) + vector(1, session_id)
    return message(SERVER_HELLO, head + suite.to_bytes(2, "big") + b"\0" + _extensions(fields))


def read_server_hello(body: bytes, suites: list[int]) -> tuple[int, bytes]:
    """The chosen suite and the server's share."""
    reader = Reader(body)
    version, random, session_id = reader.take(2), reader.take(32), reader.vector(1)
    suite, compression = reader.number(2), reader.take(1)
    fields = _read_extensions(reader.vector(2))
    reader.end()
    if random == RETRY:
        raise TlsError("HelloRetryRequest, though there is only one group")
    if version != TLS_1_2 or session_id or compression != b"\0" or suite not in suites or suite not in SUITES:
        raise TlsError("a ServerHello that answers something else")
    if set(fields) != {SUPPORTED_VERSIONS, KEY_SHARE} or fields[SUPPORTED_VERSIONS] != TLS_1_3:
        raise TlsError("not TLS 1.3, or more than was asked for")
    share = Reader(fields[KEY_SHARE])
    if share.take(2) != HYBRID:
        raise TlsError("another group")
    key = share.vector(2)
    share.end()
    return suite, key


def encrypted_extensions(changes: dict[int, bytes | None] | None = None) -> bytes:
    """EncryptedExtensions, with changes as those of `client_hello`."""
    fields: dict[int, bytes | None] = {
        APPLICATION_PROTOCOLS: vector(2, vector(1, ALPN)),
        SERVER_CERTIFICATE_TYPE: bytes([RAW_PUBLIC_KEY]),
        **(changes or {}),
    }
    return message(ENCRYPTED_EXTENSIONS, _extensions(fields))


def read_encrypted_extensions(body: bytes) -> None:
    reader = Reader(body)
    fields = _read_extensions(reader.vector(2))
    reader.end()
    if fields.get(SERVER_CERTIFICATE_TYPE) != bytes([RAW_PUBLIC_KEY]):
        raise TlsError("no raw public key")
    if fields.get(APPLICATION_PROTOCOLS) != vector(2, vector(1, ALPN)):
        raise TlsError("another protocol, or none")
    if not set(fields) <= {SERVER_CERTIFICATE_TYPE, APPLICATION_PROTOCOLS, SUPPORTED_GROUPS}:
        raise TlsError("an extension that was not asked for")


def certificate(key: bytes) -> bytes:
    entry = vector(3, SPKI_PREFIX + key) + vector(2, b"")
    return message(CERTIFICATE, vector(1, b"") + vector(3, entry))


def read_certificate(body: bytes) -> bytes:
    """The server key; a key that is to be refused anywhere is refused here."""
    reader = Reader(body)
    context, entries = reader.vector(1), Reader(reader.vector(3))
    reader.end()
    key, _extensions_of_entry = entries.vector(3), entries.vector(2)
    entries.end()
    if context or len(key) != 44 or not key.startswith(SPKI_PREFIX):
        raise TlsError("not one raw ed25519 key")
    try:
        return check_public(key[12:])
    except KeyRefused as error:
        raise TlsError("a key that is refused") from error


def certificate_verify(secret: Secret, transcript_hash: bytes) -> bytes:
    return message(CERTIFICATE_VERIFY, ED25519 + vector(2, secret.sign(SIGNED_PREFIX + transcript_hash)))


def check_certificate_verify(body: bytes, key: bytes, transcript_hash: bytes) -> None:
    reader = Reader(body)
    scheme, signature = reader.take(2), reader.vector(2)
    reader.end()
    if scheme != ED25519:
        raise TlsError("another signature scheme")
    try:
        verify(key, SIGNED_PREFIX + transcript_hash, signature)
    except SignatureRefused as error:
        raise TlsError("the server's signature is wrong") from error

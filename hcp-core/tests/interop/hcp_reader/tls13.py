"""A client and a server of TLS 1.3 in the profile of section 2 of the document, without I/O.

What came from the peer goes into `feed`; what is to be sent is taken with `take`. Application data stands in
`received`, and how long each of its records was in `records`: that is what an observer of the connection sees.
"""

import hmac

from . import handshake as hs
from .keys import Secret
from .schedule import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    MAX_FRAGMENT,
    SUITES,
    RecordCipher,
    Schedule,
    TlsError,
)

CLOSE_NOTIFY = b"\x01\x00"
MAX_HANDSHAKE = 16_384
MAX_UPDATES = 32


class Connection:
    """What a client and a server have in common: records, alerts, the transcript."""

    def __init__(self) -> None:
        self.received, self.records = bytearray(), list[int]()
        self.closed = False
        """The peer's close_notify came."""
        self.server_key: bytes | None = None
        """Known from the server's Finished on, and with it the exporters."""
        self.suite = 0
        self._in, self._out, self._messages = bytearray(), bytearray(), bytearray()
        self._read: RecordCipher | None = None
        self._write: RecordCipher | None = None
        self._schedule: Schedule | None = None
        self._transcript = b""
        self.finished = False
        """The client's Finished was sent, or came and was good."""
        self._updates = 0
        """How many KeyUpdates have come since application data last did."""

    def feed(self, data: bytes) -> None:
        """Takes bytes from the transport; raises TlsError."""
        self._in += data
        while len(self._in) >= 5 and not self.closed:
            kind, length = self._in[0], int.from_bytes(self._in[3:5], "big")
            if length > MAX_FRAGMENT + 256:
                raise TlsError("a record that is too long")
            if len(self._in) < 5 + length:
                return
            header, body = bytes(self._in[:5]), bytes(self._in[5 : 5 + length])
            del self._in[: 5 + length]
            if kind == CHANGE_CIPHER_SPEC and body == b"\x01" and not self.finished:
                continue
            if self._read is not None:
                if kind != APPLICATION_DATA:
                    raise TlsError("a record in the clear")
                kind, body = self._read.open(header, body)
            elif kind == APPLICATION_DATA:
                raise TlsError("application data in the clear")
            self._record(kind, body)

    def write(self, data: bytes) -> None:
        """Sends application data, cut only where records have to be."""
        assert self._write is not None
        for start in range(0, len(data), MAX_FRAGMENT):
            self._out += self._write.seal(APPLICATION_DATA, data[start : start + MAX_FRAGMENT])

    def close(self) -> None:
        """Sends close_notify."""
        if self._write is not None:
            self._out += self._write.seal(ALERT, CLOSE_NOTIFY)

    def update_key(self, asks: bool = False) -> None:
        """Sends KeyUpdate; whether it asks for one."""
        self.say(hs.KEY_UPDATE, bytes([asks]))
        assert self._write is not None
        self._write = self._write.updated()

    def say(self, kind: int, body: bytes) -> None:
        """Sends a message of the handshake behind its end."""
        assert self._write is not None
        self._out += self._write.seal(HANDSHAKE, hs.message(kind, body))

    def take(self) -> bytes:
        """What is to be sent now."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def export(self, label: str, length: int = 32) -> bytes:
        """An exporter without a context."""
        assert self._schedule is not None and self._schedule.exporter_master
        return self._schedule.export(label, length)

    def _record(self, kind: int, body: bytes) -> None:
        if kind == HANDSHAKE:
            self._messages += body
            while len(self._messages) >= 4:
                length = int.from_bytes(self._messages[1:4], "big")
                if length > MAX_HANDSHAKE:
                    raise TlsError("a handshake message that is too long")
                if len(self._messages) < 4 + length:
                    return
                whole = bytes(self._messages[: 4 + length])
                del self._messages[: 4 + length]
                self._message(whole[0], whole[4:], whole)
        elif self._messages:
            raise TlsError("something else inside of a handshake message")
        elif kind == ALERT:
            if body != CLOSE_NOTIFY:
                raise TlsError(f"alert {body[1:].hex()}")
            self.closed = True
        elif kind == APPLICATION_DATA and self._may_receive():
            self.records.append(len(body))
            self.received += body
            self._updates = 0
        else:
            raise TlsError("a record that is out of place")

    def _message(self, kind: int, body: bytes, whole: bytes) -> None:
        if self.finished and kind == hs.KEY_UPDATE and body in (b"\0", b"\1") and self._read is not None:
            self._updates += 1
            if self._updates > MAX_UPDATES:
                raise TlsError("too many KeyUpdates")
            self._read = self._read.updated()
            if body == b"\1":
                self.update_key()
            return
        # NewSessionTicket is one of those: tickets are not used.
        raise TlsError(f"handshake message {kind} is out of place")

    def _may_receive(self) -> bool:
        return self.finished

    def _add(self, whole: bytes) -> bytes:
        self._transcript += whole
        return whole

    def _hash(self) -> bytes:
        return SUITES[self.suite].digest(self._transcript)


class Client(Connection):
    """The dialler's side. It keeps its Finished back until `finish`, since all before that shows nothing of it."""

    def __init__(self, suites: list[int] | None = None, changes: dict[int, bytes | None] | None = None) -> None:
        super().__init__()
        self._suites = suites or list(SUITES)
        self._share = hs.HybridClient()
        self._awaited = hs.SERVER_HELLO
        self._key = b""
        hello = self._add(hs.client_hello(self._share.share, self._suites, changes))
        self._out += bytes([HANDSHAKE, 3, 1]) + hs.vector(2, hello)

    def finish(self) -> None:
        """Sends Finished. From now on `write` is possible."""
        assert self._schedule is not None and self.server_key is not None and not self.finished
        finished = hs.message(hs.FINISHED, self._schedule.finished(self._schedule.client_handshake, self._hash()))
        cipher = RecordCipher(self._schedule.suite, self._schedule.client_handshake)
        self._out += cipher.seal(HANDSHAKE, finished)
        self._write = RecordCipher(self._schedule.suite, self._schedule.client_application)
        self.finished = True

    def _may_receive(self) -> bool:
        return self.server_key is not None

    def _message(self, kind: int, body: bytes, whole: bytes) -> None:
        if self.server_key is not None:
            return super()._message(kind, body, whole)
        if kind != self._awaited:
            raise TlsError(f"handshake message {kind} is out of place")
        if kind == hs.SERVER_HELLO:
            self.suite, share = hs.read_server_hello(body, self._suites)
            suite, shared = SUITES[self.suite], self._share.secret(share)
            self._schedule = Schedule(suite, shared, suite.digest(self._transcript + whole))
            self._read = RecordCipher(suite, self._schedule.server_handshake)
            self._awaited = hs.ENCRYPTED_EXTENSIONS
        elif kind == hs.ENCRYPTED_EXTENSIONS:
            hs.read_encrypted_extensions(body)
            self._awaited = hs.CERTIFICATE
        elif kind == hs.CERTIFICATE:
            self._key = hs.read_certificate(body)
            self._awaited = hs.CERTIFICATE_VERIFY
        elif kind == hs.CERTIFICATE_VERIFY:
            hs.check_certificate_verify(body, self._key, self._hash())
            self._awaited = hs.FINISHED
        else:
            assert self._schedule is not None
            if not hmac.compare_digest(body, self._schedule.finished(self._schedule.server_handshake, self._hash())):
                raise TlsError("the server's Finished is wrong")
        self._add(whole)
        if kind == hs.FINISHED:
            assert self._schedule is not None
            self._schedule.server_finished(self._hash())
            self._read = RecordCipher(self._schedule.suite, self._schedule.server_application)
            self.server_key = self._key


class Server(Connection):
    """The acceptor's side. It may write as soon as it has answered the ClientHello: half-RTT data."""

    def __init__(
        self, secret: Secret, suites: list[int] | None = None, changes: dict[int, bytes | None] | None = None
    ) -> None:
        super().__init__()
        self._secret, self._suites, self._changes = secret, suites or list(SUITES), changes
        self.client_hello: hs.ClientHello | None = None
        """What the client offered, once it did."""

    def _message(self, kind: int, body: bytes, whole: bytes) -> None:
        if self.client_hello is None and kind == hs.CLIENT_HELLO:
            self._answer(hs.read_client_hello(body), whole)
        elif self._schedule is not None and not self.finished and kind == hs.FINISHED:
            expected = self._schedule.finished(self._schedule.client_handshake, self._hash())
            if not hmac.compare_digest(body, expected):
                raise TlsError("the client's Finished is wrong")
            self._read = RecordCipher(self._schedule.suite, self._schedule.client_application)
            self.finished = True
        else:
            super()._message(kind, body, whole)

    def _answer(self, hello: hs.ClientHello, whole: bytes) -> None:
        self.client_hello = hello
        common = [suite for suite in self._suites if suite in hello.suites]
        if not common:
            raise TlsError("no cipher suite in common")
        self.suite = common[0]
        suite, (share, shared) = SUITES[self.suite], hs.hybrid_server(hello.share)
        self._add(whole)
        answer = self._add(hs.server_hello(hello.session_id, self.suite, share))
        self._out += bytes([HANDSHAKE, 3, 3]) + hs.vector(2, answer)
        self._schedule = Schedule(suite, shared, self._hash())
        flight = self._add(hs.encrypted_extensions(self._changes))
        flight += self._add(hs.certificate(self._secret.public))
        flight += self._add(hs.certificate_verify(self._secret, self._hash()))
        finished = self._schedule.finished(self._schedule.server_handshake, self._hash())
        flight += self._add(hs.message(hs.FINISHED, finished))
        self._out += RecordCipher(suite, self._schedule.server_handshake).seal(HANDSHAKE, flight)
        self._schedule.server_finished(self._hash())
        self._read = RecordCipher(suite, self._schedule.client_handshake)
        self._write = RecordCipher(suite, self._schedule.server_application)
        self.server_key = self._secret.public

"""How a connection begins, up to where it is a session or a lane: sections 4 and 6 of the document. No I/O."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Callable

from . import frames as fr
from .delegation import Floors, check
from .frames import Frame, Parser, ProtocolError, Values, control, flush
from .handshake import ALPN, APPLICATION_PROTOCOLS, vector
from .keys import KeyRefused, Secret, SignatureRefused, check_public, verify
from .stream import MAX_CREDIT, MIN_WINDOW
from .tls13 import Client, Connection, Server

WINDOW, MAX_STREAMS, MAX_LANES = 655_360, 32, 4
BEFORE_PROOF = 16_384
PROOF_PURPOSE, JOIN_PURPOSE, HINT_PURPOSE = b"HCP/1 dialler\0", b"HCP/1 lane\0", b"HCP/1 lane hint\0"
PORT = 4_277


class WrongKey(Exception):
    """The server key is not the one that was wanted."""


@dataclass(frozen=True)
class Limits:
    """What a HELLO or a PROOF allows."""

    window: int = WINDOW
    max_streams: int = MAX_STREAMS


@dataclass
class Link:
    """A connection whose beginning is done: what a session begins with, or joins as a lane."""

    tls: Connection
    parser: Parser
    rest: list[Frame] = field(default_factory=list[Frame])
    """Frames that came right behind."""


def read_limits(values: Values) -> Limits:
    window = values.number("window")
    if not MIN_WINDOW <= window <= MAX_CREDIT:
        raise ProtocolError("a window that no longest message fits into, or beyond all credit")
    return Limits(window, values.number("max_streams"))


def proof_message(exporter: bytes, dialler: bytes, acceptor: bytes) -> bytes:
    """What the dialler signs."""
    return PROOF_PURPOSE + exporter + dialler + acceptor


def join_mac(key: bytes, session_id: bytes, number: int, exporter: bytes) -> bytes:
    return hmac.digest(key, JOIN_PURPOSE + session_id + number.to_bytes(4, "big") + exporter, "sha256")


def lane_hint(session_id: bytes) -> bytes:
    return hashlib.sha256(HINT_PURPOSE + session_id).digest()[:16]


def lane_protocols(session_id: bytes) -> bytes:
    """The ALPN extension of a lane's ClientHello."""
    return vector(2, vector(1, ALPN) + vector(1, b"hcp/1 lane " + lane_hint(session_id)))


def session_id(tls: Connection) -> bytes:
    return tls.export("EXPORTER-hcp/1 session id", 16)


class _Opening:
    """Bytes in and out of a connection that is not yet a session or a lane."""

    def __init__(self, tls: Connection) -> None:
        self.tls, self.parser = tls, Parser()
        self._seen = list[Frame]()

    def take(self) -> bytes:
        return self.tls.take()

    def _first(self, data: bytes) -> Frame | None:
        """Takes bytes; gives the first frame once it is there. Others are kept."""
        self.tls.feed(data)
        self._seen += self.parser.feed(bytes(self.tls.received))
        self.tls.received.clear()
        return self._seen[0] if self._seen else None

    def _link(self) -> Link:
        return Link(self.tls, self.parser, self._seen[1:])


class _DiallerOpening(_Opening):
    def __init__(self, tls: Client) -> None:
        super().__init__(tls)
        self.client = tls
        self.hello: Values | None = None

    def _hello(self, data: bytes) -> Values | None:
        first = self._first(data)
        if first is None:
            return None
        if first.kind != fr.HELLO:
            raise ProtocolError("not HELLO")
        self.hello = first.fields()
        return self.hello

    def _show(self, first: Frame) -> Link:
        self.client.finish()
        self.client.write(flush([first], fr.FIRST_FLIGHT))
        return self._link()


class Dialling(_DiallerOpening):
    """The dialler of a primary. Until HELLO was good it sends its ClientHello and nothing else, no alert either."""

    def __init__(
        self,
        target: bytes,
        me: Secret | None = None,
        now: int = 0,
        known: bytes = b"",
        floors: Floors | None = None,
        suites: list[int] | None = None,
        ours: Limits | None = None,
        tamper: Callable[[Frame], Frame] = lambda proof: proof,
    ) -> None:
        super().__init__(Client(suites))
        self.target, self.me, self.now, self.known = target, me, now, known
        self.floors, self.limits, self._tamper = floors or Floors(), Limits(), tamper
        self.ours = ours or Limits()
        self.delegated = False

    def feed(self, data: bytes) -> Link | None:
        """Takes bytes; gives the link once the session is established. Raises what ends the attempt."""
        hello = self._hello(data)
        if hello is None:
            return None
        server_key = self.tls.server_key
        assert server_key is not None
        if server_key != self.target:
            certificate, delegation = hello.data("certificate"), hello.data("delegation")
            check(self.target, certificate, delegation, server_key, self.now, self.floors)
            self.delegated = True
        self.limits = read_limits(hello)
        return self._show(self._tamper(self._proof()))

    def _proof(self) -> Frame:
        ours = self.ours
        if self.me is None:
            return control(fr.PROOF, window=ours.window, max_streams=ours.max_streams)
        message = proof_message(self.tls.export("EXPORTER-hcp/1 dialler"), self.me.public, self.target)
        return control(
            fr.PROOF,
            address=self.me.public,
            signature=self.me.sign(message),
            known=self.known,
            window=ours.window,
            max_streams=ours.max_streams,
        )


class LaneDialling(_DiallerOpening):
    """The dialler of a lane: it insists on the session's server key."""

    def __init__(self, server_key: bytes, key: bytes, session: bytes, number: int) -> None:
        super().__init__(Client(changes={APPLICATION_PROTOCOLS: lane_protocols(session)}))
        self.server_key, self.key, self.session, self.number = server_key, key, session, number
        self.join = b""
        """The payload of the JOIN that was sent."""

    def feed(self, data: bytes) -> Link | None:
        if self._hello(data) is None:
            return None
        if self.tls.server_key != self.server_key:
            raise WrongKey("another replica")
        mac = join_mac(self.key, self.session, self.number, self.tls.export("EXPORTER-hcp/1 lane"))
        return self.send(self.session + self.number.to_bytes(4, "big") + mac)

    def send(self, join: bytes) -> Link:
        self.join = join
        return self._show(Frame(fr.JOIN, 0, join))


@dataclass
class Credentials:
    """What an acceptor shows: its address, or a session key with certificate and delegation for the service's."""

    secret: Secret
    address: bytes
    certificate: bytes = b""
    delegation: bytes = b""

    @staticmethod
    def of(identity: Secret) -> "Credentials":
        return Credentials(identity, identity.public)


@dataclass
class Accepted:
    """A PROOF that was good."""

    link: Link
    address: bytes | None
    known: bytes
    limits: Limits


@dataclass
class JoinRequest:
    """A JOIN, not yet looked at."""

    link: Link
    session: bytes
    number: int
    mac: bytes

    def fits(self, key: bytes) -> bool:
        expected = join_mac(key, self.session, self.number, self.link.tls.export("EXPORTER-hcp/1 lane"))
        return hmac.compare_digest(expected, self.mac)

    def refuse(self) -> bytes:
        """What is still to be sent."""
        return farewell(self.link.tls, 2)


def farewell(tls: Connection, code: int) -> bytes:
    """CLOSE and close_notify."""
    tls.write(flush([control(fr.CLOSE, code=code)]))
    tls.close()
    return tls.take()


class Accepting(_Opening):
    """The acceptor's side of any connection."""

    def __init__(
        self,
        credentials: Credentials,
        suites: list[int] | None = None,
        changes: dict[int, bytes | None] | None = None,
    ) -> None:
        self.server = Server(credentials.secret, suites, changes)
        super().__init__(self.server)
        self.credentials = credentials
        self.greeting: Frame | None = None
        """What is sent instead of HELLO, by tests that break rules."""
        self._greeted, self._amount = False, 0

    def feed(self, data: bytes) -> Accepted | JoinRequest | None:
        before = len(self.tls.records)
        first = self._first(data)
        self._amount += sum(self.tls.records[before:])
        if self.server.client_hello is not None and not self._greeted:
            self._greeted = True
            ours = Limits()
            hello = control(
                fr.HELLO,
                certificate=self.credentials.certificate,
                delegation=self.credentials.delegation,
                window=ours.window,
                max_streams=ours.max_streams,
            )
            self.server.write(flush([self.greeting or hello], fr.FIRST_FLIGHT))
        if first is None:
            if self._amount > BEFORE_PROOF:
                raise ProtocolError("too much before PROOF or JOIN")
            return None
        if first.kind == fr.JOIN:
            payload = first.payload
            return JoinRequest(self._link(), payload[:16], int.from_bytes(payload[16:20], "big"), payload[20:])
        if first.kind != fr.PROOF:
            raise ProtocolError("neither PROOF nor JOIN")
        return self._proof(first.fields())

    def _proof(self, proof: Values) -> Accepted:
        address, signature, known = proof.data("address"), proof.data("signature"), proof.data("known")
        limits = read_limits(proof)
        if not address and not signature and not known:
            return Accepted(self._link(), None, b"", limits)
        if len(known) not in (0, 16):
            raise ProtocolError("a session id of another length")
        try:
            check_public(address)
            message = proof_message(self.tls.export("EXPORTER-hcp/1 dialler"), address, self.credentials.address)
            verify(address, message, signature)
        except (KeyRefused, SignatureRefused) as error:
            raise ProtocolError("the dialler's proof is wrong") from error
        return Accepted(self._link(), address, known, limits)

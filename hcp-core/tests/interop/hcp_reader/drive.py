"""What moves the bytes of sessions: through memory, or over TCP on loopback."""

import selectors
import socket
import time
from pathlib import Path
from typing import Callable

from .frames import Frame
from .keys import onion
from .opening import PORT, Accepted, Accepting, Credentials, Dialling, JoinRequest, LaneDialling, Link
from .places import Places
from .session import BUSY, Event, Session

PATIENCE = 20.0


class Lost(Exception):
    """The other side ended the connection before it was a session or a lane."""


class Late(Exception):
    """What was waited for did not come within its deadline."""


class Pair:
    """A dialler and an acceptor joined through memory."""

    def __init__(self, dialling: Dialling, accepting: Accepting) -> None:
        link, accepted = open_in_memory(dialling, accepting)
        assert isinstance(accepted, Accepted)
        self.dialler, self.acceptor = Session.dialled(dialling, link), Session.accepted(accepted)
        self.credentials = accepting.credentials
        self.pump()

    def pump(self, conns: list[int] | None = None) -> None:
        """Moves bytes on these connections, or on all, until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            for conn in conns or sorted({*self.dialler.conns, *self.acceptor.conns}):
                for here, there in ((self.dialler, self.acceptor), (self.acceptor, self.dialler)):
                    if data := here.transmit(conn):
                        moved = True
                        there.receive(conn, data)

    def lane(self) -> int:
        """Joins a lane."""
        dialling, accepting = self.dialler.lane_dialling(), Accepting(self.credentials)
        link, request = open_in_memory(dialling, accepting)
        assert isinstance(request, JoinRequest) and self.acceptor.join(request)
        return self.dialler.add_lane(dialling, link)


def open_in_memory(
    dialling: Dialling | LaneDialling, accepting: Accepting
) -> tuple[Link, Accepted | JoinRequest]:
    """Lets the beginnings of one connection meet."""
    link: Link | None = None
    while True:
        accepted = accepting.feed(dialling.take())
        if link is not None and accepted is not None:
            return link, accepted
        link = link or dialling.feed(accepting.take())


class Tcp:
    """A session over TCP, with as many lanes as were joined. One thread: `until` moves everything."""

    def __init__(
        self, session: Session, connection: socket.socket, selector: selectors.BaseSelector | None = None
    ) -> None:
        self.session = session
        self._owns_selector = selector is None
        self._selector = selector or selectors.DefaultSelector()
        self._sockets = dict[int, socket.socket]()
        self.add(0, connection)

    def add(self, conn: int, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._sockets[conn] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(conn))

    def flush(self) -> None:
        """Writes what is ready."""
        for conn, connection in list(self._sockets.items()):
            if data := self.session.transmit(conn):
                connection.settimeout(PATIENCE)
                try:
                    connection.sendall(data)
                except OSError:
                    self._drop(conn)
                    continue
                connection.setblocking(False)

    def cut(self, conn: int) -> None:
        """Ends the transport of one connection without a word."""
        self._drop(conn)

    def spoil(self, conn: int) -> None:
        """Sends what is no TLS record, and nothing behind it."""
        connection = self._sockets[conn]
        connection.settimeout(PATIENCE)
        connection.sendall(bytes(64))
        self._drop(conn)

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Moves bytes until the condition holds; raises Late when it does not in time."""
        deadline = time.monotonic() + patience
        self.flush()
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late(f"events so far: {list(self.session.events)}")
            if not self._sockets:
                raise Late(f"no connection is left; events so far: {list(self.session.events)}")
            for key, _ in self._selector.select(left):
                key.data()

    def event(self, what: str, patience: float = PATIENCE) -> Event:
        """Waits for the next event of a kind; others before it stay."""

        def found() -> list[Event]:
            return [event for event in self.session.events if event.what == what]

        self.until(lambda: bool(found()), patience)
        event = found()[0]
        self.session.events.remove(event)
        return event

    def message(self, stream: int, patience: float = PATIENCE) -> bytes:
        """Waits for the next message of a stream and takes it."""

        def waiting() -> bool:
            found = self.session.streams.get(stream) or self.session.ended[stream]
            return bool(found.messages)

        self.until(waiting, patience)
        message = self.session.take(stream)
        assert message is not None
        self.flush()
        return message

    def gone(self, patience: float = PATIENCE) -> None:
        """Waits until the peer has ended the transport of the primary."""
        self.until(lambda: 0 not in self._sockets, patience)

    def shut(self) -> None:
        for conn in list(self._sockets):
            self._drop(conn)
        if self._owns_selector:
            self._selector.close()

    def _read(self, conn: int) -> None:
        if conn not in self._sockets:
            return
        try:
            data = self._sockets[conn].recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return
        self.session.now = time.monotonic()
        try:
            self.session.receive(conn, data)
        finally:
            self.flush()
            if self.session.closed is not None:
                self._end_sending()

    def _end_sending(self) -> None:
        """Nothing comes behind CLOSE, from either side: the peer sees the end, and its own end is waited for."""
        for connection in self._sockets.values():
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                # The peer was quicker.
                continue

    def _drop(self, conn: int) -> None:
        connection = self._sockets.pop(conn, None)
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()
            self.session.lost(conn)


class Host:
    """An acceptor over TCP: it takes sessions, and lanes for them."""

    def __init__(self, folder: Path, credentials: Credentials, suites: list[int] | None = None) -> None:
        self.credentials, self.suites = credentials, suites
        self.sessions = list[Tcp]()
        self.places = Places()
        self.proofs = list[Accepted]()
        self.refused = list[JoinRequest]()
        self.ended = list[Accepting]()
        """Connections that ended before they were anything."""
        self.replicas = list[Credentials]()
        """What the next connections are shown instead: another replica answers."""
        self.greeting: Frame | None = None
        """What is sent instead of HELLO."""
        self.changes: dict[int, bytes | None] | None = None
        """How EncryptedExtensions are changed."""
        self.takes_lanes = True
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._openings = set[socket.socket]()
        aside = folder / f"new-{credentials.address.hex()}"
        aside.write_text(str(self._listener.getsockname()[1]))
        self._file = aside.rename(folder / f"{onion(credentials.address)}.{PORT}.{0:016x}")

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Moves the bytes of all connections until the condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late("what was waited for did not come")
            for tcp in self.sessions:
                tcp.flush()
            for key, _ in self._selector.select(min(left, 0.05)):
                key.data()

    def session(self) -> Tcp:
        """Waits for the next session."""
        known = len(self.sessions)
        self.until(lambda: len(self.sessions) > known)
        return self.sessions[-1]

    def shut(self) -> None:
        """Ends everything; a second call does nothing."""
        if not self._file.exists():
            return
        self._file.unlink()
        for tcp in self.sessions:
            tcp.shut()
        for connection in [*self._openings, self._listener]:
            self._selector.unregister(connection)
            connection.close()
        self._selector.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepting = Accepting(self.replicas.pop(0) if self.replicas else self.credentials, self.suites, self.changes)
        accepting.greeting = self.greeting
        self._openings.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._opening(accepting, connection))

    def _opening(self, accepting: Accepting, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
            outcome = accepting.feed(data) if data else None
        except OSError:
            data, outcome = b"", None
        if not data:
            self.ended.append(accepting)
            self._forget(connection)
            connection.close()
        elif outcome is None:
            connection.sendall(accepting.take())
        else:
            self._forget(connection)
            self._begun(outcome, connection)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._openings.remove(connection)

    def _begun(self, outcome: Accepted | JoinRequest, connection: socket.socket) -> None:
        if isinstance(outcome, Accepted):
            self.proofs.append(outcome)
            now = time.monotonic()
            session = Session.accepted(outcome, now)
            self.sessions.append(Tcp(session, connection, self._selector))
            if (gone := self.places.enter(now, session)) is not None:
                gone.close(BUSY)
            return
        for tcp in self.sessions:
            if self.takes_lanes and tcp.session.join(outcome):
                tcp.add(outcome.number, connection)
                return
        self.refused.append(outcome)
        connection.sendall(outcome.refuse())
        connection.close()


def connect(folder: Path, address: bytes) -> socket.socket:
    """Dials an address of a local network: a file in its folder names the port on loopback."""
    deadline = time.monotonic() + PATIENCE
    while not (found := sorted(folder.glob(f"{onion(address)}.{PORT}.*"))):
        if time.monotonic() > deadline:
            raise Late("nobody serves this address")
        time.sleep(0.02)
    connection = socket.create_connection(("127.0.0.1", int(found[0].read_text())), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def begin(opening: Dialling | LaneDialling | Accepting, connection: socket.socket) -> Link | Accepted | JoinRequest:
    """Moves the bytes of a connection until it is a session or a lane; what fails is raised."""
    connection.settimeout(PATIENCE)
    while True:
        if out := opening.take():
            connection.sendall(out)
        data = connection.recv(1 << 16)
        if not data:
            raise Lost
        if (outcome := opening.feed(data)) is not None:
            if out := opening.take():
                connection.sendall(out)
            return outcome


def dial(dialling: Dialling, connection: socket.socket) -> Tcp:
    link = begin(dialling, connection)
    assert isinstance(link, Link)
    return Tcp(Session.dialled(dialling, link, time.monotonic()), connection)


def join(tcp: Tcp, connection: socket.socket, number: int | None = None) -> tuple[int, LaneDialling]:
    """Joins a lane to a session that was dialled."""
    dialling = tcp.session.lane_dialling(number)
    link = begin(dialling, connection)
    assert isinstance(link, Link)
    conn = tcp.session.add_lane(dialling, link)
    tcp.add(conn, connection)
    return conn, dialling

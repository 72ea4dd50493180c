"""The extension module; everything public in it is re-exported by `hcp`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import ClassVar, Final, Generic, Self, TypeAlias, TypeVar, final

from hcp.errors import HcpError

__version__: Final[str]

HCP_PORT: Final[int]
"""The virtual port on which HCP listens at an onion address."""
ACCEPT_QUEUE: Final[int]
"""How many accepted transport connections may wait; more are refused, so that a flood costs bounded memory."""
MAX_HANDSHAKES: Final[int]
"""Accepted connections whose dialler has not proved itself yet; one more displaces the oldest."""
MAX_SESSIONS: Final[int]
"""Sessions that a node accepts at once."""
MAX_KEEPALIVE: Final[float]
"""The longest timeout of a keepalive, in seconds."""
RESET_UNKNOWN_PROTOCOL: Final[int]
"""Reset code: nobody serves the protocol."""
RESET_ANONYMOUS: Final[int]
"""Reset code: the protocol does not serve anonymous diallers."""
RESET_BUSY: Final[int]
"""Reset code: too many streams of the session are being served already."""
RESET_DROPPED: Final[int]
"""Reset code: the stream was given up."""
MAX_MESSAGE: Final[int]
"""The longest message of a stream, in bytes."""
STREAM_WINDOW: Final[int]
"""Bytes that one stream may have in flight in one direction."""
MAX_STREAMS: Final[int]
"""Streams that a peer may have open at once in one session."""
HANDSHAKE_TIMEOUT: Final[float]
"""How long a dialler may take from its first byte to its proof, in seconds."""
MAX_PROTOCOL_NAME: Final[int]
"""The longest name of a protocol, in bytes of UTF-8."""

_Path: TypeAlias = str | PathLike[str]
_Buffer: TypeAlias = bytes | bytearray | memoryview
_Handler: TypeAlias = Callable[[Stream, Session], Awaitable[object]]

_K = TypeVar("_K", Identity, LogKey)
_T_co = TypeVar("_T_co", covariant=True)

@final
class OnionAddress:
    """A v3 onion address, which is the id of a person, a node or a service.

    `str` gives the 62 characters with `.onion`; `repr` gives nothing away.
    """

    def __new__(cls, text: str) -> Self:
        """Parses an address, in either case, with or without `.onion`.

        Raises `InvalidInputError` for anything else; subdomains, ports and surrounding space are refused.
        """

    @staticmethod
    def from_public_key(key: bytes) -> OnionAddress:
        """Takes an Ed25519 public key of 32 bytes, after checking that it is one that an address may hold."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""

    def verify(self, message: bytes, signature: bytes) -> None:
        """Verifies that the holder of this address signed `message`; raises `AuthenticationError` otherwise."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: OnionAddress, /) -> bool: ...
    def __le__(self, other: OnionAddress, /) -> bool: ...
    def __gt__(self, other: OnionAddress, /) -> bool: ...
    def __ge__(self, other: OnionAddress, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Identity:
    """The secret key of an onion address.

    It is overwritten in memory when the last handle is gone; what `expanded_secret_key` gave out is not.
    """

    @staticmethod
    def generate() -> Identity:
        """Makes a new identity from the operating system's random source."""

    @staticmethod
    def from_seed(seed: bytes) -> Identity:
        """Derives the identity of an RFC 8032 seed of 32 bytes; the same seed always gives the same address."""

    @staticmethod
    def from_expanded_secret_key(expanded: bytes) -> Identity:
        """Takes an expanded key of 64 bytes, as C tor stores it."""

    @property
    def address(self) -> OnionAddress:
        """The address that this identity answers for."""

    def sign(self, message: bytes) -> bytes:
        r"""Signs `message` with plain Ed25519; gives 64 bytes.

        Everything that HCP signs begins with `HCP/1 <purpose>` and a zero byte; keep to that, with a purpose of your
        own, or a signature made for one thing may count as another.
        """

    def expanded_secret_key(self) -> bytes:
        """The expanded secret key, 64 bytes, for a Tor implementation or a backup."""

@final
class LogKey:
    """The secret key with which a node signs what it writes to a log."""

    @staticmethod
    def generate() -> LogKey:
        """Makes a new key from the operating system's random source."""

    @staticmethod
    def from_seed(seed: bytes) -> LogKey:
        """Derives the key of an RFC 8032 seed of 32 bytes."""

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes, by which others verify."""

    def sign(self, message: bytes) -> bytes:
        """Signs `message` with plain Ed25519; the message begins with its purpose, as everything that HCP signs."""

    @staticmethod
    def verify(public: bytes, message: bytes, signature: bytes) -> None:
        """Verifies that `signature` was made over `message` with the secret of `public`."""

@final
class Passphrase:
    """A passphrase that is never printed and never empty. The `str` that it was made from stays with Python."""

    def __new__(cls, text: str) -> Self:
        """Raises `InvalidInputError` when `text` is empty: it would protect nothing."""

@final
class Protection:
    """How a key file is protected. There is no default: whoever writes a key in the clear says so."""

    @staticmethod
    def passphrase(passphrase: Passphrase) -> Protection:
        """Sealed: useless without the passphrase."""

    @staticmethod
    def plain() -> Protection:
        """In the clear, guarded by the file's permissions and the disk's encryption only."""

@final
class Argon2Cost:
    """What opening a sealed file costs, for its owner and for whoever guesses passphrases."""

    MEMORY_KIB: ClassVar[range]
    """The memory that is allowed, in KiB."""
    PASSES: ClassVar[range]
    """The passes over the memory that are allowed."""
    LANES: ClassVar[range]
    """The lanes that are allowed; they are computed one after the other."""

    def __new__(cls, memory_kib: int, passes: int, lanes: int) -> Self:
        """Raises `InvalidInputError` outside `MEMORY_KIB`, `PASSES` or `LANES`."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class KeyFile:
    """A place on disk for one key."""

    def __new__(cls, path: _Path) -> Self:
        """Names the file; nothing is touched yet."""

    def cost(self, cost: Argon2Cost) -> KeyFile:
        """Gives a key file with another cost of opening; default 64 MiB, 3 passes, 1 lane."""

    async def save(self, key: Identity | LogKey, protection: Protection) -> None:
        """Writes `key` to a new file with mode 0600, durably and all at once.

        Raises `InvalidInputError` when there is anything at the path, which then stays as it was, and `StorageError`.
        A cancelled save may have written the file.
        """

    async def load(self, key_type: type[_K], protection: Protection) -> _K:
        """Reads the key back, which must be an `Identity` or a `LogKey`, as `key_type` says.

        `AuthenticationError` with the reason `WrongPassphrase` is the one to ask again on. A plain file is loaded only
        with `Protection.plain()`: else whoever can write the file could slip in a key of their own.
        """

async def ctor_import(directory: _Path) -> Identity:
    """Reads the identity of a C tor onion service directory (what `HiddenServiceDir` names)."""

async def ctor_export(identity: Identity, directory: _Path) -> None:
    """Writes the identity as a C tor onion service directory with mode 0700; never replaces one."""

def ctor_decode_secret_key(content: bytes) -> Identity:
    """Decodes the content of an `hs_ed25519_secret_key` file."""

class Network:
    """A place where onion addresses can be dialled and served: one of the subclasses."""

@final
class MemoryNetwork(Network):
    """A network inside this process, for tests."""

    def __new__(cls) -> Self: ...

@final
class LocalNetwork(Network):
    """Loopback TCP and a folder that maps addresses to ports: development without Tor. **Not anonymous.**"""

    def __new__(cls, folder: _Path) -> Self:
        """A network whose addresses stand in `folder`, which is made when it is missing."""

@final
class TorNetwork(Network):
    """A connection to the Tor network: Arti in this process.

    Dials through one handle to one address may travel on one circuit, by which the other side can link them;
    `isolated` gives a handle whose dials cannot be linked to those of others. Leaving `async with` shuts it down.
    """

    @staticmethod
    async def bootstrap(
        state_dir: _Path,
        cache_dir: _Path,
        *,
        private_network: PrivateNetwork | None = None,
        bootstrap_deadline: float | None = None,
        network_deadline: float | None = None,
        connect_deadline: float | None = None,
        memory_limit: int | None = None,
        on_progress: Callable[[BootstrapProgress], object] | None = None,
    ) -> TorNetwork:
        """Joins the network; returns once it can be used.

        Guards are kept in `state_dir`, the directory in `cache_dir`; both are created if need be. On the public network
        nobody else may be able to write to them or to the directories above.

        `private_network` joins that network instead of the public one, and protects nobody. `bootstrap_deadline`
        (300 s) is for this call, `network_deadline` (60 s) for how long a dial waits for the network,
        `connect_deadline` (45 s) for each of the three tries of a dial. `memory_limit` (256 MiB) is about how many
        bytes of queued cells may wait before circuits are closed. `on_progress` is called on the event loop.

        Raises `InUseError` for a directory in use, `StorageError` for one that is not private enough, and
        `UnreachableError` or `TimedOutError` for a network out of reach. Cancelling leaves the network.
        """

    def isolated(self) -> TorNetwork:
        """Returns a handle whose dials share no circuit with those of any other handle."""

    def progress(self) -> Watch[BootstrapProgress]:
        """Watches how well the network can be used; it may get worse again."""

    async def shutdown(self) -> None:
        """Gives the handle up and waits, for at most 10 s, until the state directory is free for another.

        It stays in use as long as other handles, nodes or sessions exist.
        """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class BootstrapProgress:
    """How well the network can be used."""

    @property
    def percent(self) -> int:
        """0 to 100; 100 is ready to use."""

    @property
    def text(self) -> str:
        """What is going on or going wrong, on one line."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class PrivateNetwork:
    """A Tor network other than the public one. It protects nobody: whoever runs the authorities chooses the relays."""

    def __new__(cls, authorities: Sequence[PrivateAuthority]) -> Self: ...
    @staticmethod
    async def load(path: _Path) -> PrivateNetwork:
        """Reads the description of a private network that `hcp-testnet` wrote."""

    @property
    def authorities(self) -> list[PrivateAuthority]:
        """The directory authorities, through which the directory is fetched at first."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class PrivateAuthority:
    """A directory authority of a private network."""

    def __new__(cls, *, v3_identity: bytes, rsa_identity: bytes, ed25519_identity: bytes, or_address: str) -> Self: ...
    @property
    def v3_identity(self) -> bytes:
        """The fingerprint of its voting key, 20 bytes."""

    @property
    def rsa_identity(self) -> bytes:
        """The fingerprint of its RSA relay key, 20 bytes."""

    @property
    def ed25519_identity(self) -> bytes:
        """Its ed25519 relay key, 32 bytes."""

    @property
    def or_address(self) -> str:
        """Where it accepts Tor connections: an IP address, a colon and a port."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

class ListenerStatus:
    """Whether strangers can reach a node: an object of one of the classes inside, for `match`."""

    @final
    class Starting(ListenerStatus):
        """Launched, not yet announced."""

        __match_args__: ClassVar[tuple[()]] = ()
        def __new__(cls) -> Self: ...

    @final
    class Reachable(ListenerStatus):
        """Announced: the network says that the address can be dialled."""

        __match_args__: ClassVar[tuple[()]] = ()
        def __new__(cls) -> Self: ...

    @final
    class Broken(ListenerStatus):
        """The network reports a problem."""

        __match_args__: ClassVar[tuple[str]] = ("problem",)
        def __new__(cls, problem: str) -> Self: ...
        @property
        def problem(self) -> str:
            """Which one, without addresses."""

    @final
    class Stopped(ListenerStatus):
        """Gone for good."""

        __match_args__: ClassVar[tuple[()]] = ()
        def __new__(cls) -> Self: ...

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Access:
    """Whom a protocol serves."""

    ANYONE: ClassVar[Access]
    """Everybody, also diallers that do not say who they are."""
    IDENTIFIED: ClassVar[Access]
    """Diallers that have proved their address."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class Node:
    """An identity on a network. It dials peers and accepts them.

    It runs until `shutdown`, the end of `async with`, or the end of the last reference to it; its sessions end with it.
    """

    @staticmethod
    async def bind(
        identity: Identity,
        network: Network,
        protocols: Mapping[str, tuple[Access, _Handler]] | None = None,
        *,
        keepalive: tuple[float, float] | None = None,
    ) -> Node:
        """Launches a node that serves `protocols`, each by its handler, for peers that its `Access` admits.

        A handler is called as `handler(stream, session)` and runs as a task of this event loop. When it returns, its
        stream is finished; when it raises, its stream is reset and the exception goes to the loop's exception handler,
        apart from `ClosedError`, which only says that the peer has left; when the session ends, it is cancelled.

        `keepalive` is the silence, in seconds, after which a session is probed, and after which it is given up: (5, 15)
        by default. Shorter notices death sooner and costs a ping per interval and session.

        Returns once the node is launched; `reachable` waits until it can be dialled.
        """

    @property
    def address(self) -> OnionAddress:
        """The node's own address."""

    def status(self) -> Watch[ListenerStatus]:
        """Whether strangers can reach the node."""

    async def reachable(self) -> bool:
        """Waits until strangers can reach the node; false when it stopped before."""

    async def connect(self, address: OnionAddress) -> Session:
        """Opens a session with whoever holds the key of `address`, and proves to them who this node is.

        Raises `UnreachableError`, `TimedOutError`, `AuthenticationError` and the like. Cancelling abandons the attempt.
        """

    async def connect_anonymously(self, address: OnionAddress) -> Session:
        """Opens a session without showing who this node is. The peer can open no streams in it."""

    async def shutdown(self) -> None:
        """Withdraws the node and ends its sessions. What waits for it gets a `ClosedError`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Session:
    """An encrypted connection with a peer, on which streams are opened.

    One that this node dialled ends with `shutdown`, with the end of `async with`, with the last reference to it and to its
    streams, or with the node.
    """

    @property
    def peer(self) -> OnionAddress | None:
        """The address that the other end has proved; `None` for a dialler that did not say who it is."""

    @property
    def round_trip(self) -> float | None:
        """The last measured round trip, in seconds; `None` before the first ping came back."""

    async def open(self, protocol: str) -> Stream:
        """Opens a stream for a protocol that the peer serves.

        Takes no round trip: whether the peer serves the protocol shows on the first `recv`.
        """

    async def shutdown(self) -> None:
        """Says goodbye and ends the session once what was sent before has gone out."""

    async def closed(self) -> HcpError:
        """Waits until the session has ended and returns why."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Stream:
    """An ordered flow of messages to and from a peer. One task may send while another receives.

    `async for` gives the messages until the peer ends its direction. Leaving `async with` finishes the stream, or resets
    it when an exception is passing through. A stream without references is reset.
    """

    async def send(self, message: _Buffer) -> None:
        """Sends a message of at most `MAX_MESSAGE` bytes; waits while the peer's window is full.

        Raises `InvalidInputError` for a longer one and `ClosedError`. A cancelled send has sent the message whole, or not
        at all.
        """

    async def recv(self) -> bytes | None:
        """Waits for the next message; `None` when the peer has ended its direction.

        Raises `RefusedError` when the peer does not serve the protocol, or not to this dialler, `LimitExceededError`
        when it serves as many streams as it can, and `ClosedError`. Cancelling loses no message.
        """

    async def finish(self) -> None:
        """Ends this side's direction once what was sent before has gone out; receiving goes on."""

    def sender(self) -> StreamSender:
        """A handle that can only send, to give away. The stream ends with the `Stream`, whatever happens to this."""

    def reset(self) -> None:
        """Abandons the stream at once; what waits for it gets a `ClosedError`."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> bytes: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class StreamSender:
    """The sending half of a `Stream`."""

    async def send(self, message: _Buffer) -> None:
        """As `Stream.send`."""

    async def finish(self) -> None:
        """As `Stream.finish`."""

@final
class Watch(Generic[_T_co]):
    """A value that changes. `async for` gives the value as it is, then the latest one after each change."""

    @property
    def value(self) -> _T_co:
        """The value as it is now."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> _T_co: ...

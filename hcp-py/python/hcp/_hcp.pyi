"""The extension module; everything public in it is re-exported by `hcp`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Generic, Self, TypeAlias, TypeVar, final

from typing_extensions import disjoint_base

from hcp.errors import ErrorKind, HcpError

__all__ = [
    "ACCEPT_QUEUE",
    "Access",
    "Argon2Cost",
    "Availability",
    "Backoff",
    "BootstrapProgress",
    "CLOCK_SKEW",
    "Contact",
    "ContactState",
    "Cursor",
    "DISK_RESERVE",
    "Delegation",
    "DialAs",
    "DialledBy",
    "Direction",
    "DiscoveryKey",
    "DiscoveryPublicKey",
    "EVENT_QUEUE",
    "Event",
    "EventKind",
    "Events",
    "FailureReason",
    "HANDSHAKE_TIMEOUT",
    "HCP_PORT",
    "HEALTHY_SESSION",
    "Identity",
    "KeyFile",
    "Listener",
    "ListenerStatus",
    "LocalNetwork",
    "LogKey",
    "MAX_BACKOFF",
    "MAX_CONTACTS",
    "MAX_DISCOVERY_CLIENTS",
    "MAX_EVENTS",
    "MAX_FILE",
    "MAX_FILE_NAME",
    "MAX_GREETING",
    "MAX_HANDSHAKES",
    "MAX_KEEPALIVE",
    "MAX_LANES",
    "MAX_MESSAGE",
    "MAX_NAME",
    "MAX_PAGE",
    "MAX_PENDING",
    "MAX_PROTOCOL_NAME",
    "MAX_QUEUED",
    "MAX_SESSIONS",
    "MAX_STREAMS",
    "MAX_STREAM_WINDOW",
    "MAX_TEXT",
    "MIN_BACKOFF",
    "Maintained",
    "MemoryNetwork",
    "Message",
    "MessageId",
    "MessageState",
    "Messenger",
    "NODE_BACKLOG",
    "NODE_MEMORY",
    "Network",
    "Node",
    "NodeEvent",
    "NodeEvents",
    "NodeStats",
    "OnionAddress",
    "OwnerCertificate",
    "OwnerKey",
    "Passphrase",
    "Presence",
    "Priority",
    "PrivateAuthority",
    "PrivateNetwork",
    "Profile",
    "Protection",
    "PublicKey",
    "RESET_ANONYMOUS",
    "RESET_BUSY",
    "RESET_DROPPED",
    "RESET_UNKNOWN_PROTOCOL",
    "ReplicaCredentials",
    "Round",
    "SESSION_GROWTH",
    "STREAM_WINDOW",
    "SerialFloors",
    "Service",
    "Session",
    "SessionKey",
    "SessionStats",
    "Stream",
    "StreamSender",
    "TorNetwork",
    "Transfer",
    "TransferFailure",
    "TransferId",
    "TransferState",
    "Validity",
    "Watch",
    "__version__",
    "ctor_decode_secret_key",
    "ctor_export",
    "ctor_import",
]

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
MAX_DISCOVERY_CLIENTS: Final[int]
"""Clients that an address may be restricted to."""
EVENT_QUEUE: Final[int]
"""Events of a node that wait for a slow reader; older ones are dropped, and the reader is told how many."""
NODE_MEMORY: Final[int]
"""Bytes that all peers together can make a node hold."""
NODE_BACKLOG: Final[int]
"""Bytes of what its applications have sent that a node keeps, all sessions together."""
MIN_BACKOFF: Final[float]
"""The shortest first wait of a `Backoff`, in seconds."""
MAX_BACKOFF: Final[float]
"""The longest wait of a `Backoff`, in seconds."""
HEALTHY_SESSION: Final[float]
"""A session that lived this long, in seconds, was a success, after which the waits of a `Backoff` begin anew."""
CLOCK_SKEW: Final[int]
"""How far the clocks of an owner and of a dialler may be apart, in seconds."""
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
"""Bytes that one stream may have in flight in one direction, at first."""
MAX_STREAM_WINDOW: Final[int]
"""Bytes that one stream may have in flight in one direction, once its reader has kept up."""
SESSION_GROWTH: Final[int]
"""Bytes by which all windows of a session together may grow."""
MAX_LANES: Final[int]
"""The most lanes of a session."""
MAX_STREAMS: Final[int]
"""Streams that a peer may have open at once in one session."""
HANDSHAKE_TIMEOUT: Final[float]
"""How long a dialler may take from its first byte to its proof, in seconds."""
MAX_PROTOCOL_NAME: Final[int]
"""The longest name of a protocol, in bytes of UTF-8."""

_Path: TypeAlias = str | PathLike[str]
_Buffer: TypeAlias = bytes | bytearray | memoryview
_Handler: TypeAlias = Callable[[Stream, Session], Awaitable[object]]

_Key: TypeAlias = Identity | LogKey | OwnerKey | SessionKey | DiscoveryKey | ReplicaCredentials
_Protocols: TypeAlias = Mapping[str, tuple[Access, _Handler]]

_K = TypeVar("_K", Identity, LogKey, OwnerKey, SessionKey, DiscoveryKey, ReplicaCredentials)
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
class DiscoveryKey:
    """The secret key with which a client finds addresses that are hidden from others.

    It proves nothing to a service, which sees the public half: use one for each service that should not learn that it has a
    client in common with another. It is overwritten in memory when the last handle is gone; what was given out is not.
    """

    @staticmethod
    def generate() -> DiscoveryKey:
        """Makes a new key from the operating system's random source."""

    @staticmethod
    def from_secret_bytes(secret: bytes) -> DiscoveryKey:
        """Takes the 32 bytes of an X25519 secret, and clamps them as every use of them would."""

    def secret_bytes(self) -> bytes:
        """The 32 bytes of the secret, clamped, for a Tor implementation or a backup."""

    @property
    def public_key(self) -> DiscoveryPublicKey:
        """The public half, for whoever serves the address."""

    def c_tor_line(self, address: OnionAddress) -> str:
        """The line that gives C tor this key for `address`, in a file NAME.auth_private of its `ClientOnionAuthDir`.

        Its last part is what Tor Browser asks for. It holds the secret.
        """

@final
class DiscoveryPublicKey:
    """The public half of a `DiscoveryKey`.

    `str` gives `descriptor:x25519:` and 52 characters, as a line of C tor's authorized_clients; `repr` gives nothing away.
    """

    def __new__(cls, text: str) -> Self:
        """Parses what `str` gives; raises `InvalidInputError` for anything else."""

    @staticmethod
    def from_bytes(key: bytes) -> DiscoveryPublicKey:
        """Takes an X25519 public key of 32 bytes, after checking that it is one that protects something."""

    def as_bytes(self) -> bytes:
        """The X25519 public key, 32 bytes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: DiscoveryPublicKey, /) -> bool: ...
    def __le__(self, other: DiscoveryPublicKey, /) -> bool: ...
    def __gt__(self, other: DiscoveryPublicKey, /) -> bool: ...
    def __ge__(self, other: DiscoveryPublicKey, /) -> bool: ...
    def __hash__(self) -> int: ...

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
    """A place on disk for one key, or for the credentials of a replica."""

    def __new__(cls, path: _Path) -> Self:
        """Names the file; nothing is touched yet."""

    def cost(self, cost: Argon2Cost) -> KeyFile:
        """Gives a key file with another cost of opening; default 64 MiB, 3 passes, 1 lane."""

    async def save(self, key: _Key, protection: Protection) -> None:
        """Writes `key` to a new file with mode 0600, durably and all at once.

        Raises `InvalidInputError` when there is anything at the path, which then stays as it was, and `StorageError`.
        A cancelled save may have written the file.
        """

    async def load(self, key_type: type[_K], protection: Protection) -> _K:
        """Reads the key back, which must be of the `key_type` with which it was saved.

        `AuthenticationError` with the reason `WrongPassphrase` is the one to ask again on. A plain file is loaded only
        with `Protection.plain()`: else whoever can write the file could slip in a key of their own.
        """

async def ctor_import(directory: _Path) -> Identity:
    """Reads the identity of a C tor onion service directory (what `HiddenServiceDir` names)."""

async def ctor_export(identity: Identity, directory: _Path) -> None:
    """Writes the identity as a C tor onion service directory with mode 0700; never replaces one."""

def ctor_decode_secret_key(content: bytes) -> Identity:
    """Decodes the content of an `hs_ed25519_secret_key` file."""

@disjoint_base
class Network:
    """A place where onion addresses can be dialled and served: one of the subclasses."""

    async def listen(self, identity: Identity) -> Listener:
        """Serves the identity's address at `HCP_PORT`, for a `Service` to take.

        Returns as soon as the address is launched; `Listener.reachable` waits until strangers can reach it. Raises
        `InUseError` when this process serves the address already. Cancelling withdraws what was launched.
        """

    async def listen_restricted(self, identity: Identity, clients: Sequence[DiscoveryPublicKey]) -> Listener:
        """Serves as `listen` does, and lets nobody find the address who has the key of none of `clients`.

        There are 1 to `MAX_DISCOVERY_CLIENTS` of them. Raises `InvalidInputError` on a network that cannot do so.
        """

@final
class MemoryNetwork(Network):
    """A network inside this process, for tests."""

    def __new__(cls) -> Self: ...
    def with_discovery_key(self, address: OnionAddress, key: DiscoveryKey) -> MemoryNetwork:
        """The same network for somebody who dials `address` with a discovery key."""

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
        discovery_keys: Sequence[tuple[OnionAddress, DiscoveryKey]] | None = None,
        on_progress: Callable[[BootstrapProgress], object] | None = None,
    ) -> TorNetwork:
        """Joins the network; returns once it can be used.

        Guards are kept in `state_dir`, the directory in `cache_dir`; both are created if need be. On the public network
        nobody else may be able to write to them or to the directories above.

        `private_network` joins that network instead of the public one, and protects nobody. `bootstrap_deadline`
        (300 s) is for this call, `network_deadline` (60 s) for how long a dial waits for the network,
        `connect_deadline` (60 s) for all tries of a dial together. `memory_limit` (256 MiB) is about how many bytes of
        queued cells may wait before circuits are closed. `discovery_keys` are set as by `set_discovery_key`.
        `on_progress` is called on the event loop.

        Raises `InUseError` for a directory in use, `StorageError` for one that is not private enough, and
        `UnreachableError` or `TimedOutError` for a network out of reach. Cancelling leaves the network.
        """

    def isolated(self) -> TorNetwork:
        """Returns a handle whose dials share no circuit with those of any other handle."""

    def set_discovery_key(self, address: OnionAddress, key: DiscoveryKey) -> None:
        """Dials `address` with this key from now on, through all handles.

        The key stays in memory. Neither the directory nor the service can tell by it who dials.
        """

    def remove_discovery_key(self, address: OnionAddress) -> None:
        """Dials `address` without a key from now on."""

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

@disjoint_base
class ListenerStatus:
    """Whether strangers can reach a node: an object of one of the classes inside, for `match`."""

    @final
    class Starting(ListenerStatus):
        """Launched, not yet announced."""

        __match_args__: Final = ()
        def __new__(cls) -> Self: ...

    @final
    class Reachable(ListenerStatus):
        """Announced: the network says that the address can be dialled."""

        __match_args__: Final = ()
        def __new__(cls) -> Self: ...

    @final
    class Broken(ListenerStatus):
        """The network reports a problem."""

        __match_args__: Final = ("problem",)
        def __new__(cls, problem: str) -> Self: ...
        @property
        def problem(self) -> str:
            """Which one, without addresses."""

    @final
    class Stopped(ListenerStatus):
        """Gone for good."""

        __match_args__: Final = ()
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
class PublicKey:
    """The public half of an `OwnerKey` or a `SessionKey`."""

    @staticmethod
    def from_bytes(key: bytes) -> PublicKey:
        """Takes the 32 bytes of RFC 8032 after checking them."""

    def as_bytes(self) -> bytes:
        """The 32 bytes of RFC 8032."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class OwnerKey:
    """The secret key with which the owner of a service signs delegations, certified by the service's identity.

    It is kept offline, as the identity is; unlike the identity it can be replaced, by another certificate.
    """

    @staticmethod
    def generate() -> OwnerKey:
        """Makes a new key from the operating system's random source."""

    @staticmethod
    def from_seed(seed: bytes) -> OwnerKey:
        """Derives the key of an RFC 8032 seed of 32 bytes."""

    @property
    def public_key(self) -> PublicKey:
        """The public key, for `OwnerCertificate.issue`."""

    def delegate(self, service: OnionAddress, session_key: PublicKey, round: Round) -> Delegation:
        """Signs that the holder of `session_key` may speak for `service`, as one of `round`.

        Give all replicas of a round the same `Round`: a serial or a time of its own would tell strangers which replica
        they have reached, beyond the life of its session key.
        """

@final
class SessionKey:
    """The secret key that a replica shows in TLS when it speaks for a service; made for one delegation."""

    @staticmethod
    def generate() -> SessionKey:
        """Makes a new key from the operating system's random source."""

    @staticmethod
    def from_seed(seed: bytes) -> SessionKey:
        """Derives the key of an RFC 8032 seed of 32 bytes."""

    @property
    def public_key(self) -> PublicKey:
        """The public key, for `OwnerKey.delegate`."""

@final
class Validity:
    """From when to when something counts, in Unix seconds; both ends belong to it."""

    def __new__(cls, not_before: int, not_after: int) -> Self:
        """Raises `InvalidInputError` when it ends before it begins.

        Round both, to the day: a time to the second shows when the owner was at work.
        """

    @property
    def not_before(self) -> int:
        """The first second, in Unix seconds."""

    @property
    def not_after(self) -> int:
        """The last second, in Unix seconds."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Round:
    """What all delegations have in common that an owner issues at one time.

    The serial counts such rounds, so that it tells nothing about a single replica.
    """

    def __new__(cls, serial: int, lowest_serial: int, validity: Validity) -> Self:
        """Takes the round's number, the lowest number that is still valid with it, and its time.

        Raising `lowest_serial` withdraws the rounds below it, at every dialler that has seen a delegation of this one.
        It cannot be lowered again. Raises `InvalidInputError` when it is above `serial`.
        """

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class OwnerCertificate:
    """The word of a service's identity that an owner key speaks for its owner."""

    LEN: ClassVar[int]
    """The length of `to_bytes`."""

    @staticmethod
    def issue(service: Identity, owner_key: PublicKey, validity: Validity) -> OwnerCertificate:
        """Signs with the service's identity that `owner_key` is the owner's."""

    @staticmethod
    def from_bytes(content: bytes) -> OwnerCertificate:
        """Takes the bytes apart; whose signature it is remains to be seen."""

    def to_bytes(self) -> bytes:
        """Owner key, not before, not after, signature."""

    @property
    def owner_key(self) -> PublicKey:
        """The key that signs delegations."""

    @property
    def validity(self) -> Validity:
        """When it counts."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Delegation:
    """The word of an owner key that a session key speaks for a service.

    The owner, offline, and a replica that it lets speak for the service for two weeks::

        certificate = OwnerCertificate.issue(service, owner.public_key, Validity(today, today + 365 * day))
        delegation = owner.delegate(service.address, session_key, Round(7, 6, Validity(today, today + 14 * day)))
    """

    LEN: ClassVar[int]
    """The length of `to_bytes`."""

    @staticmethod
    def verify(
        service: OnionAddress,
        certificate: bytes,
        delegation: bytes,
        server_key: bytes,
        unix_now: int,
        floors: SerialFloors,
    ) -> Delegation:
        """Checks that whoever holds the secret of `server_key` speaks for `service` at `unix_now` (Unix seconds).

        `certificate` and `delegation` are the bytes that the server sent, `server_key` has 32. Remembers the
        delegation's floor in `floors` when everything is good and it is higher than the one held. Raises
        `AuthenticationError`, whose reason says which check failed, and `ProtocolViolationError` for other bytes.
        """

    @staticmethod
    def from_bytes(content: bytes) -> Delegation:
        """Takes the bytes apart; whose signature it is, and whether its serial still counts, remains to be seen."""

    def to_bytes(self) -> bytes:
        """Session key, not before, not after, serial, lowest serial still valid, signature."""

    @property
    def session_key(self) -> PublicKey:
        """The key that may speak for the service."""

    @property
    def validity(self) -> Validity:
        """When it counts."""

    @property
    def serial(self) -> int:
        """The number of the round of issue."""

    @property
    def lowest_serial(self) -> int:
        """The lowest serial that is still valid, as the owner saw it when it issued this one."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class ReplicaCredentials:
    """A session key with the certificate and the delegation that let it speak for a service; they belong together."""

    def __new__(
        cls,
        service: OnionAddress,
        certificate: OwnerCertificate,
        delegation: Delegation,
        session_key: SessionKey,
    ) -> Self:
        """Raises `AuthenticationError` when no dialler would take them together, ever; `check` is for now."""

    def check(self, unix_now: int) -> None:
        """Checks that diallers whose clock says `unix_now` (Unix seconds) still take them."""

    @property
    def service(self) -> OnionAddress:
        """The service that they speak for."""

    @property
    def certificate(self) -> OwnerCertificate:
        """What the service's identity signed."""

    @property
    def delegation(self) -> Delegation:
        """What the owner key signed."""

    @property
    def session_key(self) -> SessionKey:
        """What TLS shows."""

@final
class SerialFloors:
    """The highest floor that was verified for each service.

    It remembers `CAPACITY` services and forgets the one that was not reached for longest; towards a service that it
    does not know, a dialler relies on expiry. Export it at the end and import it at the start. What is exported is a
    list of services that were dialled: keep it as carefully as other traces of that.
    """

    CAPACITY: ClassVar[int]
    """How many services are remembered."""

    def __new__(cls) -> Self:
        """Knows nothing yet."""

    def floor(self, service: OnionAddress) -> int:
        """The floor of `service`; 0, below which no serial is, when none is known."""

    def export(self) -> list[tuple[OnionAddress, int]]:
        """What is known, the service that was reached last at the end."""

    def import_(self, floors: Sequence[tuple[OnionAddress, int]]) -> None:
        """Takes what was exported; a floor that is known already is raised, never lowered."""

    def forget(self, service: OnionAddress) -> None:
        """Forgets the floor of `service`: for when its owner key was stolen, and the thief has raised the floor."""

@final
class Listener:
    """What serves an address, for a `Service` to take. One that is not taken ends with the last reference to it."""

    def status(self) -> Watch[ListenerStatus]:
        """Whether strangers can reach the address."""

    async def reachable(self) -> bool:
        """Waits until strangers can reach the address; false when it stopped before."""

    async def shutdown(self) -> None:
        """Withdraws the address, unless a service has taken it, and returns when it is free, or after 10 s."""

@final
class Service:
    """What a node serves at a service's address, apart from what it serves at its own.

    They share no protocols, so that a stranger who finds one learns nothing of the other. One node can take it, once.
    """

    def __new__(cls, listener: Listener, credentials: ReplicaCredentials, protocols: _Protocols) -> Self:
        """Serves the connections of `listener` with `credentials`; `protocols` is as in `Node.bind`.

        Raises `InUseError` when the listener was used or shut down.
        """

@final
class DialledBy:
    """Which side dialled a session."""

    US: ClassVar[DialledBy]
    """This node."""
    PEER: ClassVar[DialledBy]
    """The peer."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@disjoint_base
class NodeEvent:
    """What happened to a node: an object of one of the classes inside, for `match`.

    Later versions may have further ones. `peer` is the address that the other end has proved; `None` for a dialler that did not say who it is.
    """

    @final
    class SessionBegan(NodeEvent):
        """A session was established."""

        __match_args__: Final = ("peer", "dialled_by")
        def __new__(cls, peer: OnionAddress | None, dialled_by: DialledBy) -> Self: ...
        @property
        def peer(self) -> OnionAddress | None:
            """Who is at the other end."""

        @property
        def dialled_by(self) -> DialledBy:
            """Which side dialled."""

    @final
    class SessionEnded(NodeEvent):
        """A session has ended."""

        __match_args__: Final = ("peer", "dialled_by", "error")
        def __new__(cls, peer: OnionAddress | None, dialled_by: DialledBy, error: HcpError) -> Self: ...
        @property
        def peer(self) -> OnionAddress | None:
            """Who was at the other end."""

        @property
        def dialled_by(self) -> DialledBy:
            """Which side had dialled."""

        @property
        def error(self) -> HcpError:
            """Why it ended."""

    @final
    class LaneBegan(NodeEvent):
        """A lane joined a session."""

        __match_args__: Final = ("peer",)
        def __new__(cls, peer: OnionAddress | None) -> Self: ...
        @property
        def peer(self) -> OnionAddress | None:
            """Who is at the other end."""

    @final
    class LaneEnded(NodeEvent):
        """A lane has ended; its session goes on."""

        __match_args__: Final = ("peer",)
        def __new__(cls, peer: OnionAddress | None) -> Self: ...
        @property
        def peer(self) -> OnionAddress | None:
            """Who is at the other end."""

    @final
    class DialFailed(NodeEvent):
        """A dial came to no session."""

        __match_args__: Final = ("address", "kind", "reason")
        def __new__(cls, address: OnionAddress, kind: ErrorKind, reason: str) -> Self: ...
        @property
        def address(self) -> OnionAddress:
            """Who was dialled."""

        @property
        def kind(self) -> ErrorKind:
            """What kind of failure it was."""

        @property
        def reason(self) -> str:
            """Why it failed, for a log; no address is in it."""

    @final
    class Missed(NodeEvent):
        """The reader was too slow."""

        __match_args__: Final = ("count",)
        def __new__(cls, count: int) -> Self: ...
        @property
        def count(self) -> int:
            """Events that it will never see; newer ones follow."""

@final
class NodeEvents:
    """The events of a node from the moment on at which it was asked for them, by `async for`, which ends with the node.

    Cancelling loses no event.
    """

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> NodeEvent: ...

@final
class NodeStats:
    """What a node has done since it was bound, and what it holds now."""

    @property
    def sessions_dialled(self) -> int:
        """Sessions that this node dialled and that were established."""

    @property
    def sessions_accepted(self) -> int:
        """Sessions that peers dialled and that were established."""

    @property
    def sessions_open(self) -> int:
        """Sessions that are established now."""

    @property
    def dials_failed(self) -> int:
        """Dials that came to no session."""

    @property
    def handshakes_failed(self) -> int:
        """Connections that came to neither a session nor a lane: garbage, timeouts, wrong proofs."""

    @property
    def handshakes_displaced(self) -> int:
        """Of those, connections that made room for newer ones."""

    @property
    def sessions_refused(self) -> int:
        """Sessions that were refused, since the node had no room for them."""

    @property
    def lanes_joined(self) -> int:
        """Lanes that have joined sessions, whoever dialled."""

    @property
    def lanes_failed(self) -> int:
        """Lanes that could not be dialled, or were refused."""

    @property
    def sessions_evicted(self) -> int:
        """Sessions that were ended because they held the most when peers made the node hold too much, or had the most to
        send when all sessions together had too much."""

    @property
    def bytes_held(self) -> int:
        """Bytes that peers make the node hold now: received, and not taken by the application."""

    @property
    def bytes_backlog(self) -> int:
        """Bytes that applications have sent and the node keeps now: not gone out, or bulk that is not acknowledged."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Backoff:
    """How long to wait between attempts to reach a peer.

    Each wait is drawn evenly between half and all of its bound, which begins with the first wait and doubles with every
    failure up to the longest.
    """

    def __new__(cls, first: float = 1.0, longest: float = 60.0) -> Self:
        """Waits from `first` to `longest` seconds.

        Shorter waits find a peer that came back sooner and cost a dial each; over Tor a dial takes several circuits.
        Raises `InvalidInputError` when `first` is below `MIN_BACKOFF` or above `longest`, or that is above
        `MAX_BACKOFF`.
        """

    @property
    def first(self) -> float:
        """The bound of the first wait, in seconds."""

    @property
    def longest(self) -> float:
        """The bound of the longest wait, in seconds."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class DialAs:
    """As whom a node dials."""

    @staticmethod
    def node() -> DialAs:
        """As the node itself; all who do so share one session with a peer."""

    @staticmethod
    def anonymous() -> DialAs:
        """As nobody in particular, which is the default towards services."""

    @staticmethod
    def identity(identity: Identity) -> DialAs:
        """As somebody else, such as an identity made for this one peer."""

@final
class Maintained:
    """A session that is dialled again whenever it has ended.

    That goes on until `stop`, the end of `async with`, the end of the last reference to it, or the node's `shutdown`.
    It keeps the node.
    """

    async def session(self) -> Session:
        """Waits for a live session. One that has ended and was not noticed yet to have may be returned."""

    async def after(self, last: Session) -> Session:
        """Waits for a live session other than `last`: the one in which to go on after `last` has ended.

        Whether it is with another replica of a service shows in `Session.replica` of the two.
        """

    def current(self) -> Session | None:
        """The live session, if there is one now."""

    def stop(self) -> None:
        """Ends the dialling; the session goes on as long as there are other references to it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Node:
    """An identity on a network. It dials peers and accepts them.

    It runs until `shutdown`, the end of `async with`, or the end of the last reference to it; its sessions end with it.
    """

    @staticmethod
    async def bind(
        identity: Identity,
        network: Network,
        protocols: _Protocols | None = None,
        *,
        keepalive: tuple[float, float] | None = None,
        lanes: int | None = None,
        floors: SerialFloors | None = None,
        restricted_to: Sequence[DiscoveryPublicKey] | None = None,
        services: Sequence[Service] | None = None,
    ) -> Node:
        """Launches a node that serves `protocols`, each by its handler, for peers that its `Access` admits.

        A handler is called as `handler(stream, session)` and runs as a task of this event loop. When it returns, its
        stream is finished; when it raises, its stream is reset and the exception goes to the loop's exception handler,
        apart from `ClosedError`, which only says that the peer has left; when the session ends, it is cancelled.

        `keepalive` is the silence, in seconds, after which a session is probed, and after which it is given up: (5, 15)
        by default. Shorter notices death sooner and costs a ping per interval and session. Sessions at `services` stay as by
        default, so that strangers cannot tell one replica from the others.

        `lanes` is how many further connections a session that this node dialled has while a bulk stream is open in it:
        2 by default, at most `MAX_LANES`. More carry files faster; over Tor each takes circuits of its own to be built.
        `floors` is what is known of the delegations of services. `restricted_to` hides the node's own address from
        everybody who has the key of none of these clients, 1 to `MAX_DISCOVERY_CLIENTS`. `services` are served beside
        the node's own address.

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
        """The session with whoever holds the key of `address`, or speaks for it.

        That is the one that exists, whoever dialled it, or a new one, to which this node proves who it is. It is shared
        by all who connect to the address. One whose peer has vanished is found dead by the keepalive, and given out
        until then.

        Raises `UnreachableError`, `TimedOutError`, `AuthenticationError` and the like. Cancelling abandons the attempt.
        """

    async def connect_anonymously(self, address: OnionAddress) -> Session:
        """Opens a new session without showing who this node is. The peer can open no streams in it."""

    async def connect_as(self, address: OnionAddress, identity: Identity) -> Session:
        """Opens a new session as somebody else, such as an identity made for this one peer.

        The peer can open no streams in it, and nothing connects it with this node. A peer keeps one session for an
        identity: of two that are open at once it may drain the first.
        """

    def maintain(self, address: OnionAddress, backoff: Backoff | None = None) -> Maintained:
        """Keeps a session with whoever holds the key of `address`, connecting again whenever it has ended."""

    def renew(self, credentials: ReplicaCredentials) -> None:
        """Has the node speak for a service under other credentials than it does, while it goes on serving.

        Whoever connects from now on is shown these. Sessions that exist go on as they are, and the lanes that join them
        later are shown the key with which they began, which stays in memory until the last of them has ended.

        Raises `InvalidInputError` when the node does not serve the service, and `AuthenticationError` when diallers would
        not take the credentials now.
        """

    def restrict_to(self, clients: list[DiscoveryPublicKey]) -> None:
        """Hides the node's own address from everybody but these clients from now on, whoever could find it before.

        It takes until the network has heard of it, over Tor a minute. Sessions that exist go on, and who has found the
        address before can dial it as long as it remembers how.

        Raises `InvalidInputError` on a network that can restrict no address, and for a number of clients that cannot be.
        """

    def maintain_as(self, address: OnionAddress, me: DialAs, backoff: Backoff | None = None) -> Maintained:
        """Keeps a session as `maintain` does, and dials as somebody: towards a service best `DialAs.anonymous()`.

        That sessions follow each other at once tells the peer that they are probably of the same dialler.
        """

    def events(self) -> NodeEvents:
        """What happens to the node from now on."""

    def stats(self) -> NodeStats:
        """What the node has done since it was bound, and what it holds now."""

    async def shutdown(self) -> None:
        """Withdraws the node, ends its sessions, and returns when the address is free, or after 10 s.

        What waits for the node gets a `ClosedError`.
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
class Priority:
    """What goes first when a session has more to send than its connection takes."""

    CONTROL: ClassVar[Priority]
    """What others wait for: a few small messages."""
    LIVE: ClassVar[Priority]
    """Messages of people and services."""
    BULK: ClassVar[Priority]
    """Files and other large transfers, which may travel on lanes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class SessionStats:
    """What a session has done, and how it stands."""

    @property
    def bytes_sent(self) -> int:
        """Bytes given to TLS on all connections: frames with headers, and padding."""

    @property
    def bytes_received(self) -> int:
        """Bytes taken from TLS on all connections."""

    @property
    def frames_sent(self) -> int:
        """Frames sent, repeated ones included."""

    @property
    def frames_received(self) -> int:
        """Frames received, repeated ones included."""

    @property
    def padding_sent(self) -> int:
        """Of `bytes_sent`, what was padding."""

    @property
    def frames_resent(self) -> int:
        """Bulk frames that were sent again because a lane ended."""

    @property
    def round_trip(self) -> float | None:
        """The smoothed round trip, in seconds, once measured."""

    @property
    def open_streams(self) -> int:
        """Streams that are open now, either side's."""

    @property
    def lanes(self) -> int:
        """Lanes that live now."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Session:
    """An encrypted connection with a peer, on which streams are opened.

    Everybody who connects to the same peer from one node shares one session. One that this node dialled ends with
    `shutdown`, with the end of `async with`, with the last reference to it and to its streams, or with the node.
    """

    @property
    def peer(self) -> OnionAddress | None:
        """The address that the other end has proved; `None` for a dialler that did not say who it is."""

    @property
    def round_trip(self) -> float | None:
        """The smoothed round trip, in seconds; `None` before the first ping came back."""

    @property
    def dialled_by(self) -> DialledBy:
        """Which side has dialled."""

    @property
    def delegation(self) -> Delegation | None:
        """On the dialler's side, the delegation by which the peer speaks for the service that was dialled.

        It has a serial and an end. `None` where the peer holds the address's own key.
        """

    def check_delegation(self) -> None:
        """Checks that the delegation would be taken now as it was when the session began.

        Its time may have ended since, and the node may have verified a higher floor in another session. Nothing happens to
        the session either way: who wants to be with a replica that speaks for the service today drains it and connects
        again. Raises `AuthenticationError`, whose reason is `Expired` or `BelowFloor`.
        """

    @property
    def replica(self) -> PublicKey | None:
        """On the dialler's side, the session key of the replica of the service that this session is with."""

    def stats(self) -> SessionStats:
        """What the session has done, and how it stands."""

    async def open(self, protocol: str, priority: Priority = Priority.LIVE) -> Stream:
        """Opens a stream for a protocol that the peer serves.

        `Priority.BULK` is for files and other large transfers, which then travel on lanes and never in front of a
        message.
        Takes no round trip: whether the peer serves the protocol shows on the first `recv`.
        """

    async def shutdown(self) -> None:
        """Says goodbye and ends the session, for all who share it, once what was sent before has gone out."""

    async def drain(self, within: float) -> bool:
        """Ends the session gracefully: no further streams, and those that are open go on until they have ended.

        Returns whether that was within so many seconds; otherwise the session is shut down with what is left.
        Cancelling leaves it draining, without the limit in time.
        """

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

    @property
    def priority(self) -> Priority:
        """What goes first when the session has more to send than its connection takes; who opened it has said."""

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

MAX_CONTACTS: Final[int]
"""The most contacts of a profile, in any state."""
MAX_PENDING: Final[int]
"""Contact requests that wait for an answer at once; further ones are told to come back later."""
MAX_EVENTS: Final[int]
"""Events that are kept; older ones are forgotten, and whoever was that far behind reads the state instead."""
MAX_PAGE: Final[int]
"""The most messages or transfers that one call returns."""
MAX_QUEUED: Final[int]
"""Messages to one contact that may wait to be sent."""
MAX_FILE_NAME: Final[int]
"""The longest name of a file, in bytes of UTF-8."""
MAX_GREETING: Final[int]
"""The longest greeting of a contact request, in bytes of UTF-8."""
MAX_NAME: Final[int]
"""The longest name, in bytes of UTF-8."""
MAX_TEXT: Final[int]
"""The longest text message, in bytes of UTF-8."""
DISK_RESERVE: Final[int]
"""Disk space that a transfer leaves free, in bytes, since a full disk would stop the profile's database too."""
MAX_FILE: Final[int]
"""The largest file that can be offered or accepted, in bytes."""

@final
class Profile:
    """An opened profile: an identity and an encrypted database. Nobody else can open it until it is closed.

    `Messenger` works on it, once; it is closed with the messenger, or when it is forgotten without one.
    """

    @staticmethod
    async def create(folder: _Path, passphrase: Passphrase, name: str) -> Profile:
        """Makes a profile with a new identity in `folder`, which is made when it is missing.

        `name` is what the profile calls itself towards contacts; it may be empty. Takes about a second: the passphrase is stretched with
        Argon2id. A profile that is there already stays as it is. A cancelled call may have made the profile.
        """

    @staticmethod
    async def create_for(
        identity: Identity, folder: _Path, passphrase: Passphrase, name: str, cost: Argon2Cost | None = None
    ) -> Profile:
        """Like `create`, for an identity that exists already, and at a given cost of opening."""

    @staticmethod
    async def open(folder: _Path, passphrase: Passphrase) -> Profile:
        """Opens the profile in `folder`.

        Raises `InUseError` when it is open already, here or in another program, `AuthenticationError` for a wrong
        passphrase, and `InvalidInputError` when there is none.
        """

    @staticmethod
    async def change_passphrase(
        folder: _Path, old: Passphrase, new: Passphrase, cost: Argon2Cost | None = None
    ) -> None:
        """Seals the key of the profile in `folder` with another passphrase, at once and whole."""

    @property
    def address(self) -> OnionAddress:
        """The profile's address: what its owner gives to friends."""

@final
class Messenger:
    """A profile at work, with or without a network: what is written while somebody is offline waits in the database.

    It works until `shutdown`, the end of `async with`, or the last reference to it and to its `Events`. A cancelled call
    has changed what it was to change, or nothing.
    """

    def __new__(cls, profile: Profile) -> Self:
        """Starts to work on a profile, offline. Raises `InUseError` when a messenger took it already."""

    @property
    def address(self) -> OnionAddress:
        """The profile's address: what its owner gives to friends."""

    async def name(self) -> str:
        """What the profile calls itself towards contacts."""

    async def set_name(self, name: str) -> None:
        """Changes what the profile calls itself; contacts learn it when they are connected next."""

    async def go_online(self, network: Network) -> None:
        """Goes online: from now on contacts are dialled and can dial. Does nothing when it is online already.

        Returns when the profile's onion service is launched; `reachable` waits until others can reach it.
        """

    async def go_offline(self) -> None:
        """Ends all sessions and withdraws the onion service; what is written waits."""

    async def back_up(self, folder: _Path) -> None:
        """Copies the profile, as it is now, to a folder, where `Profile.open` opens it with the same passphrase.

        A backup is restored by opening it, or by moving it to where the profile was; not both at once. What was
        written and received since then comes back from the contacts, as far as they still have it; events get other
        cursors. Raises `InvalidInputError` when there is a profile in the folder already.
        """

    def status(self) -> Watch[ListenerStatus]:
        """Whether others can reach this profile; `ListenerStatus.Stopped` while it is offline."""

    async def reachable(self) -> bool:
        """Waits until others can reach this profile."""

    async def shutdown(self) -> None:
        """Closes the profile: when this returns, another program can open it. Further calls raise `ClosedError`."""

    async def contacts(self) -> list[Contact]:
        """Everybody in the list, in the order in which they came into it."""

    async def contact(self, address: OnionAddress) -> Contact:
        """One contact; raises `InvalidInputError` when there is none with this address."""

    async def draft(self, address: OnionAddress, petname: str) -> None:
        """Puts somebody into the list without asking them anything."""

    async def request(self, address: OnionAddress, petname: str, greeting: str) -> None:
        """Asks somebody to become a contact; the request is delivered when they can be reached.

        `petname` is what the user calls them, and stays here. When they have asked already, this accepts.
        """

    async def accept(self, address: OnionAddress) -> None:
        """Says yes to a contact request, also to one that was declined before."""

    async def reject(self, address: OnionAddress) -> None:
        """Says no to a contact request. Who asked learns it the next time they are connected."""

    async def block(self, address: OnionAddress) -> None:
        """Treats somebody as a stranger whose requests are not shown; what waits for them is cancelled.

        They cannot tell it from a request that nobody answers. Works for addresses that are not in the list, too.
        """

    async def unblock(self, address: OnionAddress) -> None:
        """Ends a block; the contact is archived then, and can be asked anew, or ask."""

    async def archive(self, address: OnionAddress) -> None:
        """Takes a contact off the list and keeps what was written; what waits for them is cancelled."""

    async def rename(self, address: OnionAddress, petname: str) -> None:
        """Changes what the user calls a contact."""

    async def set_availability(self, availability: Availability) -> None:
        """What contacts are told of this user while connected; available after every start."""

    async def connect_now(self, address: OnionAddress) -> None:
        """Dials a contact now instead of after the pause that follows failed attempts."""

    async def send(self, contact: OnionAddress, text: str) -> MessageId:
        """Writes a text message, which is on disk when this returns, and delivered when the contact can be reached.

        Works for contacts that are accepted, and for those who were asked and have not answered.
        """

    async def cancel(self, id: MessageId) -> None:
        """Takes back a message that is still queued; raises `RefusedError` when it may be on its way."""

    async def messages(self, contact: OnionAddress, before: int | None = None, limit: int = ...) -> list[Message]:
        """The newest `limit` messages with a contact (at most `MAX_PAGE`), of those before a position, oldest first."""

    async def message(self, id: MessageId) -> Message:
        """One message."""

    async def offer_file(self, contact: OnionAddress, path: _Path) -> TransferId:
        """Offers a file to a contact. One file to a contact at a time.

        The file is read once now, for its hash, and again when it is sent; it must stay as it is until then.
        """

    async def accept_file(self, id: TransferId, path: _Path) -> None:
        """Accepts an offered file and saves it at `path`; in `path`, under the offered name, when that is a folder.

        Until it is complete and verified, its bytes stand beside it in a file whose name ends in `.part`. Nothing that
        exists is overwritten.
        """

    async def decline_file(self, id: TransferId) -> None:
        """Says no to an offered file."""

    async def cancel_file(self, id: TransferId) -> None:
        """Ends a transfer from either side; what a receiver has of it so far is deleted."""

    async def transfers(self) -> list[Transfer]:
        """The newest `MAX_PAGE` transfers, oldest first."""

    async def transfer(self, id: TransferId) -> Transfer:
        """One transfer."""

    def events(self, after: Cursor) -> Events:
        """Everything that happened behind a cursor, then everything that happens."""

    async def cursor(self) -> Cursor:
        """The cursor of the newest event: read from it to learn only what is to come."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Contact:
    """Somebody this profile knows, or who wants to be known; as it was when it was read."""

    @property
    def address(self) -> OnionAddress:
        """Who it is."""

    @property
    def petname(self) -> str:
        """What the user calls them; empty when the user gave no name."""

    @property
    def name(self) -> str:
        """What they call themselves; anybody can claim any name."""

    @property
    def greeting(self) -> str:
        """What came, or went, with the contact request."""

    @property
    def state(self) -> ContactState:
        """Where the two stand."""

    @property
    def presence(self) -> Presence:
        """Whether they are there; never from anything but a recent round trip."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class ContactState:
    """Where this profile and a contact stand."""

    DRAFT: ClassVar[ContactState]
    """Kept in the list; nothing was asked."""
    REQUEST_QUEUED: ClassVar[ContactState]
    """Asked; the request has not reached them."""
    REQUEST_SENT: ClassVar[ContactState]
    """Asked; the request lies in their inbox."""
    PENDING: ClassVar[ContactState]
    """They asked; the request lies in the inbox here."""
    ACCEPTED: ClassVar[ContactState]
    """Both have agreed."""
    DECLINED: ClassVar[ContactState]
    """They asked, and this user said no."""
    REJECTED: ClassVar[ContactState]
    """This user asked, and they said no."""
    BLOCKED: ClassVar[ContactState]
    """Their sessions get what a stranger's get, and nothing of theirs is shown."""
    REMOVED_BY_PEER: ClassVar[ContactState]
    """They took this profile off their list; what was written stays."""
    ARCHIVED: ClassVar[ContactState]
    """This user took them off the list; what was written stays."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class Presence:
    """Whether a contact is there, and how much."""

    OFFLINE: ClassVar[Presence]
    """No recent round trip."""
    AVAILABLE: ClassVar[Presence]
    """There."""
    AWAY: ClassVar[Presence]
    """There, and away from the keyboard."""
    EXTENDED_AWAY: ClassVar[Presence]
    """There, and away for longer."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class Availability:
    """How this user is, while online."""

    AVAILABLE: ClassVar[Availability]
    """There."""
    AWAY: ClassVar[Availability]
    """Away from the keyboard."""
    EXTENDED_AWAY: ClassVar[Availability]
    """Away for longer."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class MessageId:
    """Names a message for ever, on both sides; `str` gives 32 hexadecimal digits."""

    def __new__(cls, text: str) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: MessageId, /) -> bool: ...
    def __le__(self, other: MessageId, /) -> bool: ...
    def __gt__(self, other: MessageId, /) -> bool: ...
    def __ge__(self, other: MessageId, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Direction:
    """Which way something goes."""

    INCOMING: ClassVar[Direction]
    """From the contact to this profile."""
    OUTGOING: ClassVar[Direction]
    """From this profile to the contact."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class Message:
    """A text message, as it was when it was read."""

    @property
    def id(self) -> MessageId:
        """Its name."""

    @property
    def contact(self) -> OnionAddress:
        """With whom."""

    @property
    def direction(self) -> Direction:
        """Which way."""

    @property
    def text(self) -> str:
        """What it says, without control characters other than line ends and tabs."""

    @property
    def state(self) -> MessageState:
        """What became of it."""

    @property
    def failure(self) -> FailureReason | None:
        """Why, when the state is `MessageState.FAILED`."""

    @property
    def time(self) -> datetime:
        """When it was written, by the sender's clock, but never later than it arrived; in UTC. For showing only."""

    @property
    def position(self) -> int:
        """Its place in the history here, which is the order of arrival; for paging."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class MessageState:
    """What became of a message."""

    QUEUED: ClassVar[MessageState]
    """On this disk, waiting for the contact; can be cancelled."""
    WRITTEN: ClassVar[MessageState]
    """On its way; it may have arrived."""
    DELIVERED: ClassVar[MessageState]
    """On the contact's disk; of an incoming message: on this one."""
    FAILED: ClassVar[MessageState]
    """It will never be delivered."""
    CANCELLED: ClassVar[MessageState]
    """Taken back before it was on its way."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class FailureReason:
    """Why a message will never be delivered."""

    REJECTED: ClassVar[FailureReason]
    """The contact said no to the contact request."""
    REMOVED: ClassVar[FailureReason]
    """The contact took this profile off its list."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class TransferId:
    """Names a transfer on both sides; `str` gives 32 hexadecimal digits."""

    def __new__(cls, text: str) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: TransferId, /) -> bool: ...
    def __le__(self, other: TransferId, /) -> bool: ...
    def __gt__(self, other: TransferId, /) -> bool: ...
    def __ge__(self, other: TransferId, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Transfer:
    """A file on its way, as it was when it was read."""

    @property
    def id(self) -> TransferId:
        """Its name."""

    @property
    def contact(self) -> OnionAddress:
        """With whom."""

    @property
    def direction(self) -> Direction:
        """Which way."""

    @property
    def name(self) -> str:
        """The file's own name, without any folder, made harmless."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    @property
    def done(self) -> int:
        """Bytes that are on the receiver's disk and verified, as far as this side knows."""

    @property
    def state(self) -> TransferState:
        """Where it stands."""

    @property
    def failure(self) -> TransferFailure | None:
        """Why, when the state is `TransferState.FAILED`."""

    @property
    def path(self) -> Path | None:
        """Where the file is here: what is offered, or where it is saved once accepted."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class TransferState:
    """Where a transfer stands."""

    OFFERED: ClassVar[TransferState]
    """Offered and not answered."""
    RUNNING: ClassVar[TransferState]
    """Accepted; bytes flow when both are there."""
    DONE: ClassVar[TransferState]
    """All bytes are on the receiver's disk and verified."""
    DECLINED: ClassVar[TransferState]
    """The receiver said no."""
    CANCELLED: ClassVar[TransferState]
    """One of the two ended it."""
    FAILED: ClassVar[TransferState]
    """It cannot be completed."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class TransferFailure:
    """Why a transfer cannot be completed."""

    MISMATCH: ClassVar[TransferFailure]
    """What came is not what was offered."""
    SOURCE_CHANGED: ClassVar[TransferFailure]
    """The offered file is gone or was changed."""
    DISK: ClassVar[TransferFailure]
    """The receiver could not write, or something else stands where the file belongs."""
    REMOVED: ClassVar[TransferFailure]
    """The contact left the list of the other."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __int__(self) -> int: ...

@final
class Cursor:
    """A place in the stream of events. Keep its `value` to read on there after a restart."""

    START: ClassVar[Cursor]
    """Before the first event."""

    def __new__(cls, value: int) -> Self: ...
    @property
    def value(self) -> int:
        """The place as a number."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Cursor, /) -> bool: ...
    def __le__(self, other: Cursor, /) -> bool: ...
    def __gt__(self, other: Cursor, /) -> bool: ...
    def __ge__(self, other: Cursor, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Event:
    """Something that happened."""

    @property
    def cursor(self) -> Cursor:
        """Hand it to `Messenger.events` to read on behind this event."""

    @property
    def kind(self) -> EventKind:
        """What happened; for `match`."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

_Contact: TypeAlias = Contact
_MessageState: TypeAlias = MessageState
_TransferState: TypeAlias = TransferState
_Presence: TypeAlias = Presence

@disjoint_base
class EventKind:
    """What happened: an object of one of the classes inside, for `match`. Later versions may have further ones."""

    @final
    class Contact(EventKind):
        """A contact is new or has changed; as it is now, which later events may repeat."""

        __match_args__: Final = ("contact",)
        def __new__(cls, contact: _Contact) -> Self: ...
        @property
        def contact(self) -> _Contact:
            """Who."""

    @final
    class MessageReceived(EventKind):
        """A message came; told once for each message."""

        __match_args__: Final = ("message",)
        def __new__(cls, message: Message) -> Self: ...
        @property
        def message(self) -> Message:
            """The message."""

    @final
    class MessageWritten(EventKind):
        """A message was written here, or recovered from what the contact still had of it."""

        __match_args__: Final = ("message",)
        def __new__(cls, message: Message) -> Self: ...
        @property
        def message(self) -> Message:
            """The message."""

    @final
    class MessageState(EventKind):
        """A message has moved on."""

        __match_args__: Final = ("id", "contact", "state", "failure")
        def __new__(
            cls, id: MessageId, contact: OnionAddress, state: _MessageState, failure: FailureReason | None
        ) -> Self: ...
        @property
        def id(self) -> MessageId:
            """Which."""

        @property
        def contact(self) -> OnionAddress:
            """With whom."""

        @property
        def state(self) -> _MessageState:
            """What became of it."""

        @property
        def failure(self) -> FailureReason | None:
            """Why, when the state is `MessageState.FAILED`."""

    @final
    class TransferOffered(EventKind):
        """A file was offered, by the contact or here; told once for each transfer."""

        __match_args__: Final = ("transfer",)
        def __new__(cls, transfer: Transfer) -> Self: ...
        @property
        def transfer(self) -> Transfer:
            """The transfer."""

    @final
    class TransferState(EventKind):
        """A transfer has moved on."""

        __match_args__: Final = ("id", "contact", "state", "failure")
        def __new__(
            cls, id: TransferId, contact: OnionAddress, state: _TransferState, failure: TransferFailure | None
        ) -> Self: ...
        @property
        def id(self) -> TransferId:
            """Which."""

        @property
        def contact(self) -> OnionAddress:
            """With whom."""

        @property
        def state(self) -> _TransferState:
            """Where it stands."""

        @property
        def failure(self) -> TransferFailure | None:
            """Why, when the state is `TransferState.FAILED`."""

    @final
    class Presence(EventKind):
        """A contact came, went or changed its status. Not kept."""

        __match_args__: Final = ("contact", "presence")
        def __new__(cls, contact: OnionAddress, presence: _Presence) -> Self: ...
        @property
        def contact(self) -> OnionAddress:
            """Who."""

        @property
        def presence(self) -> _Presence:
            """How they are now."""

    @final
    class Progress(EventKind):
        """Bytes of a transfer have arrived and are verified. Not kept."""

        __match_args__: Final = ("id", "contact", "done", "size")
        def __new__(cls, id: TransferId, contact: OnionAddress, done: int, size: int) -> Self: ...
        @property
        def id(self) -> TransferId:
            """Which."""

        @property
        def contact(self) -> OnionAddress:
            """With whom."""

        @property
        def done(self) -> int:
            """Bytes on the receiver's disk, verified."""

        @property
        def size(self) -> int:
            """Bytes in all."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Events:
    """Reads events in order, by `async for`, which ends when the messenger is shut down. Cancelling loses no event.

    A cursor that is not the profile's, or behind which events are forgotten, raises `InvalidInputError`: read the state,
    then go on from `Messenger.cursor`.
    """

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Event: ...

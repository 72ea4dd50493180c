"""What HCP raises: one class for each kind of error, all of them under `HcpError`.

The class says what a caller can do about an error: retry, fix the configuration, or give up. `HcpError.reason` names
the error more closely, and the notes (`__notes__`) tell the causes below it. No message holds a key, an address or a text.
"""

from collections.abc import Sequence
from enum import StrEnum, unique

__all__ = [
    "AuthenticationError",
    "ClosedError",
    "ErrorKind",
    "HcpError",
    "InUseError",
    "InternalError",
    "InvalidInputError",
    "LimitExceededError",
    "ProtocolViolationError",
    "RefusedError",
    "StorageError",
    "TimedOutError",
    "UnreachableError",
]


@unique
class ErrorKind(StrEnum):
    """What a caller can do about an error."""

    INVALID_INPUT = "invalid_input"
    """An argument, a file or a configuration is wrong; retrying cannot help."""
    PROTOCOL_VIOLATION = "protocol_violation"
    """A peer broke the protocol; the connection to it is gone."""
    AUTHENTICATION = "authentication"
    """A key, signature or passphrase does not fit."""
    REFUSED = "refused"
    """The other side understood and said no."""
    UNREACHABLE = "unreachable"
    """The other side or the network cannot be reached now; retrying later may help."""
    TIMED_OUT = "timed_out"
    """A deadline passed."""
    LIMIT_EXCEEDED = "limit_exceeded"
    """A limit was reached: a queue, a frame, a disk."""
    IN_USE = "in_use"
    """Somebody else holds the resource: a state directory, a port."""
    STORAGE = "storage"
    """Reading or writing local storage failed."""
    CLOSED = "closed"
    """The session, node or stream was shut down."""
    INTERNAL = "internal"
    """Something that should not happen; a bug or a broken environment."""


class HcpError(Exception):
    """Any error of HCP."""

    kind: ErrorKind = ErrorKind.INTERNAL
    """What a caller can do about it; each subclass has its own."""

    reason: str
    """The name of the error in the Rust library, such as `"WrongPassphrase"`; one kind has several."""

    def __init__(self, message: str, reason: str = "", causes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        for cause in causes:
            self.add_note(f"caused by: {cause}")


class InvalidInputError(HcpError, ValueError):
    """An argument, a file or a configuration is wrong; retrying cannot help."""

    kind = ErrorKind.INVALID_INPUT


class ProtocolViolationError(HcpError):
    """A peer broke the protocol; the connection to it is gone."""

    kind = ErrorKind.PROTOCOL_VIOLATION


class AuthenticationError(HcpError):
    """A key, signature or passphrase does not fit."""

    kind = ErrorKind.AUTHENTICATION


class RefusedError(HcpError):
    """The other side understood and said no."""

    kind = ErrorKind.REFUSED


class UnreachableError(HcpError):
    """The other side or the network cannot be reached now; retrying later may help."""

    kind = ErrorKind.UNREACHABLE


class TimedOutError(HcpError, TimeoutError):
    """A deadline passed."""

    kind = ErrorKind.TIMED_OUT


class LimitExceededError(HcpError):
    """A limit was reached: a queue, a frame, a disk."""

    kind = ErrorKind.LIMIT_EXCEEDED


class InUseError(HcpError):
    """Somebody else holds the resource: a state directory, a port."""

    kind = ErrorKind.IN_USE


class StorageError(HcpError):
    """Reading or writing local storage failed."""

    kind = ErrorKind.STORAGE


class ClosedError(HcpError):
    """The session, node or stream was shut down."""

    kind = ErrorKind.CLOSED


class InternalError(HcpError):
    """Something that should not happen; a bug or a broken environment."""

    kind = ErrorKind.INTERNAL

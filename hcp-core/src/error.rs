//! The small set of error kinds that every operation's own error enum maps onto.
//!
//! Each operation has its own enum with its own causes; `kind()` on it answers the question a caller
//! acts on: retry, fix the configuration, or give up.

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, a file or a configuration is wrong; retrying cannot help.
    InvalidInput,
    /// A peer broke the protocol; the connection to it is gone.
    ProtocolViolation,
    /// A key, signature or passphrase does not fit.
    Authentication,
    /// The other side understood and said no.
    Refused,
    /// The other side or the network cannot be reached now; retrying later may help.
    Unreachable,
    /// A deadline passed.
    TimedOut,
    /// A limit was reached: a queue, a frame, a disk.
    LimitExceeded,
    /// Somebody else holds the resource: a state directory, a port.
    InUse,
    /// Reading or writing local storage failed.
    Storage,
    /// The session, node or stream was shut down.
    Closed,
    /// Something that should not happen; a bug or a broken environment.
    Internal,
}

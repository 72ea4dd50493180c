//! What an application makes of the log: a state that entries change, and that a checkpoint can take the place of them.

use std::fmt;

use bytes::Bytes;

use crate::error::ErrorKind;
use crate::replica::log::vector::{Split, Write};

/// Names an entry that this process appended: the n-th of this run, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub(crate) u64);

/// Whether an entry's content was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is new.
    First,
    /// It stood at its first place already, and its author has appended it again, since others may lack that place. What
    /// counts by who had seen what ([`Register`](super::Register), [`Set`](super::Set)) takes it as a write, which has no
    /// effect where nothing changes; everything else passes it over.
    Repeated,
}

/// An entry in its place.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Where it stands, when it was written and what its author had seen.
    pub write: Write,
    /// The entry's bytes, which any member may have written: they are to be checked.
    pub entry: Bytes,
    /// Whether it is new.
    pub turn: Turn,
    /// Set for entries that this process appended, as long as they are among its last 65,536.
    pub append: Option<AppendId>,
}

/// A state that all nodes compute alike from the log.
///
/// The replica keeps a copy of its own, to which it applies what a checkpoint is to cover, and then asks it for its bytes.
/// Enough of the members ([`Replica::retain`](super::Replica::retain)) must come to the same bytes, or there is no checkpoint and the log is kept. So
///
/// - the bytes follow from the *set* of entries that were applied: entries come in a causal order, which differs from node to
///   node where entries are concurrent. [`Register`](super::Register) and [`Set`](super::Set) see to that for values;
/// - nothing else goes in: no clock, no randomness, nothing that only this node knows;
/// - an entry of a kind that is not known changes nothing. Versions that differ in what they know agree on no checkpoint
///   until all have applied no such entry or know it.
pub trait StateMachine: Send + 'static {
    /// Applies an entry, behind everything that its author had seen.
    fn apply(&mut self, entry: &Applied);

    /// A member was found to have written twice in one place: [spots](crate::replica::Spot) that are kept are to be
    /// [renamed](Split::rename).
    fn split(&mut self, split: &Split);

    /// The state in one form; at most 512 MiB.
    fn checkpoint(&self) -> Vec<u8>;

    /// Becomes the state that [`checkpoint`](Self::checkpoint) gave the bytes of, here or on another node.
    ///
    /// # Errors
    /// [`RestoreError`] when these are no such bytes.
    fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError>;
}

/// The bytes of a checkpoint make no state of this application: another one wrote them, or another version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint holds no state that this version of the application can read")]
pub struct RestoreError;

impl RestoreError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Makes empty states.
pub(super) type Factory = Box<dyn Fn() -> Box<dyn StateMachine> + Send + Sync>;

/// The copy of the application's state that checkpoints are made of.
pub(super) struct Copy {
    new: Factory,
    /// Taken out while its bytes are made.
    state: Option<Box<dyn StateMachine>>,
    /// As it was sealed last in this run, or at the checkpoint with which the run began.
    sealed: Option<Bytes>,
}

impl Copy {
    /// A copy at a checkpoint, or of nothing.
    pub(super) fn begin(new: Factory, sealed: Option<Bytes>) -> Result<Self, (Factory, RestoreError)> {
        let mut copy = Self { new, state: None, sealed };
        match copy.go_back() {
            Ok(()) => Ok(copy),
            Err(error) => Err((copy.new, error)),
        }
    }

    pub(super) fn into_factory(self) -> Factory {
        self.new
    }

    pub(super) fn apply(&mut self, entry: &Applied) {
        if let Some(state) = &mut self.state {
            state.apply(entry);
        }
    }

    pub(super) fn split(&mut self, split: &Split) {
        if let Some(state) = &mut self.state {
            state.split(split);
        }
    }

    /// Goes back to what was sealed last.
    pub(super) fn go_back(&mut self) -> Result<(), RestoreError> {
        let mut state = (self.new)();
        if let Some(sealed) = &self.sealed {
            state.restore(sealed)?;
        }
        self.state = Some(state);
        Ok(())
    }

    /// Goes back to the checkpoint that is held, or to nothing.
    pub(super) fn go_back_to(&mut self, checkpoint: Option<Bytes>) -> Result<(), RestoreError> {
        self.sealed = checkpoint;
        self.go_back()
    }

    /// Lends the state to whoever makes its bytes, which may take long.
    pub(super) fn lend(&mut self) -> Option<Box<dyn StateMachine>> {
        self.state.take()
    }

    /// Takes the state back, with its bytes.
    pub(super) fn take_back(&mut self, state: Box<dyn StateMachine>, sealed: Bytes) {
        self.state = Some(state);
        self.sealed = Some(sealed);
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").finish_non_exhaustive()
    }
}

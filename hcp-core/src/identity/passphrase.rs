//! A passphrase that does not leak: overwritten when dropped, never printed, never empty.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::ErrorKind;

/// A passphrase, overwritten when dropped.
///
/// Its bytes are used as they are, without Unicode normalisation: what is typed must be typed the same way again.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes over `text`; hand over a `String`, since a borrowed one stays behind in memory.
    ///
    /// # Errors
    /// [`EmptyPassphrase`] when `text` is empty: it would protect nothing.
    pub fn new(text: impl Into<String>) -> Result<Self, EmptyPassphrase> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() { Err(EmptyPassphrase) } else { Ok(Self(text)) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase([redacted])")
    }
}

/// A passphrase without a single character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the passphrase is empty; choose one, or ask for a plain file explicitly")]
pub struct EmptyPassphrase;

impl EmptyPassphrase {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_empty_and_prints_nothing() {
        assert_eq!(Passphrase::new("").err(), Some(EmptyPassphrase));
        let passphrase = Passphrase::new("correct horse").expect("not empty");
        assert_eq!(format!("{passphrase:?}"), "Passphrase([redacted])");
        assert_eq!(passphrase.as_bytes(), b"correct horse");
    }
}

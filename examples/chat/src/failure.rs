//! Why the program ends: one line that says what to do.

use std::error::Error;
use std::fmt;
use std::path::Path;

/// A message for the user, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into().replace(char::is_control, " "))
    }

    /// `cannot <what>: <error and its causes>`.
    pub(crate) fn of(what: &str, error: &dyn Error) -> Self {
        Self::new(format!("cannot {what}: {}", chain(error)))
    }

    /// `cannot <what> <path>: <error and its causes>`.
    pub(crate) fn file(what: &str, path: &Path, error: &dyn Error) -> Self {
        Self::new(format!("cannot {what} {}: {}", path.display(), chain(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error with its causes; one that its error repeats is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

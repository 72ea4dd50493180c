//! Asking a C tor client something through its control socket (control-spec).

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::ErrorKind;

/// Why a C tor client could not be told or asked something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Its control socket cannot be used: it has ended, or is about to.
    #[error("the control socket of tor cannot be used")]
    Socket(#[source] std::io::Error),
    /// It does not answer as the specification says.
    #[error("tor answered something else than its control protocol")]
    Protocol,
    /// It refused.
    #[error("tor refused with code {code}")]
    Refused {
        /// The code of control-spec, section 4.
        code: u16,
    },
    /// It did not answer in time.
    #[error("tor did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
}

impl ControlError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket(_) | Self::Refused { .. } => ErrorKind::Unreachable,
            Self::Protocol => ErrorKind::ProtocolViolation,
            Self::TimedOut => ErrorKind::TimedOut,
        }
    }
}

/// Sends one command and returns what came back, without the reply to the login.
pub(super) async fn ask(socket: &Path, command: &str) -> Result<String, ControlError> {
    timeout(DEADLINE, talk(socket, command)).await.map_err(|_| ControlError::TimedOut)?
}

async fn talk(socket: &Path, command: &str) -> Result<String, ControlError> {
    let mut stream = UnixStream::connect(socket).await.map_err(ControlError::Socket)?;
    let lines = format!("AUTHENTICATE\r\n{command}\r\nQUIT\r\n");
    stream.write_all(lines.as_bytes()).await.map_err(ControlError::Socket)?;
    let mut reply = Vec::new();
    stream.take(MAX_REPLY).read_to_end(&mut reply).await.map_err(ControlError::Socket)?;
    let reply = String::from_utf8(reply).map_err(|_| ControlError::Protocol)?;
    answer(&reply).map(str::to_owned)
}

/// The reply to the second of three commands.
fn answer(reply: &str) -> Result<&str, ControlError> {
    let (login, rest) = reply.split_once("\r\n").ok_or(ControlError::Protocol)?;
    for status in [login, rest] {
        let code = status.get(..3).and_then(|code| code.parse().ok()).ok_or(ControlError::Protocol)?;
        if code != OK {
            return Err(ControlError::Refused { code });
        }
    }
    Ok(rest.strip_suffix("250 closing connection\r\n").unwrap_or(rest))
}

/// The code for what is not there (control-spec, section 4: "Unrecognized entity").
pub(super) const NOT_FOUND: u16 = 551;

const OK: u16 = 250;

/// It answers within milliseconds, unless the machine is overloaded.
const DEADLINE: Duration = Duration::from_secs(15);

/// A descriptor has at most 50,000 bytes, and nothing longer is asked for.
const MAX_REPLY: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_apart() {
        assert_eq!(answer("250 OK\r\n250 OK\r\n250 closing connection\r\n").unwrap(), "250 OK\r\n");
        let absent = answer("250 OK\r\n551 No descriptor found\r\n250 closing connection\r\n");
        assert!(matches!(absent, Err(ControlError::Refused { code: NOT_FOUND })));
        assert!(matches!(answer("515 no\r\n"), Err(ControlError::Refused { code: 515 })));
        assert!(matches!(answer("hello\r\n250 OK\r\n"), Err(ControlError::Protocol)));
        assert!(matches!(answer(""), Err(ControlError::Protocol)));
    }
}

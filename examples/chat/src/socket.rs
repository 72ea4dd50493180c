//! The daemon's Unix socket, `daemon.sock` in the profile's folder.
//!
//! Whoever can connect can use the profile while it is open. So the folder is for its owner only before the socket is
//! made, and the socket is too.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::home::SOCKET;

/// What the system takes as the path of a socket, in bytes, with the zero that ends it.
const MAX_SOCKET_PATH: usize = 108;

/// Listens; the socket is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens in a profile's folder. Whoever calls this has the profile open, so a socket that is there is a dead one.
    pub(crate) fn bind(folder: &Path) -> io::Result<Self> {
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let path = folder.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = short(folder, |path| UnixListener::bind(path))?;
        let socket = Self { listener, path };
        std::fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Connects to the daemon of the profile in this folder; `None` when there is none. Must be called within a runtime.
pub(crate) fn connect(folder: &Path) -> io::Result<Option<UnixStream>> {
    if !folder.join(SOCKET).exists() {
        return Ok(None);
    }
    // Connecting to a socket on the same machine does not wait.
    match short(folder, |path| std::os::unix::net::UnixStream::connect(path)) {
        Ok(stream) => {
            stream.set_nonblocking(true)?;
            Ok(Some(UnixStream::from_std(stream)?))
        }
        // A daemon that was killed leaves its socket behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Uses the socket's path, or, when it is too long for the system, a short one to the same place through /proc.
fn short<T>(folder: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() < MAX_SOCKET_PATH {
        return with(&path);
    }
    let folder = std::fs::File::open(folder)?;
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    if !Path::new(&through).exists() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the path of the socket has {} bytes, more than a socket can have here: use a shorter --home",
                path.as_os_str().len()
            ),
        ));
    }
    with(&Path::new(&through).join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_found_also_below_a_very_long_path() {
        let home = tempfile::tempdir().unwrap();
        for folder in ["short".to_owned(), "x".repeat(200)] {
            let folder = home.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
            assert!(connect(&folder).unwrap().is_none());
            let socket = Socket::bind(&folder).unwrap();
            assert!(connect(&folder).unwrap().is_some());
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder), mode(&folder.join(SOCKET))), (0o700, 0o600));
            drop(socket);
            assert!(!folder.join(SOCKET).exists());
        }
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_daemon_left_is_no_daemon_and_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap());
        assert!(home.path().join(SOCKET).exists());
        assert!(connect(home.path()).unwrap().is_none());
        let _socket = Socket::bind(home.path()).unwrap();
        assert!(connect(home.path()).unwrap().is_some());
    }
}

//! Closing this process's own links to relays, by which all its circuits close: what stays is what its clients remember.

use std::net::{IpAddr, Shutdown, TcpStream};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::Result;

/// Shuts down every TCP connection from this process to `address`.
pub(super) fn links_to(address: IpAddr) -> Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // One that was closed since it was listed is no link any more.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (true, Some(number)) = (target.to_string_lossy().starts_with("socket:"), number) else { continue };
        let Ok(socket) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else { continue };
        let stream = TcpStream::from(socket);
        // Sockets of another family, or that listen, have no such peer.
        if stream.peer_addr().is_ok_and(|peer| peer.ip() == address) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn cuts_links_to_the_address_and_no_others() {
        let connect = |address: &str| {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let far = listener.accept().unwrap().0;
            far.set_nonblocking(true).unwrap();
            (stream, far)
        };
        let (_cut, mut cut_far) = connect("127.0.0.77");
        let (_kept, mut kept_far) = connect("127.0.0.78");
        links_to("127.0.0.77".parse().unwrap()).unwrap();
        let mut byte = [0];
        cut_far.set_nonblocking(false).unwrap();
        assert_eq!(cut_far.read(&mut byte).unwrap(), 0, "the end is seen");
        assert_eq!(kept_far.read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

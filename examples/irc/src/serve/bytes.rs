//! A stream of messages as a flow of bytes, for what was made for connections.

use bytes::Bytes;
use hcp_core::node::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// What either direction holds at once, in bytes.
const BUFFER: usize = 16 * 1024;

/// Lets `serve` use the stream as a connection, until it has ended.
pub(super) async fn as_bytes<F: Future<Output = ()>>(mut stream: Stream, serve: impl FnOnce(DuplexStream) -> F) {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (mut from_server, mut to_server) = tokio::io::split(near);
    let mut sender = stream.sender();
    let up = async {
        while let Ok(Some(message)) = stream.recv().await {
            if to_server.write_all(&message).await.is_err() {
                return;
            }
        }
        // The client has ended its direction; the server's goodbye may still come.
        let _ = to_server.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if sender.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                return;
            }
        }
        sender.finish().await;
    };
    let flow = async {
        tokio::select! {
            () = up => {}
            () = down => {}
        }
    };
    tokio::join!(serve(far), flow);
}

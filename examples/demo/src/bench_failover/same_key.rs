//! One of two onion services with the same key, as tor-hsservice has them: what a service on many nodes was before it was
//! replicated.

use std::path::{Path, PathBuf};

use hcp_core::identity::ctor;
use hcp_core::network::Network as _;
use hcp_core::network::tor::TorNetwork;
use hcp_core::testing::PrivateTorDescription;
use tokio::io::AsyncWriteExt as _;

use super::contender::{GREETING, SAME_KEY_IS_UP};
use crate::Result;
use crate::faults::IRC;

/// Serves the address whose key is in the folder `key`, as C tor writes it, until standard input ends.
///
/// # Errors
/// When it cannot be served.
pub async fn serve(key: &Path, description: &Path) -> Result<()> {
    let identity = ctor::import(key)?;
    let home: PathBuf = tempfile::Builder::new().prefix("tor-").tempdir_in(key)?.keep();
    let network = PrivateTorDescription::load(description)?.network();
    let tor = TorNetwork::builder(home.join("state"), home.join("cache")).private_network(network).bootstrap().await?;
    let mut listener = tor.listen(&identity, &[IRC]).await?;
    if !listener.reachable().await {
        return Err("the service stopped before it could be reached".into());
    }
    crate::timeline::print(&format!("{SAME_KEY_IS_UP}\n"));
    let accept = async {
        while let Some(mut incoming) = listener.accept().await {
            tokio::spawn(async move {
                let _ = incoming.stream.write_all(GREETING).await;
                let _ = incoming.stream.flush().await;
                // For as long as the client likes.
                let _ = tokio::io::copy(&mut incoming.stream, &mut tokio::io::sink()).await;
            });
        }
    };
    let (closed, stdin_closed) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: one of the runtime's would keep it from ending.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(closed);
    });
    tokio::select! {
        () = accept => Err("the service stopped".into()),
        _ = stdin_closed => Ok(()),
    }
}

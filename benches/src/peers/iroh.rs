//! iroh: QUIC over loopback, without relays and without discovery, with HCP's key exchange.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ::iroh::endpoint::{Incoming, RecvStream, SendStream, presets};
use ::iroh::{Endpoint, EndpointAddr, RelayMode};
use tokio::io::Join;

use super::{BytesPeer, far, tls};
use crate::Failure;

const ALPN: &[u8] = b"bench";

/// Two endpoints on loopback.
pub struct IrohPair {
    near: Endpoint,
    _far: Endpoint,
    target: EndpointAddr,
}

type Stream = Join<RecvStream, SendStream>;

impl IrohPair {
    pub async fn new() -> Result<Self, Failure> {
        let (near, far) = (bind().await?, far(bind()).await?);
        let target = far.bound_sockets().into_iter().fold(EndpointAddr::new(far.id()), EndpointAddr::with_ip_addr);
        let accepting = far.clone();
        super::far(async move {
            tokio::spawn(async move {
                while let Some(incoming) = accepting.accept().await {
                    tokio::spawn(serve(incoming));
                }
            });
            Ok(())
        })
        .await?;
        Ok(Self { near, _far: far, target })
    }

    /// A stream of a new connection. The connection lives as long as the stream.
    pub async fn peer(&self) -> Result<BytesPeer<Stream>, Failure> {
        let connection = self.near.connect(self.target.clone(), ALPN).await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(BytesPeer::new(tokio::io::join(recv, send)))
    }

    /// A handshake.
    pub async fn connect(&self) -> Result<::iroh::endpoint::Connection, Failure> {
        Ok(self.near.connect(self.target.clone(), ALPN).await?)
    }
}

async fn serve(incoming: Incoming) -> Result<(), Failure> {
    let connection = incoming.await?;
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(BytesPeer::serve(tokio::io::join(recv, send)));
    }
    Ok(())
}

async fn bind() -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .crypto_provider(Arc::new(tls::provider()))
        .relay_mode(RelayMode::Disabled)
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr((Ipv4Addr::LOCALHOST, 0))?
        .bind()
        .await?;
    Ok(endpoint)
}

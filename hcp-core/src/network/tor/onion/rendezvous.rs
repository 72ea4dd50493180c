//! Answering an introduction: the handshake, and the circuit to where the client waits (rend-spec-v3, sections 3.3 and 4.2).

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tor_bytes::Reader;
use tor_cell::relaycell::RelayCmd;
use tor_cell::relaycell::hs::intro_payload::{IntroduceHandshakePayload, OnionKey};
use tor_cell::relaycell::msg::{Introduce2, Rendezvous1};
use tor_circmgr::ServiceOnionServiceDataTunnel;
use tor_circmgr::build::onion_circparams_from_netparams;
use tor_circmgr::hspool::HsCircPool;
use tor_hscrypto::pk::{HsIntroPtSessionIdKey, HsIntroPtSessionIdKeypair, HsSvcNtorKeypair};
use tor_hscrypto::{RendCookie, Subcredential};
use tor_linkspec::EncodedLinkSpec;
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_netdir::{NetDirProvider, Timeliness};
use tor_proto::client::circuit::handshake::hs_ntor::{self, HsNtorHkdfKeyGenerator};
use tor_proto::client::circuit::handshake::{HandshakeRole, RelayProtocol};
use tor_proto::stream::{IncomingStreamRequestContext, IncomingStreamRequestDisposition, IncomingStreamRequestFilter};
use tor_protover::Protocols;
use tor_rtcompat::PreferredRuntime;

use super::Counters;
use crate::network::onion::PointSecrets;
use crate::network::tor::circuits::{ClientStream, MAX_STREAMS_PER_CIRCUIT, Rendezvous};

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// What answering takes, whichever point it came by.
pub(super) struct Context {
    pub(super) pool: Arc<HsCircPool<PreferredRuntime>>,
    pub(super) counters: Arc<Counters>,
    directory: Arc<dyn NetDirProvider>,
    subcredentials: Mutex<Arc<[Subcredential]>>,
}

impl Context {
    pub(super) fn new(pool: Arc<HsCircPool<PreferredRuntime>>, directory: Arc<dyn NetDirProvider>) -> Self {
        Self { pool, counters: Arc::default(), directory, subcredentials: Mutex::new(Arc::new([])) }
    }

    pub(super) fn set_subcredentials(&self, subcredentials: Vec<Subcredential>) {
        *self.subcredentials.lock().unwrap_or_else(PoisonError::into_inner) = subcredentials.into();
    }

    fn subcredentials(&self) -> Arc<[Subcredential]> {
        Arc::clone(&self.subcredentials.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The keys of a point, in the form in which Arti uses them; they are overwritten when they are dropped.
pub(super) struct Keys {
    pub(super) session_id: HsIntroPtSessionIdKeypair,
    session_id_public: HsIntroPtSessionIdKey,
    ntor: HsSvcNtorKeypair,
}

impl Keys {
    pub(super) fn new(secrets: &PointSecrets) -> Self {
        let session_id = ed25519::Keypair::from_bytes(secrets.sid_seed());
        Self {
            session_id_public: session_id.verifying_key().into(),
            session_id: session_id.into(),
            ntor: HsSvcNtorKeypair::from_secret_key(curve25519::StaticSecret::from(*secrets.ntor()).into()),
        }
    }
}

/// An introduction that nobody has looked into.
pub(super) struct Introduction {
    pub(super) keys: Arc<Keys>,
    pub(super) cell: Introduce2,
}

/// An introduction that is about to be answered.
pub(super) struct Meeting {
    introduction: Introduction,
    context: Arc<Context>,
}

impl Meeting {
    pub(super) fn new(introduction: Introduction, context: Arc<Context>) -> Self {
        Self { introduction, context }
    }

    async fn answer(self) -> Result<BoxStream<'static, ClientStream>, BoxedError> {
        let Self { introduction: Introduction { keys, cell }, context } = self;
        let opened = open(&keys, &context.subcredentials(), cell.encoded_header(), cell.encrypted_body())
            .inspect_err(|_| Counters::count(&context.counters.malformed))?;
        let answer = context.meet(opened).await;
        let counters = &context.counters;
        Counters::count(if answer.is_ok() { &counters.met } else { &counters.missed });
        answer
    }
}

impl Rendezvous for Meeting {
    fn meet(self) -> BoxFuture<'static, Result<BoxStream<'static, ClientStream>, BoxedError>> {
        self.answer().boxed()
    }
}

impl Context {
    /// Meets the client where it waits. As in C tor and Arti, that may be a relay that this node's consensus does not list.
    async fn meet(&self, opened: Opened) -> Result<BoxStream<'static, ClientStream>, BoxedError> {
        let Opened { keys, reply, place } = opened;
        let netdir = self.directory.netdir(Timeliness::Timely)?;
        let target = netdir.circ_target_from_verbatim_linkspecs(&place.link_specifiers, &place.onion_key)?;
        let mut tries = netdir.params().hs_service_rendezvous_failures_max.get();
        let tunnel = loop {
            tries -= 1;
            match self.pool.get_or_launch_svc_rend(&netdir, target.clone()).await {
                Ok(tunnel) => break tunnel,
                Err(error) if tries <= 0 => return Err(error.into()),
                Err(_) => {}
            }
        };
        let params = onion_circparams_from_netparams(netdir.params())?;
        drop(netdir);

        let relay = tunnel.last_hop()?;
        // What Arti negotiates only with a feature that is off here: congestion control, and with it counter Galois onions.
        let negotiated = Protocols::new();
        tunnel.extend_virtual(RelayProtocol::HsV3, HandshakeRole::Responder, keys, params, &negotiated).await?;
        let client = tunnel.last_hop()?;
        let streams = tunnel.allow_stream_requests(&[RelayCmd::BEGIN], client, Filter).await?.boxed();
        tunnel.send_raw_msg(Rendezvous1::new(place.cookie, reply).into(), relay).await?;

        let tunnel: Arc<ServiceOnionServiceDataTunnel> = Arc::new(tunnel);
        Ok(streams.map(move |stream| ClientStream::Own(stream, Arc::clone(&tunnel))).boxed())
    }
}

/// Closes circuits with too many streams, before a stream costs anything.
struct Filter;

impl IncomingStreamRequestFilter for Filter {
    fn disposition(
        &mut self,
        _: &IncomingStreamRequestContext<'_>,
        circuit: &tor_proto::circuit::CircHopSyncView<'_>,
    ) -> tor_proto::Result<IncomingStreamRequestDisposition> {
        let too_many = circuit.n_open_streams() >= MAX_STREAMS_PER_CIRCUIT as usize;
        Ok(if too_many {
            IncomingStreamRequestDisposition::CloseCircuit
        } else {
            IncomingStreamRequestDisposition::Accept
        })
    }
}

/// An introduction that a client of this service made.
pub(super) struct Opened {
    keys: HsNtorHkdfKeyGenerator,
    /// Proves to the client that this is the service.
    reply: Vec<u8>,
    place: Place,
}

/// Where a client waits.
pub(super) struct Place {
    cookie: RendCookie,
    onion_key: curve25519::PublicKey,
    link_specifiers: Vec<EncodedLinkSpec>,
}

/// Why an introduction makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the introduction was not made for this point and service")]
    Handshake,
    #[error("the introduction cannot be read")]
    Payload,
    #[error("the introduction has a kind of onion key that is not known")]
    OnionKey,
    #[error("the introduction names a place at too great length")]
    TooLong,
}

/// Decrypts an introduction.
pub(super) fn open(
    keys: &Keys,
    subcredentials: &[Subcredential],
    header: &[u8],
    encrypted: &[u8],
) -> Result<Opened, OpenError> {
    let Keys { ntor, session_id_public, .. } = keys;
    let (keys, reply, payload) =
        hs_ntor::server_receive_intro(&mut rand::rng(), ntor, session_id_public, subcredentials, header, encrypted)
            .map_err(|_| OpenError::Handshake)?;
    Ok(Opened { keys, reply, place: place(&payload)? })
}

/// Reads what was encrypted; padding follows it.
pub(super) fn place(payload: &[u8]) -> Result<Place, OpenError> {
    let payload: IntroduceHandshakePayload = Reader::from_slice(payload).extract().map_err(|_| OpenError::Payload)?;
    let onion_key = match payload.onion_key() {
        OnionKey::NtorOnionKey(key) => *key,
        _ => return Err(OpenError::OnionKey),
    };
    let link_specifiers = payload.link_specifiers();
    if link_specifiers.len() > MAX_LINK_SPECIFIERS {
        return Err(OpenError::TooLong);
    }
    Ok(Place { cookie: *payload.cookie(), onion_key, link_specifiers: link_specifiers.to_vec() })
}

/// A relay has two identities and two addresses; as many again for kinds to come. What is longer would be found too long only
/// when a circuit has been spent on it.
const MAX_LINK_SPECIFIERS: usize = 8;

#[cfg(test)]
mod tests {
    use tor_bytes::Writer as _;
    use tor_linkspec::LinkSpec;
    use tor_proto::client::circuit::handshake::hs_ntor::{HsNtorClientState, HsNtorServiceInfo};

    use super::*;
    use crate::network::tor::onion::fuzz;

    const SUBCREDENTIALS: [[u8; 32]; 3] = [[4; 32], [5; 32], [6; 32]];

    fn payload(link_specifiers: usize) -> Vec<u8> {
        let specifiers = (0..link_specifiers)
            .map(|n| LinkSpec::OrPort([192, 0, 2, n as u8].into(), 9001).encode().unwrap())
            .collect();
        let payload =
            IntroduceHandshakePayload::new([8; 20].into(), OnionKey::NtorOnionKey([9; 32].into()), specifiers, None);
        let mut bytes = Vec::new();
        bytes.write(&payload).unwrap();
        bytes
    }

    #[test]
    fn a_client_of_any_current_period_is_understood_and_no_other() {
        let keys = Keys::new(&PointSecrets::from_bytes(&[7; 64]));
        let known = SUBCREDENTIALS.map(Subcredential::from);
        let introduce = |subcredential: [u8; 32], header: &[u8]| {
            let service = HsNtorServiceInfo::new(
                keys.ntor.public().clone(),
                keys.session_id_public.clone(),
                subcredential.into(),
            );
            let client = HsNtorClientState::new(&mut rand::rng(), service);
            let sent = client.client_send_intro(header, &payload(4)).unwrap();
            (client, sent)
        };
        for subcredential in SUBCREDENTIALS {
            let (client, sent) = introduce(subcredential, b"header");
            let opened = open(&keys, &known, b"header", &sent).unwrap();
            assert_eq!(opened.place.link_specifiers.len(), 4);
            assert!(client.client_receive_rend(&opened.reply).is_ok());
            assert_eq!(open(&keys, &known, b"Header", &sent).err(), Some(OpenError::Handshake));
            let mut broken = sent.clone();
            broken[40] ^= 1;
            assert_eq!(open(&keys, &known, b"header", &broken).err(), Some(OpenError::Handshake));
        }
        let (_, sent) = introduce([1; 32], b"header");
        assert_eq!(open(&keys, &known, b"header", &sent).err(), Some(OpenError::Handshake));
    }

    #[test]
    fn a_place_is_read_within_limits() {
        assert_eq!(place(&payload(MAX_LINK_SPECIFIERS)).unwrap().link_specifiers.len(), MAX_LINK_SPECIFIERS);
        assert_eq!(place(&payload(MAX_LINK_SPECIFIERS + 1)).err(), Some(OpenError::TooLong));
        let padded = [payload(2), vec![0; 100]].concat();
        assert_eq!(place(&padded).unwrap().link_specifiers.len(), 2);
        // After the cookie and the number of extensions.
        let mut other_key = payload(2);
        assert_eq!(other_key[21], 1);
        other_key[21] = 2;
        assert_eq!(place(&other_key).err(), Some(OpenError::Payload));
        for length in 0..payload(2).len() {
            assert_eq!(place(&payload(2)[..length]).err(), Some(OpenError::Payload));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused() {
        use rand::{RngExt as _, SeedableRng as _};
        let seed: u64 = rand::random();
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        for run in 0..500 {
            let mut bytes = payload(random.random_range(0..12));
            bytes.resize(random.random_range(0..500), 0);
            for _ in 0..random.random_range(0..5) {
                if !bytes.is_empty() {
                    let place = random.random_range(0..bytes.len());
                    bytes[place] = random.random();
                }
            }
            println!("seed {seed}, run {run}");
            fuzz::introduction(&bytes);
            fuzz::certificate(&bytes);
        }
    }
}

//! What the two sides show each other first: HELLO, PROOF, JOIN (protocol.md, sections 4 to 6).

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use prost::Message;
use zeroize::Zeroizing;

use super::limits::LEAST_WINDOW;
#[cfg(test)]
use super::planted::{Defect, planted};
use super::{ConnId, Dial, Dialler, MAX_STREAM_WINDOW, MAX_STREAMS, Peer, STREAM_WINDOW, SessionError, SessionId, tls};
use crate::identity::OnionAddress;
use crate::identity::delegation::{self, Delegation};
use crate::wire::session_proto as proto;
use crate::wire::{Frame, FrameKind};

/// What a dialler signs, followed by the TLS exporter, its own and the acceptor's public key.
const PROOF_CONTEXT: &[u8] = b"HCP/1 dialler\0";
/// What the MAC of JOIN is over, followed by session id, lane number and the lane's TLS exporter.
const JOIN_CONTEXT: &[u8] = b"HCP/1 lane\0";
/// What the hint of a lane is hashed of, followed by the session id.
const HINT_CONTEXT: &[u8] = b"HCP/1 lane hint\0";

/// What a peer allows this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerLimits {
    pub(super) window: u64,
    pub(super) max_streams: u32,
}

impl PeerLimits {
    fn parse(window: u64, max_streams: u32) -> Result<Self, SessionError> {
        if !(LEAST_WINDOW..=MAX_STREAM_WINDOW).contains(&window) {
            return Err(SessionError::Malformed("window"));
        }
        // Whoever allows more is not obliged to get more.
        Ok(Self { window, max_streams: max_streams.min(MAX_STREAMS) })
    }
}

/// What both sides of a session, and nobody else, compute from its primary connection, whenever a lane needs it.
pub(super) struct Secrets {
    pub(super) id: SessionId,
    lane_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets([redacted])")
    }
}

impl Secrets {
    /// Those of the session that its primary connection names `id`.
    pub(super) fn of(primary: &rustls::Connection, id: SessionId) -> Result<Self, SessionError> {
        let lane_key = tls::lane_key(primary).map_err(SessionError::Tls)?;
        Ok(Self { id, lane_key })
    }

    /// The frame that makes a connection lane `number` of this session.
    pub(super) fn join(&self, number: ConnId, lane: &rustls::Connection) -> Result<Frame, SessionError> {
        tls::lane_exporter(lane).map(|exporter| self.join_over(number, &exporter)).map_err(SessionError::Tls)
    }

    pub(super) fn join_over(&self, number: ConnId, exporter: &[u8; 32]) -> Frame {
        let mac = hmac::sign(&self.key(), &join_message(&self.id, number, exporter));
        let payload = [&self.id.0[..], &number.to_be_bytes(), mac.as_ref()].concat();
        Frame::new(FrameKind::Join, 0, 0, payload.into())
    }

    /// Whether JOIN was made by the other side of this session for this very connection. Takes the same time either way.
    pub(super) fn fits(&self, join: &Join, lane: &rustls::Connection) -> bool {
        tls::lane_exporter(lane).is_ok_and(|exporter| {
            hmac::verify(&self.key(), &join_message(&self.id, join.number, &exporter), &join.mac).is_ok()
        })
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.lane_key)
    }

    #[cfg(test)]
    pub(super) fn for_vectors(id: [u8; 16], lane_key: [u8; 32]) -> Self {
        Self { id: SessionId(id), lane_key: Zeroizing::new(lane_key) }
    }
}

/// Says in a lane's ClientHello, which anybody may see, to who holds the session which one it is, and to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneHint(pub(super) [u8; 16]);

impl SessionId {
    /// What the ClientHello of its lanes names it by.
    pub(crate) fn lane_hint(&self) -> LaneHint {
        let hash = digest::digest(&digest::SHA256, &[HINT_CONTEXT, &self.0].concat());
        let mut hint = [0; 16];
        hint.copy_from_slice(&hash.as_ref()[..16]);
        LaneHint(hint)
    }
}

/// A parsed JOIN.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) session: SessionId,
    pub(super) number: ConnId,
    mac: [u8; 32],
}

impl Join {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, SessionError> {
        let malformed = SessionError::Malformed("join");
        let Some((session, rest)) = payload.split_first_chunk::<16>() else { return Err(malformed) };
        let Some((number, mac)) = rest.split_first_chunk::<4>() else { return Err(malformed) };
        let Ok(mac) = mac.try_into() else { return Err(malformed) };
        match u32::from_be_bytes(*number) {
            0 => Err(malformed),
            number => Ok(Self { session: SessionId(*session), number, mac }),
        }
    }
}

/// An acceptor's HELLO.
pub(super) fn hello(certificate: &[u8], delegation: &[u8]) -> Frame {
    let hello = proto::Hello {
        certificate: Bytes::copy_from_slice(certificate),
        delegation: Bytes::copy_from_slice(delegation),
        window: STREAM_WINDOW,
        max_streams: MAX_STREAMS,
    };
    Frame::control(FrameKind::Hello, 0, &hello)
}

/// What a good HELLO says.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) server_key: [u8; 32],
    /// What lets the server key speak for the service, unless it is the dialled address itself.
    pub(super) delegation: Option<Delegation>,
    pub(super) limits: PeerLimits,
}

/// Checks ALPN, the server key and HELLO, in this order: nothing is shown to who fails.
pub(super) fn check_hello(tls: &rustls::Connection, frame: &Frame, dial: &Dial) -> Result<Greeted, SessionError> {
    if !tls::speaks_hcp(tls) {
        return Err(SessionError::NotHcp);
    }
    let server_key = tls::server_key(tls).ok_or(SessionError::WrongKey)?;
    if frame.kind != FrameKind::Hello {
        return Err(SessionError::OutOfPlace("a frame before HELLO"));
    }
    let hello = proto::Hello::decode(&frame.payload[..]).map_err(|_| SessionError::Malformed("hello"))?;
    let delegation = check_server(dial, &server_key, &hello)?;
    let limits = PeerLimits::parse(hello.window, hello.max_streams)?;
    Ok(Greeted { server_key, delegation, limits })
}

/// Checks that whoever holds `server_key` speaks for whom was dialled, and gives the delegation that says so, if one is needed.
fn check_server(dial: &Dial, server_key: &[u8; 32], hello: &proto::Hello) -> Result<Option<Delegation>, SessionError> {
    if server_key == dial.target.public_key() {
        return Ok(None);
    }
    #[cfg(test)]
    if planted(Defect::AnyServerTaken) {
        return Ok(None);
    }
    if hello.certificate.is_empty() && hello.delegation.is_empty() {
        return Err(SessionError::WrongKey);
    }
    let verified = delegation::verify(
        dial.target,
        &hello.certificate,
        &hello.delegation,
        server_key,
        dial.unix_now,
        &dial.floors,
    )?;
    Ok(Some(verified))
}

/// The dialler's PROOF.
pub(super) fn proof(
    tls: &rustls::Connection,
    me: &Dialler,
    known: Option<SessionId>,
    target: &OnionAddress,
) -> Result<Frame, SessionError> {
    let mut proof = proto::Proof { window: STREAM_WINDOW, max_streams: MAX_STREAMS, ..Default::default() };
    if let Dialler::Identity(identity) = me {
        let exporter = bound_to(tls)?;
        let signed = proof_message(&exporter, &identity.address(), target);
        proof.address = Bytes::copy_from_slice(identity.address().public_key());
        proof.signature = Bytes::copy_from_slice(&identity.sign(&signed));
        proof.known = known.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default();
    }
    Ok(Frame::control(FrameKind::Proof, 0, &proof))
}

/// What a good PROOF says.
#[derive(Debug)]
pub(super) struct Proved {
    pub(super) peer: Peer,
    pub(super) known: Option<SessionId>,
    pub(super) limits: PeerLimits,
}

/// Checks a dialler's PROOF towards `acceptor`, the address that it must have dialled.
pub(super) fn check_proof(
    tls: &rustls::Connection,
    payload: &[u8],
    acceptor: &OnionAddress,
) -> Result<Proved, SessionError> {
    let proof = proto::Proof::decode(payload).map_err(|_| SessionError::Malformed("proof"))?;
    let known = match proof.known.len() {
        0 => None,
        _ => Some(SessionId(proof.known[..].try_into().map_err(|_| SessionError::Malformed("proof"))?)),
    };
    let limits = PeerLimits::parse(proof.window, proof.max_streams)?;
    if proof.address.is_empty() && proof.signature.is_empty() && known.is_none() {
        return Ok(Proved { peer: Peer::Anonymous, known, limits });
    }
    let key: [u8; 32] = proof.address[..].try_into().map_err(|_| SessionError::Malformed("proof"))?;
    let signature: [u8; 64] = proof.signature[..].try_into().map_err(|_| SessionError::Malformed("proof"))?;
    let address = OnionAddress::from_public_key(key).map_err(|_| SessionError::BadProof)?;
    let exporter = bound_to(tls)?;
    address.verify(&proof_message(&exporter, &address, acceptor), &signature).map_err(|_| SessionError::BadProof)?;
    Ok(Proved { peer: Peer::Address(address), known, limits })
}

/// What of its connection a dialler signs, so that the proof counts on no other.
fn bound_to(tls: &rustls::Connection) -> Result<[u8; 32], SessionError> {
    #[cfg(test)]
    if planted(Defect::ProofUnbound) {
        return Ok([0; 32]);
    }
    tls::dialler_exporter(tls).map_err(SessionError::Tls)
}

/// What a dialler signs.
pub(super) fn proof_message(exporter: &[u8; 32], dialler: &OnionAddress, acceptor: &OnionAddress) -> Vec<u8> {
    [PROOF_CONTEXT, exporter, dialler.public_key(), acceptor.public_key()].concat()
}

/// What JOIN's MAC is over.
pub(super) fn join_message(session: &SessionId, number: ConnId, exporter: &[u8; 32]) -> Vec<u8> {
    [JOIN_CONTEXT, &session.0, &number.to_be_bytes(), exporter].concat()
}

//! The TLS profile of HCP/1: TLS 1.3, X25519MLKEM768 and nothing else, raw public keys (RFC 7250), ALPN `hcp/1`,
//! no SNI, tickets, resumption or 0-RTT.
//!
//! The client's verifier checks only that the peer holds the key that it shows; whether that key is the dialled one is
//! the machine's to decide, before anything is sent.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConnection,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, OtherError, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use zeroize::Zeroizing;

use super::hello::LaneHint;
use super::{SessionError, SessionId};
use crate::identity::Identity;
use crate::identity::delegation::SessionKey;

const ALPN: &[u8] = b"hcp/1";
/// How the second ALPN name of a lane's ClientHello begins; the hint follows.
const LANE_NAME: &[u8] = b"hcp/1 lane ";
/// The DER prefix of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        )
    });
    provider
}

fn spki(key: &[u8; 32]) -> Vec<u8> {
    [&SPKI_PREFIX[..], key].concat()
}

/// The key that an acceptor shows in TLS.
#[derive(Clone)]
pub(super) enum ServerKey {
    /// Its own address.
    Identity(Identity),
    /// One that a delegation lets speak for a service.
    Session(SessionKey),
}

impl ServerKey {
    pub(super) fn public(&self) -> [u8; 32] {
        match self {
            Self::Identity(identity) => *identity.address().public_key(),
            Self::Session(key) => *key.public_key().as_bytes(),
        }
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::Identity(identity) => identity.sign(message),
            Self::Session(key) => key.sign(message),
        }
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey([redacted])")
    }
}

/// A key as TLS shows it.
pub(super) fn certified(key: &ServerKey) -> Arc<CertifiedKey> {
    let shown = CertificateDer::from(spki(&key.public()));
    Arc::new(CertifiedKey::new(vec![shown], Arc::new(key.clone())))
}

/// The configuration of the accepting side, which shows `key`.
pub(super) fn server_config(key: &ServerKey) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_half_rtt_data = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.cert_compressors = Vec::new();
    Ok(Arc::new(config))
}

/// The same for a connection whose key is chosen when its ClientHello is there.
pub(super) fn choosing(config: &ServerConfig, choice: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.cert_resolver = choice;
    Arc::new(config)
}

/// For which session a ClientHello wants a lane, as far as it says so.
pub(super) fn lane_hint(hello: &ClientHello<'_>) -> Option<LaneHint> {
    let hint = hello.alpn()?.find_map(|name| name.strip_prefix(LANE_NAME))?;
    hint.try_into().ok().map(LaneHint)
}

/// The accepting side of a connection.
pub(super) fn server(config: Arc<ServerConfig>) -> Result<ServerConnection, Error> {
    ServerConnection::new(config)
}

/// The configuration of the dialling side, the same for all.
pub(super) fn client_config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, Error>> = LazyLock::new(|| new_client_config(provider()));
    CONFIG.clone()
}

/// The configuration of the dialling side of a lane.
pub(super) fn lane_config(hint: &LaneHint) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::clone(&*client_config()?);
    config.alpn_protocols.push([LANE_NAME, &hint.0].concat());
    Ok(Arc::new(config))
}

/// That of a dialler that offers other groups, and sends its share of the first.
#[cfg(test)]
pub(super) fn client_config_offering(
    kx_groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
) -> Result<Arc<ClientConfig>, Error> {
    new_client_config(CryptoProvider { kx_groups, ..provider() })
}

fn new_client_config(provider: CryptoProvider) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(HoldsItsKey(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(ShowsNothing));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.cert_decompressors = Vec::new();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The dialling side of a connection.
pub(super) fn client(config: Arc<ClientConfig>) -> Result<ClientConnection, Error> {
    // Never sent, since SNI is off, and never checked, since the key is.
    let name = ServerName::try_from("hcp.invalid").map_err(|_| Error::General("static server name".into()))?;
    ClientConnection::new(config, name)
}

/// Whether the server has read a ClientHello that it answers, and so the protocol is settled.
pub(super) fn has_chosen(connection: &rustls::Connection) -> bool {
    connection.negotiated_key_exchange_group().is_some()
}

/// Whether the peer agreed to speak HCP/1; a client that offers no ALPN at all gets through TLS.
pub(super) fn speaks_hcp(connection: &rustls::Connection) -> bool {
    connection.alpn_protocol() == Some(ALPN)
}

/// Fails when TLS has let something pass that this profile does not: a second ClientHello, for which nobody has a reason who
/// offers one group and its share, and session tickets.
pub(super) fn check_profile(connection: &rustls::Connection) -> Result<(), SessionError> {
    if connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest) {
        return Err(SessionError::NotHcp);
    }
    match connection {
        rustls::Connection::Client(client) if client.tls13_tickets_received() > 0 => {
            Err(SessionError::OutOfPlace("a session ticket"))
        }
        _ => Ok(()),
    }
}

/// What an error of TLS says. A request for a certificate, which nobody makes who speaks HCP, is told from the others.
pub(super) fn failed(error: Error) -> SessionError {
    match &error {
        Error::Other(OtherError(why)) if why.is::<CertificateAsked>() => {
            SessionError::OutOfPlace("a request for a certificate")
        }
        _ => SessionError::Tls(error),
    }
}

/// The key that the server showed, and for which it signed the handshake.
pub(super) fn server_key(connection: &rustls::Connection) -> Option<[u8; 32]> {
    let [shown] = connection.peer_certificates()? else { return None };
    shown.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// What the dialler signs, of a primary connection.
pub(super) fn dialler_exporter(connection: &rustls::Connection) -> Result<[u8; 32], Error> {
    connection.export_keying_material([0; 32], b"EXPORTER-hcp/1 dialler", None)
}

/// What names the session of a primary connection.
pub(super) fn session_id(connection: &rustls::Connection) -> Result<SessionId, Error> {
    connection.export_keying_material([0; 16], b"EXPORTER-hcp/1 session id", None).map(SessionId)
}

/// The key of the lanes of a primary connection.
pub(super) fn lane_key(connection: &rustls::Connection) -> Result<Zeroizing<[u8; 32]>, Error> {
    connection.export_keying_material(Zeroizing::new([0; 32]), b"EXPORTER-hcp/1 lane key", None)
}

/// What binds JOIN to a lane.
pub(super) fn lane_exporter(connection: &rustls::Connection) -> Result<[u8; 32], Error> {
    connection.export_keying_material([0; 32], b"EXPORTER-hcp/1 lane", None)
}

/// Signs the handshake; with an expanded onion key, so that keys imported from C tor work.
impl SigningKey for ServerKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.public()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for ServerKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(Self::sign(self, message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts any Ed25519 raw public key whose holder signed the handshake.
#[derive(Debug)]
struct HoldsItsKey(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for HoldsItsKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_ed25519 = end_entity.len() == SPKI_PREFIX.len() + 32 && end_entity.starts_with(&SPKI_PREFIX);
        if is_ed25519 && intermediates.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(cert.as_ref()), dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The server asks for a certificate.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server asks for a certificate")]
struct CertificateAsked;

/// Has the handshake fail when the server asks who dials: TLS would answer that there is nothing to show, and go on. A
/// dialler says who it is in PROOF, once it knows whom it has reached.
#[derive(Debug)]
struct ShowsNothing;

impl ResolvesClientCert for ShowsNothing {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Asked for nothing but an answer to such a request, which this key cannot sign.
        Some(Arc::new(CertifiedKey::new(Vec::new(), Arc::new(Self))))
    }

    /// Not before it is asked, and it shows in no ClientHello.
    fn has_certs(&self) -> bool {
        false
    }
}

impl SigningKey for ShowsNothing {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for ShowsNothing {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, Error> {
        Err(OtherError(Arc::new(CertificateAsked)).into())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

//! Bare tokio-rustls with HCP's profile: TLS 1.3, X25519MLKEM768, raw Ed25519 keys, no tickets; aws-lc-rs does all of it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{BytesPeer, tcp};
use crate::Failure;

/// Who shows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    Server,
    Both,
}

/// Both ends' configuration.
#[derive(Clone)]
pub struct BareTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl BareTls {
    pub fn new(authentication: Authentication) -> Result<Self, Failure> {
        let provider = Arc::new(provider());
        let server_key = key(1)?;
        let verifier = Arc::new(Known {
            server: server_key.public.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let server = match authentication {
            Authentication::Server => server.with_no_client_auth(),
            Authentication::Both => {
                server.with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            }
        };
        let mut server =
            server.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(server_key.certified)));
        server.alpn_protocols = vec![b"bench".to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut client = match authentication {
            Authentication::Server => client.with_no_client_auth(),
            Authentication::Both => {
                client.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key(2)?.certified)))
            }
        };
        client.alpn_protocols = vec![b"bench".to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<server::TlsStream<S>, Failure> {
        Ok(self.acceptor.accept(stream).await?)
    }

    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<client::TlsStream<S>, Failure> {
        Ok(self.connector.connect(ServerName::try_from("bench.invalid")?, stream).await?)
    }

    /// A connection over loopback whose other end serves.
    pub async fn peer() -> Result<BytesPeer<client::TlsStream<tokio::net::TcpStream>>, Failure> {
        let tls = Self::new(Authentication::Server)?;
        let acceptor = tls.clone();
        let address =
            tcp::serve(move |stream| async move { BytesPeer::serve(acceptor.accept(stream).await?).await }).await?;
        Ok(BytesPeer::new(tls.connect(tcp::connect(address).await?).await?))
    }
}

/// HCP's choice of algorithms.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() }
}

struct Key {
    certified: Arc<CertifiedKey>,
    public: Vec<u8>,
}

/// A key from a seed; nothing here is secret.
fn key(seed: u8) -> Result<Key, Failure> {
    // An Ed25519 private key in PKCS #8 (RFC 8410).
    let mut pkcs8 =
        vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    pkcs8.extend([seed; 32]);
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.clone()))
        .or_else(|_| aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(pkcs8.into())))?;
    let public = key.public_key().ok_or("a key without a public half")?.to_vec();
    let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public.clone())], key));
    Ok(Key { certified, public })
}

/// Accepts one server key and any client key, whose holder signed the handshake.
#[derive(Debug)]
struct Known {
    server: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Known {
    fn signed(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.server {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another key".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

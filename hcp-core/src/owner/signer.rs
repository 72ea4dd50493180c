//! Who signs with the identity of a service, behind a trait: an identity in memory today; several holders of shares, of whom
//! some must agree, some day.

use futures::future::{BoxFuture, ready};
use thiserror::Error;

use crate::error::ErrorKind;
use crate::identity::blinded::blinded_public_key;
use crate::identity::{Identity, OnionAddress, SignatureError};
use crate::network::Period;

/// What a signer is asked to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignRequest {
    /// With the identity itself.
    Identity(Vec<u8>),
    /// With the key that the identity is blinded to in a time period.
    Blinded(Period, Vec<u8>),
}

/// Signs with the identity of a service.
///
/// A batch is what an owner's whole errand needs, so that a signer that asks a person, a device or other holders asks once.
pub trait ServiceSigner: Send + Sync {
    /// The service.
    fn service(&self) -> OnionAddress;

    /// Signs all of them, in order, or none. Whoever asked checks what comes back.
    ///
    /// # Cancel safety
    /// Dropping the future gives the batch up; nothing else is undone.
    fn sign_batch(&self, requests: Vec<SignRequest>) -> BoxFuture<'_, Result<Vec<[u8; 64]>, SignError>>;
}

/// Why a signer did not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signer, or so many of its parts that no signature comes about, cannot be asked now.
    #[error("the signer cannot be reached; try again later")]
    Unavailable,
    /// It said no.
    #[error("the signer refused")]
    Refused,
    /// What came back is no signature over what was asked.
    #[error("the signer returned something else than the signatures it was asked for")]
    Wrong,
}

impl SignError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable => ErrorKind::Unreachable,
            Self::Refused => ErrorKind::Refused,
            Self::Wrong => ErrorKind::Authentication,
        }
    }
}

/// An identity in memory.
#[derive(Clone, Debug)]
pub struct IdentitySigner(Identity);

impl IdentitySigner {
    /// Takes the service's identity.
    pub fn new(identity: Identity) -> Self {
        Self(identity)
    }
}

impl ServiceSigner for IdentitySigner {
    fn service(&self) -> OnionAddress {
        self.0.address()
    }

    fn sign_batch(&self, requests: Vec<SignRequest>) -> BoxFuture<'_, Result<Vec<[u8; 64]>, SignError>> {
        let sign = |request: &SignRequest| match request {
            SignRequest::Identity(message) => self.0.sign(message),
            SignRequest::Blinded(period, message) => self.0.sign_blinded(period.number, period.length, message),
        };
        Box::pin(ready(Ok(requests.iter().map(sign).collect())))
    }
}

/// Has a batch signed, and checks that it was.
pub(super) async fn signed(signer: &dyn ServiceSigner, requests: Vec<SignRequest>) -> Result<Vec<[u8; 64]>, SignError> {
    let signatures = signer.sign_batch(requests.clone()).await?;
    let fits = |(request, signature): (&SignRequest, &[u8; 64])| check(signer.service(), request, signature).is_ok();
    if signatures.len() == requests.len() && requests.iter().zip(&signatures).all(fits) {
        Ok(signatures)
    } else {
        Err(SignError::Wrong)
    }
}

fn check(service: OnionAddress, request: &SignRequest, signature: &[u8; 64]) -> Result<(), SignatureError> {
    match request {
        SignRequest::Identity(message) => service.verify(message, signature),
        SignRequest::Blinded(period, message) => verify_blinded(service, *period, message, signature),
    }
}

/// Verifies that the blinded key of `period` signed `message`.
pub(super) fn verify_blinded(
    service: OnionAddress,
    period: Period,
    message: &[u8],
    signature: &[u8; 64],
) -> Result<(), SignatureError> {
    let key = blinded_public_key(service, period.number, period.length);
    // A multiple of a key in the prime-order group is one too, unless the factor is 0, which no hash gives.
    OnionAddress::from_public_key(key).map_err(|_| SignatureError)?.verify(message, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Liar(Identity, fn(Vec<[u8; 64]>) -> Vec<[u8; 64]>);

    impl ServiceSigner for Liar {
        fn service(&self) -> OnionAddress {
            self.0.address()
        }

        fn sign_batch(&self, requests: Vec<SignRequest>) -> BoxFuture<'_, Result<Vec<[u8; 64]>, SignError>> {
            Box::pin(async move { Ok((self.1)(IdentitySigner(self.0.clone()).sign_batch(requests).await?)) })
        }
    }

    #[tokio::test]
    async fn what_a_signer_returns_is_checked() {
        let period = Period { number: 20_000, length: 1440, offset: 43_200 };
        let batch = vec![SignRequest::Identity(b"one".to_vec()), SignRequest::Blinded(period, b"two".to_vec())];
        let ask = async |change| signed(&Liar(Identity::from_seed(&[1; 32]), change), batch.clone()).await;
        assert_eq!(ask(|good| good).await.map(|good| good.len()), Ok(2));
        assert_eq!(
            ask(|mut bad| {
                bad.swap(0, 1);
                bad
            })
            .await,
            Err(SignError::Wrong)
        );
        assert_eq!(
            ask(|mut bad| {
                bad[1][0] ^= 1;
                bad
            })
            .await,
            Err(SignError::Wrong)
        );
        assert_eq!(
            ask(|mut bad| {
                bad.pop();
                bad
            })
            .await,
            Err(SignError::Wrong)
        );
    }
}

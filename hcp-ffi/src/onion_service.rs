//! C tor's onion service directories: import of a service that C tor ran, export of one that it shall run.

use std::path::Path;
use std::sync::Arc;

use hcp_core::identity::ctor;
use zeroize::Zeroizing;

use crate::error::HcpError;
use crate::identity::Identity;

/// Reads the identity of a C tor onion service directory (what `HiddenServiceDir` names). Blocks on the disk.
///
/// # Errors
/// `InvalidInput` when the secret key is missing or malformed, or the files beside it belong to another; `Storage`.
// `import` is a keyword of both languages.
#[uniffi::export(name = "import_onion_service")]
pub fn import(directory: String) -> Result<Arc<Identity>, HcpError> {
    Ok(Identity::shared(ctor::import(Path::new(&directory))?))
}

/// Writes the identity as a C tor onion service directory with mode 0700, in the clear. Blocks on the disk.
///
/// # Errors
/// `InvalidInput` when one of the files is there, which then stays as it was; `Storage`.
#[uniffi::export(name = "export_onion_service")]
pub fn export(identity: Arc<Identity>, directory: String) -> Result<(), HcpError> {
    Ok(ctor::export(&identity.inner, Path::new(&directory))?)
}

/// Decodes the content of an `hs_ed25519_secret_key` file.
///
/// # Errors
/// `InvalidInput`.
#[uniffi::export(name = "decode_onion_service_key")]
pub fn decode_secret_key(content: Vec<u8>) -> Result<Arc<Identity>, HcpError> {
    Ok(Identity::shared(ctor::decode_secret_key(&Zeroizing::new(content))?))
}

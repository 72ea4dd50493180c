//! Files between the disk, the engine and a stream.
use super::*;
pub(super) async fn offer(_m: &Messenger, _c: OnionAddress, _p: PathBuf) -> Result<TransferId, TransferError> {
    unimplemented!()
}
pub(super) async fn accept(_m: &Messenger, _id: TransferId, _p: PathBuf) -> Result<(), TransferError> {
    unimplemented!()
}
pub(super) async fn serve(_i: engine::Inputs, _s: crate::node::Stream, _se: crate::node::Session) {}
pub(super) async fn fetch(_i: engine::Inputs, _id: TransferId, _se: crate::node::Session) {}
pub(super) fn discard(_p: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

//! What goes over a session's TLS connections: frames with a fixed header, control messages in protobuf, padding.
//!
//! Limits are checked against the header, before anything is allocated for a payload.

mod frame;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod padding;
mod proto;

pub use self::frame::FrameError;
#[cfg(feature = "testing")]
pub(crate) use self::frame::Head;
pub(crate) use self::frame::{Decoder, FLAG_FIN, FLAG_MORE, Frame, FrameKind, HEADER_LEN, PLACE_LEN, Received, owned};
pub(crate) use self::padding::{FIRST_FLIGHT, MAX_BATCH, RECORD, ZEROS, class, padme};
#[cfg(feature = "messenger")]
pub(crate) use self::proto::file as file_proto;
#[cfg(feature = "messenger")]
pub(crate) use self::proto::messenger as messenger_proto;
pub(crate) use self::proto::service as service_proto;
pub(crate) use self::proto::session as session_proto;

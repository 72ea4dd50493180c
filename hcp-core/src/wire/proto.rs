//! The generated protobuf messages.

#![allow(missing_docs, unreachable_pub, unnameable_types, clippy::all)]

pub(crate) mod session {
    include!(concat!(env!("OUT_DIR"), "/hcp.session.rs"));
}

#[cfg(feature = "messenger")]
pub(crate) mod file {
    include!(concat!(env!("OUT_DIR"), "/hcp.file.rs"));
}

#[cfg(feature = "messenger")]
pub(crate) mod messenger {
    include!(concat!(env!("OUT_DIR"), "/hcp.messenger.rs"));
}

pub(crate) mod service {
    include!(concat!(env!("OUT_DIR"), "/hcp.service.rs"));
}

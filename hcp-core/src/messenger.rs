//! A messenger without a server: every user is an onion service, and messages and files go straight between two people.

pub(crate) mod fault;
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
mod files;

/// The largest file that can be offered or accepted, in bytes.
pub const MAX_FILE: u64 = 64 * 1024 * 1024 * 1024;
/// Disk space that a transfer leaves free, in bytes, since a full disk would stop the profile's database too.
pub const DISK_RESERVE: u64 = 64 * 1024 * 1024;

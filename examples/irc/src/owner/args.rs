//! The command line of the owner's work.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hcp_core::identity::OnionAddress;
use hcp_core::owner::{PeriodClock, PeriodClockError};

use crate::cli::{KeyProtection, Place};

/// The owner's work, on a machine that is no node and can stay offline.
///
/// Once: `new`, `key`, then `manifest` from the file that lists the members. After that, again and again: each node runs
/// `hcp-irc request`, the owner `owner grant` with what the nodes wrote, each node `hcp-irc import-grant` with what comes back.
/// What a node holds it can use until it ends, and so can whoever seizes it: grant for as few hours as you can renew in.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Owner {
    #[command(subcommand)]
    pub(crate) command: OwnerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Make the identity of a service, or import C tor's, and print its address.
    New(New),
    /// Make an owner key and have the identity certify it; again when the certificate is about to end.
    Key(Key),
    /// Sign a manifest from the cluster file: who the members are, who publishes, the settings that all share.
    Manifest(Manifest),
    /// Make grants from nodes' requests, for a number of hours from now.
    Grant(Grant),
    /// Make grants in advance, cut into steps that `hcp-irc warden` hands out one after the other.
    Schedule(Schedule),
    /// Give a node nothing any more, and say for how long it can still use what it has.
    Revoke(Revoke),
    /// Withdraw what revoked nodes hold, once all others have been renewed: the next grants say so to whoever dials.
    Floor(Floor),
    /// Show for how long whoever seized a node now could use what it holds.
    Exposure(Exposure),
}

/// Where the owner's things are.
#[derive(Args, Debug)]
pub(crate) struct Folder {
    /// The owner's folder: keys, manifest, book. Back it up; it is all there is of the service.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// How the network cuts time.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Periods {
    /// The length of the network's time periods in minutes; another than 1440 only on private Tor networks.
    #[arg(long, value_name = "MINUTES", default_value_t = PeriodClock::TOR.minutes())]
    pub(crate) period_minutes: u32,
    /// When the first time period began, in seconds since the epoch [default: half a period].
    #[arg(long, value_name = "SECONDS")]
    pub(crate) period_offset: Option<u32>,
}

impl Periods {
    pub(crate) fn clock(self) -> Result<PeriodClock, PeriodClockError> {
        match self.period_offset {
            Some(offset) => PeriodClock::new(self.period_minutes, offset),
            None => PeriodClock::of_minutes(self.period_minutes),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct New {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Take the identity of this C tor service (its HiddenServiceDir) instead of making one.
    #[arg(long, value_name = "HIDDEN_SERVICE_DIR")]
    pub(crate) import: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) periods: Periods,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct Key {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// For how many days the key speaks for the owner.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub(crate) days: u32,
    /// Make a new key although there is one: for when the old one may be known to others.
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct Manifest {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// The cluster file; a [[member]] may have `publisher = false` and a `name`.
    #[arg(value_name = "CLUSTER_FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct Grant {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Requests of nodes [default: those that were given before, of all members that are not revoked].
    #[arg(value_name = "REQUEST")]
    pub(crate) requests: Vec<PathBuf>,
    /// For how many hours the nodes shall be able to serve without hearing from you again.
    #[arg(long)]
    pub(crate) hours: u32,
    /// In how many rounds, each with a session key of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: u16,
    /// Where to put the grants, one file for each node; made if it is missing.
    #[arg(long, value_name = "DIR", default_value = "grants")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct Schedule {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Requests of nodes [default: those that were given before, of all members that are not revoked].
    #[arg(value_name = "REQUEST")]
    pub(crate) requests: Vec<PathBuf>,
    /// For how many hours in all.
    #[arg(long)]
    pub(crate) hours: u32,
    /// In how many steps; a node holds one, and the next a while before it begins.
    #[arg(long)]
    pub(crate) rounds: u16,
    /// The folder that the warden gets; made if it is missing.
    #[arg(long, value_name = "DIR", default_value = "stock")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct Revoke {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// The node, by its name in the manifest or its address.
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
}

#[derive(Args, Debug)]
pub(crate) struct Floor {
    #[command(flatten)]
    pub(crate) folder: Folder,
}

#[derive(Args, Debug)]
pub(crate) struct Exposure {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `hcp-irc request`.
#[derive(Args, Debug)]
pub(crate) struct Request {
    /// The node's folder, as `init` made it.
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// The service that the node shall serve; needed the first time.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) service: Option<OnionAddress>,
    /// How many session keys: as many rounds can be granted before the node must ask again.
    #[arg(long, default_value_t = 64)]
    pub(crate) rounds: u16,
    /// For how many time periods (days, on the public network), from now on.
    #[arg(long, default_value_t = 40)]
    pub(crate) periods: u16,
    /// Where to put the request [default: node.request in the home].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) clock: Periods,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

/// `hcp-irc import-grant`.
#[derive(Args, Debug)]
pub(crate) struct ImportGrant {
    /// The node's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// What the owner or the warden sent.
    #[arg(value_name = "GRANT")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

/// `hcp-irc warden`.
#[derive(Args, Debug)]
pub(crate) struct Warden {
    /// The folder that `owner schedule` made.
    #[arg(long, value_name = "DIR")]
    pub(crate) stock: PathBuf,
    /// Where to put what is due, one file for each node, in the place of the one before; made if it is missing.
    #[arg(long, value_name = "DIR", required_unless_present = "listen")]
    pub(crate) out: Option<PathBuf>,
    /// Go on, and look again every so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400), requires = "out")]
    pub(crate) every: Option<u64>,
    /// Hand out to nodes that dial this machine instead, each what is its own; prints the address that they dial.
    #[arg(long, requires_all = ["home", "WardenKeys"], conflicts_with = "out")]
    pub(crate) listen: bool,
    /// The warden's folder, with its key and what the network keeps; made if it is missing.
    #[arg(long, value_name = "DIR", requires = "listen")]
    pub(crate) home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) keys: WardenKeys,
}

/// How the warden's key file is protected; there is no default where it has one.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct WardenKeys {
    /// A file whose first line is the passphrase that seals the warden's key.
    #[arg(long, value_name = "FILE", requires = "listen")]
    passphrase_file: Option<PathBuf>,
    /// Keep the warden's key in the clear, guarded by the file's permissions only.
    #[arg(long, requires = "listen")]
    plain_keys: bool,
}

impl WardenKeys {
    /// The same for whoever opens key files.
    pub(crate) fn protection(&self) -> KeyProtection {
        KeyProtection { passphrase_file: self.passphrase_file.clone(), plain_keys: self.plain_keys }
    }
}

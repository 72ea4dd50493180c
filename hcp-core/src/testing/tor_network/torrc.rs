//! The configuration files of authorities, relays and clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::description::Authority;
use super::period::VotingInterval;

/// The configuration of an authority, which listens where it says it is unless `listen` names another port.
///
/// `hsdir_interval`, in minutes, is what C tor takes for 24 times the voting interval; Arti takes it from the consensus.
/// `cbtmintimeout`, in milliseconds, bounds the circuit timeouts that clients learn: on loopback they would learn some
/// 10 ms, and give up on every circuit whenever the machine is busy. `cbtmincircs` is how many circuits they learn from: with
/// the usual 100 a client that has just started would wait for minutes where one that has been used for a while waits for
/// seconds.
pub(super) fn authority(
    directory: &Path,
    authorities: &[Authority],
    interval: VotingInterval,
    own: &Authority,
    listen: Option<u16>,
) -> String {
    let Authority { nickname, or_address, directory_address, .. } = own;
    format!(
        "{common}{relay}\
         Nickname {nickname}\n\
         ContactInfo none\n\
         {or_port}\
         DirPort {directory_address}\n\
         AuthoritativeDirectory 1\n\
         V3AuthoritativeDirectory 1\n\
         ExitPolicy reject *:*\n\
         V3BandwidthsFile {directory}/../{BANDWIDTHS}\n\
         ConsensusParams hsdir_interval={period} cbtmintimeout=1500 cbtmincircs=10\n",
        directory = directory.display(),
        or_port = or_port(*or_address, listen),
        period = interval.time_period().as_secs() / 60,
        common = common(directory, authorities, interval),
        relay = format_args!("Address {}\n{RELAY}", or_address.ip()),
    )
}

/// What the authorities read as the measured speed of relays: the same for all.
///
/// What relays say of themselves is next to nothing at first, and the few that say more would get all circuits, so that
/// clients try in vain to build some through one relay twice.
pub(super) fn bandwidths<'a>(now: Duration, rsa_identities: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("{}\n", now.as_secs());
    for identity in rsa_identities {
        text.push_str(&format!("node_id=${identity} bw=1000\n"));
    }
    text
}

/// The configuration of a relay, which listens where it says it is unless `listen` names another port.
pub(super) fn relay(
    directory: &Path,
    authorities: &[Authority],
    interval: VotingInterval,
    nickname: &str,
    or_address: SocketAddr,
    listen: Option<u16>,
) -> String {
    format!(
        "{common}{relay}\
         Nickname {nickname}\n\
         {or_port}\
         ExitRelay 1\n\
         ExitPolicy accept *:*\n",
        or_port = or_port(or_address, listen),
        common = common(directory, authorities, interval),
        relay = format_args!("Address {}\n{RELAY}", or_address.ip()),
    )
}

/// Where a relay says that it is, and where it listens when somebody else carries bytes there.
fn or_port(advertised: SocketAddr, listen: Option<u16>) -> String {
    match listen {
        None => format!("ORPort {advertised}\n"),
        Some(port) => {
            format!("ORPort {advertised} NoListen\nORPort {ip}:{port} NoAdvertise\n", ip = advertised.ip())
        }
    }
}

/// The configuration of a client; it chooses its own SOCKS port, and is controlled through a socket in its directory.
///
/// For the ports of `LongLivedPorts`, IRC's among them, C tor meets at relays with the flag Stable only. A young network may
/// have a single one; when that is the client's guard too, no circuit to it can be built, and the client tries for ever.
pub(super) fn client(directory: &Path, authorities: &[Authority], interval: VotingInterval) -> String {
    format!(
        "{common}\
         ClientOnly 1\n\
         ClientOnionAuthDir {auth}\n\
         LongLivedPorts 1\n\
         SocksPort 127.0.0.1:auto ExtendedErrors\n\
         ControlSocket {directory}/{CONTROL}\n",
        auth = client_auth(directory).display(),
        directory = directory.display(),
        common = common(directory, authorities, interval),
    )
}

/// Where a client has the keys of addresses that are hidden from others.
pub(super) fn client_auth(directory: &Path) -> PathBuf {
    directory.join("auth")
}

/// What all processes of a network have alike.
pub(super) fn common(directory: &Path, authorities: &[Authority], interval: VotingInterval) -> String {
    let directory = directory.display();
    let mut text = format!(
        "DataDirectory {directory}/data\n\
         PidFile {directory}/pid\n\
         Log notice file {directory}/log\n\
         __OwningControllerProcess {owner}\n\
         V3AuthVotingInterval {interval}\n\
         {NETWORK}",
        owner = std::process::id(),
        interval = interval.as_secs(),
    );
    for Authority { nickname, v3_identity, rsa_identity, or_address, directory_address, .. } in authorities {
        text.push_str(&format!(
            "DirAuthority {nickname} orport={port} no-v2 v3ident={v3_identity} {directory_address} {rsa_identity}\n",
            port = or_address.port(),
        ));
    }
    text
}

/// The socket by which a client is controlled, in its directory, which nobody else can enter.
pub(super) const CONTROL: &str = "control";

/// The file for [`bandwidths`], beside the folders of the processes.
pub(super) const BANDWIDTHS: &str = "bandwidths";

/// When the first votes are counted: at multiples of this, in seconds since the epoch.
pub(super) const FIRST_VOTING_INTERVAL: u64 = 15;

/// KIST, the default scheduler, runs every 10 ms and would dominate every measurement on loopback.
const NETWORK: &str = "\
TestingTorNetwork 1
AssumeReachable 1
PathsNeededToBuildCircuits 0.67
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteGuard *
TestingMinExitFlagThreshold 0
V3AuthNIntervalsValid 2
TestingV3AuthInitialVotingInterval 15
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVoteDelay 2
V3AuthDistDelay 2
ExitPolicyRejectPrivate 0
ShutdownWaitLength 0
Schedulers Vanilla
";

const RELAY: &str = "\
SocksPort 0
";

//! Starting a private network, step by step; blocks.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::description::{Authority, PrivateTorDescription};
use super::error::StartError;
use super::links::DelayedLinks;
use super::period::VotingInterval;
use super::processes::Processes;
use super::{PrivateTorNetwork, PrivateTorNetworkBuilder, StartEvent, random, torrc};

/// How often files and processes are looked at while something starts.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Starts a network and waits until clients can use it.
pub(super) fn launch(options: &PrivateTorNetworkBuilder) -> Result<PrivateTorNetwork, StartError> {
    let started = Instant::now();
    let version = check_version(&options.tor)?;
    (options.on_event)(StartEvent::TorFound { version });

    let mut attempts = 0;
    loop {
        attempts += 1;
        match launch_once(options) {
            Err(e @ (StartError::PortsTaken | StartError::TimedOut { .. })) if attempts == ATTEMPTS => return Err(e),
            Err(StartError::PortsTaken | StartError::TimedOut { .. }) => {}
            Err(e) => return Err(e),
            Ok(network) => {
                (options.on_event)(StartEvent::Ready { after: started.elapsed() });
                return Ok(network);
            }
        }
    }
}

fn launch_once(options: &PrivateTorNetworkBuilder) -> Result<PrivateTorNetwork, StartError> {
    let directory = tempfile::Builder::new()
        .prefix("hcp-testnet-")
        .tempdir()
        .map_err(|source| StartError::Storage { path: std::env::temp_dir(), source })?;
    let mut processes = Processes::new(directory)?;
    let root = processes.directory().to_owned();

    let (mut ports, mut reserved) = free_ports(options.address, 2 * AUTHORITIES + options.relays)?;
    let mut next = || SocketAddr::from((options.address, ports.pop().unwrap_or_default()));
    let places: Vec<_> = (0..AUTHORITIES).map(|n| (format!("authority{n}"), next(), next())).collect();
    let relays: Vec<_> = (0..options.relays).map(|n| (format!("relay{n}"), next())).collect();

    let (authorities, relay_identities) = std::thread::scope(|scope| {
        let root = &root;
        let making: Vec<_> = places
            .into_iter()
            .map(|(nickname, or, dir)| scope.spawn(move || make_authority(options, root, nickname, or, dir)))
            .collect();
        let identities: Result<Vec<_>, _> =
            relays.iter().map(|(nickname, or)| make_identities(options, root, nickname, *or)).collect();
        let authorities: Result<Vec<_>, _> =
            making.into_iter().map(|thread| thread.join().unwrap_or(Err(StartError::Cancelled))).collect();
        Ok::<_, StartError>((authorities?, identities?))
    })?;
    let identities = relay_identities.iter().map(|(rsa, _)| rsa).chain(authorities.iter().map(|a| &a.rsa_identity));
    write(&root.join(torrc::BANDWIDTHS), &torrc::bandwidths(since_epoch(), identities.map(String::as_str)))?;
    (options.on_event)(StartEvent::KeysMade);

    std::thread::sleep(until_next_round());
    let interval = match options.time_period {
        None => VotingInterval::best(since_epoch()),
        Some(length) => VotingInterval::of_period(length).ok_or(StartError::TimePeriod { length })?,
    };
    let or_addresses = authorities.iter().map(|own| own.or_address).chain(relays.iter().map(|(_, address)| *address));
    let (links, listen) = delayed(options, &or_addresses.collect::<Vec<_>>(), &mut reserved)?;
    drop(reserved);
    let mut listen = listen.into_iter();
    let tor = PathBuf::from(&options.tor);
    let random = random::state(since_epoch(), interval);
    for own in &authorities {
        let folder = root.join(&own.nickname);
        write(&folder.join("data").join(random::FILE), &random)?;
        write(&folder.join("torrc"), &torrc::authority(&folder, &authorities, interval, own, listen.next()))?;
        processes.spawn_tor(&tor, &folder)?;
    }
    for (nickname, address) in relays {
        let folder = root.join(&nickname);
        let text = torrc::relay(&folder, &authorities, interval, &nickname, address, listen.next());
        write(&folder.join("torrc"), &text)?;
        processes.spawn_tor(&tor, &folder)?;
    }
    (options.on_event)(StartEvent::Running { processes: processes.count() });

    await_consensus(options, &mut processes, &authorities)?;
    let description = PrivateTorDescription { tor, directory: root.clone(), authorities, voting_interval: interval };
    let file = root.join("network.json");
    description.save(&file)?;
    Ok(PrivateTorNetwork { description, file, _processes: Some(processes), _links: links })
}

/// Takes over the listeners of the relays' addresses, if bytes are to take that long to them; returns where the relays
/// themselves are to listen.
fn delayed(
    options: &PrivateTorNetworkBuilder,
    addresses: &[SocketAddr],
    reserved: &mut Vec<TcpListener>,
) -> Result<(Option<DelayedLinks>, Vec<u16>), StartError> {
    if options.link_delay.is_zero() {
        return Ok((None, Vec::new()));
    }
    let (ports, own) = free_ports(options.address, addresses.len())?;
    let (begins, rest) = std::mem::take(reserved)
        .into_iter()
        .partition::<Vec<_>, _>(|listener| listener.local_addr().is_ok_and(|address| addresses.contains(&address)));
    *reserved = rest;
    let begin = |address: &SocketAddr| begins.iter().find(|begin| begin.local_addr().is_ok_and(|a| a == *address));
    let links = addresses
        .iter()
        .zip(&ports)
        .map(|(address, port)| Some((begin(address)?.try_clone().ok()?, (options.address, *port).into())))
        .collect::<Option<Vec<_>>>()
        .ok_or(StartError::PortsTaken)?;
    let links = DelayedLinks::serve(links, options.link_delay)
        .map_err(|e| StartError::Failed { program: "a delayed link".into(), problem: e.to_string() })?;
    drop(own);
    Ok((Some(links), ports))
}

/// Asks `tor` for its version, and refuses one below [`OLDEST`].
fn check_version(tor: &OsStr) -> Result<String, StartError> {
    let text = run(tor, &["--version".as_ref()], "")?;
    let line = text.lines().next().unwrap_or_default();
    let version =
        line.strip_prefix("Tor version ").map(|v| v.split([' ', '(']).next().unwrap_or(v).trim_end_matches('.'));
    let numbers = version.and_then(|v| {
        let mut parts = v.split(['.', '-']).map(|part| part.parse::<u16>().ok());
        Some([parts.next()??, parts.next()??, parts.next()??])
    });
    match (version, numbers) {
        (Some(version), Some(numbers)) if numbers >= OLDEST => Ok(version.to_owned()),
        _ => Err(StartError::TorTooOld {
            program: tor.to_string_lossy().into_owned(),
            found: version.map_or_else(|| "not Tor".to_owned(), |v| format!("version {v}")),
        }),
    }
}

/// Makes the keys of an authority and learns its identities.
fn make_authority(
    options: &PrivateTorNetworkBuilder,
    root: &Path,
    nickname: String,
    or_address: SocketAddr,
    directory_address: SocketAddr,
) -> Result<Authority, StartError> {
    let data = root.join(&nickname).join("data");
    let keys = data.join("keys");
    create(&keys)?;

    let (identity, signing, certificate) =
        (keys.join("authority_identity_key"), keys.join("authority_signing_key"), keys.join("authority_certificate"));
    let address = directory_address.to_string();
    run(
        &options.tor_gencert,
        &[
            "--create-identity-key".as_ref(),
            "-i".as_ref(),
            identity.as_os_str(),
            "-s".as_ref(),
            signing.as_os_str(),
            "-c".as_ref(),
            certificate.as_os_str(),
            "-m".as_ref(),
            "12".as_ref(),
            "-a".as_ref(),
            address.as_ref(),
            "--passphrase-fd".as_ref(),
            "0".as_ref(),
        ],
        "\n",
    )?;

    let v3_identity = field(&certificate, "fingerprint ")?;
    let (rsa_identity, ed25519_identity) = make_identities(options, root, &nickname, or_address)?;
    Ok(Authority { nickname, v3_identity, rsa_identity, ed25519_identity, or_address, directory_address })
}

/// Makes the keys of a relay and returns its RSA and ed25519 identities.
fn make_identities(
    options: &PrivateTorNetworkBuilder,
    root: &Path,
    nickname: &str,
    or_address: SocketAddr,
) -> Result<(String, String), StartError> {
    let data = root.join(nickname).join("data");
    create(&data)?;
    let or_port = or_address.to_string();
    run(
        &options.tor,
        &[
            "--defaults-torrc".as_ref(),
            "/nonexistent".as_ref(),
            "--ignore-missing-torrc".as_ref(),
            "-f".as_ref(),
            "/nonexistent".as_ref(),
            "--quiet".as_ref(),
            "--DataDirectory".as_ref(),
            data.as_os_str(),
            "--Nickname".as_ref(),
            nickname.as_ref(),
            "--ORPort".as_ref(),
            or_port.as_ref(),
            "--SocksPort".as_ref(),
            "0".as_ref(),
            "--list-fingerprint".as_ref(),
        ],
        "",
    )?;

    let prefix = format!("{nickname} ");
    Ok((field(&data.join("fingerprint"), &prefix)?, field(&data.join("fingerprint-ed25519"), &prefix)?))
}

/// How long until the next round of votes begins.
///
/// A relay takes six seconds to publish its descriptor. Started at the beginning of a round it is in the first
/// consensus; left out of that, it would have to wait for minutes.
fn until_next_round() -> Duration {
    let round = Duration::from_secs(torrc::FIRST_VOTING_INTERVAL);
    round.saturating_sub(Duration::from_nanos((since_epoch().as_nanos() % round.as_nanos()) as u64))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Waits until every authority serves a consensus that lists every relay as running and as a directory.
fn await_consensus(
    options: &PrivateTorNetworkBuilder,
    processes: &mut Processes,
    authorities: &[Authority],
) -> Result<(), StartError> {
    let started = Instant::now();
    let expected = AUTHORITIES + options.relays;
    let mut told = None;
    let mut first = None;
    while started.elapsed() < CONSENSUS_DEADLINE {
        if !processes.all_run() {
            return Err(exit_reason(options, processes.directory()));
        }
        let listed = authorities.iter().map(|a| usable_relays(a.directory_address)).min().unwrap_or(0);
        if told != Some(listed) {
            told = Some(listed);
            (options.on_event)(StartEvent::Consensus { listed, expected });
        }
        if listed == expected {
            return Ok(());
        }
        if listed > 0 && first.get_or_insert_with(Instant::now).elapsed() > STRAGGLERS {
            break;
        }
        std::thread::sleep(4 * POLL_INTERVAL);
    }
    let state = format!("the consensus lists {} of {expected} relays", told.unwrap_or(0));
    Err(StartError::TimedOut { deadline: started.elapsed(), state })
}

/// How many relays in the consensus of the authority at `address` a client can use for everything it needs.
fn usable_relays(address: SocketAddr) -> usize {
    let fetch = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /tor/status-vote/current/consensus-microdesc HTTP/1.0\r\n\r\n")?;
        let mut text = Vec::new();
        stream.take(MAX_CONSENSUS).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = fetch().unwrap_or_default();
    let has = |line: &str, flag: &str| line.split(' ').any(|word| word == flag);
    text.lines().filter(|l| l.starts_with("s ") && ["Running", "HSDir", "Guard"].into_iter().all(|f| has(l, f))).count()
}

/// Why a process of the network ended, from the logs.
fn exit_reason(options: &PrivateTorNetworkBuilder, root: &Path) -> StartError {
    let names =
        (0..AUTHORITIES).map(|n| format!("authority{n}")).chain((0..options.relays).map(|n| format!("relay{n}")));
    let mut problem = "ended without a word".to_owned();
    for log in names.map(|name| root.join(name).join("log")) {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("Address already in use") {
            return StartError::PortsTaken;
        }
        if let Some(line) = text.lines().rfind(|line| line.contains("[err]")) {
            problem = line.to_owned();
        }
    }
    StartError::Failed { program: options.tor.to_string_lossy().into_owned(), problem }
}

/// Runs a program to its end and returns what it printed.
fn run(program: &OsStr, arguments: &[&OsStr], input: &str) -> Result<String, StartError> {
    let name = || program.to_string_lossy().into_owned();
    let failed = |problem: String| StartError::Failed { program: name(), problem };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => StartError::TorMissing { program: name() },
            _ => failed(e.to_string()),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let text = String::from_utf8_lossy(text);
        return Err(failed(text.lines().last().unwrap_or("no message").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds free ports, and keeps them until the listeners are dropped.
fn free_ports(address: Ipv4Addr, count: usize) -> Result<(Vec<u16>, Vec<TcpListener>), StartError> {
    let reserved: Vec<_> = std::iter::repeat_with(|| TcpListener::bind((address, 0)))
        .take(count)
        .collect::<Result<_, _>>()
        .map_err(|_| StartError::PortsTaken)?;
    let ports = reserved.iter().filter_map(|listener| listener.local_addr().ok()).map(|a| a.port()).collect();
    Ok((ports, reserved))
}

/// The rest of the first line of a file that begins with `prefix`.
fn field(path: &Path, prefix: &str) -> Result<String, StartError> {
    let text = std::fs::read_to_string(path).map_err(|source| StartError::Storage { path: path.to_owned(), source })?;
    text.lines().find_map(|line| line.strip_prefix(prefix)).map(|rest| rest.trim().to_owned()).ok_or_else(|| {
        StartError::Failed { program: "tor".into(), problem: format!("{} lacks its identity", path.display()) }
    })
}

pub(super) fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("no log").to_owned()
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), StartError> {
    std::fs::write(path, text).map_err(|source| StartError::Storage { path: path.to_owned(), source })
}

/// Tor insists that nobody else can read its directories.
pub(super) fn create(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::Storage { path: path.to_owned(), source })
}

const AUTHORITIES: usize = 3;
pub(super) const RELAYS: usize = 5;

/// The oldest release that votes, and speaks congestion control, like those on the public network.
const OLDEST: [u16; 3] = [0, 4, 8];

/// Somebody else may take a port between its reservation and its use, or the machine be too busy for a relay to be in
/// time for the first consensus; thrice in a row is no accident.
const ATTEMPTS: usize = 3;

/// The first consensus comes after 15 s; when the authorities miss their round, after 30 s.
const CONSENSUS_DEADLINE: Duration = Duration::from_secs(40);

/// The authorities publish a consensus within a second of each other; who is not in it by then is not.
const STRAGGLERS: Duration = Duration::from_secs(4);

/// A consensus of eight relays has a few kilobytes.
const MAX_CONSENSUS: u64 = 1 << 20;

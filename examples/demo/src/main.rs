//! `hcp-demo run` shows a service on many nodes end to end; `hcp-demo failover` measures it; `hcp-demo faults` sees what clients
//! see while things go wrong with its nodes, and `hcp-demo soak` for how long; `hcp-demo bench-failover` compares it with others;
//! `hcp-demo chat` shows two people who talk without any server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use hcp_demo::bench_failover::{self, Programs, Way};
use hcp_demo::faults::{self, Case, Protocol, Rules, namespaces, soak};
use tokio::signal::unix::{SignalKind, signal};

/// What HCP does, on a private Tor network on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The program that the nodes run; by default the `hcp-irc` beside this program.
    #[arg(long, global = true)]
    irc: Option<PathBuf>,
    /// The program that two people run; by default the `hcp-chat` beside this program.
    #[arg(long, global = true)]
    chat: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows three nodes, two people and a death, then stays up for your own IRC client (unless DEMO_EXIT=1).
    Run,
    /// Kills nodes under load, again and again, and measures how long a fresh client waits until it is served.
    Failover {
        /// How many nodes to kill, one after the other.
        #[arg(long, default_value_t = 20)]
        kills: usize,
    },
    /// Connects with stock clients and our own while things go wrong with the nodes, and checks what they see.
    Faults(Faults),
    /// Lets something go wrong every 20 s, while HCP's own dialler connects all the time.
    Soak {
        /// How long, in minutes.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// What HCP's own client speaks with the service.
        #[arg(long, value_enum, default_value_t = Protocol::Session)]
        hcp: Protocol,
        /// How many seconds nodes may take to be healthy.
        #[arg(long, default_value_t = 60)]
        patience: u64,
        /// A folder for soak.json.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Measures how soon clients are served after a node fails, here and by what others do.
    BenchFailover {
        /// How often each fault strikes.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Clients of each kind, each time.
        #[arg(long, default_value_t = 5)]
        clients: usize,
        /// How many seconds a client tries.
        #[arg(long, default_value_t = 90)]
        cap: u64,
        /// Only these.
        #[arg(long, value_enum, value_delimiter = ',')]
        ways: Vec<Way>,
        /// Onionbalance's start script.
        #[arg(long)]
        onionbalance: Option<PathBuf>,
        /// A folder for failover.md, failover.json and failover.svg.
        #[arg(long)]
        out: PathBuf,
    },
    /// Serves an address whose key others have too, until standard input ends; for bench-failover.
    #[command(hide = true)]
    SameKey {
        /// The folder with the key, as C tor writes it.
        #[arg(long)]
        key: PathBuf,
        /// The description of a private Tor network.
        #[arg(long)]
        private_tor: PathBuf,
    },
    /// Shows two people who meet, talk, queue while one is away, and send a file through a kill.
    Chat,
}

/// The fault suite.
#[derive(Debug, clap::Args)]
struct Faults {
    /// Connects of each kind of client in each case.
    #[arg(long, default_value_t = 100)]
    connects: usize,
    /// Services of how many nodes.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 5])]
    nodes: Vec<usize>,
    /// Only these cases.
    #[arg(long, value_enum, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Check success and the worst time only.
    #[arg(long)]
    worst: bool,
    /// What HCP's own client speaks with the service.
    #[arg(long, value_enum, default_value_t = Protocol::Session)]
    hcp: Protocol,
    /// How many seconds nodes may take to be healthy. Arti that was cut off for half a minute tries its guards again after
    /// two and a half.
    #[arg(long, default_value_t = 240)]
    patience: u64,
    /// A folder for faults.md and faults.json.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Faults {
    fn options(self) -> faults::Options {
        faults::Options {
            connects: self.connects,
            nodes: self.nodes,
            cases: if self.cases.is_empty() { Case::ALL.to_vec() } else { self.cases },
            rules: if self.worst { Rules::Worst } else { Rules::All },
            protocol: self.hcp,
            patience: Duration::from_secs(self.patience),
            out: self.out,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let end = async {
        let (named, usual) = match arguments.command {
            Command::Chat => (arguments.chat, "hcp-chat"),
            _ => (arguments.irc, "hcp-irc"),
        };
        let program = match named {
            Some(program) => program,
            None => std::env::current_exe()?.with_file_name(usual),
        };
        if !program.is_file() {
            return Err(format!("{} is missing: run `cargo build --workspace` first", program.display()).into());
        }
        match arguments.command {
            Command::Run => {
                let stay = std::env::var_os("DEMO_EXIT").is_none_or(|value| value != "1");
                hcp_demo::run::run(&program, stay).await
            }
            Command::Failover { kills } => hcp_demo::failover::run(&program, kills).await,
            Command::Chat => hcp_demo::chat::demo::run(&program).await,
            Command::Faults(options) => {
                let options = options.options();
                if options.cases.iter().any(|case| case.needs_namespaces()) {
                    namespaces::enter()?;
                }
                faults::run(&program, &options).await
            }
            Command::Soak { minutes, hcp, patience, out } => {
                namespaces::enter()?;
                let (lasts, patience) = (Duration::from_secs(60 * minutes), Duration::from_secs(patience));
                soak::run(&program, &soak::Options { lasts, protocol: hcp, patience, out }).await
            }
            Command::BenchFailover { rounds, clients, cap, ways, onionbalance, out } => {
                let programs = Programs { irc: program, onionbalance };
                let ways = if ways.is_empty() { Way::value_variants().to_vec() } else { ways };
                let cap = Duration::from_secs(cap);
                bench_failover::run(&bench_failover::Options { programs, ways, rounds, clients, cap, out }).await
            }
            Command::SameKey { key, private_tor } => bench_failover::serve_same_key(&key, &private_tor).await,
        }
    };
    // The flow owns its nodes, and the folder with their keys for longer; dropping it ends the ones and removes the other.
    let end: hcp_demo::Result<()> = tokio::select! {
        end = end => end,
        told = told_to_end() => told.map_err(Into::into),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            hcp_demo::complain(&format!("hcp-demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal that asks to end: a terminal's Ctrl-C or its closing, or `kill`.
async fn told_to_end() -> std::io::Result<()> {
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        told = tokio::signal::ctrl_c() => told,
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

//! `hcp-demo run` shows a service on many nodes end to end; `hcp-demo failover` measures it; `hcp-demo chat` shows two
//! people who talk without any server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    /// Shows two people who meet, talk, queue while one is away, and send a file through a kill.
    Chat,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let end = async {
        let (named, usual) = match arguments.command {
            Command::Chat => (arguments.chat, "hcp-chat"),
            Command::Run | Command::Failover { .. } => (arguments.irc, "hcp-irc"),
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

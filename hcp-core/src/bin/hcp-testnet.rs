//! Runs a command beside a private Tor network: `hcp-testnet -- COMMAND ARGUMENT…`.
//!
//! The command finds the network through the environment variable `HCP_TESTNET`; its exit code is forwarded, and the
//! network ends with it. When the variable is set already, the command gets the network that it describes.

#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use hcp_core::testing::{PrivateTorNetwork, StartError, TESTNET_VARIABLE};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    let Some((program, arguments)) = arguments.split_first() else {
        eprintln!("usage: hcp-testnet -- COMMAND ARGUMENT…");
        return ExitCode::from(2);
    };
    match run(program, arguments).await {
        Ok(code) => code,
        Err(e) => {
            eprintln!("hcp-testnet: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(program: &OsString, arguments: &[OsString]) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let network = tokio::select! {
        network = network() => network?,
        // Leaving at once is enough: what was started ends with this process.
        _ = interrupt.recv() => std::process::exit(130),
        _ = terminate.recv() => std::process::exit(143),
        _ = hang_up.recv() => std::process::exit(129),
    };

    let mut child = Command::new(program)
        .args(arguments)
        .env(TESTNET_VARIABLE, network.description_file())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("`{}` cannot be run: {e}", program.to_string_lossy()))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = interrupt.recv() => end(&mut child, "INT").await?,
        _ = terminate.recv() => end(&mut child, "TERM").await?,
        _ = hang_up.recv() => end(&mut child, "HUP").await?,
    };
    Ok(exit_code(status))
}

async fn network() -> Result<PrivateTorNetwork, StartError> {
    if let Some(file) = std::env::var_os(TESTNET_VARIABLE) {
        return Ok(PrivateTorNetwork::attach(file)?);
    }
    PrivateTorNetwork::builder().on_event(|event| eprintln!("hcp-testnet: {event}")).start().await
}

/// Ends the command the way this program was told to end.
///
/// A terminal has told the command already, so it has a moment before it is told once more, and then is killed.
async fn end(child: &mut Child, signal: &str) -> std::io::Result<ExitStatus> {
    if let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await {
        return status;
    }
    if let Some(id) = child.id() {
        Command::new("kill").args(["-s", signal, &id.to_string()]).status().await?;
    }
    if let Ok(status) = tokio::time::timeout(5 * GRACE, child.wait()).await {
        return status;
    }
    child.kill().await?;
    child.wait().await
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// How long the command may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

//! Talk and send files from person to person over Tor, without a server.
//!
//! Everything a user can ask for is a `Request` (in `request`). A running daemon takes requests as lines of JSON, on standard
//! input and on a Unix socket (`daemon`). A one-shot command is one request (`once`): it goes to the daemon when there is
//! one, and otherwise to the profile itself, offline. `execute` is the only place that knows what a request does.

mod cli;
mod daemon;
mod execute;
mod failure;
mod home;
mod json;
mod lines;
mod network;
mod once;
mod passphrase;
mod profile;
mod request;
mod show;
mod socket;

use std::io::Write;
use std::process::ExitCode;

pub use cli::Cli;
use cli::{Command, FileCommand};
use failure::Failure;
use tracing_subscriber::EnvFilter;

/// Runs the program. Logs go to standard error when they are asked for, and nowhere otherwise.
pub async fn run(cli: Cli) -> ExitCode {
    match start(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "hcp-chat: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn start(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    if let Some(filter) = &common.log {
        let filter = EnvFilter::try_new(filter).map_err(|error| Failure::of("use the filter of --log", &error))?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    match cli.command {
        Command::Init(command) => profile::init(&common, command).await,
        Command::Passphrase(command) => profile::change_passphrase(&common, &command).await,
        Command::Profiles => profile::list(&common),
        Command::Backup { folder } => {
            let folder = cli::absolute(&folder)?;
            once::run(&common, request::Request::Backup { folder }).await
        }
        Command::Daemon(command) => daemon::daemon(&common, command).await,
        Command::File(file) => once::run(&common, FileCommand::from(file).request()?).await,
        Command::Id => once::run(&common, request::Request::Id {}).await,
        Command::Status => once::run(&common, request::Request::Status {}).await,
        Command::Contact(command) => once::run(&common, command.request()).await,
        Command::Send(command) => once::run(&common, command.request()?).await,
        Command::Cancel { id } => once::run(&common, request::Request::Cancel { message: id }).await,
        Command::History(command) => once::run(&common, command.request()).await,
    }
}

/// Prints to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::of("write to standard output", &error))
}

//! An IRC server that lives at one onion address on many equal nodes.
//!
//! The nodes share one replicated log; everything that clients see of each other is a function of its entries
//! (`world`). [`server::Server`] owns that state and the clients of one node; [`client::connection`] serves a stream.
//! The program around it is `cli`, `config`, `keys` and `serve`.

mod cli;
pub mod client;
mod commands;
mod config;
mod entry;
mod failure;
mod keys;
mod log;
pub mod message;
mod names;
mod owner;
mod private_tor;
mod report;
mod serve;
pub mod server;
mod settings;
mod world;

use std::io::Write;
use std::process::ExitCode;

pub use cli::Cli;
pub use failure::Failure;
pub use log::LogFailure;
use tracing_subscriber::EnvFilter;

/// Runs the program; logs go to standard error, as `RUST_LOG` says.
pub async fn main(cli: Cli) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let ended = match cli.command {
        cli::Command::Init(command) => keys::init(&command),
        cli::Command::ClientKey(command) => keys::client_key(&command),
        cli::Command::Serve(command) => serve::serve(command).await,
        cli::Command::Request(command) => owner::request(&command),
        cli::Command::ImportGrant(command) => owner::import_grant(&command),
        cli::Command::Owner(command) => owner::owner(command).await,
        cli::Command::Warden(command) => owner::warden(command).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "hcp-irc: {failure}");
            ExitCode::FAILURE
        }
    }
}

//! `hcp-irc`, the program.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    hcp_irc::main(hcp_irc::Cli::parse()).await
}

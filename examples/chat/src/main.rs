//! `hcp-chat`, the program.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    hcp_chat::run(hcp_chat::Cli::parse()).await
}

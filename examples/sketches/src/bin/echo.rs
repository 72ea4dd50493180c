//! An echo bot: accepts everybody who asks, and answers every message with itself.
//!
//! `HCP_PASSPHRASE=… sketch-echo FOLDER` opens the profile in `FOLDER`, or makes it, and goes online on Tor. With
//! `local:OTHER` as a second argument it stays on this machine, where whoever names the same folder `OTHER` can reach it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use hcp_core::identity::Passphrase;
use hcp_core::messenger::{ContactState, EventKind, Messenger, Profile, ProfileError};
use hcp_core::network::tor::TorNetwork;
use hcp_core::network::{LocalNetwork, Network};

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await;
    eprintln!("sketch-echo: {error}");
    ExitCode::FAILURE
}

/// Runs until something fails for good.
async fn run() -> Result<Infallible, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: HCP_PASSPHRASE=… sketch-echo FOLDER [local:FOLDER]")?);
    let local = match arguments.next() {
        Some(name) => {
            Some(name.strip_prefix("local:").ok_or("no second argument, for Tor, or local:FOLDER")?.to_owned())
        }
        None => None,
    };
    let passphrase = Passphrase::new(std::env::var("HCP_PASSPHRASE").map_err(|_| "set HCP_PASSPHRASE")?)?;
    let profile = match Profile::open(&folder, &passphrase) {
        Err(ProfileError::NotFound) => Profile::create(&folder, &passphrase, "Echo")?,
        opened => opened?,
    };
    let network: Arc<dyn Network> = match local {
        Some(other) => Arc::new(LocalNetwork::new(other)?),
        None => Arc::new(TorNetwork::builder(folder.join("tor"), folder.join("cache")).bootstrap().await?),
    };

    let bot = Messenger::new(profile);
    let mut events = bot.events(bot.cursor().await?).await?;
    bot.go_online(network).await?;
    println!("{}", bot.address());
    loop {
        if let Err(error) = answer(&bot, events.next().await?.kind).await {
            eprintln!("{error}");
        }
    }
}

/// Fails without harm: a contact may be gone again when the bot comes to answer.
async fn answer(bot: &Messenger, event: EventKind) -> Result<(), Box<dyn Error>> {
    match event {
        EventKind::Contact(contact) if contact.state == ContactState::Pending => bot.accept(contact.address).await?,
        EventKind::MessageReceived(message) => drop(bot.send(message.contact, &message.text).await?),
        _ => {}
    }
    Ok(())
}

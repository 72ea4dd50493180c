//! The owner's work, offline, and what a node does for it: asking, and taking in what it was granted.
//!
//! `folder` is the owner's folder; `setup` makes identity, owner key and manifest; `granting` makes grants and schedules;
//! `exposure` shows, revokes and withdraws; `node` is the node's side; `warden` hands out what was made in advance.

pub(crate) mod args;
mod exposure;
mod folder;
mod granting;
mod node;
mod setup;
mod time;
mod warden;

use hcp_core::identity::OnionAddress;
use hcp_core::identity::manifest::{Manifest, Member};

use self::args::{Owner, OwnerCommand};
pub(crate) use self::folder::write;
pub(crate) use self::node::{SEED, import_grant, open_holdings, request};
pub(crate) use self::time::now;
pub(crate) use self::warden::warden;
use crate::failure::Failure;

/// `hcp-irc owner`.
pub(crate) async fn owner(command: Owner) -> Result<(), Failure> {
    match command.command {
        OwnerCommand::New(command) => setup::new(&command),
        OwnerCommand::Key(command) => setup::key(&command).await,
        OwnerCommand::Manifest(command) => setup::manifest(&command),
        OwnerCommand::Grant(command) => granting::grant(&command).await,
        OwnerCommand::Schedule(command) => granting::schedule(&command).await,
        OwnerCommand::Revoke(command) => exposure::revoke(&command),
        OwnerCommand::Floor(command) => exposure::floor(&command),
        OwnerCommand::Exposure(command) => exposure::exposure(&command),
    }
}

/// How a node is called: by its name in the manifest, or else its address.
fn label(manifest: Option<&Manifest>, node: OnionAddress) -> String {
    let name = manifest.and_then(|manifest| manifest.contents().member(node)).and_then(Member::name);
    name.map_or_else(|| node.to_string(), str::to_owned)
}

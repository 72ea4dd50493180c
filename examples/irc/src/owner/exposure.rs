//! What seized nodes could do and for how long, and what an owner can do about it.

use hcp_core::identity::OnionAddress;
use hcp_core::identity::manifest::Manifest;
use hcp_core::owner::{BookError, Exposure};
use serde::Serialize;

use super::folder::OwnerFolder;
use super::time::{left_if, now};
use super::{args, label};
use crate::failure::Failure;
use crate::keys::{self, print};

/// `hcp-irc owner exposure`.
pub(super) fn exposure(command: &args::Exposure) -> Result<(), Failure> {
    let folder = OwnerFolder::open(&command.folder.dir)?;
    let (book, now) = (folder.book()?, now());
    let manifest = folder.manifest(&book, now).ok().flatten();
    let exposures = book.exposure(now);
    if command.json {
        let mut text = String::new();
        for exposure in &exposures {
            let line = Line::of(manifest.as_ref(), exposure, now);
            let line = serde_json::to_string(&line).map_err(|error| Failure::of("write JSON", &error))?;
            text.push_str(&line);
            text.push('\n');
        }
        return print(&text);
    }
    if exposures.is_empty() {
        return print("No node was granted anything.\n");
    }
    let mut text = format!("Next serial {}, floor {}\n", book.next_serial(), book.floor());
    for exposure in &exposures {
        text.push_str(&describe(manifest.as_ref(), exposure, now));
    }
    print(&text)
}

/// `hcp-irc owner revoke`.
pub(super) fn revoke(command: &args::Revoke) -> Result<(), Failure> {
    let folder = OwnerFolder::open(&command.folder.dir)?;
    let (mut book, now) = (folder.book()?, now());
    let manifest = folder.manifest(&book, now).ok().flatten();
    let node = named(manifest.as_ref(), &command.node)?;
    let exposure = book.revoke(node, now).map_err(|error| Failure::of("revoke", &error))?;
    folder.save_book(&book)?;
    print(&format!("Revoked: it gets no grants any more.\n{}", describe(manifest.as_ref(), &exposure, now)))?;
    let mut steps = vec!["take its [[member]] block out of the cluster file and run `owner manifest`"];
    if exposure.speaks_until.is_some() {
        steps.push("run `owner grant` for the others and import their grants");
        steps.push(
            "run `owner floor`, then `owner grant` once more: who has dialled a renewed node believes this one no more",
        );
    }
    if exposure.publishes_until_with_warden.is_some() {
        steps.push("nothing takes back what it can publish with: that runs out at the time above");
    }
    if exposure.speaks_until_with_warden > exposure.speaks_until {
        steps.push("on the warden, delete this node's folder in the stock");
    }
    keys::hint(&format!("Next: {}.", steps.join("; ")))
}

/// `hcp-irc owner floor`.
pub(super) fn floor(command: &args::Floor) -> Result<(), Failure> {
    let folder = OwnerFolder::open(&command.folder.dir)?;
    let (mut book, now) = (folder.book()?, now());
    let manifest = folder.manifest(&book, now).ok().flatten();
    let floor = book.raise_floor(now).map_err(|error| match error {
        BookError::NotRenewed(node) => {
            let what = format!("raise the floor because of {}", label(manifest.as_ref(), node));
            Failure::of(&what, &error)
        }
        _ => Failure::of("raise the floor", &error),
    })?;
    folder.save_book(&book)?;
    print(&format!("The next grants say that serials below {floor} count no more.\n"))?;
    keys::hint(
        "Next: hcp-irc owner grant, and import the grants on all nodes; it ends nothing before they are imported.",
    )
}

/// The node that the owner means.
fn named(manifest: Option<&Manifest>, text: &str) -> Result<OnionAddress, Failure> {
    let by_name = manifest.and_then(|manifest| {
        manifest.contents().members().iter().find(|member| member.name() == Some(text)).map(|member| member.address())
    });
    match by_name {
        Some(address) => Ok(address),
        None => text.parse().map_err(|_| Failure::new(format!("{text} is no name in the manifest, and no address"))),
    }
}

fn describe(manifest: Option<&Manifest>, exposure: &Exposure, now: u64) -> String {
    let mut text = format!("  {}: if it were seized now it could\n", label(manifest, exposure.node));
    let withdrawn = if exposure.is_withdrawn { " (withdrawn for who dials a renewed node)" } else { "" };
    text.push_str(&format!("    speak for the service {}{withdrawn}\n", left_if(exposure.speaks_until, now)));
    text.push_str(&format!("    publish its descriptor {}\n", left_if(exposure.publishes_until, now)));
    if exposure.speaks_until_with_warden > exposure.speaks_until {
        let (speak, publish) = (exposure.speaks_until_with_warden, exposure.publishes_until_with_warden);
        let (speak, publish) = (left_if(speak, now), left_if(publish, now));
        text.push_str(&format!("    with the warden seized too: speak {speak}; publish {publish}\n"));
    }
    if exposure.is_revoked {
        text.push_str("    it is revoked\n");
    }
    text
}

/// One line of JSON; hours are rounded up.
#[derive(Serialize)]
struct Line {
    node: String,
    serial: u64,
    revoked: bool,
    withdrawn: bool,
    speaks_until: Option<u64>,
    speaks_hours: u64,
    publishes_until: Option<u64>,
    publishes_hours: u64,
    with_warden_speaks_until: Option<u64>,
    with_warden_publishes_until: Option<u64>,
}

impl Line {
    fn of(manifest: Option<&Manifest>, exposure: &Exposure, now: u64) -> Self {
        let hours = |until: Option<u64>| until.map_or(0, |until| until.saturating_sub(now).div_ceil(3600));
        Self {
            node: label(manifest, exposure.node),
            serial: exposure.serial,
            revoked: exposure.is_revoked,
            withdrawn: exposure.is_withdrawn,
            speaks_until: exposure.speaks_until,
            speaks_hours: hours(exposure.speaks_until),
            publishes_until: exposure.publishes_until,
            publishes_hours: hours(exposure.publishes_until),
            with_warden_speaks_until: exposure.speaks_until_with_warden,
            with_warden_publishes_until: exposure.publishes_until_with_warden,
        }
    }
}

//! Grants and schedules from nodes' requests.

use std::path::{Path, PathBuf};

use hcp_core::identity::delegation::{OwnerCertificate, OwnerKey};
use hcp_core::identity::keyfile::Protection;
use hcp_core::identity::manifest::Manifest;
use hcp_core::identity::{OnionAddress, RevisionSeed};
use hcp_core::owner::{Book, Horizon, IdentitySigner, MakeError, Owner, Request, Stock};

use super::folder::{self, OwnerFolder, read_request};
use super::time::{date, left_if, now};
use super::{args, label};
use crate::failure::Failure;
use crate::keys::{self, print};

/// `hcp-irc owner grant`.
pub(super) async fn grant(command: &args::Grant) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let mut desk = Desk::open(&command.folder.dir, &protection, &command.requests)?;
    let now = now();
    let horizon = Horizon::new(now, command.hours, command.rounds).map_err(|error| Failure::of("grant", &error))?;
    keys::make_private_folder(&command.out)?;
    let mut book = desk.book.clone();
    let grants = desk.owner().grant(&mut book, &desk.requests, horizon).await;
    let grants = grants.map_err(|error| desk.failure(&error))?;
    // Before a grant leaves: a crash must lose numbers, not give one twice.
    desk.keep(book)?;
    for grant in &grants {
        let path = command.out.join(format!("{}.grant", label(Some(&desk.manifest), grant.node())));
        folder::write(&path, &grant.to_bytes())?;
    }
    let mut text = format!("{} grants in {}, for {}\n", grants.len(), command.out.display(), span(horizon));
    text.push_str(&desk.exposures(now));
    print(&text)?;
    keys::hint(
        "Next: bring each node its file by any way you like, and there: hcp-irc import-grant --home HOME FILE. \
         A running node takes it in by itself.",
    )
}

/// `hcp-irc owner schedule`.
pub(super) async fn schedule(command: &args::Schedule) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let mut desk = Desk::open(&command.folder.dir, &protection, &command.requests)?;
    let now = now();
    let horizon = Horizon::new(now, command.hours, command.rounds);
    let horizon = horizon.map_err(|error| Failure::of("make a schedule", &error))?;
    keys::make_private_folder(&command.out)?;
    let mut book = desk.book.clone();
    let owner = desk.owner();
    let steps = owner.schedule(&mut book, &desk.requests, horizon).await.map_err(|error| desk.failure(&error))?;
    desk.folder.save_book(&book)?;
    let (stock, mut count) = (Stock::new(&command.out), 0);
    for step in steps {
        let step = step.map_err(|error| desk.failure(&error))?;
        let name = label(Some(&desk.manifest), step.grant.node());
        let stored = stock.store(&name, &step);
        stored.map_err(|error| Failure::file("write to", &command.out, &error))?;
        count += 1;
    }
    desk.keep(book)?;
    let mut text = format!("{count} grants in {}, for {}\n", command.out.display(), span(horizon));
    text.push_str(&desk.exposures(now));
    print(&text)?;
    keys::hint(&format!(
        "Next: give {} to the machine that hands them out, and there: hcp-irc warden --stock DIR --home DIR --listen, or --out DIR. \
         Without a node's own keys nothing in it can be used.",
        command.out.display()
    ))
}

/// All that grants are made of.
struct Desk {
    folder: OwnerFolder,
    book: Book,
    manifest: Manifest,
    certificate: OwnerCertificate,
    key: OwnerKey,
    revisions: RevisionSeed,
    signer: IdentitySigner,
    requests: Vec<Request>,
}

impl Desk {
    fn open(path: &Path, protection: &Protection, requests: &[PathBuf]) -> Result<Self, Failure> {
        let folder = OwnerFolder::open(path)?;
        let book = folder.book()?;
        let manifest = folder.manifest(&book, now())?;
        let manifest =
            manifest.ok_or_else(|| Failure::new("there is no manifest yet: run `hcp-irc owner manifest`"))?;
        let mut given = Vec::new();
        for path in requests {
            given.push(read_request(book.service(), path)?);
        }
        if given.is_empty() {
            for member in manifest.contents().members() {
                if !book.is_revoked(member.address()) {
                    given.extend(folder.request(book.service(), member.address())?);
                }
            }
        }
        if given.is_empty() {
            return Err(Failure::new(
                "there are no requests yet: on each node run `hcp-irc request`, and name the files",
            ));
        }
        Ok(Self {
            certificate: folder.certificate()?,
            key: folder.owner_key(protection)?,
            revisions: folder.revisions(protection)?,
            signer: IdentitySigner::new(folder.identity(protection)?),
            requests: given,
            folder,
            book,
            manifest,
        })
    }

    fn owner(&self) -> Owner<'_> {
        let Self { signer, key, certificate, revisions, manifest, .. } = self;
        Owner { signer, key, certificate, revisions, manifest }
    }

    fn keep(&mut self, book: Book) -> Result<(), Failure> {
        self.folder.save_book(&book)?;
        self.book = book;
        self.requests.iter().try_for_each(|request| self.folder.keep_request(request))
    }

    fn failure(&self, error: &MakeError) -> Failure {
        match error.node() {
            Some(node) => Failure::of(&format!("grant {}", label(Some(&self.manifest), node)), error),
            None => Failure::of("grant", error),
        }
    }

    /// What a seizure of each node that was granted something would give.
    fn exposures(&self, now: u64) -> String {
        let granted: Vec<OnionAddress> = self.requests.iter().map(Request::node).collect();
        let of = self.book.exposure(now).into_iter().filter(|exposure| granted.contains(&exposure.node));
        let line = |exposure: hcp_core::owner::Exposure| {
            format!(
                "  {}: if it were seized now it could speak {}; publish {}\n",
                label(Some(&self.manifest), exposure.node),
                left_if(exposure.speaks_until, now),
                left_if(exposure.publishes_until, now)
            )
        };
        of.map(line).collect()
    }
}

fn span(horizon: Horizon) -> String {
    format!("{} to {}", date(horizon.begins()), date(horizon.ends()))
}

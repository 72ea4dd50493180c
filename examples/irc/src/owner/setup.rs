//! What an owner does once: identity, owner key, manifest.

use hcp_core::identity::delegation::{OwnerKey, Validity};
use hcp_core::identity::manifest::{Contents, Manifest, Member, Role};
use hcp_core::identity::{Identity, RevisionSeed, ctor};
use hcp_core::owner::{Book, IdentitySigner, certify};

use super::folder::{self, BOOK, CERTIFICATE, IDENTITY, MANIFEST, OWNER_KEY, OwnerFolder, REVISIONS};
use super::time::{date, now};
use super::{args, label};
use crate::config::Cluster;
use crate::failure::Failure;
use crate::keys::{self, print};

/// `hcp-irc owner new`.
pub(super) fn new(command: &args::New) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let clock = command.periods.clock().map_err(|error| Failure::of("use this length of time periods", &error))?;
    let folder = OwnerFolder::open(&command.folder.dir)?;
    // All or none: half a service would be refused by everything that follows.
    for name in [IDENTITY, REVISIONS, BOOK] {
        let path = folder.file(name);
        if path.exists() {
            return Err(Failure::new(format!(
                "{} exists already: this folder has its service; use another --dir for another one",
                path.display()
            )));
        }
    }
    let identity = match &command.import {
        Some(path) => ctor::import(path).map_err(|error| Failure::file("import", path, &error))?,
        None => Identity::generate(),
    };
    keys::save(&folder.file(REVISIONS), &RevisionSeed::generate(), &protection)?;
    folder.save_book(&Book::new(identity.address(), clock))?;
    keys::save(&folder.file(IDENTITY), &identity, &protection)?;
    print(&format!("{}\n", identity.address()))?;
    keys::hint(&format!(
        "Keep {} offline and backed up: no node gets what is in it. Next: hcp-irc owner key --dir {}",
        command.folder.dir.display(),
        command.folder.dir.display()
    ))
}

/// `hcp-irc owner key`.
pub(super) async fn key(command: &args::Key) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let folder = OwnerFolder::open(&command.folder.dir)?;
    let identity = folder.identity(&protection)?;
    let path = folder.file(OWNER_KEY);
    if command.replace && path.exists() {
        let kept = folder.file(&format!("{OWNER_KEY}.replaced-{}", now()));
        std::fs::rename(&path, &kept).map_err(|error| Failure::file("put away", &path, &error))?;
    }
    let key = if path.exists() {
        folder.owner_key(&protection)?
    } else {
        let key = OwnerKey::generate();
        keys::save(&path, &key, &protection)?;
        key
    };
    // Whole days: a time to the second would show when the owner was at work.
    let today = now() / DAY * DAY;
    let ends = today + (u64::from(command.days) + 1) * DAY - 1;
    let validity = Validity::new(today, ends).map_err(|error| Failure::of("certify the owner key", &error))?;
    let certificate = certify(&IdentitySigner::new(identity), key.public_key(), validity).await;
    let certificate = certificate.map_err(|error| Failure::of("certify the owner key", &error))?;
    folder::write(&folder.file(CERTIFICATE), &certificate.to_bytes())?;
    print(&format!("The owner key is certified until {}.\n", date(ends)))?;
    keys::hint(&format!(
        "Next: hcp-irc owner manifest --dir {} CLUSTER_FILE, then grants: both carry the new certificate to the nodes.",
        command.folder.dir.display()
    ))
}

/// `hcp-irc owner manifest`.
pub(super) fn manifest(command: &args::Manifest) -> Result<(), Failure> {
    let protection = keys::protection(&command.keys)?;
    let folder = OwnerFolder::open(&command.folder.dir)?;
    let (book, key) = (folder.book()?, folder.owner_key(&protection)?);
    let cluster = Cluster::load(&command.file)?;
    let refuse = |what: &str| Failure::new(format!("cluster file {}: {what}", command.file.display()));
    let mut members = Vec::new();
    for (place, (member, role)) in cluster.members.iter().zip(&cluster.roles).enumerate() {
        let publishes = if role.publishes { Role::Publisher } else { Role::Listed };
        let made = Member::new(member.address, member.node.0, publishes).and_then(|member| match &role.name {
            Some(name) => member.named(name),
            None => Ok(member),
        });
        let made = made.map_err(|error| refuse(&format!("[[member]] number {}: {error}", place + 1)))?;
        members.push(match role.discovery_key {
            Some(key) => made.with_discovery_key(key),
            None => made,
        });
    }
    // A manifest that the certificate does not fit any more still counts for the version.
    let version = last_version(&folder, &book).saturating_add(1);
    let shared = cluster.settings.to_shared().map_err(|error| refuse(&error))?;
    let contents = Contents::new(version, members).and_then(|contents| contents.shared(shared));
    let contents = contents.and_then(|contents| match &cluster.clients[..] {
        [] => Ok(contents),
        clients => contents.restricted_to(clients.iter().copied()),
    });
    let mut contents = contents.map_err(|error| refuse(&error.to_string()))?;
    if let Some(lowest) = cluster.lowest_software {
        contents = contents.lowest_software(lowest);
    }
    let manifest = Manifest::sign(&key, book.service(), contents).map_err(|error| refuse(&error.to_string()))?;
    let certificate = folder.certificate()?;
    Manifest::verify(book.service(), &certificate, &manifest.to_bytes(), now())
        .map_err(|error| Failure::of("sign a manifest that nodes would take (`owner key` first?)", &error))?;
    folder::write(&folder.file(MANIFEST), &manifest.to_bytes())?;
    let mut text = format!("Manifest {version} of {}\n", book.service());
    for member in manifest.contents().members() {
        let what = if member.is_publisher() { "publishes" } else { "is listed" };
        let revoked = if book.is_revoked(member.address()) { ", but is REVOKED: take it out of the file" } else { "" };
        text.push_str(&format!("  {} {what}{revoked}\n", label(Some(&manifest), member.address())));
    }
    text.push_str(&match manifest.contents().clients().len() {
        0 => "  Everybody who knows the address finds it\n".to_owned(),
        clients => format!("  Only {clients} clients and the members find it\n"),
    });
    print(&text)?;
    keys::hint(
        "Next: each node runs hcp-irc request; then hcp-irc owner grant, which carries the manifest to the nodes.",
    )
}

/// The version of the manifest that was signed last, whoever's key that was; 0 when there is none.
fn last_version(folder: &OwnerFolder, book: &Book) -> u64 {
    if let Ok(Some(manifest)) = folder.manifest(book, now()) {
        return manifest.contents().version();
    }
    // The version stands behind the layout.
    let bytes = std::fs::read(folder.file(MANIFEST)).unwrap_or_default();
    bytes.get(1..9).and_then(|version| version.try_into().ok()).map_or(0, u64::from_be_bytes)
}

const DAY: u64 = 86_400;

//! The keys of a node: making them, opening them.

use std::io::Write;
use std::path::Path;

use data_encoding::HEXLOWER;
use hcp_core::identity::keyfile::{KeyFile, Protection, StoredKey};
use hcp_core::identity::{DiscoveryKey, Identity, LogKey, Passphrase, ReplicaSeed};
use zeroize::Zeroizing;

use crate::cli::{ClientKey, Init, KeyProtection};
use crate::failure::Failure;
use crate::owner;

/// The file of a node's address key in its home.
pub(crate) const NODE_KEY: &str = "node.key";
/// The file of a node's log key in its home.
pub(crate) const LOG_KEY: &str = "log.key";

/// `hcp-irc init`.
pub(crate) fn init(command: &Init) -> Result<(), Failure> {
    let home = &command.home;
    make_private_folder(home)?;
    let protection = protection(&command.keys)?;
    let (node, log, seed) = (Identity::generate(), LogKey::generate(), ReplicaSeed::generate());
    let (node_path, log_path, seed_path) = (home.join(NODE_KEY), home.join(LOG_KEY), home.join(owner::SEED));
    // All or none: a home with some would be refused by the next `init` and by `serve`.
    if let Some(path) = [&node_path, &log_path, &seed_path].into_iter().find(|path| path.exists()) {
        return Err(Failure::new(format!(
            "{} exists already: this home has its keys; use another --home for another node",
            path.display()
        )));
    }
    save(&node_path, &node, &protection)?;
    save(&log_path, &log, &protection)?;
    save(&seed_path, &seed, &protection)?;
    let (address, key) = (node.address(), HEXLOWER.encode(&log.public_key()));
    let discovery = seed.discovery_key().public_key();
    print(&format!("[[member]]\naddress = \"{address}\"\nlog_key = \"{key}\"\ndiscovery_key = \"{discovery}\"\n"))
}

/// `hcp-irc client-key`.
pub(crate) fn client_key(command: &ClientKey) -> Result<(), Failure> {
    if command.out.exists() {
        return Err(Failure::new(format!("{} exists already: use another --out", command.out.display())));
    }
    let key = DiscoveryKey::generate();
    owner::write(&command.out, key.c_tor_line(command.service).as_bytes())?;
    print(&format!("{}\n", key.public_key()))?;
    hint(&format!(
        "Next: the owner adds the line above to `clients` in the cluster file, signs a manifest and makes grants. The client puts \
         {} into the ClientOnionAuthDir of its tor under a name that ends in .auth_private; Tor Browser asks for the last part \
         of what is in it.",
        command.out.display()
    ))
}

/// Reads a key.
pub(crate) fn load<K: StoredKey>(path: &Path, what: &str, protection: &Protection) -> Result<K, Failure> {
    KeyFile::new(path).load(protection).map_err(|error| Failure::file(&format!("open the {what}"), path, &error))
}

/// What the command line says about the protection of keys.
pub(crate) fn protection(keys: &KeyProtection) -> Result<Protection, Failure> {
    let Some(path) = &keys.passphrase_file else { return Ok(Protection::Plain) };
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| Failure::file("read the passphrase file", path, &error))?;
    let line = text.lines().next().unwrap_or("");
    let passphrase = Passphrase::new(line)
        .map_err(|error| Failure::file("use the first line of the passphrase file", path, &error))?;
    Ok(Protection::Passphrase(passphrase))
}

/// Writes a key to a new file.
pub(crate) fn save<K: StoredKey>(path: &Path, key: &K, protection: &Protection) -> Result<(), Failure> {
    KeyFile::new(path).save(key, protection).map_err(|error| Failure::file("write the key file", path, &error))
}

/// Makes a folder that only its owner can enter, unless it is there.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| Failure::file("make the folder", path, &error))
}

/// Prints what the command was asked for.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::of("write to standard output", &error))
}

/// Says what to do next, beside the output, so that the output is of use to scripts.
pub(crate) fn hint(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stderr(), "{text}").map_err(|error| Failure::of("write to standard error", &error))
}

//! Where passphrases come from: the first line of a file, or the terminal.

use std::io::Read;
use std::path::Path;

use hcp_core::identity::Passphrase;
use zeroize::Zeroizing;

use crate::cli::Common;
use crate::failure::Failure;

/// The most of a passphrase file that is read, in bytes.
const MAX_PASSPHRASE: u64 = 4096;

/// The passphrase of an existing profile.
pub(crate) fn existing(common: &Common) -> Result<Passphrase, Failure> {
    match &common.passphrase_file {
        Some(path) => from_file(path),
        None => ask(&format!("Passphrase of the profile {}: ", common.profile)),
    }
}

/// A passphrase to be set; at the terminal it is asked for twice.
pub(crate) fn new(file: Option<&Path>) -> Result<Passphrase, Failure> {
    let Some(path) = file else {
        let first = read("New passphrase: ")?;
        if *first != *read("The same again: ")? {
            return Err(Failure::new("the two passphrases differ: try again"));
        }
        return passphrase(first);
    };
    from_file(path)
}

fn from_file(path: &Path) -> Result<Passphrase, Failure> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PASSPHRASE).read_to_string(&mut text))
        .map_err(|error| Failure::file("read the passphrase file", path, &error))?;
    let line = text.lines().next().unwrap_or("");
    if line.len() as u64 == MAX_PASSPHRASE {
        return Err(Failure::new(format!("the passphrase in {} is longer than 4095 bytes", path.display())));
    }
    Passphrase::new(line)
        .map_err(|_| Failure::new(format!("the first line of the passphrase file {} is empty", path.display())))
}

fn ask(prompt: &str) -> Result<Passphrase, Failure> {
    passphrase(read(prompt)?)
}

fn passphrase(mut text: Zeroizing<String>) -> Result<Passphrase, Failure> {
    Passphrase::new(std::mem::take(&mut *text)).map_err(|_| Failure::new("the passphrase is empty: choose one"))
}

fn read(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::new(format!(
            "cannot ask for the passphrase at a terminal ({error}): name a file with --passphrase-file or \
             HCP_CHAT_PASSPHRASE_FILE"
        ))
    })
}

//! Commands on a profile as a whole: making one, its passphrase, the list; and opening one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hcp_core::identity::Passphrase;
use hcp_core::identity::keyfile::Argon2Cost;
use hcp_core::messenger::{Profile, ProfileError};
use serde_json::json;

use crate::cli::{ChangePassphrase, Common, Init};
use crate::failure::{Failure, chain};
use crate::{home, passphrase, print, request, socket};

/// How long a profile may be in use by another command, or by a daemon that starts or ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `hcp-chat init`.
pub(crate) async fn init(common: &Common, command: Init) -> Result<(), Failure> {
    let folder = home::profile_folder(common)?;
    // Before asking for anything; making it checks again.
    if folder.join(home::PROFILE_KEY).exists() {
        return Err(refused(common, &folder, &ProfileError::AlreadyExists));
    }
    let passphrase = passphrase::new(common.passphrase_file.as_deref())?;
    let made = {
        let folder = folder.clone();
        blocking(move || Profile::create(folder, &passphrase, &command.name)).await?
    };
    let address = made.map_err(|error| refused(common, &folder, &error))?.address();
    if common.json {
        return print(&request::line(&json!({"address": address.to_string(), "folder": folder.to_string_lossy()})));
    }
    print(&format!(
        "made the profile {} in {}\nits address, to give to friends: {address}\n",
        common.profile,
        folder.display()
    ))
}

/// `hcp-chat passphrase`.
pub(crate) async fn change_passphrase(common: &Common, command: &ChangePassphrase) -> Result<(), Failure> {
    let folder = existing(common)?;
    let old = passphrase::existing(common)?;
    let new = passphrase::new(command.new_passphrase_file.as_deref())?;
    let changed = {
        let folder = folder.clone();
        blocking(move || Profile::change_passphrase(folder, &old, &new, Argon2Cost::default())).await?
    };
    changed.map_err(|error| refused(common, &folder, &error))?;
    if common.json {
        return print(&request::line(&json!({"profile": common.profile.as_str()})));
    }
    print("the passphrase is changed\n")
}

/// `hcp-chat profiles`.
pub(crate) fn list(common: &Common) -> Result<(), Failure> {
    let home = home::home(common)?;
    let mut listed = Vec::new();
    for name in home::profiles(&home)? {
        let running = matches!(socket::connect(&home.join(name.as_str())), Ok(Some(_)));
        listed.push((name, running));
    }
    if common.json {
        let profiles: Vec<_> =
            listed.iter().map(|(name, running)| json!({"name": name.as_str(), "daemon": running})).collect();
        return print(&request::line(&json!({"home": home.to_string_lossy(), "profiles": profiles})));
    }
    if listed.is_empty() {
        return print(&format!("no profile in {}: `hcp-chat init` makes one\n", home.display()));
    }
    let line = |(name, running): &(home::ProfileName, bool)| {
        format!("{name}{}\n", if *running { "  its daemon runs" } else { "" })
    };
    print(&listed.iter().map(line).collect::<String>())
}

/// Opens the chosen profile with its passphrase.
pub(crate) async fn open(common: &Common) -> Result<(Profile, PathBuf), Failure> {
    let folder = existing(common)?;
    let passphrase = passphrase::existing(common)?;
    match open_in(&folder, &passphrase).await? {
        Ok(profile) => Ok((profile, folder)),
        Err(error) => Err(refused(common, &folder, &error)),
    }
}

/// Opens the chosen profile for one command. While another command has it, or a daemon that starts or ends, it waits a little;
/// `None` when there is a daemon that can be asked instead.
pub(crate) async fn open_for_a_moment(common: &Common) -> Result<Option<Profile>, Failure> {
    let folder = existing(common)?;
    let passphrase = passphrase::existing(common)?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match open_in(&folder, &passphrase).await? {
            Ok(profile) => return Ok(Some(profile)),
            Err(ProfileError::InUse) if Instant::now() < patience => {}
            Err(error) => return Err(refused(common, &folder, &error)),
        }
        if matches!(socket::connect(&folder), Ok(Some(_))) {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn open_in(folder: &Path, passphrase: &Passphrase) -> Result<Result<Profile, ProfileError>, Failure> {
    let (folder, passphrase) = (folder.to_owned(), passphrase.clone());
    blocking(move || Profile::open(folder, &passphrase)).await
}

/// The folder of the chosen profile, which must be there before anybody is asked for its passphrase.
fn existing(common: &Common) -> Result<PathBuf, Failure> {
    let folder = home::profile_folder(common)?;
    if folder.join(home::PROFILE_KEY).exists() {
        Ok(folder)
    } else {
        Err(refused(common, &folder, &ProfileError::NotFound))
    }
}

/// Stretching a passphrase takes a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::of("work on the profile", &error))
}

/// Says what to do about a profile that cannot be made or opened.
fn refused(common: &Common, folder: &Path, error: &ProfileError) -> Failure {
    let (name, place) = (&common.profile, folder.display());
    Failure::new(match error {
        ProfileError::NotFound => {
            format!("there is no profile {name} in {place}: `hcp-chat init` makes it, `hcp-chat profiles` lists others")
        }
        ProfileError::AlreadyExists => {
            format!("there is a profile {name} in {place} already: choose another --profile or --home")
        }
        ProfileError::InUse => format!(
            "the profile {name} in {place} is in use by another program, which does not answer on {}: wait until it \
             has started or ended, or stop it",
            home::SOCKET
        ),
        ProfileError::WrongPassphrase => format!("the passphrase is not that of the profile {name} in {place}"),
        error => format!("the profile {name} in {place}: {}", chain(error)),
    })
}

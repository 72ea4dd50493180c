//! The power goes while a replica writes: what its receipts said to be durable is there afterwards, and it goes on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Applied, Follower, Frontier, Replica, RestoreError, Split, StateMachine, Storage, Turn};
use crate::identity::delegation::OwnerKey;
use crate::identity::manifest::{Contents, Manifest, Member, Role};
use crate::identity::{Identity, LogKey};
use crate::replica::Event;
use crate::replica::log::store::sqlite::Tuning;
use crate::replica::log::store::sqlite::power::{Met, cut_the_power};

/// The folder that the process writes to.
const FOLDER: &str = "HCP_REPLICA_FOLDER";
/// Set where nothing is to be synced.
const UNSYNCED: &str = "HCP_REPLICA_UNSYNCED";
/// The last entry that the process appends.
const LAST: u64 = 240;
/// Power cuts at random places.
const CUTS: usize = 100;
/// So often what is there gives way to a state.
const RETAIN: u64 = 50;

/// Entries count from 1, and this is how far they are.
#[derive(Debug)]
struct Counted(Result<u64, String>);

impl Default for Counted {
    fn default() -> Self {
        Self(Ok(0))
    }
}

impl StateMachine for Counted {
    fn apply(&mut self, applied: &Applied) {
        let number = std::str::from_utf8(&applied.entry).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if let (Turn::First, Ok(last)) = (applied.turn, &self.0) {
            let next = number.filter(|number| *number == last + 1);
            self.0 = next.ok_or_else(|| format!("{number:?} comes after {last}"));
        }
    }

    fn split(&mut self, split: &Split) {
        self.0 = Err(format!("{split:?}"));
    }

    fn checkpoint(&self) -> Vec<u8> {
        self.0.clone().unwrap_or(u64::MAX).to_be_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        self.0 = Ok(u64::from_be_bytes(state.try_into().map_err(|_| RestoreError)?));
        Ok(())
    }
}

/// Opens the only node of a service; copies into the database often, so that this is tested too.
async fn open(folder: &Path, unsynced: bool) -> Result<(Replica, Follower<Counted>), String> {
    let (service, owner) = (Identity::from_seed(&[1; 32]), OwnerKey::from_seed(&[2; 32]));
    let (identity, key) = (Identity::from_seed(&[3; 32]), LogKey::from_seed(&[4; 32]));
    let member = Member::new(identity.address(), key.public_key(), Role::Publisher).unwrap();
    let contents = Contents::new(1, vec![member]).unwrap();
    let manifest = Manifest::sign(&owner, service.address(), contents).unwrap();
    let tuning = Tuning { checkpoint_pages: 40, unsynced, ..Tuning::default() };
    let storage = Storage::sqlite_tuned(folder.join("log.db"), tuning);
    let builder = Replica::builder(storage, key, owner.public_key(), manifest).state_machine(Counted::default);
    let replica = builder.open().await.map_err(|error| error.to_string())?;
    let mut follower = Follower::new(replica.subscribe(Frontier::start()), Counted::default());
    while !matches!(follower.next().await.map_err(|error| error.to_string())?, Some(Event::CaughtUp)) {}
    Ok((replica, follower))
}

/// Opens what was left, sees how far it is, and goes on.
async fn look(folder: &Path) -> Result<u64, String> {
    let (replica, mut follower) = open(folder, true).await?;
    let held = follower.state().0.clone()?;
    let receipt = replica.append((held + 1).to_string()).await.map_err(|error| error.to_string())?;
    receipt.durable().await.map_err(|error| error.to_string())?;
    while follower.state().0.clone()? <= held {
        follower.next().await.map_err(|error| error.to_string())?;
    }
    replica.shutdown().await;
    Ok(held)
}

async fn cut_a_replicas_power(unsynced: bool) -> Result<Met, String> {
    let command = |mut by: Command, disk: &Path| {
        let name = concat!(module_path!(), "::goes_on_appending").split_once("::").unwrap().1;
        by.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--ignored", "--nocapture"]).env(FOLDER, disk);
        if unsynced {
            by.env(UNSYNCED, "1");
        }
        by
    };
    cut_the_power(command, look, CUTS).await
}

/// By itself it writes to a folder that goes again.
#[tokio::test]
#[ignore = "the tests of power cuts run it in a process of its own"]
async fn goes_on_appending() {
    let own = tempfile::tempdir().unwrap();
    let folder = std::env::var(FOLDER).map_or_else(|_| own.path().to_owned(), PathBuf::from);
    let (replica, mut follower) = open(&folder, std::env::var(UNSYNCED).is_ok()).await.unwrap();
    let mut last = 0;
    while last < LAST {
        // Several go into one segment, or one goes by itself; some of them are long.
        let mut receipts = Vec::new();
        for number in last + 1..=last + 1 + last % 5 {
            let length = if number.is_multiple_of(29) { 60_000 } else { number * 7_919 % 9_000 };
            let text = format!("{number:>length$}", length = length as usize);
            receipts.push((number, replica.append(text).await.unwrap()));
        }
        for (number, receipt) in receipts {
            receipt.durable().await.unwrap();
            // In one call: whoever traces this process reads it from there.
            std::io::stdout().write_all(format!("\ndurable {number}\n").as_bytes()).unwrap();
            last = number;
        }
        while *follower.state().0.as_ref().unwrap() < last {
            follower.next().await.unwrap();
        }
        if last % RETAIN < 4 {
            replica.retain().await.unwrap();
        }
    }
    // Not before something has given way.
    let mut status = replica.status();
    while !status.borrow_and_update().checkpoint {
        tokio::select! {
            event = follower.next() => drop(event.unwrap()),
            changed = status.changed() => changed.unwrap(),
        }
    }
    replica.shutdown().await;
}

#[tokio::test]
async fn what_was_durable_is_there_after_power_cuts_and_the_replica_goes_on() {
    let met = cut_a_replicas_power(false).await.unwrap();
    eprintln!("{met:?}");
    assert!(met.cuts > 300 && met.losing > 30 && met.early > 50, "{met:?}");
}

#[tokio::test]
async fn without_syncing_the_same_test_of_a_replica_fails() {
    let error = cut_a_replicas_power(true).await.unwrap_err();
    assert!(error.contains("were durable"), "{error}");
}

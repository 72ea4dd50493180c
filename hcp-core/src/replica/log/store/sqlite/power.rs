//! The power goes while a process writes: what it wrote and synced is recorded call by call, and from the record come disks
//! as a power cut could have left them, which are opened and looked at.
//!
//! The rules are harder than those of common file systems: what was not synced is there or not, sector by sector and in any
//! order; names are there once their folder was synced.

mod trace;
mod volume;

use std::path::Path;
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use self::trace::{Call, trace};
use self::volume::Volume;
use super::workload::{command, open};
use crate::replica::log::storage::Outcome;
use crate::replica::log::store::Store;
use crate::replica::log::store::workload::{last_held, nth};

/// Batches that the process writes.
const BATCHES: u64 = 60;
/// How often it says at least that something is durable.
const LEAST_SAID: usize = 60;
/// Power cuts at random places.
const CUTS: usize = 400;
const SEED: u64 = 20_261_129;

/// Counts what the cuts met, so that a test which meets nothing fails.
#[derive(Debug, Default)]
pub(in crate::replica) struct Met {
    pub(in crate::replica) cuts: usize,
    /// Cuts that took something that was not synced.
    pub(in crate::replica) losing: usize,
    /// Cuts after which something was there that had not been said to be durable.
    pub(in crate::replica) early: usize,
}

/// Has a process write, cuts its power behind every sync, behind everything that it said and at so many random places, and says
/// what is wrong with what is left.
///
/// `command` makes the process, which another one runs, and which writes to a folder; it numbers what it writes, and says
/// which is durable, as the process of the store's tests does. `look` opens what was left in a folder, says up to which number
/// all is there, and sees that it goes on.
pub(in crate::replica) async fn cut_the_power(
    command: impl FnOnce(Command, &Path) -> Command,
    look: impl AsyncFn(&Path) -> Result<u64, String>,
    cuts: usize,
) -> Result<Met, String> {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut strace = Command::new("strace");
    strace.args(trace::ARGUMENTS).arg("-o").arg(&record);
    let status = command(strace, &disk).stdout(Stdio::null()).status();
    assert!(status.expect("strace is installed").success());
    let calls = trace(&std::fs::read_to_string(&record).unwrap(), &disk);
    let count = |wanted: fn(&Call) -> bool| calls.iter().filter(|call| wanted(call)).count();
    assert!(count(|call| matches!(call, Call::Said(_))) >= LEAST_SAID);
    assert!(count(|call| matches!(call, Call::Write { .. })) > 500);

    let mut random = StdRng::seed_from_u64(SEED);
    let mut places: Vec<(usize, f64)> = (0..cuts)
        .map(|_| (random.random_range(0..calls.len()), *[0.0, 0.5, 0.9, 1.0].choose(&mut random).unwrap()))
        .collect();
    // Right behind what was said, and at every sync.
    let telling = |call: &Call| matches!(call, Call::Said(_) | Call::Sync(_) | Call::SyncFolder);
    places.extend(calls.iter().enumerate().filter(|(_, call)| telling(call)).map(|(at, _)| (at, 0.0)));
    places.sort_by_key(|(at, _)| *at);

    let (mut volume, mut said, mut done) = (Volume::default(), 0, 0);
    let mut met = Met::default();
    for (at, kept) in places {
        for call in &calls[done..=at] {
            if let Call::Said(number) = call {
                said = *number;
            }
            volume.apply(call);
        }
        done = at + 1;
        let left = folder.path().join(format!("left-{}", met.cuts));
        std::fs::create_dir(&left).unwrap();
        let lost = volume.cut(&left, kept, &mut random);
        let held = look(&left).await.map_err(|error| format!("seed {SEED}, call {at}, {kept} kept: {error}"))?;
        if held < said {
            return Err(format!("seed {SEED}, call {at}, {kept} kept: {said} were durable, {held} are there"));
        }
        met.cuts += 1;
        met.losing += usize::from(lost);
        met.early += usize::from(held > said);
        std::fs::remove_dir_all(&left).unwrap();
    }
    Ok(met)
}

/// Opens what was left, sees which batches are there, and goes on.
async fn look(folder: &Path) -> Result<u64, String> {
    let store = open(folder, true);
    let held = last_held(&store).await?;
    if store.write(Box::new(nth(held + 1))).await != Outcome::Done || last_held(&store).await? != held + 1 {
        return Err("nothing more can be written".to_owned());
    }
    store.shutdown().await;
    Ok(held)
}

#[tokio::test]
async fn what_was_durable_survives_power_cuts() {
    let met = cut_the_power(|strace, disk| command(Some(strace), disk, BATCHES, false), look, CUTS).await.unwrap();
    eprintln!("{met:?}");
    assert!(met.cuts > 200 && met.losing > 50 && met.early > 5, "{met:?}");
}

#[tokio::test]
async fn without_syncing_the_same_test_fails() {
    let error = cut_the_power(|strace, disk| command(Some(strace), disk, BATCHES, true), look, CUTS).await.unwrap_err();
    assert!(error.contains("were durable"), "{error}");
}

//! Opening: everything that a store holds goes to the machine's recovery, page by page.

use super::Store;
use crate::replica::log::limits::PAGE;
use crate::replica::log::machine::{Config, Delivery, OpenError, Recovery};
use crate::replica::log::storage::{Payloads, Position};
use crate::replica::log::vector::Split;
use crate::store::StoreError;

/// Why a store's content makes no machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the log is damaged: {0}")]
    Content(#[from] OpenError),
}

/// Reads what a store holds, and hands what counts of it to the application: with all payloads where they are wanted, or
/// with those only that the log itself needs.
///
/// # Cancel safety
/// Cancel-safe.
pub(crate) async fn recover(
    store: &dyn Store,
    config: Config,
    payloads: Payloads,
    mut deliver: impl FnMut(Delivery, Vec<Split>),
) -> Result<Recovery, RecoverError> {
    let mut recovery = Recovery::new(config, store.opened().await?)?;
    let mut after = Position(0);
    loop {
        let rows = store.scan(after, PAGE, payloads).await?;
        let Some(last) = rows.last() else { return Ok(recovery) };
        after = last.position;
        for mut row in rows {
            if row.payload.is_none() && recovery.wants_payload(&row) {
                row.payload = store.payload(row.position).await?;
            }
            if let Some((delivery, splits)) = recovery.row(&row)? {
                deliver(delivery, splits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::replica::log::machine::{AppendId, Input, Machine, Output};
    use crate::replica::log::simulation::cast::Cast;
    use crate::replica::log::storage::Outcome;
    use crate::replica::log::store::sqlite::{SqliteStore, Tuning};

    const ENTRIES: u64 = 300;

    /// Carries out what a machine asks for until it has nothing left to do.
    async fn drive(machine: &mut Machine, store: &dyn Store, now: &mut Duration) -> (Vec<Bytes>, usize) {
        let (mut bodies, mut appended) = (Vec::new(), 0);
        for _ in 0..40 {
            *now += Duration::from_millis(25);
            machine.handle(*now, now.as_millis() as u64, Input::Tick);
            while let Some(output) = machine.poll_output() {
                let wall = now.as_millis() as u64;
                match output {
                    Output::Write(id, batch) => {
                        let outcome = store.write(batch).await;
                        assert_eq!(outcome, Outcome::Done);
                        machine.handle(*now, wall, Input::Stored(id, outcome));
                    }
                    Output::Read(id, what) => {
                        let found = store.read(what).await;
                        machine.handle(*now, wall, Input::Found(id, found));
                    }
                    Output::Deliver(delivery) => {
                        bodies.extend(delivery.items.iter().map(|item| item.body.clone()));
                        machine.handle(*now, wall, Input::Handed(delivery.position));
                    }
                    Output::Appended { .. } => appended += 1,
                    _ => {}
                }
            }
        }
        (bodies, appended)
    }

    #[tokio::test]
    async fn a_machine_finds_what_its_earlier_runs_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let cast = Cast::new(1, true);
        let config = cast.config(0, 0);
        let path = folder.path().join("log.db");
        let mut now = Duration::from_secs(1_000);
        let body = |run: u64, number: u64| Bytes::from(format!("{run} {number}").into_bytes());
        for run in 0..3 {
            let store = SqliteStore::open(&path, &config.keys.service, &config.keys.node, Tuning::default()).unwrap();
            let mut found = Vec::new();
            let take = |delivery: Delivery, _| found.extend(delivery.items.iter().map(|item| item.body.clone()));
            let recovery = recover(&store, config.clone(), Payloads::Wanted, take).await.unwrap();
            let before = (0..run).flat_map(|run| (0..ENTRIES).map(move |number| body(run, number)));
            assert!(found.iter().cloned().eq(before), "{} entries before run {run}", found.len());
            let bare = recover(&store, config.clone(), Payloads::OfSystem, |delivery, _| {
                assert!(delivery.items.is_empty());
            });
            bare.await.unwrap();

            let mut machine = recovery.finish(now, now.as_millis() as u64, [run as u8; 32]);
            for number in 0..ENTRIES {
                let append = Input::Append { id: AppendId(number), entry: body(run, number) };
                machine.handle(now, now.as_millis() as u64, append);
            }
            let (bodies, appended) = drive(&mut machine, &store, &mut now).await;
            assert!(bodies.into_iter().eq((0..ENTRIES).map(|number| body(run, number))));
            assert_eq!(appended, ENTRIES as usize);
            store.shutdown().await;
        }
    }
}

//! What the tests of crashes write: numbered batches whose content follows from the number, so that whoever opens what a
//! crash left can tell which of them are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Store;
use super::contract::{everything, log, row};
use crate::replica::log::storage::{Batch, Checkpoint, Found, Piece, Position, Read, Row, UpTo};

/// Positions of one batch.
const STRIDE: u64 = 8;

/// The batch with this number, from 1.
pub(super) fn nth(number: u64) -> Batch {
    let mut batch = Batch::default();
    for at in 0..=number % 3 {
        let length = if number.is_multiple_of(13) { 60_000 } else { number * 7_919 % 9_000 };
        let row = row(number * STRIDE + at, log(1 + at as u8), number, 0, length as usize);
        batch.rows.push(Arc::new(row));
    }
    if number % 6 == 5 {
        batch.forget_rows.push(UpTo { log: log(1), seq: number - 4 });
    }
    if number.is_multiple_of(8) {
        let root = |number: u64| [number as u8; 32];
        batch.pieces = (0..2)
            .map(|index| Piece { root: root(number), index, bytes: Bytes::from(vec![number as u8; 3_000]) })
            .collect();
        batch.checkpoint = Some(Checkpoint {
            root: root(number),
            length: 6_000,
            summary: Bytes::from(vec![1; 2_000]),
            pieces: Bytes::from(vec![2; 64]),
            certificate: Bytes::from(vec![3; 100]),
        });
        batch.forget_states.push(root(number - 8));
    }
    batch
}

/// The number of the last batch that a store holds; all before it, and nothing else, must be there.
pub(super) async fn last_held(store: &dyn Store) -> Result<u64, String> {
    let rows = everything(store, 100_000).await;
    let last = rows.last().map_or(0, |row| row.position.0 / STRIDE);
    let (mut expected, mut checkpoint) = (BTreeMap::<Position, Row>::new(), None);
    for number in 1..=last {
        let batch = nth(number);
        expected.extend(batch.rows.iter().map(|row| (row.position, Row::clone(row))));
        for up_to in &batch.forget_rows {
            expected.retain(|_, row| row.log != up_to.log || row.seq > up_to.seq);
        }
        checkpoint = batch.checkpoint.or(checkpoint);
    }
    if !rows.iter().eq(expected.values()) {
        return Err(format!("{} segments of {} are there after batch {last}", rows.len(), expected.len()));
    }
    let opened = store.opened().await.map_err(|error| error.to_string())?;
    if opened.checkpoint != checkpoint {
        return Err(format!("another checkpoint is there after batch {last}"));
    }
    if let Some(checkpoint) = checkpoint {
        for index in 0..2 {
            let found = store.read(Read::Piece { root: checkpoint.root, index }).await;
            if !matches!(found, Found::Piece(Some(_))) {
                return Err(format!("piece {index} is lacking after batch {last}"));
            }
        }
    }
    Ok(last)
}

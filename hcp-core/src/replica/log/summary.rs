//! The log's own part of a checkpoint: what a ledger says where the checkpoint ends, in one form for all nodes.
//!
//! Writers stand in the order of their logs and names, vectors name them by their place in that order. Of a log that forked
//! nothing more counts behind a checkpoint, so its branches are names with ends, and no chains that anything could follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::keys::Keys;
use super::ledger::{Chain, Ledger, Log};
use super::storage::Hash;
use super::vector::{Vector, Writer};
use super::wire::{put_log, take_log};
use crate::identity::fields::Fields;
use crate::identity::manifest::Manifest;
use crate::replica::place::LogId;

/// The bytes of a ledger at the end of what a checkpoint covers.
pub(crate) fn encode(ledger: &Ledger) -> Bytes {
    let mut out = vec![LAYOUT];
    put_count(&mut out, ledger.manifests.len());
    for manifest in &ledger.manifests {
        let bytes = manifest.to_bytes();
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    put_count(&mut out, ledger.forgotten.len());
    for (log, seq) in &*ledger.forgotten {
        put_log(&mut out, log);
        out.extend_from_slice(&seq.to_be_bytes());
    }
    let again: Vec<_> = ledger.again.iter().filter(|(_, places)| !places.is_empty()).collect();
    put_count(&mut out, again.len());
    for (log, places) in again {
        put_log(&mut out, log);
        put_count(&mut out, places.len());
        for (seq, index) in places {
            out.extend_from_slice(&seq.to_be_bytes());
            out.extend_from_slice(&index.to_be_bytes());
        }
    }
    let ends: BTreeMap<Writer, End<'_>> = ledger.logs.iter().flat_map(|(id, log)| ends(*id, log)).collect();
    let index: BTreeMap<Writer, u32> = ends.keys().copied().zip(0..).collect();
    put_count(&mut out, ledger.logs.len());
    for (id, log) in &ledger.logs {
        put_log(&mut out, id);
        out.extend_from_slice(&log.began.to_be_bytes());
        out.push(u8::from(log.forked) | u8::from(log.ended) << 1 | u8::from(log.removed) << 2);
        put_count(&mut out, log.closers.len());
        for (writer, seq) in &log.closers {
            put_log(&mut out, &writer.log);
            out.extend_from_slice(&writer.branch);
            out.extend_from_slice(&seq.to_be_bytes());
        }
        let own: Vec<_> = ends.range(Writer::trunk(*id)..=Writer { log: *id, branch: [0xff; 32] }).collect();
        put_count(&mut out, own.len());
        for (writer, end) in own {
            out.extend_from_slice(&writer.branch);
            out.extend_from_slice(&end.from.to_be_bytes());
            out.extend_from_slice(&end.seq.to_be_bytes());
            out.extend_from_slice(&end.hash);
            let seen = end.seen.map(|seen| seen.0.iter().filter_map(|(writer, seq)| Some((index.get(writer)?, seq))));
            let seen: Vec<_> = seen.into_iter().flatten().collect();
            put_count(&mut out, seen.len());
            for (writer, seq) in seen {
                out.extend_from_slice(&writer.to_be_bytes());
                out.extend_from_slice(&seq.to_be_bytes());
            }
        }
    }
    out.into()
}

/// The end of a writer; of one that forked further on, without a hash and a vector.
struct End<'a> {
    from: u64,
    seq: u64,
    hash: Hash,
    seen: Option<&'a Vector>,
}

fn ends<'a>(id: LogId, log: &'a Log) -> impl Iterator<Item = (Writer, End<'a>)> + 'a {
    let mut all: BTreeMap<Writer, End<'a>> = BTreeMap::new();
    for chain in log.chains() {
        let parts = chain.parts(id);
        for (writer, from, to) in parts {
            let end = to == chain.seq;
            let (hash, seen) = if end { (chain.hash, Some(&*chain.seen)) } else { ([0; 32], None) };
            all.insert(writer, End { from, seq: to, hash, seen });
        }
    }
    all.into_iter()
}

/// The ledger that a summary says; `None` when it is malformed, or holds a manifest that nobody signed.
pub(crate) fn decode(bytes: &[u8], keys: &Keys) -> Option<Ledger> {
    let mut fields = Fields::new(bytes);
    let fields_mut = &mut fields;
    if fields_mut.u8()? != LAYOUT {
        return None;
    }
    let mut ledger = Ledger::default();
    for _ in 0..count(fields_mut)? {
        let len = usize::try_from(fields_mut.u32()?).ok()?;
        let manifest = fields_mut.bytes(len)?;
        ledger.manifests.push(Manifest::signed_by(keys.service, keys.owner, manifest).ok()?);
    }
    let mut forgotten = BTreeMap::new();
    for _ in 0..count(fields_mut)? {
        let log = take_log(fields_mut)?;
        forgotten.insert(log, fields_mut.u64()?);
    }
    ledger.forgotten = Arc::new(forgotten);
    for _ in 0..count(fields_mut)? {
        let log = take_log(fields_mut)?;
        for _ in 0..count(fields_mut)? {
            let place = (fields_mut.u64()?, fields_mut.u32()?);
            ledger.again.entry(log).or_default().insert(place);
        }
    }
    let mut writers: Vec<Writer> = Vec::new();
    // Of which chain, and what by place in the order of writers.
    type Named = (LogId, u32, Vec<(u32, u64)>);
    let mut vectors: Vec<Named> = Vec::new();
    for _ in 0..count(fields_mut)? {
        let id = take_log(fields_mut)?;
        let mut log = Log::begun(fields_mut.u64()?);
        let flags = fields_mut.u8()?;
        (log.forked, log.ended, log.removed) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        for _ in 0..count(fields_mut)? {
            let writer = Writer { log: take_log(fields_mut)?, branch: fields_mut.take()? };
            log.closers.insert(writer, fields_mut.u64()?);
        }
        for chain in 0..count(fields_mut)? {
            let branch: Hash = fields_mut.take()?;
            let (from, seq, hash) = (fields_mut.u64()?, fields_mut.u64()?, fields_mut.take()?);
            if from == 0 || seq < from - 1 {
                return None;
            }
            writers.push(Writer { log: id, branch });
            log.push_settled(branch, from, seq, hash);
            let seen = (0..count(fields_mut)?).map(|_| Some((fields_mut.u32()?, fields_mut.u64()?)));
            vectors.push((id, chain as u32, seen.collect::<Option<_>>()?));
        }
        log.settle();
        ledger.logs.insert(id, log);
    }
    fields.end()?;
    for (id, chain, seen) in vectors {
        let seen = seen.into_iter().map(|(writer, seq)| Some((*writers.get(writer as usize)?, seq)));
        let seen = Vector(seen.collect::<Option<_>>()?);
        ledger.logs.get_mut(&id)?.set_seen(chain, Arc::new(seen));
    }
    Some(ledger)
}

impl Chain {
    /// The writers of a chain's own segments, each with its first and last number.
    pub(crate) fn parts(&self, id: LogId) -> Vec<(Writer, u64, u64)> {
        let mut parts = Vec::new();
        let cuts: Vec<(u64, Hash)> = self.cuts().collect();
        let first = cuts.first().map_or(self.seq + 1, |(cut, _)| *cut);
        if first > self.from {
            parts.push((Writer::trunk(id), self.from, first - 1));
        }
        for (at, (cut, name)) in cuts.iter().enumerate() {
            let to = cuts.get(at + 1).map_or(self.seq, |(next, _)| next - 1);
            parts.push((Writer { log: id, branch: *name }, *cut, to));
        }
        parts
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // Everything that is counted fits into a summary, which is bounded.
    out.extend_from_slice(&(count as u32).to_be_bytes());
}

/// A count that what is left can hold.
fn count(fields: &mut Fields<'_>) -> Option<usize> {
    let count = usize::try_from(fields.u32()?).ok()?;
    (count <= super::checkpoint::MAX_SUMMARY).then_some(count)
}

const LAYOUT: u8 = 1;

//! The log's own part of a checkpoint: what a ledger says where the checkpoint ends, in one form for all nodes.
//!
//! Writers stand in the order of their logs and names, vectors name them by their place in that order. Of a log that forked
//! nothing more counts behind a checkpoint, so its branches are names with ends, and no chains that anything could follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::keys::Keys;
use super::ledger::{Chain, INNER, Ledger, Log, ManifestId, Manifests, Places};
use super::storage::Hash;
use super::vector::{Vector, Writer};
use super::wire::{put_log, take_log};
use crate::identity::fields::Fields;
use crate::identity::manifest::Manifest;
use crate::replica::place::{LogId, NodeId};

/// The bytes of a ledger at the end of what a checkpoint covers.
pub(crate) fn encode(ledger: &Ledger) -> Bytes {
    let mut out = vec![LAYOUT];
    put_manifests(&mut out, &ledger.manifests);
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
        put_places(&mut out, &log.closers);
        let own: Vec<_> = ends.range(Writer::trunk(*id)..=Writer { log: *id, branch: [0xff; 32] }).collect();
        put_count(&mut out, own.len());
        let first = own.first().map_or(0, |(writer, _)| index[*writer]);
        for (writer, end) in own {
            out.extend_from_slice(&writer.branch);
            let on = end.on.and_then(|on| index.get(&on)).map_or(NOTHING, |on| on - first);
            out.extend_from_slice(&on.to_be_bytes());
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
    /// The writer of what stands before its first segment.
    on: Option<Writer>,
    from: u64,
    seq: u64,
    hash: Hash,
    seen: Option<&'a Vector>,
}

fn ends<'a>(id: LogId, log: &'a Log) -> impl Iterator<Item = (Writer, End<'a>)> + 'a {
    let mut all: BTreeMap<Writer, End<'a>> = BTreeMap::new();
    for (branch, chain) in log.branches() {
        let parts = chain.parts(id);
        for (writer, from, to) in parts {
            let end = to == chain.seq;
            let (hash, seen) = if end { (chain.hash, Some(&*chain.seen)) } else { (INNER, None) };
            let on = (from > 1).then(|| log.writer_of(id, branch, from - 1));
            all.insert(writer, End { on, from, seq: to, hash, seen });
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
    let mut ledger = Ledger { manifests: take_manifests(fields_mut, keys)?, ..Ledger::default() };
    let mut forgotten = BTreeMap::new();
    for _ in 0..count(fields_mut)? {
        let log = take_log(fields_mut)?;
        forgotten.insert(log, fields_mut.u64().filter(|last| *last <= MAX_SEQ)?);
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
        log.closers = take_places(fields_mut)?;
        let mut last = None;
        for chain in 0..count(fields_mut)? {
            let (branch, on): (Hash, u32) = (fields_mut.take()?, fields_mut.u32()?);
            let (from, seq, hash) = (fields_mut.u64()?, fields_mut.u64()?, fields_mut.take()?);
            // What begins a log stands on nothing.
            let stands = branch == [0; 32] && on != NOTHING;
            if stands || last >= Some(branch) || from == 0 || seq < from || seq > MAX_SEQ {
                return None;
            }
            last = Some(branch);
            writers.push(Writer { log: id, branch });
            log.push_settled(branch, (on != NOTHING).then_some(on), (from, seq), hash);
            let seen = (0..count(fields_mut)?).map(|_| Some((fields_mut.u32()?, fields_mut.u64()?)));
            vectors.push((id, chain as u32, seen.collect::<Option<_>>()?));
        }
        if !log.is_rooted() {
            return None;
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

fn put_manifests(out: &mut Vec<u8>, manifests: &Manifests) {
    let newest = manifests.newest.as_ref().map(Manifest::to_bytes).unwrap_or_default();
    put_count(out, newest.len());
    out.extend_from_slice(&newest);
    put_count(out, manifests.told.len());
    for (id, places) in &manifests.told {
        put_manifest(out, id);
        put_places(out, places);
    }
    put_count(out, manifests.members.len());
    for (node, lacking) in &manifests.members {
        out.extend_from_slice(&node.0);
        put_manifest(out, &lacking.unwrap_or_default());
    }
}

fn take_manifests(fields: &mut Fields<'_>, keys: &Keys) -> Option<Manifests> {
    let mut manifests = Manifests::default();
    let newest = usize::try_from(fields.u32()?).ok()?;
    let newest = fields.bytes(newest)?;
    for _ in 0..count(fields)? {
        let id = (fields.u64()?, fields.take()?);
        manifests.told.insert(id, take_places(fields)?);
    }
    for _ in 0..count(fields)? {
        let (node, lacking) = (NodeId(fields.take()?), (fields.u64()?, fields.take()?));
        let lacking = (lacking != ManifestId::default()).then_some(lacking);
        if lacking.is_some_and(|lacking| !manifests.told.contains_key(&lacking)) {
            return None;
        }
        manifests.members.insert(node, lacking);
    }
    if !newest.is_empty() {
        manifests.newest = Some(Manifest::signed_by(keys.service, keys.owner, newest).ok()?);
    }
    Some(manifests)
}

/// Zeros stand for none.
fn put_manifest(out: &mut Vec<u8>, (version, hash): &ManifestId) {
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(hash);
}

fn put_places(out: &mut Vec<u8>, places: &Places) {
    put_count(out, places.len());
    for (writer, seq) in places {
        put_log(out, &writer.log);
        out.extend_from_slice(&writer.branch);
        out.extend_from_slice(&seq.to_be_bytes());
    }
}

fn take_places(fields: &mut Fields<'_>) -> Option<Places> {
    let place = |fields: &mut Fields<'_>| {
        let writer = Writer { log: take_log(fields)?, branch: fields.take()? };
        Some((writer, fields.u64()?))
    };
    (0..count(fields)?).map(|_| place(fields)).collect()
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

/// No log is so long: what is behind a number is a number too.
const MAX_SEQ: u64 = u64::MAX / 2;
/// In the place of a writer.
const NOTHING: u32 = u32::MAX;
const LAYOUT: u8 = 2;

//! Checkpoints: who asks for them, who signs what, and what a node lets go of.
//!
//! A member asks by an entry, which names the checkpoint that it holds: from there on everybody folds what its author had
//! seen into a state of its own ([`folding`](super::folding)), and signs. Whoever has that many signatures under what it made
//! itself holds the checkpoint, and prunes what it covers.
//!
//! Invariants: a member signs only what has its own earlier votes in its past. Any two sets of signers that are enough have an
//! honest member in common, so of any two checkpoints one has the other's signature in what it covers, and with it everything
//! that honest members wrote before. What a checkpoint says of a log up to the last segment that it covers is final: another
//! branch that begins there or before counts no more, wherever it turns up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::folding::{Fold, Progress};
#[cfg(test)]
use super::planted::{Defect, planted};
use super::status::TooLarge;
use super::{Machine, Output};
use crate::replica::log::checkpoint::{Certificate, Statement, is_enough, is_true, signed};
use crate::replica::log::entry::{Entry, Vote};
use crate::replica::log::keys::Keys;
use crate::replica::log::ledger::{Ledger, Log};
use crate::replica::log::limits::MAX_ASKED;
use crate::replica::log::storage::{Checkpoint, Hash, UpTo};
use crate::replica::log::summary;
use crate::replica::log::vector::{Split, Vector, Writer};
use crate::replica::log::wire::{SIGNATURE, Tip};
use crate::replica::place::{LogId, NodeId};

/// What this node knows of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) fold: Option<Fold>,
    pub(super) folds: u64,
    /// How far the last fold came that was sealed.
    pub(super) progress: Option<Progress>,
    /// For which segment the application's copy stands as it was sealed last; none if it holds nothing.
    pub(super) copy: Option<Tip>,
    /// What was asked last, of each member's some, and was not answered by a checkpoint.
    pub(super) asked: VecDeque<Asked>,
    votes: BTreeMap<(Tip, Hash), BTreeMap<NodeId, [u8; SIGNATURE]>>,
    /// Of each log of this node's the last segment with a vote, as far as no checkpoint covers it.
    voted: BTreeMap<LogId, u64>,
    pub(super) built: Option<Built>,
    pub(super) stable: Option<Stable>,
    /// Since when it is held.
    pub(super) since: Duration,
    /// What kept the last one that was made here from being signed.
    pub(super) too_large: Option<TooLarge>,
    /// Until when no more of what a member asks is made for this node's own sake.
    pub(super) rests: BTreeMap<NodeId, Duration>,
    /// The application asks for one, once it was handed everything.
    retain: bool,
}

/// Somebody asks for a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) tip: Tip,
    pub(super) writer: Writer,
    /// The statement of the checkpoint to begin from; zero if there is none.
    pub(super) base: Hash,
    /// What its author had seen, this segment included.
    pub(super) past: Vector,
    /// This node has begun to make it, for its own sake; and since others have signed it.
    pub(super) tried: bool,
    pub(super) followed: bool,
}

/// An entry of the log's own kinds that was taken in, with where it stands and what its author had seen.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) tip: Tip,
    pub(super) writer: Writer,
    pub(super) past: Vector,
    pub(super) entries: Vec<Entry>,
}

/// What this node made.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) asked: Asked,
    pub(super) statement: Statement,
    pub(super) summary: Bytes,
    pub(super) pieces: Bytes,
    pub(super) covered: Ledger,
    pub(super) signed: bool,
}

/// The checkpoint that stands for what was pruned.
#[derive(Debug)]
pub(super) struct Stable {
    pub(super) statement: Statement,
    pub(super) checkpoint: Checkpoint,
    pub(super) covered: Ledger,
}

/// How a checkpoint came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was made here, of what is here.
    Made,
    Fetched,
}

impl Checkpoints {
    /// Who has signed what for a request.
    fn votes_for(&self, asked: &Tip) -> impl Iterator<Item = &BTreeMap<NodeId, [u8; SIGNATURE]>> {
        self.votes.range((*asked, [0; 32])..=(*asked, [0xff; 32])).map(|(_, votes)| votes)
    }
}

impl Stable {
    pub(super) fn of(keys: &Keys, checkpoint: Checkpoint) -> Option<Self> {
        let covered = summary::decode(&checkpoint.summary, keys)?;
        let statement = Certificate::parse(&checkpoint.certificate)?.statement;
        let manifest = covered.manifest().map_or(0, |manifest| manifest.contents().version());
        (manifest == statement.manifest).then_some(Self { statement, checkpoint, covered })
    }

    /// Whether this one covers what another one does, and more; or the same, and forgets more. Of a log that one of them knows
    /// to have forked, one branch may stand for less than the other did.
    ///
    /// What one forgets the other may cover and not forget: they need not have been made one from the other, and a log is not
    /// over any more where runs are covered that began without having seen it.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        let (new, old) = (&self.covered, &other.covered);
        let holds = |id: &LogId, last: u64| {
            new.is_forgotten(id) || new.logs.get(id).is_some_and(|log| log.forked || log.reaches(last))
        };
        let kept = old.forgotten.iter().all(|(id, last)| holds(id, *last))
            && old.logs.iter().all(|(id, log)| log.forked || holds(id, log.last()));
        let covers_more =
            new.logs.iter().any(|(id, log)| {
                !old.is_forgotten(id) && old.logs.get(id).is_none_or(|other| !other.reaches(log.last()))
            }) || new.forgotten.keys().any(|id| !old.is_forgotten(id) && !old.logs.contains_key(id));
        let forgets_more =
            new.forgotten.len() > old.forgotten.len() && old.forgotten.keys().all(|id| new.is_forgotten(id));
        kept && (covers_more || forgets_more)
    }
}

impl Machine {
    /// The application wants what it has seen to be replaced by a state, some time soon.
    pub(super) fn retain(&mut self) {
        self.checkpoints.retain = true;
    }

    /// Asks for a checkpoint once the application was handed everything, so that what the asking segment had seen is whole.
    pub(super) fn retain_if_due(&mut self) {
        if self.checkpoints.retain && self.has_handed_everything() && self.stopped.is_none() {
            self.checkpoints.retain = false;
            self.cut_pending();
            let base = self.holds();
            self.add_system(Entry::Retain { base });
            self.cut();
        }
    }

    /// The statement of the checkpoint that is held; zero if none is.
    pub(crate) fn holds(&self) -> Hash {
        self.checkpoints.stable.as_ref().map_or([0; 32], |stable| stable.statement.hash())
    }

    /// A segment with entries of the log's own kinds was taken in.
    pub(super) fn note_system(&mut self, noted: &Noted) {
        // One request in a segment: all entries of one have seen the same.
        let retain =
            noted.entries.iter().find_map(|entry| if let Entry::Retain { base } = entry { Some(base) } else { None });
        if let Some(base) = retain {
            self.note_asked(noted, *base);
        }
        for entry in &noted.entries {
            // Who signs one wrongly is not believed the next ones: they cost a check each.
            if let Entry::Vote(vote) = entry
                && !self.note_vote(&noted.tip, vote)
            {
                break;
            }
        }
    }

    fn note_asked(&mut self, noted: &Noted, base: Hash) {
        let (tip, writer, mut past) = (noted.tip, noted.writer, noted.past.clone());
        past.raise(writer, tip.seq);
        let asked = &mut self.checkpoints.asked;
        asked.push_back(Asked { tip, writer, base, past, tried: false, followed: false });
        // Nobody's requests push out anybody else's.
        let same = |asked: &Asked| asked.tip.log.node == tip.log.node;
        if asked.iter().filter(|asked| same(asked)).count() > MAX_ASKED
            && let Some(old) = asked.iter().position(same).and_then(|at| asked.remove(at))
        {
            self.checkpoints.votes.retain(|(asked, _), _| *asked != old.tip);
        }
    }

    /// `false` when it is for something that was asked, and its signature does not hold.
    fn note_vote(&mut self, at: &Tip, vote: &Vote) -> bool {
        let from = at.log.node;
        let message = signed(self.keys.service_key(), &vote.statement);
        if from == self.own.node {
            let last = self.checkpoints.voted.entry(at.log).or_default();
            *last = at.seq.max(*last);
        }
        let known = self.checkpoints.asked.iter().any(|asked| asked.tip == vote.asked);
        // One for each member and place, so that what is kept is bounded: the first counts.
        let voted = self.checkpoints.votes_for(&vote.asked).any(|votes| votes.contains_key(&from));
        if !known || voted {
            return true;
        }
        let holds = (self.keys.verify)(&from, &message, &vote.signature);
        if holds {
            self.checkpoints.votes.entry((vote.asked, vote.statement)).or_default().insert(from, vote.signature);
        }
        holds
    }

    /// What a writer wrote has another name now.
    pub(super) fn split_asked(&mut self, split: &Split) {
        for asked in &mut self.checkpoints.asked {
            asked.split(split);
        }
        if let Some(fold) = &mut self.checkpoints.fold {
            fold.split(split);
        }
        if let Some(built) = &mut self.checkpoints.built {
            built.asked.split(split);
        }
    }

    /// Makes what was asked for, signs it, and sees whether it is signed by enough.
    pub(super) fn tend_checkpoints(&mut self) {
        self.retain_if_due();
        self.seal();
        if self.checkpoints.fold.is_none() && !self.is_checkpoint_pending() {
            self.vote();
            self.see_whether_stable();
        }
        // Not while what was made is becoming the checkpoint: what begins from the one before would go on beside it.
        if self.checkpoints.fold.is_none() && !self.is_checkpoint_pending() {
            self.fold_next();
        }
    }

    /// Takes out of the chores the states that are to be forgotten later: while the application stores one, none is.
    /// Several requests can come to one state, so what is needed is not forgotten at all.
    pub(super) fn keep_states(&mut self) -> Vec<Hash> {
        if self.is_sealing() {
            return std::mem::take(&mut self.chores.forget_states);
        }
        let stable = self.checkpoints.stable.as_ref().map(|stable| stable.checkpoint.root);
        let built = self.checkpoints.built.as_ref().map(|built| built.statement.root);
        let coming = self.chores.checkpoint.as_ref().map(|checkpoint| checkpoint.root);
        // Where the store is opened again, that forgets what is not needed.
        let stable = stable.filter(|_| coming.is_none() || self.reloading);
        let needed = [stable, built, coming, self.fetched_state()];
        self.chores.forget_states.retain(|root| !needed.contains(&Some(*root)));
        Vec::new()
    }

    /// Only what is durable can be read, and gone back to.
    pub(super) fn is_checkpoint_pending(&self) -> bool {
        self.chores.checkpoint.is_some() || self.is_checkpoint_under_way()
    }

    /// Whether somebody has signed what stands for this segment who does not lie.
    pub(super) fn is_signed(&self, tip: &Tip) -> bool {
        self.checkpoints.votes_for(tip).any(|votes| is_true(votes.keys(), &self.manifest))
    }

    /// Whether this node may sign what stands for this past: its own earlier votes are in it.
    pub(super) fn may_sign(&self, past: &Vector) -> bool {
        #[cfg(test)]
        if planted(Defect::VotesForgotten) {
            return true;
        }
        self.checkpoints.voted.iter().all(|(log, seq)| past.reaches(&Writer::trunk(*log), *seq))
    }

    /// Signs what was made, once this node's next segment comes behind the one that asked.
    fn vote(&mut self) {
        let Some(built) = &self.checkpoints.built else { return };
        if built.signed || !self.may_sign(&built.asked.past) || !self.has_seen(&built.asked.tip, &built.asked.writer) {
            return;
        }
        let (asked, statement) = (built.asked.tip, built.statement.hash());
        let signature = (self.keys.sign)(&signed(self.keys.service_key(), &statement));
        if let Some(built) = &mut self.checkpoints.built {
            built.signed = true;
        }
        self.add_system(Entry::Vote(Vote { asked, statement, signature }));
        self.cut();
    }

    fn see_whether_stable(&mut self) {
        let Some(built) = &self.checkpoints.built else { return };
        let key = (built.statement.asked, built.statement.hash());
        let Some(votes) = self.checkpoints.votes.get(&key) else { return };
        let enough = built.covered.manifest().is_some_and(|covered| is_enough(votes.keys(), covered));
        if !enough || !is_true(votes.keys(), &self.manifest) {
            return;
        }
        let certificate = Certificate { statement: built.statement, signatures: votes.clone() };
        if let Some(built) = self.checkpoints.built.take() {
            let checkpoint = Checkpoint {
                root: built.statement.root,
                length: built.statement.length,
                summary: built.summary,
                pieces: built.pieces,
                certificate: certificate.to_bytes(),
            };
            self.outputs.push_back(Output::Stable(built.statement.asked));
            self.install(Stable { statement: built.statement, checkpoint, covered: built.covered }, Origin::Made);
        }
    }

    /// A checkpoint stands for what it covers: that goes, and where this node holds what does not count any more, the store
    /// is opened again.
    pub(super) fn install(&mut self, stable: Stable, origin: Origin) {
        let reload = origin == Origin::Fetched || self.holds_what_does_not_count(&stable.covered);
        let forget = self.to_forget(&stable.covered);
        if let Some(before) = &self.checkpoints.stable {
            self.chores.forget_states.push(before.checkpoint.root);
        }
        self.chores.checkpoint = Some(stable.checkpoint.clone());
        #[cfg(test)]
        let forget = if planted(Defect::PrunedAgain) { Vec::new() } else { forget };
        #[cfg(test)]
        let reload = reload && !(origin == Origin::Made && planted(Defect::BranchKept));
        self.chores.forget_rows.extend(forget);
        if reload {
            self.reloading = true;
            return;
        }
        self.ledger.adopt(&stable.covered);
        self.durable.retain(|(log, _), _| self.ledger.logs.contains_key(log));
        self.let_go(&stable.covered);
        self.checkpoints.progress = None;
        self.checkpoints.since = self.now;
        self.checkpoints.stable = Some(stable);
    }

    /// Forgets of who asked and voted what a checkpoint covers.
    fn let_go(&mut self, covered: &Ledger) {
        self.checkpoints.voted.retain(|log, seq| !covers(covered, log, *seq));
        self.checkpoints.asked.retain(|asked| !covers(covered, &asked.tip.log, asked.tip.seq));
        let asked = &self.checkpoints.asked;
        self.checkpoints.votes.retain(|(tip, _), _| asked.iter().any(|asked| asked.tip == *tip));
    }

    /// Whether this node has taken in what does not count behind a checkpoint that was made of what is here: a branch that
    /// begins where the checkpoint has another one, or anything more of a log that it knows to have forked.
    pub(super) fn holds_what_does_not_count(&self, covered: &Ledger) -> bool {
        // What names it named nothing so far, and from there on names what the checkpoint has in that place.
        let covers =
            |tip: &Tip| covered.logs.get(&tip.log).is_some_and(|log| !log.is_final() && tip.seq <= log.settled);
        if self.beside.tips().any(covers) {
            return true;
        }
        self.ledger.logs.iter().any(|(id, log)| match (covered.forgotten.get(id), covered.logs.get(id)) {
            (Some(last), _) => log.forked || log.reaches(last + 1),
            // Once for each such log: what named it is understood anew, as everybody does who loads the checkpoint.
            (None, Some(settled)) if settled.forked => !log.is_final(),
            (None, Some(settled)) => log.parts_by(settled.settled),
            (None, None) => false,
        })
    }

    fn to_forget(&self, covered: &Ledger) -> Vec<UpTo> {
        let own = self.own.node;
        let all = |log: LogId| UpTo { log, seq: u64::MAX - 1 };
        // What this node wrote and nothing stands for is appended again when the store is opened.
        let over = covered
            .forgotten
            .iter()
            .map(|(log, last)| if log.node == own { UpTo { log: *log, seq: *last } } else { all(*log) });
        let settled = covered.logs.iter().map(|(id, log)| {
            if log.is_final() && id.node != own { all(*id) } else { UpTo { log: *id, seq: log.last() } }
        });
        over.chain(settled).collect()
    }

    /// Logs of which this node lacks what a checkpoint covers.
    pub(super) fn lacks<'a>(&'a self, covered: &'a Ledger) -> impl Iterator<Item = LogId> + 'a {
        let lacking = |(id, log): &(&LogId, &Log)| {
            !self.ledger.is_forgotten(id) && !self.ledger.logs.get(*id).is_some_and(|held| held.reaches(log.last()))
        };
        covered.logs.iter().filter(lacking).map(|(id, _)| *id)
    }

    /// What a log's author had seen where the checkpoint ends.
    pub(super) fn base_vector(&self, log: &LogId) -> Vector {
        let stable = self.checkpoints.stable.as_ref();
        let chain = stable.and_then(|stable| stable.covered.logs.get(log)).and_then(|log| log.chains().next());
        chain.map(|chain| (*chain.seen).clone()).unwrap_or_default()
    }

    /// Takes up what was known before the store was opened.
    pub(super) fn recover_checkpoints(&mut self, stable: Option<Stable>, system: &[Noted]) {
        self.checkpoints.copy = stable.as_ref().map(|stable| stable.statement.asked);
        self.checkpoints.since = self.now;
        self.checkpoints.stable = stable;
        for noted in system {
            self.note_system(noted);
        }
    }
}

impl Asked {
    pub(super) fn split(&mut self, split: &Split) {
        self.past.split(split);
        split.rename_writer(&mut self.writer, self.tip.seq);
    }
}

impl Noted {
    pub(super) fn split(&mut self, split: &Split) {
        self.past.split(split);
        split.rename_writer(&mut self.writer, self.tip.seq);
    }
}

/// Whether a checkpoint stands for a place.
fn covers(covered: &Ledger, log: &LogId, seq: u64) -> bool {
    covered.is_forgotten(log) || covered.logs.get(log).is_some_and(|log| log.reaches(seq))
}

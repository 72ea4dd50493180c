//! The end of points: of those that no descriptor is to list any more, and of all when the node leaves.
//!
//! A point lives on for clients with older descriptors; it goes after a while, or when too many are newer.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::super::{Machine, Output, Slot};
use crate::service::gossip::Message;
use crate::service::tuning::{MAX_RETIRING, RETIRING, RETIRING_AT_MOST};

impl Machine {
    /// Lets go of points that no descriptor lists any more, after a while.
    pub(in crate::service::machine) fn retire_points(&mut self) {
        let now = self.now;
        let announced: HashSet<_> = self.announced().into_iter().map(|point| point.slot).collect();
        let published = self.is_published();
        let mut retiring = Vec::new();
        for point in self.points.iter_mut().filter(|point| point.is_up()) {
            if announced.contains(&point.slot) {
                (point.unannounced, point.unlisted) = (None, None);
                continue;
            }
            let since = *point.unannounced.get_or_insert(now);
            // What was published when it was still announced says nothing.
            if published && since < now && point.unlisted.is_none() {
                point.unlisted = Some(now);
            }
            let done = point.unlisted.is_some_and(|unlisted| now.saturating_sub(unlisted) >= RETIRING)
                || now.saturating_sub(since) >= RETIRING_AT_MOST;
            retiring.push((since, point.slot, done, point.unlisted.is_some()));
        }
        retiring.sort_by_key(|(since, slot, ..)| Reverse((*since, *slot)));
        for (place, (_, slot, done, unlisted)) in retiring.into_iter().enumerate() {
            let crowded_out = place >= MAX_RETIRING && (unlisted || place >= 2 * MAX_RETIRING);
            if done || crowded_out {
                self.let_go(slot);
            }
        }
    }

    fn let_go(&mut self, slot: Slot) {
        let Some(point) = self.remove(slot) else { return };
        self.outputs.push_back(Output::Withdraw(slot));
        if !point.ceded {
            for holder in point.holders.keys() {
                self.send(*holder, Message::Forget(point.id));
            }
        }
    }

    /// The end of a clean stop: every point goes to the first of its holders, after its last marks.
    pub(in crate::service::machine) fn leave(&mut self) {
        for point in &self.points {
            self.outputs.push_back(Output::Withdraw(point.slot));
        }
        self.flush_tags();
        let points = std::mem::take(&mut self.points);
        let fit: HashSet<_> = self.successors().collect();
        for point in points.iter().filter(|point| point.is_up() && !point.ceded) {
            let mut holders: Vec<_> = point.holders.keys().copied().collect();
            holders.sort_by_cached_key(|member| super::super::listing::score(b"successor", &point.id.0, member));
            let heir = holders.iter().copied().find(|holder| fit.contains(holder));
            for holder in holders {
                let message = if Some(holder) == heir { Message::Release(point.id) } else { Message::Forget(point.id) };
                self.send(holder, message);
            }
        }
        self.hand_on(&fit);
        self.say_record();
    }
}

//! A member that lies: it announces points that are not there, claims what it was never given, and floods.

use rand::RngExt;

use super::{Counts, World};
use crate::network::onion::{PointDescription, PointSecrets, RelayId};
use crate::service::gossip::{Answer, Entrust, Message, Publication, SignedRecord, Tags};
use crate::service::tuning::MAX_POINTS;

impl World {
    /// What it sends in the place of a message.
    pub(super) fn corrupt(&mut self, from: usize, to: usize, message: Message) -> Vec<Message> {
        let others: Vec<_> = {
            let mut points: Vec<_> = self.owners.keys().copied().collect();
            points.sort_unstable();
            points
        };
        let mut messages = vec![message];
        if let Message::Record(record) = &messages[0]
            && record.member() == self.nodes[from].address
        {
            self.counts.note("lies: claims and publications");
            let mut lie = (**record.record()).clone();
            lie.taken = others.iter().copied().take(60).collect();
            // As many points as a record holds, some of them not even at a relay.
            let missing = MAX_POINTS.saturating_sub(lie.points.len());
            lie.points.extend(self.garbage(from).into_iter().take(missing));
            let publication =
                |period| Publication { period, set: [7; 32], rotation: 9, at: u64::MAX, left_out: Vec::new() };
            lie.publications = self.periods.iter().copied().map(publication).collect();
            lie.holds = self.periods.clone();
            let sign: crate::service::gossip::Sign = std::sync::Arc::new(|_| [0; 64]);
            messages[0] = Message::Record(SignedRecord::sign(super::service(), record.member(), lie, &[], &sign));
        }
        if others.is_empty() || !self.rng.random_bool(0.2) {
            return messages;
        }
        let point = others[self.rng.random_range(0..others.len())];
        let nonce: u64 = self.rng.random();
        let lie = match self.rng.random_range(0..9) {
            0 => Message::Ask { point, nonce },
            1 => Message::Promise { point, nonce, answer: Answer::KeepsAway(60_000) },
            2 => Message::Release(point),
            3 => Message::Forget(point),
            4 => Message::Heard(self.rng.random()),
            5 => Message::Reached(self.nodes[from].address),
            6 => Message::Held(vec![(point, 5)]),
            7 => Message::Tags(Tags { point, first: 0, tags: vec![[1; 32]; 256] }),
            _ => Message::Entrust(Entrust {
                incarnation: if nonce.is_multiple_of(20) { 1 } else { self.nodes[from].incarnation },
                relay: RelayId([self.rng.random_range(0..60); 32]),
                secrets: PointSecrets::from_bytes(&self.rng.random::<[[u8; 32]; 2]>().concat().try_into().unwrap()),
                holders: vec![self.nodes[to].address],
                before: 0,
            }),
        };
        Counts::note(&mut self.counts, "lies: messages");
        messages.push(lie);
        messages
    }

    fn garbage(&mut self, from: usize) -> Vec<PointDescription> {
        (0..MAX_POINTS as u8)
            .map(|index| {
                let secrets = PointSecrets::from_bytes(&[index + 1; 64]);
                self.owners.insert(secrets.id(), from);
                secrets.describe(RelayId([250 + index; 32]))
            })
            .collect()
    }
}

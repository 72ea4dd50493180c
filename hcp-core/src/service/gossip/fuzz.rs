//! Arbitrary bytes as a message, and whatever can be read of it told to a machine.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{Message, Sign};
use crate::identity::{Identity, OnionAddress};
use crate::network::onion::{DirectoryView, Period, PeriodView, RelayId};
use crate::service::machine::{Config, Input, Machine, Output};
use crate::service::roster::{Role, Roster};
use crate::service::tuning::{MAX_LISTED, MAX_MESSAGE, MAX_SEEKING, MAX_SIGHTINGS, MAX_TAGS};

struct Known {
    service: OnionAddress,
    me: Identity,
    sender: OnionAddress,
    roster: Roster,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let [me, sender, third] = [11, 12, 13].map(|seed| Identity::from_seed(&[seed; 32]));
    let members = [&me, &sender, &third].map(|member| (member.address(), Role::Publisher));
    let roster = Roster::new(members).expect("three are not too many");
    Known { service: Identity::from_seed(&[1; 32]).address(), me, sender: sender.address(), roster }
});

/// What is taken reads the same when it is written again, keeps its limits, and leaves a machine as it should be.
pub(crate) fn message(data: &[u8]) {
    let known = &*KNOWN;
    let Ok(message) = Message::decode(data, known.service, &known.roster) else { return };
    assert!(data.len() <= MAX_MESSAGE);
    let written = message.encode();
    let again = Message::decode(&written, known.service, &known.roster).expect("what was read can be written");
    assert_eq!(again.encode(), written);
    match &message {
        Message::Heartbeat(heartbeat) => {
            assert!(heartbeat.seeking.len() <= MAX_SEEKING && heartbeat.sightings.len() <= MAX_SIGHTINGS);
        }
        Message::Tags(tags) => assert!(tags.tags.len() <= MAX_TAGS),
        Message::Record(record) => assert!(known.roster.contains(&record.member())),
        _ => {}
    }
    tell(message);
}

/// A machine that is linked with the sender hears it twice, and lives on for a while.
fn tell(message: Message) {
    let known = &*KNOWN;
    let sign: Sign = Arc::new(|message| KNOWN.me.sign(message));
    let config = Config { service: known.service, me: known.me.address(), sign, roster: known.roster.clone() };
    let wall = 1_790_000_000_000;
    let mut now = Duration::from_secs(100);
    let mut machine = Machine::new(config, now, wall, [7; 32]);
    let period = Period { number: 20_717, length: 1_440, offset: 43_200 };
    let directories = (0..6).map(|index| RelayId([index; 32])).collect();
    let view = DirectoryView { periods: vec![PeriodView { period, directories }] };
    let inputs = [
        Input::View(view),
        Input::Material(BTreeSet::from([period])),
        Input::LinkUp(known.sender),
        Input::Message(known.sender, message.clone()),
        Input::Message(known.sender, message),
    ];
    for input in inputs {
        machine.handle(now, wall, input);
    }
    let mut relay = 100;
    for _ in 0..60 {
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Establish { slot, .. } => {
                    relay += 1;
                    machine.handle(now, wall, Input::Established { slot, relay: RelayId([relay; 32]) });
                }
                Output::Upload { listings, .. } => {
                    assert!(listings.iter().all(|(_, points)| points.len() <= MAX_LISTED));
                }
                Output::Send(_, message) => assert!(message.encode().len() <= MAX_MESSAGE),
                _ => {}
            }
        }
        now = machine.poll_timeout().max(now + Duration::from_millis(400));
        machine.handle(now, wall, Input::Tick);
    }
    let status = machine.status();
    assert!(!status.reachable || status.points > 0);
}

//! Peers that behave badly, frame by frame; and what a blocked one can learn.

mod epochs;
mod lists;
mod restored;

use std::time::{Duration, Instant};

use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::links::MAX_EPOCHS;
use super::{LinkId, MAX_FRAME, Machine, Now, Output};
use crate::identity::{Identity, OnionAddress};
use crate::messenger::contact::{ContactState, MAX_PENDING};
use crate::messenger::content::{Content, What};
use crate::messenger::message::{Direction, MessageId, MessageState};
use crate::messenger::store::{ContactId, Store};
use crate::messenger::text::{MAX_GREETING, MAX_NAME, MAX_TEXT, Text};
use crate::messenger::transfer::{MAX_FILE, TransferId, TransferState};
use crate::wire::messenger_proto::file_end::Outcome;
use crate::wire::messenger_proto::standing::Stand;
use crate::wire::messenger_proto::{self as proto, frame::Body};

struct Host {
    machine: Machine,
    now: Now,
    next: u64,
}

impl Host {
    fn new() -> Self {
        let me = Identity::from_seed(&[1; 32]);
        let mut machine = Machine::new(me.address(), Store::in_memory(&me), [3; 32]);
        let now = Now { instant: Instant::now(), millis: 1_000_000 };
        machine.go_online(now).unwrap();
        Self { machine, now, next: 0 }
    }

    fn wait(&mut self, time: Duration) {
        self.now = Now { instant: self.now.instant + time, millis: self.now.millis + time.as_millis() as u64 };
        self.machine.handle_timeout(self.now);
    }

    /// Somebody dials.
    fn dialled_by(&mut self, peer: OnionAddress) -> LinkId {
        self.next += 1;
        self.machine.link_up(LinkId(self.next), peer, false, self.now).unwrap();
        LinkId(self.next)
    }

    /// Brings frames and returns what was answered; `None` when the link was ended.
    fn bring(&mut self, link: LinkId, frames: impl IntoIterator<Item = Body>) -> Option<Vec<Body>> {
        self.machine.store().begin().unwrap();
        for body in frames {
            let bytes = proto::Frame { body: Some(body) }.encode_to_vec();
            self.machine.handle_frame(link, &bytes, self.now).unwrap();
        }
        self.machine.finish(self.now).unwrap();
        self.machine.store().commit().unwrap();
        self.answers(link)
    }

    fn answers(&mut self, link: LinkId) -> Option<Vec<Body>> {
        let mut answers = Vec::new();
        let mut ended = false;
        for output in self.machine.take_outputs() {
            match output {
                Output::Send(to, frame) if to == link => {
                    answers.extend(proto::Frame::decode(frame).unwrap().body);
                }
                Output::Close(closed) => ended |= closed == link,
                _ => {}
            }
        }
        (!ended).then_some(answers)
    }

    fn state(&self, peer: &OnionAddress) -> Option<ContactState> {
        self.machine.store().contact(peer).unwrap().map(|row| row.state)
    }

    /// Somebody who is a contact, with a link on which both have said what they have.
    fn friend(&mut self, seed: u8) -> (OnionAddress, LinkId) {
        let peer = Identity::from_seed(&[seed; 32]).address();
        let link = self.dialled_by(peer);
        self.bring(link, [hello(Stand::Asking)]).unwrap();
        self.machine.accept(peer).unwrap();
        self.bring(link, [Body::Standing(standing(Stand::Accepted)), have([])]).unwrap();
        (peer, link)
    }

    fn contact(&self, peer: &OnionAddress) -> ContactId {
        self.machine.store().contact(peer).unwrap().unwrap().id
    }

    fn texts(&self, peer: &OnionAddress) -> usize {
        self.machine.store().texts(self.contact(peer), None, 100_000).unwrap().len()
    }
}

fn standing(stand: Stand) -> proto::Standing {
    proto::Standing { stand: stand.into(), name: "somebody".into(), greeting: "hello".into() }
}

fn hello(stand: Stand) -> Body {
    Body::Hello(standing(stand))
}

fn have(epochs: impl IntoIterator<Item = ([u8; 16], u64)>) -> Body {
    let epochs = epochs.into_iter().map(|(epoch, seq)| proto::Epoch { epoch: epoch.to_vec().into(), seq });
    Body::Have(proto::Have { epochs: epochs.collect(), more: false })
}

fn content(what: What) -> Vec<u8> {
    Content { millis: u64::MAX, what }.encode()
}

fn operation(epoch: u8, after: u64, seq: u64, id: u8, content: Vec<u8>) -> proto::Operation {
    proto::Operation {
        epoch: vec![epoch; 16].into(),
        seq,
        id: vec![id; 16].into(),
        mark: vec![0; 16].into(),
        content: content.into(),
        after,
    }
}

/// A file of five bytes is offered.
fn offer(id: u8) -> Vec<u8> {
    let offer = proto::FileOffer { transfer: vec![id; 16].into(), name: "a".into(), size: 5, root: vec![2; 32].into() };
    proto::Content { millis: 0, what: Some(proto::content::What::Offer(offer)) }.encode_to_vec()
}

fn end(id: u8, outcome: Outcome) -> Vec<u8> {
    let end = proto::FileEnd { transfer: vec![id; 16].into(), outcome: outcome.into() };
    proto::Content { millis: 0, what: Some(proto::content::What::End(end)) }.encode_to_vec()
}

fn text(text: &str) -> Vec<u8> {
    content(What::Text(Text::new(text).unwrap()))
}

#[test]
fn a_stranger_gets_one_request_stored_and_nothing_else() {
    let mut host = Host::new();
    let stranger = Identity::from_seed(&[9; 32]).address();
    for body in [
        have([]),
        Body::Use(proto::Use {}),
        Body::Operation(operation(1, 0, 1, 1, text("psst"))),
        Body::Ack(proto::Ack { epoch: vec![1; 16].into(), seq: 1 }),
        Body::Recall(proto::Recall { epoch: vec![1; 16].into(), after: 0 }),
        Body::Returned(proto::Returned::default()),
        Body::Availability(proto::Availability::default()),
        Body::Standing(standing(Stand::Accepted)),
    ] {
        let link = host.dialled_by(stranger);
        assert_eq!(host.bring(link, [body.clone()]), None, "{body:?} before the greeting");
        host.wait(Duration::from_secs(60));
    }
    assert_eq!(host.state(&stranger), None);
    let link = host.dialled_by(stranger);
    let answer = host.bring(link, [hello(Stand::Asking)]).unwrap();
    assert!(matches!(&answer[..], [Body::Hello(said)] if said.stand() == Stand::Pending && said.name.is_empty()));
    assert_eq!(host.state(&stranger), Some(ContactState::Pending));
    let answer = host.bring(link, [Body::Operation(operation(1, 0, 1, 1, text("psst")))]).unwrap();
    assert!(answer.is_empty() && host.texts(&stranger) == 0);
    assert_eq!(host.bring(link, [hello(Stand::Asking)]), None, "a second greeting");
}

#[test]
fn a_blocked_peer_gets_byte_for_byte_what_an_unknown_one_gets() {
    let (mut answered, mut busy) = (0, 0);
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let peer = Identity::from_seed(&[9; 32]).address();
        // Two hosts that differ in one thing: who their friend is, and that she was blocked.
        let (mut blocking, mut ignorant) = (Host::new(), Host::new());
        let (_, link) = blocking.friend(9);
        blocking.machine.block(peer).unwrap();
        blocking.bring(link, []);
        ignorant.friend(8);
        let mut links = None;
        for step in 0..60 {
            let stand = [Stand::None, Stand::Asking, Stand::Pending, Stand::Rejected, Stand::Accepted, Stand::Busy];
            let stand = stand[rng.random_range(0..stand.len())];
            let body = match rng.random_range(0..7) {
                0..3 => hello(stand),
                3..5 => Body::Standing(standing(stand)),
                5 => Body::Operation(operation(1, 0, 1, 1, text("x"))),
                _ => have([]),
            };
            let wait = if rng.random_bool(0.8) { 0 } else { rng.random_range(1..30) };
            let redial = links.is_none() || rng.random_bool(0.3);
            let [one, other] = [&mut blocking, &mut ignorant].map(|host| {
                host.wait(Duration::from_secs(wait));
                let link = match links {
                    Some(_) if !redial => LinkId(host.next),
                    _ => host.dialled_by(peer),
                };
                host.bring(link, [body.clone()])
            });
            links = Some(());
            assert_eq!(one, other, "seed {seed}, step {step}: {body:?}");
            for said in one.iter().flatten() {
                answered += 1;
                busy += u32::from(matches!(said, Body::Hello(said) if said.stand() == Stand::Busy));
            }
        }
        assert_eq!(blocking.state(&peer), Some(ContactState::Blocked));
    }
    assert!(answered > 1000 && busy == 0, "{answered} answers, {busy} times busy");
}

#[test]
fn a_flood_of_requests_fills_the_inbox_and_no_more() {
    let mut host = Host::new();
    let mut answers = [0; 2];
    for seed in 0..200_u8 {
        let stranger = Identity::from_seed(&[seed; 32]).address();
        if stranger == host.machine.me {
            continue;
        }
        let link = host.dialled_by(stranger);
        match &host.bring(link, [hello(Stand::Asking)]).unwrap()[..] {
            [Body::Hello(said)] if said.stand() == Stand::Pending => answers[0] += 1,
            [Body::Hello(said)] if said.stand() == Stand::Busy => answers[1] += 1,
            other => panic!("{other:?}"),
        }
        host.wait(Duration::from_secs(5));
    }
    assert_eq!(answers, [MAX_PENDING, 199 - MAX_PENDING]);
    assert_eq!(host.machine.store().count_contacts(None).unwrap(), MAX_PENDING);
    // The rate is limited, too.
    let mut host = Host::new();
    let taken = (10..60_u8).filter(|seed| {
        let link = host.dialled_by(Identity::from_seed(&[*seed; 32]).address());
        let answer = host.bring(link, [hello(Stand::Asking)]).unwrap();
        matches!(&answer[..], [Body::Hello(said)] if said.stand() == Stand::Pending)
    });
    assert_eq!(taken.count(), 20);
}

#[test]
fn names_and_greetings_are_bounded_and_made_harmless() {
    for (name, greeting, taken) in [
        ("x".repeat(MAX_NAME), "y".repeat(MAX_GREETING), true),
        ("x".repeat(MAX_NAME + 1), String::new(), false),
        (String::new(), "y".repeat(MAX_GREETING + 1), false),
        ("\u{202e}ecilA\u{200b}\u{1b}[2J\n".into(), "a\u{1b}b".into(), true),
    ] {
        let mut host = Host::new();
        let stranger = Identity::from_seed(&[9; 32]).address();
        let link = host.dialled_by(stranger);
        let said = proto::Standing { stand: Stand::Asking.into(), name, greeting };
        assert_eq!(host.bring(link, [Body::Hello(said)]).is_some(), taken);
        let row = host.machine.store().contact(&stranger).unwrap();
        assert_eq!(row.is_some(), taken);
        if let Some(row) = row.filter(|row| row.name.starts_with('e')) {
            assert_eq!((row.name.as_str(), row.greeting.as_str()), ("ecilA[2J", "ab"));
        }
    }
}

#[test]
fn operations_that_lie_end_their_link_and_leave_nothing() {
    let good = text("hi");
    let long = proto::Content { millis: 0, what: Some(proto::content::What::Text("x".repeat(MAX_TEXT + 1))) };
    let offer = |size, name: &str| {
        let offer =
            proto::FileOffer { transfer: vec![1; 16].into(), name: name.into(), size, root: vec![2; 32].into() };
        proto::Content { millis: 0, what: Some(proto::content::What::Offer(offer)) }.encode_to_vec()
    };
    let mut bad = vec![
        operation(1, 0, 0, 1, good.clone()),
        operation(1, 1, 2, 1, good.clone()),
        operation(1, 5, 2, 1, good.clone()),
        operation(1, 0, u64::MAX, 1, good.clone()),
        operation(1, 0, 1, 1, long.encode_to_vec()),
        operation(1, 0, 1, 1, vec![0xff; 40]),
        operation(1, 0, 1, 1, offer(MAX_FILE + 1, "a")),
        operation(1, 0, 1, 1, offer(u64::MAX, "a")),
        operation(1, 0, 1, 1, offer(1, &"x".repeat(300))),
    ];
    for field in 0..3 {
        let mut short = operation(1, 0, 1, 1, good.clone());
        match field {
            0 => short.epoch.truncate(15),
            1 => short.id.truncate(15),
            _ => short.mark.truncate(15),
        }
        bad.push(short);
    }
    for (index, operation) in bad.into_iter().enumerate() {
        let mut host = Host::new();
        let (friend, link) = host.friend(9);
        assert_eq!(host.bring(link, [Body::Operation(operation)]), None, "{index}");
        assert_eq!(host.texts(&friend), 0);
        assert!(host.machine.store().transfers(10).unwrap().is_empty());
        // The contact is one still, and may try again.
        assert_eq!(host.state(&friend), Some(ContactState::Accepted));
    }
}

#[test]
fn answers_to_what_was_not_asked_end_the_link() {
    let epoch = [4; 16];
    let returned = |operations| Body::Returned(proto::Returned { epoch: epoch.to_vec().into(), operations });
    for body in [
        Body::Ack(proto::Ack { epoch: epoch.to_vec().into(), seq: 1 }),
        Body::Ack(proto::Ack { epoch: vec![1].into(), seq: 1 }),
        returned(vec![]),
        Body::Recall(proto::Recall { epoch: vec![1].into(), after: 0 }),
        Body::Have(proto::Have { epochs: vec![proto::Epoch { epoch: vec![1].into(), seq: 1 }], more: false }),
    ] {
        let mut host = Host::new();
        let (_, link) = host.friend(9);
        assert_eq!(host.bring(link, [body.clone()]), None, "{body:?}");
    }
    let mut host = Host::new();
    let (_, link) = host.friend(9);
    let bytes = vec![0; MAX_FRAME + 1];
    host.machine.handle_frame(link, &bytes, host.now).unwrap();
    assert_eq!(host.answers(link), None);
}

#[test]
fn nobody_can_put_words_into_the_users_mouth() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    // The contact claims to hold what was never written here, and gives it back when asked.
    let answer = host.bring(link, [have([([4; 16], 3)])]).unwrap();
    assert!(matches!(&answer[..], [Body::Recall(recall)] if recall.after == 0));
    let forged = proto::Operation { epoch: vec![4; 16].into(), ..operation(4, 0, 1, 7, text("I confess")) };
    host.bring(link, [Body::Returned(proto::Returned { epoch: vec![4; 16].into(), operations: vec![forged] })]);
    assert_eq!(host.texts(&friend), 0);
    // Nor can one contact give back what was written to another.
    let (other, other_link) = host.friend(8);
    let hello = Text::new("for one only").unwrap();
    let id = host.machine.send_text(other, &hello, host.now).unwrap();
    let sent = host.bring(other_link, []).unwrap();
    let Some(Body::Operation(sent)) = sent.into_iter().find(|body| matches!(body, Body::Operation(_))) else {
        panic!("it was not sent");
    };
    let epoch: [u8; 16] = host.machine.rng.random();
    host.bring(link, [have([(epoch, 1)])]);
    let moved = proto::Operation { epoch: epoch.to_vec().into(), ..sent };
    host.bring(link, [Body::Returned(proto::Returned { epoch: epoch.to_vec().into(), operations: vec![moved] })]);
    assert_eq!(host.texts(&friend), 0);
    assert_eq!(host.machine.store().text(id).unwrap().unwrap().state, MessageState::Written);
}

#[test]
fn one_contact_cannot_touch_what_lies_between_others() {
    let mut host = Host::new();
    let ((friend, link), (other, other_link)) = (host.friend(9), host.friend(8));
    let offer = offer(1);
    host.bring(link, [Body::Operation(operation(1, 0, 1, 1, offer.clone()))]).unwrap();
    let id = TransferId([1; 16]);
    let row = host.machine.store().transfer(id).unwrap().unwrap();
    // The same id from another contact names nothing new, and its end ends nothing.
    let end = end(1, Outcome::Cancelled);
    let operations = [operation(1, 0, 1, 1, offer), operation(1, 1, 2, 2, end.clone())];
    host.bring(other_link, operations.map(Body::Operation)).unwrap();
    let now = host.machine.store().transfer(id).unwrap().unwrap();
    assert_eq!((now.contact, now.state), (row.contact, TransferState::Offered));
    assert!(host.machine.serve(other, id, host.now).unwrap().is_none());
    // The sender may end it, and an id that another has used names two messages.
    host.bring(link, [Body::Operation(operation(1, 1, 2, 2, end))]).unwrap();
    assert_eq!(host.machine.store().transfer(id).unwrap().unwrap().state, TransferState::Cancelled);
    host.bring(link, [Body::Operation(operation(1, 2, 3, 7, text("one")))]).unwrap();
    host.bring(other_link, [Body::Operation(operation(1, 2, 3, 7, text("two")))]).unwrap();
    assert_eq!((host.texts(&friend), host.texts(&other)), (1, 1));
}

#[test]
fn a_contact_that_repeats_itself_is_acknowledged_and_shown_once() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    for _ in 0..3 {
        let answer = host.bring(link, [Body::Operation(operation(1, 0, 1, 1, text("once")))]).unwrap();
        assert!(matches!(&answer[..], [Body::Ack(ack)] if ack.seq == 1));
    }
    // Under another place, as after a restored backup.
    let answer = host.bring(link, [Body::Operation(operation(2, 0, 1, 1, text("once")))]).unwrap();
    assert!(matches!(&answer[..], [Body::Ack(ack)] if ack.seq == 1));
    assert_eq!(host.texts(&friend), 1);
    let contact = host.machine.store().contact(&friend).unwrap().unwrap().id;
    let row = host.machine.store().operation_with(contact, Direction::Incoming, MessageId([1; 16])).unwrap().unwrap();
    assert_eq!(row.millis, host.now.millis, "a time in the future is shown as now");
}

#[test]
fn a_second_offer_while_one_is_open_is_declined() {
    let mut host = Host::new();
    let (_, link) = host.friend(9);
    let operations = (1..=20_u8).map(|n| operation(1, u64::from(n) - 1, u64::from(n), n, offer(n)));
    host.bring(link, operations.map(Body::Operation)).unwrap();
    let states: Vec<_> = host.machine.store().transfers(100).unwrap().iter().map(|row| row.state).collect();
    assert_eq!(states.iter().filter(|state| **state == TransferState::Offered).count(), 1);
    assert_eq!(states.iter().filter(|state| **state == TransferState::Declined).count(), 19);
}

#[test]
fn epochs_and_links_have_limits() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let pages = (0..=2 * MAX_EPOCHS / 1024).map(|page| {
        let epoch = |n: usize| {
            let mut epoch = [0; 16];
            epoch[..8].copy_from_slice(&((page * 1024 + n) as u64).to_be_bytes());
            (epoch, 0)
        };
        have((0..1024).map(epoch))
    });
    assert_eq!(host.bring(link, pages), None);
    let link = host.dialled_by(friend);
    let page = |count: u16| {
        have((0..count).map(|n| {
            let mut epoch = [0; 16];
            epoch[..2].copy_from_slice(&n.to_be_bytes());
            (epoch, 0)
        }))
    };
    assert!(host.bring(link, [hello(Stand::Accepted), page(1024)]).is_some());
    assert_eq!(host.bring(link, [page(1025)]), None);
    let links: Vec<_> = (0..6).map(|_| host.dialled_by(friend)).collect();
    assert_eq!(host.machine.links.len(), 4);
    assert!(!host.machine.links.contains_key(&links[5]));
}

#[test]
fn a_contact_that_never_acknowledges_loses_its_link() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    for i in 0..200 {
        host.machine.send_text(friend, &Text::new(&format!("{i}")).unwrap(), host.now).unwrap();
    }
    let sent = host.bring(link, []).unwrap();
    assert_eq!(sent.iter().filter(|body| matches!(body, Body::Operation(_))).count(), 64, "a bounded number");
    host.wait(Duration::from_secs(61));
    assert_eq!(host.answers(link), None);
}

fn sent(answers: &[Body]) -> usize {
    answers.iter().filter(|body| matches!(body, Body::Operation(_))).count()
}

#[test]
fn without_room_on_the_disk_nothing_more_is_received_and_the_user_can_still_block() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.bring(link, [Body::Operation(operation(1, 0, 1, 1, text("one")))]).unwrap();
    host.machine.set_room(false);
    // What is here already needs none.
    assert!(host.bring(link, [Body::Operation(operation(1, 0, 1, 1, text("one")))]).is_some());
    assert_eq!(host.bring(link, [Body::Operation(operation(1, 1, 2, 2, text("two")))]), None);
    assert_eq!((host.texts(&friend), host.state(&friend)), (1, Some(ContactState::Accepted)));
    host.machine.set_room(true);
    let link = host.dialled_by(friend);
    host.bring(link, [hello(Stand::Accepted), have([])]).unwrap();
    assert!(host.bring(link, [Body::Operation(operation(1, 1, 2, 2, text("two")))]).is_some());
    assert_eq!(host.texts(&friend), 2);
    host.machine.set_room(false);
    host.machine.block(friend).unwrap();
    assert_eq!(host.state(&friend), Some(ContactState::Blocked));
}

#[test]
fn nothing_that_a_blocked_peer_says_is_shown() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.machine.block(friend).unwrap();
    host.bring(link, []);
    let link = host.dialled_by(friend);
    let said = proto::Standing { stand: Stand::Asking.into(), name: "Alice".into(), greeting: "it is me".into() };
    host.bring(link, [Body::Hello(said)]).unwrap();
    let row = host.machine.store().contact(&friend).unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.greeting.as_str(), row.shadow), ("somebody", "hello", true));
}

#[test]
fn pauses_after_failures_grow_and_begin_anew_after_a_while() {
    let mut host = Host::new();
    let pauses: Vec<u64> = (0..9)
        .map(|_| {
            host.machine.forget(host.now);
            let pause = host.machine.retry_at.unwrap() - host.now.instant;
            host.wait(pause);
            pause.as_secs()
        })
        .collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    host.wait(Duration::from_secs(121));
    host.machine.forget(host.now);
    assert_eq!(host.machine.retry_at.unwrap() - host.now.instant, Duration::from_secs(1));
}

//! After a disk was lost, of this side or of the other: what comes back, over which link, and what follows for files.

use super::*;
use crate::messenger::content;
use crate::messenger::machine::transfers::MAX_OFFERS;

/// What the user wrote in a life that was lost, as the contact gives it back.
pub(super) fn given_back(
    host: &Host,
    contact: &OnionAddress,
    place: ([u8; 16], u64),
    id: u8,
    content: Vec<u8>,
) -> Body {
    let mark = content::mark(host.machine.store().marking(), contact, MessageId([id; 16]), &content);
    let (epoch, seq) = place;
    let operation = proto::Operation {
        epoch: epoch.to_vec().into(),
        mark: mark.to_vec().into(),
        ..operation(0, seq - 1, seq, id, content)
    };
    Body::Returned(proto::Returned { epoch: epoch.to_vec().into(), operations: vec![operation] })
}

pub(super) fn recalled(answers: &[Body]) -> Option<[u8; 16]> {
    answers.iter().find_map(|body| match body {
        Body::Recall(recall) => Some(recall.epoch[..].try_into().unwrap()),
        _ => None,
    })
}

#[test]
fn all_that_was_lost_comes_back_over_one_link_and_what_waits_goes_behind_it() {
    const LOST: u8 = 200;
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let id = host.machine.send_text(friend, &Text::new("new").unwrap(), host.now).unwrap();
    // Every other epoch is one of which the contact can give nothing back.
    let mut answers = host.bring(link, [have((0..LOST).map(|n| ([n; 16], 1)))]).unwrap();
    let mut back = 0;
    while let Some(epoch) = recalled(&answers) {
        assert_eq!(sent(&answers), 0, "what waits has gone before all was back");
        let body = if epoch[0] % 2 == 0 {
            back += 1;
            given_back(&host, &friend, (epoch, 1), epoch[0], text("old"))
        } else {
            Body::Returned(proto::Returned { epoch: epoch.to_vec().into(), operations: vec![] })
        };
        answers = host.bring(link, [body]).unwrap();
    }
    assert_eq!((back, host.texts(&friend)), (usize::from(LOST) / 2, usize::from(LOST) / 2 + 1));
    assert_eq!(sent(&answers), 1);
    assert_eq!(host.machine.store().text(id).unwrap().unwrap().state, MessageState::Written);
}

#[test]
fn an_end_that_comes_before_its_offer_ends_it_and_only_who_may_say_it_is_heard() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    // The contact is who offers: it may say that it has taken an offer back, and not that this side has the file.
    let operations = [
        operation(1, 0, 1, 1, end(1, Outcome::Cancelled)),
        operation(1, 1, 2, 2, end(2, Outcome::Done)),
        operation(1, 2, 3, 3, offer(1)),
        operation(1, 3, 4, 4, offer(2)),
    ];
    host.bring(link, operations.map(Body::Operation)).unwrap();
    let state = |host: &Host, id: u8| host.machine.store().transfer(TransferId([id; 16])).unwrap().map(|row| row.state);
    assert_eq!((state(&host, 1), state(&host, 2)), (Some(TransferState::Cancelled), Some(TransferState::Offered)));
    assert!(host.machine.may_offer(friend).is_ok());

    // This side has offered, and lost that with its disk; the contact's word that it has the file comes first.
    let epoch = [7; 16];
    let frames = [have([(epoch, 1)]), Body::Operation(operation(1, 4, 5, 5, end(3, Outcome::Done)))];
    assert_eq!(recalled(&host.bring(link, frames).unwrap()), Some(epoch));
    let back = given_back(&host, &friend, (epoch, 1), 8, offer(3));
    host.bring(link, [back]).unwrap();
    assert_eq!(state(&host, 3), Some(TransferState::Done));
    assert!(host.machine.may_offer(friend).is_ok(), "an offer that is over keeps no other from being made");
}

#[test]
fn no_offer_is_declined_for_one_whose_end_may_still_come_back() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let epoch = [7; 16];
    let operations = [operation(1, 0, 1, 1, offer(1)), operation(1, 1, 2, 2, offer(2))].map(Body::Operation);
    host.bring(link, [have([(epoch, 1)])].into_iter().chain(operations)).unwrap();
    let back = given_back(&host, &friend, (epoch, 1), 8, end(1, Outcome::Done));
    host.bring(link, [back]).unwrap();
    let states: Vec<_> = host.machine.store().transfers(9).unwrap().iter().map(|row| row.state).collect();
    assert_eq!(states, [TransferState::Done, TransferState::Offered]);
}

/// Fetches that are begun, and files of which the rest is deleted, since the last look.
fn errands(host: &mut Host) -> (Vec<TransferId>, usize) {
    let outputs = host.machine.take_outputs();
    let fetched = outputs.iter().filter_map(|output| match output {
        Output::Fetch(id, _) => Some(*id),
        _ => None,
    });
    let fetched = fetched.collect();
    (fetched, outputs.iter().filter(|output| matches!(output, Output::Discard(_))).count())
}

/// Brings frames without a look at what follows.
fn bring(host: &mut Host, link: LinkId, frames: impl IntoIterator<Item = Body>) {
    for body in frames {
        let bytes = proto::Frame { body: Some(body) }.encode_to_vec();
        host.machine.handle_frame(link, &bytes, host.now).unwrap();
    }
    host.machine.finish(host.now).unwrap();
}

/// A friend who has the say which link stays, and does not say it.
fn leader(host: &mut Host) -> (OnionAddress, LinkId) {
    let leads = |seed: &u8| Identity::from_seed(&[*seed; 32]).address() < host.machine.me;
    let seed = (2..).find(leads).unwrap();
    host.friend(seed)
}

#[test]
fn what_a_link_from_before_a_restore_gives_back_goes_to_who_lacks_it_now() {
    let mut host = Host::new();
    let (friend, before) = leader(&mut host);
    let epoch = [7; 16];
    host.bring(before, [have([(epoch, 1)])]).unwrap();
    // The contact is restored, too, and its answer from before that is still on its way.
    let after = host.dialled_by(friend);
    assert_eq!(sent(&host.bring(after, [hello(Stand::Accepted), have([])]).unwrap()), 0);
    let back = given_back(&host, &friend, (epoch, 1), 1, text("old"));
    bring(&mut host, before, [back]);
    assert_eq!(sent(&host.answers(after).unwrap()), 1);
}

#[test]
fn a_second_link_that_brings_the_same_goes_on_with_what_was_lost() {
    let mut host = Host::new();
    let (friend, one) = leader(&mut host);
    let epoch = [7; 16];
    assert_eq!(recalled(&host.bring(one, [have([(epoch, 2)])]).unwrap()), Some(epoch));
    let other = host.dialled_by(friend);
    let answers = host.bring(other, [hello(Stand::Accepted), have([(epoch, 2)])]).unwrap();
    assert_eq!(recalled(&answers), Some(epoch));
    let back = |host: &Host, seq: u8| given_back(host, &friend, (epoch, seq.into()), seq, text("old"));
    let first = back(&host, 1);
    host.bring(one, [first.clone()]).unwrap();
    // The first link ends, and the other has brought nothing new yet.
    let now = host.now;
    host.machine.link_down(one, now);
    let answers = host.bring(other, [first]).unwrap();
    assert_eq!(recalled(&answers), Some(epoch), "the rest is not asked for");
    let second = back(&host, 2);
    host.bring(other, [second]).unwrap();
    assert_eq!(host.texts(&friend), 2);
}

#[test]
fn an_answer_that_goes_back_ends_the_asking() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let epoch = [7; 16];
    host.bring(link, [have([(epoch, 3)])]).unwrap();
    let first = given_back(&host, &friend, (epoch, 1), 1, text("old"));
    assert_eq!(recalled(&host.bring(link, [first.clone()]).unwrap()), Some(epoch));
    assert_eq!(recalled(&host.bring(link, [first]).unwrap()), None, "it would be asked for ever");
    assert_eq!(host.texts(&friend), 1);
}

#[test]
fn an_acknowledgement_of_what_went_over_another_link_is_taken() {
    let mut host = Host::new();
    let (friend, one) = host.friend(9);
    for i in 0..200 {
        host.machine.send_text(friend, &Text::new(&format!("{i}")).unwrap(), host.now).unwrap();
    }
    let answers = host.bring(one, []).unwrap();
    let epoch = answers.iter().find_map(|body| match body {
        Body::Operation(operation) => Some(operation.epoch.clone()),
        _ => None,
    });
    let epoch: [u8; 16] = epoch.unwrap()[..].try_into().unwrap();
    let ack = |seq| Body::Ack(proto::Ack { epoch: epoch.to_vec().into(), seq });
    assert_eq!((sent(&answers), sent(&host.bring(one, [ack(64)]).unwrap())), (64, 64));
    // What the contact had when the second link came up has overtaken what it has taken in on the first.
    let other = host.dialled_by(friend);
    let answers = host.bring(other, [hello(Stand::Accepted), have([(epoch, 10)])]).unwrap();
    assert_eq!(sent(&answers), 64);
    assert!(host.bring(other, [ack(128)]).is_some());
    assert_eq!(host.bring(other, [ack(1000)]), None, "more than was ever sent");
}

#[test]
fn a_restored_receiver_fetches_nothing_that_was_over() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    bring(&mut host, link, [Body::Operation(operation(1, 0, 1, 1, offer(1)))]);
    let id = TransferId([1; 16]);
    host.machine.accept_file(id, std::path::Path::new("saved")).unwrap();
    // As if it were the copy of a profile in whose other life the file was complete.
    let now = host.now;
    host.machine.link_down(link, now);
    errands(&mut host);
    let epoch = [7; 16];
    let link = host.dialled_by(friend);
    bring(&mut host, link, [hello(Stand::Accepted), have([(epoch, 1)])]);
    assert_eq!(errands(&mut host), (vec![], 0));
    let back = given_back(&host, &friend, (epoch, 1), 8, end(1, Outcome::Done));
    bring(&mut host, link, [back]);
    assert_eq!(errands(&mut host), (vec![], 1), "the rest of a second attempt stays");
    assert_eq!(host.machine.store().transfer(id).unwrap().unwrap().state, TransferState::Done);
}

#[test]
fn an_accepted_file_is_fetched_once_nothing_more_can_come_back() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    bring(&mut host, link, [Body::Operation(operation(1, 0, 1, 1, offer(1)))]);
    let id = TransferId([1; 16]);
    host.machine.accept_file(id, std::path::Path::new("saved")).unwrap();
    bring(&mut host, link, []);
    assert_eq!(errands(&mut host).0, [id]);
    let now = host.now;
    host.machine.link_down(link, now);
    let link = host.dialled_by(friend);
    bring(&mut host, link, [hello(Stand::Accepted)]);
    assert!(errands(&mut host).0.is_empty());
    bring(&mut host, link, [have([])]);
    assert_eq!(errands(&mut host).0, [id]);
}

#[test]
fn a_sender_that_has_forgotten_its_offer_hears_that_the_receiver_has_given_it_up() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let epoch = [7; 16];
    let gone = Body::Operation(operation(1, 0, 1, 5, end(3, Outcome::SourceChanged)));
    host.bring(link, [have([(epoch, 1)]), gone]).unwrap();
    let back = given_back(&host, &friend, (epoch, 1), 8, offer(3));
    host.bring(link, [back]).unwrap();
    assert!(host.machine.may_offer(friend).is_ok(), "no other file can be offered");
}

#[test]
fn a_contact_that_goes_on_having_more_to_give_back_has_a_bounded_number_of_offers_open() {
    const OFFERS: u8 = MAX_OFFERS as u8 + 20;
    let mut host = Host::new();
    let (_, link) = host.friend(9);
    let operations = (1..=OFFERS).map(|n| Body::Operation(operation(1, u64::from(n) - 1, u64::from(n), n, offer(n))));
    host.bring(link, [have([([200; 16], 1)])].into_iter().chain(operations)).unwrap();
    let rows = host.machine.store().transfers(1000).unwrap();
    let count = |state: TransferState| rows.iter().filter(|row| row.state == state).count();
    assert_eq!((count(TransferState::Offered), count(TransferState::Declined)), (MAX_OFFERS, 20));
}

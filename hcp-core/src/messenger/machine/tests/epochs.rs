//! Contacts who have opened their profiles very often, and who have this one opened that often.

use super::restored::{given_back, recalled};
use super::*;
use crate::messenger::store::Written;

fn numbered(number: usize) -> [u8; 16] {
    let mut epoch = [0; 16];
    epoch[..8].copy_from_slice(&(number as u64).to_be_bytes());
    epoch
}

/// Has as many epochs of one direction begun as are remembered.
fn begin_all(host: &Host, contact: ContactId, direction: Direction) {
    let store = host.machine.store();
    store.begin().unwrap();
    (0..MAX_EPOCHS).for_each(|number| store.set_epoch(contact, direction, &numbered(number), 1).unwrap());
    store.commit().unwrap();
}

/// The places of what was sent.
fn places(answers: &[Body]) -> Vec<([u8; 16], u64)> {
    let places = answers.iter().filter_map(|body| match body {
        Body::Operation(operation) => Some((operation.epoch[..].try_into().unwrap(), operation.seq)),
        _ => None,
    });
    places.collect()
}

#[test]
fn a_contact_is_heard_however_many_epochs_it_has_begun() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let contact = host.contact(&friend);
    begin_all(&host, contact, Direction::Incoming);
    for (number, epoch) in [201, 202, 203].into_iter().enumerate() {
        let answers = host.bring(link, [Body::Operation(operation(epoch, 0, 1, epoch, text("new")))]).unwrap();
        assert!(matches!(&answers[..], [Body::Ack(ack)] if ack.epoch == [epoch; 16][..]));
        assert_eq!(host.texts(&friend), number + 1);
    }
    let remembered = host.machine.store().epochs(contact, Direction::Incoming).unwrap();
    assert_eq!((remembered.len(), remembered[0].0), (MAX_EPOCHS, numbered(3)));
    // What was forgotten comes again, is taken in, and is not shown again.
    host.bring(link, [Body::Operation(operation(204, 0, 1, 201, text("new")))]).unwrap();
    assert_eq!(host.texts(&friend), 3);
    // What builds on what was forgotten ends the link, and is no lie.
    let late = proto::Operation { epoch: numbered(0).to_vec().into(), ..operation(0, 1, 2, 205, text("late")) };
    assert_eq!(host.bring(link, [Body::Operation(late)]), None);
    assert!(host.machine.violations.is_empty());
}

#[test]
fn what_a_contact_has_forgotten_is_not_sent_again() {
    let mut host = Host::new();
    host.machine.max_epochs = 4;
    let (friend, link) = host.friend(9);
    let contact = host.contact(&friend);
    host.machine.link_down(link, host.now);
    for epoch in 0..6_u8 {
        let place = ([epoch; 16], 1);
        host.machine.store().set_epoch(contact, Direction::Outgoing, &place.0, place.1).unwrap();
        let content = text("old");
        let written = Written {
            contact,
            direction: Direction::Outgoing,
            id: MessageId([epoch; 16]),
            place: Some(place),
            mark: &[0; 16],
            content: &content,
            is_text: true,
            millis: 0,
            state: if epoch == 1 { MessageState::Written } else { MessageState::Delivered },
        };
        host.machine.store().insert_operation(&written).unwrap();
    }
    for (named, sent) in [
        // The first was forgotten, and the second never came.
        (vec![2, 3, 4, 5], vec![1]),
        // It was restored, and has lost the last.
        (vec![1, 2, 3, 4], vec![5]),
        // One that has not forgotten any has lost what it does not name.
        (vec![2, 3, 4], vec![0, 1, 5]),
        (vec![], vec![0, 1, 2, 3, 4, 5]),
    ] {
        let link = host.dialled_by(friend);
        let names = have(named.iter().map(|epoch| ([*epoch; 16], 1)));
        // As before what was acknowledged in between.
        host.machine.store().set_operation_state(2, MessageState::Written).unwrap();
        let answers = host.bring(link, [hello(Stand::Accepted), names]).unwrap();
        let places: Vec<u8> = places(&answers).into_iter().map(|(epoch, _)| epoch[0]).collect();
        assert_eq!(places, sent, "{named:?}");
        host.machine.link_down(link, host.now);
    }
}

#[test]
fn a_step_that_failed_uses_up_no_epoch() {
    let mut host = Host::new();
    let (friend, mut link) = host.friend(9);
    let write = |host: &mut Host| host.machine.send_text(friend, &Text::new("hi").unwrap(), host.now).unwrap();
    write(&mut host);
    let [(epoch, 1)] = places(&host.bring(link, []).unwrap())[..] else { panic!("it was not sent") };
    for seq in 1..5 {
        host.machine.store().begin().unwrap();
        write(&mut host);
        host.machine.finish(host.now).unwrap();
        host.machine.store().rollback();
        host.machine.forget(host.now);
        host.machine.take_outputs();
        link = host.dialled_by(friend);
        host.bring(link, [hello(Stand::Accepted), have([(epoch, seq)])]).unwrap();
        write(&mut host);
        assert_eq!(places(&host.bring(link, []).unwrap()), [(epoch, seq + 1)]);
    }
    assert_eq!(host.machine.store().epochs(host.contact(&friend), Direction::Outgoing).unwrap(), [(epoch, 5)]);
    assert!(host.machine.links.contains_key(&link));
}

#[test]
fn what_was_lost_comes_back_however_often_this_profile_was_opened() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let contact = host.contact(&friend);
    begin_all(&host, contact, Direction::Outgoing);
    assert_eq!(recalled(&host.bring(link, [have([([201; 16], 1)])]).unwrap()), Some([201; 16]));
    let back = given_back(&host, &friend, ([201; 16], 1), 201, text("lost"));
    host.bring(link, [back]).unwrap();
    assert_eq!(host.texts(&friend), 1);
    // As many as a contact can invent are not.
    let store = host.machine.store();
    store.begin().unwrap();
    (1..MAX_EPOCHS).for_each(|number| store.set_recalled(contact, &numbered(MAX_EPOCHS + number), 1).unwrap());
    store.commit().unwrap();
    host.bring(link, [have([([202; 16], 1)])]).unwrap();
    let back = given_back(&host, &friend, ([202; 16], 1), 202, text("one too many"));
    host.bring(link, [back]).unwrap();
    assert_eq!(host.texts(&friend), 1);
}

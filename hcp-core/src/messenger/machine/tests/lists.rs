//! What a change of the list leaves behind: ends of transfers that the other must hear of one day, and places in a full list.

use std::path::PathBuf;

use super::*;
use crate::messenger::contact::MAX_CONTACTS;
use crate::messenger::machine::{Offer, operations};
use crate::messenger::store::OperationRow;
use crate::messenger::text::{FileName, Name};
use crate::messenger::transfer::TransferFailure;

const REMOVED: TransferState = TransferState::Failed(TransferFailure::Removed);

impl Host {
    /// The friend is away.
    fn leave(&mut self, link: LinkId) {
        self.machine.link_down(link, self.now);
    }

    /// The user asks somebody to be a contact again who has heard of nothing, and comes now.
    fn again(&mut self, friend: OnionAddress, epochs: &[([u8; 16], u64)]) -> (LinkId, Vec<Body>) {
        let (nobody, greeting) = (Name::new("").unwrap(), Text::greeting("again").unwrap());
        self.machine.request(friend, &nobody, &greeting).unwrap();
        let link = self.dialled_by(friend);
        let frames = [hello(Stand::Accepted), have(epochs.iter().copied())];
        let answers = self.bring(link, frames).unwrap();
        assert_eq!(self.state(&friend), Some(ContactState::Accepted));
        (link, answers)
    }

    /// The user offers a file.
    fn offer(&mut self, friend: OnionAddress) -> TransferId {
        let offer = Offer {
            name: FileName::new("file").unwrap(),
            size: 5,
            root: [2; 32],
            pieces: vec![2; 32],
            path: PathBuf::from("source"),
        };
        self.machine.offer_file(friend, &offer, self.now).unwrap()
    }

    fn transfer(&self, id: TransferId) -> TransferState {
        self.machine.store().transfer(id).unwrap().unwrap().state
    }
}

/// The offers and ends among what was sent, with the times that they bear.
fn told(answers: &[Body]) -> Vec<(TransferId, Option<Outcome>, u64)> {
    let told = answers.iter().filter_map(|body| {
        let Body::Operation(operation) = body else { return None };
        let content = proto::Content::decode(&operation.content[..]).unwrap();
        let id = |bytes: &[u8]| TransferId(bytes.try_into().unwrap());
        match content.what {
            Some(proto::content::What::Offer(offer)) => Some((id(&offer.transfer[..]), None, content.millis)),
            Some(proto::content::What::End(end)) => Some((id(&end.transfer[..]), Some(end.outcome()), content.millis)),
            _ => None,
        }
    });
    told.collect()
}

#[test]
fn who_is_archived_hears_that_its_offer_has_ended_when_the_two_are_contacts_again() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.bring(link, [Body::Operation(operation(1, 0, 1, 1, offer(1)))]).unwrap();
    host.leave(link);
    host.machine.archive(friend).unwrap();
    assert_eq!(host.transfer(TransferId([1; 16])), REMOVED);
    let (_, answers) = host.again(friend, &[]);
    assert_eq!(told(&answers), [(TransferId([1; 16]), Some(Outcome::Cancelled), 0)]);
}

#[test]
fn what_the_user_said_of_an_offer_before_is_said_when_the_two_are_contacts_again() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.bring(link, [Body::Operation(operation(1, 0, 1, 1, offer(1)))]).unwrap();
    host.leave(link);
    host.machine.decline_file(TransferId([1; 16]), host.now).unwrap();
    let id = host.machine.send_text(friend, &Text::new("taken back").unwrap(), host.now).unwrap();
    host.machine.archive(friend).unwrap();
    assert_eq!(host.machine.store().text(id).unwrap().unwrap().state, MessageState::Cancelled);
    let (_, answers) = host.again(friend, &[]);
    assert_eq!(told(&answers), [(TransferId([1; 16]), Some(Outcome::Declined), host.now.millis)]);
    assert_eq!(sent(&answers), 1);
}

#[test]
fn who_is_blocked_hears_nothing_until_the_two_are_contacts_again_and_never_when_it_was() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.bring(link, [Body::Operation(operation(1, 0, 1, 1, offer(1)))]).unwrap();
    let mine = host.offer(friend);
    host.bring(link, []).unwrap();
    host.machine.block(friend).unwrap();
    assert_eq!((host.transfer(TransferId([1; 16])), host.transfer(mine)), (REMOVED, REMOVED));
    assert_eq!(host.bring(link, []), None);
    let link = host.dialled_by(friend);
    let answers = host.bring(link, [hello(Stand::Accepted), have([])]).unwrap();
    assert!(matches!(&answers[..], [Body::Hello(said)] if said.stand() == Stand::Pending), "{answers:?}");
    host.leave(link);

    host.wait(Duration::from_secs(1000));
    host.machine.unblock(friend).unwrap();
    let (_, answers) = host.again(friend, &[]);
    // The offer had gone out, and goes again, as it was not acknowledged.
    let ends = [(TransferId([1; 16]), Some(Outcome::Cancelled), 0), (mine, Some(Outcome::Cancelled), 0)];
    let told = told(&answers);
    assert_eq!((told[0].0, told[0].1, &told[1..]), (mine, None, &ends[..]));
    assert!(host.machine.may_offer(friend).is_ok());
}

#[test]
fn who_takes_this_profile_off_its_list_hears_of_ends_when_the_two_are_contacts_again() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    let mine = host.offer(friend);
    host.bring(link, []).unwrap();
    host.bring(link, [Body::Standing(standing(Stand::None))]);
    assert_eq!((host.state(&friend), host.transfer(mine)), (Some(ContactState::RemovedByPeer), REMOVED));
    let (_, answers) = host.again(friend, &[]);
    let told: Vec<_> = told(&answers).into_iter().map(|(id, outcome, _)| (id, outcome)).collect();
    assert_eq!(told, [(mine, None), (mine, Some(Outcome::Cancelled))]);
}

#[test]
fn of_an_offer_that_never_went_out_nothing_is_told_unless_it_did_in_another_life() {
    let mut host = Host::new();
    let (friend, link) = host.friend(9);
    host.leave(link);
    let cancelled = host.offer(friend);
    host.machine.cancel_file(cancelled, host.now).unwrap();
    let mine = host.offer(friend);
    host.machine.archive(friend).unwrap();
    assert_eq!(host.transfer(mine), REMOVED);
    let epoch = [7; 16];
    let (link, answers) = host.again(friend, &[(epoch, 1)]);
    assert!(told(&answers).is_empty());
    // The contact had it from a life of this profile that was lost.
    let rows = host.machine.store().operations(host.contact(&friend));
    let offers_it = |row: &&OperationRow| match operations::what(row).unwrap() {
        Some(What::Offer(offered)) => offered.transfer == mine,
        _ => false,
    };
    let row = rows.iter().find(offers_it).unwrap();
    let operation = proto::Operation {
        epoch: epoch.to_vec().into(),
        seq: 1,
        id: row.id.0.to_vec().into(),
        mark: row.mark.clone().into(),
        content: row.content.clone().into(),
        after: 0,
    };
    let back = Body::Returned(proto::Returned { epoch: epoch.to_vec().into(), operations: vec![operation] });
    let answers = host.bring(link, [back]).unwrap();
    assert_eq!(told(&answers), [(mine, Some(Outcome::Cancelled), 0)]);
}

#[test]
fn who_is_blocked_pushes_nobody_out_of_a_full_list_and_hears_what_a_stranger_hears() {
    let address = |number: u16| {
        let mut seed = [5; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(&seed).address()
    };
    let mut host = Host::new();
    let [blocked, other, archived, stranger] = [1, 2, 3, 4].map(address);
    host.machine.block(blocked).unwrap();
    host.machine.block(other).unwrap();
    let store = host.machine.store();
    store.begin().unwrap();
    store.insert_contact(&archived, ContactState::Archived).unwrap();
    for number in 3..MAX_CONTACTS as u16 {
        store.insert_contact(&address(10 + number), ContactState::Draft).unwrap();
    }
    store.commit().unwrap();
    let asks = |host: &mut Host, who| {
        let link = host.dialled_by(who);
        match &host.bring(link, [hello(Stand::Asking)]).unwrap()[..] {
            [Body::Hello(said)] => said.stand(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asks(&mut host, blocked), Stand::Pending);
    assert_eq!(host.state(&archived), Some(ContactState::Archived));
    // For somebody new there is room, at the expense of who was archived; and then there is none.
    assert_eq!(asks(&mut host, stranger), Stand::Pending);
    assert_eq!((host.state(&archived), host.state(&stranger)), (None, Some(ContactState::Pending)));
    assert_eq!([asks(&mut host, archived), asks(&mut host, other)], [Stand::Busy; 2]);
    assert_eq!(asks(&mut host, blocked), Stand::Pending, "it has asked already");
    assert_eq!(host.machine.store().count_contacts(None).unwrap(), MAX_CONTACTS);
}

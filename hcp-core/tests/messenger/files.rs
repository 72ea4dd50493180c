//! Files between contacts.

use std::path::Path;

use hcp_core::messenger::{
    ContactState, Cursor, Direction, EventKind, Transfer, TransferError, TransferFailure, TransferId, TransferState,
};

use super::harness::{Person, World};

/// So many bytes that no two pieces are alike.
fn write_file(path: &Path, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect();
    std::fs::write(path, &bytes).unwrap();
    bytes
}

impl Person {
    async fn until_offer(&mut self) -> Transfer {
        self.until("an offer", |event| match &event.kind {
            EventKind::TransferOffered(transfer) if transfer.direction == Direction::Incoming => Some(transfer.clone()),
            _ => None,
        })
        .await
    }

    async fn until_transfer(&mut self, wanted: TransferId, state: TransferState) {
        self.until(&format!("a transfer that is {state:?}"), |event| match event.kind {
            EventKind::TransferState { id, state: now, .. } if id == wanted && now == state => Some(()),
            _ => None,
        })
        .await;
    }

    async fn until_progress(&mut self, wanted: TransferId) -> u64 {
        self.until("progress", |event| match event.kind {
            EventKind::Progress { id, done, .. } if id == wanted && done > 0 => Some(done),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn files_of_several_sizes_arrive_whole_in_both_directions() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    for (index, size) in [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000].into_iter().enumerate() {
        let (from, to) = if index % 2 == 0 { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
        let source = world.path(&format!("source-{index}"));
        let bytes = write_file(&source, size);
        let id = from.messenger.offer_file(to.address, &source).await.unwrap();
        let offer = to.until_offer().await;
        assert_eq!((offer.id, offer.size, offer.name), (id, size as u64, format!("source-{index}")));
        let saved = world.path(&format!("saved-{index}"));
        to.messenger.accept_file(id, &saved).await.unwrap();
        to.until_transfer(id, TransferState::Done).await;
        from.until_transfer(id, TransferState::Done).await;
        assert_eq!(std::fs::read(&saved).unwrap(), bytes);
        let (here, there) = (to.messenger.transfer(id).await.unwrap(), from.messenger.transfer(id).await.unwrap());
        assert_eq!((here.done, there.done), (size as u64, size as u64));
        assert!(!world.path(&format!("saved-{index}.part")).exists());
    }
    assert_eq!(alice.messenger.transfers().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_file_goes_on_where_it_was_after_either_side_restarts_and_messages_pass_it() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    let source = world.path("source");
    let bytes = write_file(&source, 24_000_000);
    let saved = world.path("saved");
    let id = alice.messenger.offer_file(bob.address, &source).await.unwrap();
    bob.until_offer().await;
    bob.messenger.accept_file(id, &saved).await.unwrap();
    bob.until_progress(id).await;
    alice.say(bob.address, "while the file is on its way").await;

    let before = bob.messenger.transfer(id).await.unwrap().done;
    bob.messenger.shutdown().await;
    let mut bob = world.again("bob", bob.cursor).await;
    assert!(bob.messenger.transfer(id).await.unwrap().done >= before);
    bob.go_online(&world).await;
    bob.until_progress(id).await;

    alice.messenger.shutdown().await;
    let halfway = bob.messenger.transfer(id).await.unwrap();
    assert_eq!(halfway.state, TransferState::Running, "it was over before its sender went");
    assert!(halfway.done >= before && halfway.done < halfway.size);
    let mut alice = world.again("alice", alice.cursor).await;
    alice.go_online(&world).await;
    bob.until_transfer(id, TransferState::Done).await;
    alice.until_transfer(id, TransferState::Done).await;
    assert_eq!(std::fs::read(&saved).unwrap(), bytes);
}

#[tokio::test]
async fn either_side_can_end_a_transfer_and_nothing_of_it_is_left() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    let source = world.path("source");
    write_file(&source, 24_000_000);
    let saved = world.path("saved");

    let declined = alice.messenger.offer_file(bob.address, &source).await.unwrap();
    assert!(matches!(alice.messenger.offer_file(bob.address, &source).await, Err(TransferError::Busy)));
    bob.until_offer().await;
    bob.messenger.decline_file(declined).await.unwrap();
    alice.until_transfer(declined, TransferState::Declined).await;

    for by_sender in [true, false] {
        let id = alice.messenger.offer_file(bob.address, &source).await.unwrap();
        bob.until_offer().await;
        bob.messenger.accept_file(id, &saved).await.unwrap();
        bob.until_progress(id).await;
        let (ends, hears) = if by_sender { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
        ends.messenger.cancel_file(id).await.unwrap();
        hears.until_transfer(id, TransferState::Cancelled).await;
        assert!(matches!(ends.messenger.cancel_file(id).await, Err(TransferError::State(TransferState::Cancelled))));
        // Once the receiver has heard of it, and what follows from that was carried out.
        bob.messenger.cursor().await.unwrap();
        assert!(!saved.exists() && !world.path("saved.part").exists());
    }
}

#[tokio::test]
async fn what_cannot_be_saved_or_is_no_file_is_refused_at_once() {
    let world = World::new();
    let (alice, mut bob) = world.friends().await;
    let source =
        world.path("../source\u{202e}txt.exe").file_name().map(|name| world.path(&name.to_string_lossy())).unwrap();
    write_file(&source, 10);
    assert!(matches!(alice.messenger.offer_file(bob.address, world.path("missing")).await, Err(TransferError::Io(_))));
    assert!(matches!(alice.messenger.offer_file(bob.address, world.path("")).await, Err(TransferError::Io(_))));
    let id = alice.messenger.offer_file(bob.address, &source).await.unwrap();
    let offer = bob.until_offer().await;
    assert_eq!(offer.name, "sourcetxt.exe");
    assert!(matches!(bob.messenger.accept_file(id, &source).await, Err(TransferError::Exists)));
    assert!(matches!(bob.messenger.accept_file(id, world.path("no/such/folder")).await, Err(TransferError::Io(_))));
    assert!(matches!(
        alice.messenger.accept_file(id, world.path("x")).await,
        Err(TransferError::Direction(Direction::Outgoing))
    ));
    let (bob_address, mut carol) = (bob.address, world.online("carol").await);
    carol.messenger.request(bob_address, "", "").await.unwrap();
    bob.until_state(carol.address, ContactState::Pending).await;
    bob.messenger.accept(carol.address).await.unwrap();
    carol.until_state(bob_address, ContactState::Accepted).await;
    let other = carol.messenger.offer_file(bob_address, &source).await.unwrap();
    bob.until_offer().await;
    carol.messenger.go_offline().await;
    let same = world.path("same");
    bob.messenger.accept_file(other, &same).await.unwrap();
    assert!(matches!(bob.messenger.accept_file(id, &same).await, Err(TransferError::Exists)));
    assert!(world.path("same.part").exists());
    let folder = world.path("downloads");
    std::fs::create_dir(&folder).unwrap();
    bob.messenger.accept_file(id, &folder).await.unwrap();
    bob.until_transfer(id, TransferState::Done).await;
    assert_eq!(std::fs::read(folder.join("sourcetxt.exe")).unwrap().len(), 10);
}

#[tokio::test]
async fn a_file_that_was_changed_after_the_offer_is_not_taken() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    let source = world.path("source");
    write_file(&source, 1_000_000);
    let id = alice.messenger.offer_file(bob.address, &source).await.unwrap();
    bob.until_offer().await;
    let mut bytes = std::fs::read(&source).unwrap();
    bytes[600_000] ^= 1;
    std::fs::write(&source, &bytes).unwrap();
    bob.messenger.accept_file(id, world.path("saved")).await.unwrap();
    let failed = TransferState::Failed(TransferFailure::SourceChanged);
    bob.until_transfer(id, failed).await;
    alice.until_transfer(id, failed).await;
    assert!(!world.path("saved").exists());
}

#[tokio::test]
async fn a_receiver_who_asks_before_it_hears_of_the_cancel_is_shown_the_cancel() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    write_file(&world.path("source"), 1000);
    let id = alice.messenger.offer_file(bob.address, world.path("source")).await.unwrap();
    bob.until_offer().await;
    alice.messenger.go_offline().await;
    bob.messenger.accept_file(id, world.path("saved")).await.unwrap();
    // So much that Bob asks for the file before the last of it has come.
    for number in 0..500 {
        alice.messenger.send(bob.address, &number.to_string()).await.unwrap();
    }
    alice.messenger.cancel_file(id).await.unwrap();
    alice.go_online(&world).await;
    alice.messenger.connect_now(bob.address).await.unwrap();
    let state = bob
        .until("an end", |event| match event.kind {
            EventKind::TransferState { id: told, state, .. } if told == id && state != TransferState::Running => {
                Some(state)
            }
            _ => None,
        })
        .await;
    assert_eq!(state, TransferState::Cancelled);
    alice.until_transfer(id, TransferState::Cancelled).await;
    bob.messenger.cursor().await.unwrap();
    assert!(!world.path("saved.part").exists());
}

/// What a person knows of a transfer.
async fn state(person: &Person, id: TransferId) -> Option<TransferState> {
    person.messenger.transfer(id).await.ok().map(|transfer| transfer.state)
}

#[tokio::test]
async fn a_receiver_who_was_restored_keeps_what_is_offered_and_knows_what_is_over() {
    for dials_first in [true, false] {
        let world = World::new();
        let (mut alice, mut bob) = world.friends().await;
        bob.messenger.back_up(world.path("backup")).await.unwrap();
        let bytes = write_file(&world.path("first"), 1000);
        let first = alice.messenger.offer_file(bob.address, world.path("first")).await.unwrap();
        bob.until_offer().await;
        bob.messenger.accept_file(first, world.path("saved")).await.unwrap();
        alice.until_transfer(first, TransferState::Done).await;
        bob.messenger.shutdown().await;
        write_file(&world.path("second"), 2000);
        let second = alice.messenger.offer_file(bob.address, world.path("second")).await.unwrap();
        if dials_first {
            alice.messenger.go_offline().await;
        }
        let mut restored = world.again("backup", Cursor::START).await;
        restored.go_online(&world).await;
        if dials_first {
            alice.go_online(&world).await;
        }
        while restored.until_offer().await.id != second {}
        restored.messenger.accept_file(second, world.path("saved too")).await.unwrap();
        alice.until_transfer(second, TransferState::Done).await;
        assert_eq!(state(&restored, first).await, Some(TransferState::Done), "dials first: {dials_first}");
        assert_eq!(std::fs::read(world.path("saved")).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_sender_who_was_restored_can_offer_the_next_file() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.messenger.back_up(world.path("backup")).await.unwrap();
    write_file(&world.path("first"), 1000);
    let first = alice.messenger.offer_file(bob.address, world.path("first")).await.unwrap();
    bob.until_offer().await;
    bob.messenger.accept_file(first, world.path("saved")).await.unwrap();
    alice.until_transfer(first, TransferState::Done).await;
    alice.messenger.shutdown().await;
    let mut restored = world.again("backup", Cursor::START).await;
    restored.go_online(&world).await;
    restored.until_transfer(first, TransferState::Done).await;
    write_file(&world.path("second"), 2000);
    let second = restored.messenger.offer_file(bob.address, world.path("second")).await.unwrap();
    while bob.until_offer().await.id != second {}
    bob.messenger.accept_file(second, world.path("saved too")).await.unwrap();
    restored.until_transfer(second, TransferState::Done).await;
}

#[tokio::test]
async fn a_sender_who_was_restored_ends_what_it_cannot_serve_any_more_and_both_know() {
    let world = World::new();
    let (alice, mut bob) = world.friends().await;
    alice.messenger.back_up(world.path("backup")).await.unwrap();
    write_file(&world.path("first"), 1000);
    let first = alice.messenger.offer_file(bob.address, world.path("first")).await.unwrap();
    bob.until_offer().await;
    alice.messenger.shutdown().await;
    bob.messenger.accept_file(first, world.path("saved")).await.unwrap();
    let mut restored = world.again("backup", Cursor::START).await;
    restored.go_online(&world).await;
    // Where the file is was lost with the offer.
    let failed = TransferState::Failed(TransferFailure::SourceChanged);
    bob.until_transfer(first, failed).await;
    restored.until_transfer(first, failed).await;
    bob.messenger.cursor().await.unwrap();
    assert!(!world.path("saved.part").exists());
    write_file(&world.path("second"), 2000);
    let second = restored.messenger.offer_file(bob.address, world.path("second")).await.unwrap();
    while bob.until_offer().await.id != second {}
}

#[tokio::test]
async fn a_receiver_who_was_restored_does_not_ask_again_for_what_has_come() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    let bytes = write_file(&world.path("source"), 1000);
    let id = alice.messenger.offer_file(bob.address, world.path("source")).await.unwrap();
    bob.until_offer().await;
    alice.messenger.go_offline().await;
    bob.messenger.accept_file(id, world.path("saved")).await.unwrap();
    bob.messenger.back_up(world.path("backup")).await.unwrap();
    alice.go_online(&world).await;
    alice.until_transfer(id, TransferState::Done).await;
    bob.messenger.shutdown().await;
    std::fs::rename(world.path("saved"), world.path("elsewhere")).unwrap();
    let mut restored = world.again("backup", Cursor::START).await;
    restored.go_online(&world).await;
    restored.until_transfer(id, TransferState::Done).await;
    restored.messenger.cursor().await.unwrap();
    assert!(!world.path("saved").exists() && !world.path("saved.part").exists());
    assert_eq!(std::fs::read(world.path("elsewhere")).unwrap(), bytes);
}

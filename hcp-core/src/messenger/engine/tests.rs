//! What an engine finds when it starts.

use std::fs;

use super::*;
use crate::identity::keyfile::Argon2Cost;
use crate::identity::{Identity, Passphrase};
use crate::messenger::contact::ContactState;
use crate::messenger::message::Direction;
use crate::messenger::store::{NewTransfer, Store};
use crate::messenger::transfer::TransferState;

/// A profile in a folder, and what opens it, with as little work as there may be.
fn create(folder: &Path) -> (Profile, Passphrase) {
    let (memory, passes, lanes) = (Argon2Cost::MEMORY_KIB, Argon2Cost::PASSES, Argon2Cost::LANES);
    let cost = Argon2Cost::new(*memory.start(), *passes.start(), *lanes.start()).unwrap();
    let passphrase = Passphrase::new("correct horse").unwrap();
    let profile = Profile::create_for(Identity::generate(), folder.join("profile"), &passphrase, "", cost).unwrap();
    (profile, passphrase)
}

/// A file that is on its way to a path.
fn run(store: &Store, number: u8, contact: ContactId, path: &Path) {
    let new = NewTransfer {
        id: TransferId([number; 16]),
        contact,
        direction: Direction::Incoming,
        name: "file",
        size: 5,
        root: &[2; 32],
        pieces: None,
        path: Some(path),
        state: TransferState::Running,
    };
    store.insert_transfer(&new).unwrap();
}

#[tokio::test]
async fn what_a_killed_process_has_left_of_a_file_is_deleted_at_the_next_start_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (profile, passphrase) = create(folder.path());
    let mut machine = Machine::new(profile.identity.address(), profile.store, [1; 32]);
    let friend = Identity::from_seed(&[9; 32]).address();
    let store = machine.store();
    let contact = store.insert_contact(&friend, ContactState::Accepted).unwrap().id;
    for (number, name) in [(1, "over"), (2, "running"), (3, "earlier")] {
        run(store, number, contact, &at(name));
    }
    for name in ["over", "running", "earlier", "other"] {
        fs::write(at(&format!("{name}.part")), name).unwrap();
    }
    let cancel = |machine: &mut Machine, number| {
        machine.store().begin().unwrap();
        machine.cancel_file(TransferId([number; 16]), now()).unwrap();
        machine.finish(now()).unwrap();
        machine.store().commit().unwrap();
    };
    // Of one transfer what follows from its end is carried out; at that of the other the process is killed.
    cancel(&mut machine, 3);
    fs::remove_file(at("earlier.part")).unwrap();
    machine.store().remove_discard(&at("earlier")).unwrap();
    fs::write(at("earlier.part"), "of somebody else").unwrap();
    cancel(&mut machine, 1);
    drop(machine);

    let left = |name: &str| at(&format!("{name}.part")).exists();
    for start in ["the next", "another"] {
        let inputs = Inputs::start(Profile::open(at("profile"), &passphrase).unwrap());
        inputs.call(|_| ()).await.unwrap();
        assert_eq!(left("over"), start == "another", "{start} start");
        assert!(left("running") && left("earlier") && left("other"), "{start} start");
        inputs.stop().await;
        fs::write(at("over.part"), "of somebody else").unwrap();
    }
}

#[tokio::test]
async fn what_could_not_be_deleted_is_deleted_later_unless_another_transfer_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (profile, _) = create(folder.path());
    let store = &profile.store;
    let contact = store.insert_contact(&Identity::from_seed(&[9; 32]).address(), ContactState::Accepted).unwrap().id;
    run(store, 1, contact, &at("taken"));
    for name in ["taken", "free"] {
        store.insert_discard(&at(name)).unwrap();
        fs::write(at(&format!("{name}.part")), name).unwrap();
    }
    let inputs = Inputs::start(profile);
    let left = inputs.call(|engine| engine.machine().store().discards().unwrap()).await.unwrap();
    assert!(left.is_empty() && at("taken.part").exists() && !at("free.part").exists());
}

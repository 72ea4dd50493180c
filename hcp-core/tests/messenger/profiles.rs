//! Profiles on disk.

use hcp_core::error::ErrorKind;
use hcp_core::identity::{Identity, Passphrase};
use hcp_core::messenger::{Cursor, EventsError, Messenger, Profile, ProfileError};

use super::harness::{DEADLINE, World, cheap, passphrase};

#[tokio::test]
async fn a_profile_is_opened_by_its_passphrase_and_by_one_program_at_a_time() {
    let world = World::new();
    let path = world.path("profile");
    assert!(matches!(Profile::open(&path, &passphrase()), Err(ProfileError::NotFound)));
    let identity = Identity::generate();
    let profile = Profile::create_for(identity.clone(), &path, &passphrase(), "me", cheap()).unwrap();
    assert!(matches!(Profile::create(&path, &passphrase(), ""), Err(ProfileError::AlreadyExists)));
    let in_use = Profile::open(&path, &passphrase()).unwrap_err();
    assert_eq!((in_use.kind(), matches!(in_use, ProfileError::InUse)), (ErrorKind::InUse, true));
    let messenger = Messenger::new(profile);
    assert!(Profile::open(&path, &passphrase()).is_err());
    #[cfg(unix)]
    for entry in std::fs::read_dir(&path).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o077, 0, "others can read a file of the profile");
    }
    messenger.shutdown().await;

    let wrong = Passphrase::new("wrong").unwrap();
    assert!(matches!(Profile::open(&path, &wrong), Err(ProfileError::WrongPassphrase)));
    let new = Passphrase::new("battery staple").unwrap();
    assert!(matches!(Profile::change_passphrase(&path, &wrong, &new, cheap()), Err(ProfileError::WrongPassphrase)));
    Profile::change_passphrase(&path, &passphrase(), &new, cheap()).unwrap();
    assert!(matches!(Profile::open(&path, &passphrase()), Err(ProfileError::WrongPassphrase)));
    assert_eq!(Profile::open(&path, &new).unwrap().address(), identity.address());
}

#[tokio::test]
async fn a_profile_is_backed_up_while_it_is_open_and_online() {
    let world = World::new();
    let (mut alice, mut bob) = world.friends().await;
    alice.say(bob.address, "before").await;
    let backup = world.path("backup");
    bob.messenger.back_up(&backup).await.unwrap();
    #[cfg(unix)]
    for path in [backup.clone(), backup.join("profile.db"), backup.join("profile.key")] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "others can read {}", path.display());
    }
    bob.say(alice.address, "after").await;
    let kept = std::fs::read(backup.join("profile.db")).unwrap();
    assert!(matches!(bob.messenger.back_up(&backup).await, Err(ProfileError::AlreadyExists)));
    assert!(matches!(bob.messenger.back_up(world.path("bob")).await, Err(ProfileError::AlreadyExists)));
    assert_eq!(std::fs::read(backup.join("profile.db")).unwrap(), kept, "what is there stays as it is");
    bob.messenger.shutdown().await;
    assert!(matches!(bob.messenger.back_up(world.path("late")).await, Err(ProfileError::Closed)));

    let wrong = Passphrase::new("wrong").unwrap();
    assert!(matches!(Profile::open(&backup, &wrong), Err(ProfileError::WrongPassphrase)));
    let mut restored = world.again("backup", Cursor::START).await;
    assert_eq!((restored.address, restored.texts(alice.address).await), (bob.address, vec!["before".to_owned()]));
    restored.go_online(&world).await;
    restored.until_texts(&["after"]).await;
    assert_eq!(alice.texts(bob.address).await, ["before", "after"]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing() {
    let world = World::new();
    let bob = world.person("bob").await;
    let file = world.path("file");
    std::fs::write(&file, "no folder").unwrap();
    assert_eq!(bob.messenger.back_up(&file).await.unwrap_err().kind(), ErrorKind::Storage);
    // Its other half cannot be copied.
    std::fs::remove_file(world.path("bob").join("profile.key")).unwrap();
    let backup = world.path("backup");
    assert_eq!(bob.messenger.back_up(&backup).await.unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(std::fs::read_dir(&backup).unwrap().count(), 0);
}

#[test]
fn a_profile_of_which_a_part_is_missing_is_named_so() {
    let world = World::new();
    for missing in ["profile.key", "profile.db"] {
        let path = world.path(missing);
        drop(Profile::create_for(Identity::generate(), &path, &passphrase(), "", cheap()).unwrap());
        std::fs::remove_file(path.join(missing)).unwrap();
        assert!(matches!(Profile::create(&path, &passphrase(), ""), Err(ProfileError::Incomplete)));
        assert!(Profile::open(&path, &passphrase()).is_err());
    }
}

#[test]
fn another_database_under_the_same_key_is_not_opened() {
    let world = World::new();
    for name in ["a", "b"] {
        drop(Profile::create_for(Identity::generate(), world.path(name), &passphrase(), "", cheap()).unwrap());
    }
    std::fs::copy(world.path("a").join("profile.db"), world.path("b").join("profile.db")).unwrap();
    let error = Profile::open(world.path("b"), &passphrase()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
}

#[tokio::test]
async fn whoever_waits_learns_of_the_shutdown() {
    let world = World::new();
    let mut person = world.person("alice").await;
    let messenger = person.messenger.clone();
    let (event, reachable, ()) = tokio::time::timeout(DEADLINE, async {
        tokio::join!(person.events.next(), messenger.reachable(), async {
            // Long enough that both wait; when it is not, the test proves less and does not fail.
            for _ in 0..100 {
                messenger.cursor().await.unwrap();
            }
            messenger.shutdown().await;
        })
    })
    .await
    .unwrap();
    assert!(matches!(event, Err(EventsError::Closed)));
    assert!(!reachable);
}

use std::fs;
use std::path::Path;

use super::*;
use crate::identity::delegation::{OwnerCertificate, Round, Validity};

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: *Argon2Cost::MEMORY_KIB.start(), passes: 1, lanes: 1 };

fn sealed_by(text: &str) -> Protection {
    Protection::Passphrase(Passphrase::new(text).expect("not empty"))
}

fn file_in(dir: &Path) -> KeyFile {
    KeyFile::new(dir.join("key")).cost(CHEAP)
}

#[test]
fn round_trips_each_kind_of_key_sealed_and_plain() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (identity, log, discovery) = (Identity::generate(), LogKey::generate(), DiscoveryKey::generate());
    for (name, protection) in [("sealed", sealed_by("pass")), ("plain", Protection::Plain)] {
        let file = KeyFile::new(dir.path().join(format!("{name}.identity"))).cost(CHEAP);
        file.save(&identity, &protection).expect("saved");
        let loaded: Identity = file.load(&protection).expect("loaded");
        assert_eq!(loaded.expanded_secret_key(), identity.expanded_secret_key());

        let file = KeyFile::new(dir.path().join(format!("{name}.log"))).cost(CHEAP);
        file.save(&log, &protection).expect("saved");
        let loaded: LogKey = file.load(&protection).expect("loaded");
        assert_eq!(loaded.expanded(), log.expanded());

        let file = KeyFile::new(dir.path().join(format!("{name}.discovery"))).cost(CHEAP);
        file.save(&discovery, &protection).expect("saved");
        let loaded: DiscoveryKey = file.load(&protection).expect("loaded");
        assert_eq!(loaded.secret_bytes(), discovery.secret_bytes());
        assert!(matches!(file.load::<Identity>(&protection), Err(LoadKeyError::WrongPurpose)));
    }
}

#[test]
fn a_discovery_key_that_is_not_clamped_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let bytes = format::encode(Purpose::Discovery, &[0xff; 32], &Protection::Plain, CHEAP).expect("encoded");
    fs::write(dir.path().join("key"), &*bytes).expect("written");
    let error = file_in(dir.path()).load::<DiscoveryKey>(&Protection::Plain).expect_err("not clamped");
    assert!(matches!(error, LoadKeyError::Damaged));
}

#[test]
fn keeps_all_that_speaks_for_a_service() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (service, owner, session) = (Identity::generate(), OwnerKey::generate(), SessionKey::generate());
    let validity = Validity::new(1, 2).expect("in order");
    let certificate = OwnerCertificate::issue(&service, owner.public_key(), validity);
    let round = Round::new(4, 3, validity).expect("floor fits");
    let delegation = owner.delegate(service.address(), session.public_key(), round);
    let credentials = ReplicaCredentials::new(service.address(), certificate, delegation, session.clone());
    let credentials = credentials.expect("they belong together");
    for (name, protection) in [("sealed", sealed_by("pass")), ("plain", Protection::Plain)] {
        let file = |kind: &str| KeyFile::new(dir.path().join(format!("{name}.{kind}"))).cost(CHEAP);
        file("owner").save(&owner, &protection).expect("saved");
        let loaded: OwnerKey = file("owner").load(&protection).expect("loaded");
        assert_eq!(loaded.public_key(), owner.public_key());

        file("session").save(&session, &protection).expect("saved");
        let loaded: SessionKey = file("session").load(&protection).expect("loaded");
        assert_eq!(loaded.public_key(), session.public_key());

        file("replica").save(&credentials, &protection).expect("saved");
        let loaded: ReplicaCredentials = file("replica").load(&protection).expect("loaded");
        assert_eq!(loaded.stored(), credentials.stored());

        // None is taken for another, whatever its length.
        let wrong = [
            file("owner").load::<SessionKey>(&protection).err(),
            file("session").load::<Identity>(&protection).err(),
            file("replica").load::<SessionKey>(&protection).err(),
            file("session").load::<ReplicaCredentials>(&protection).err(),
        ];
        for error in wrong {
            assert!(matches!(error, Some(LoadKeyError::WrongPurpose)), "{error:?}");
        }
    }
}

#[test]
fn credentials_that_do_not_belong_together_are_not_loaded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("replica");
    let mut stored = [0; ReplicaCredentials::STORED_LEN];
    stored[..32].copy_from_slice(Identity::from_seed(&[1; 32]).address().public_key());
    let bytes = format::encode(Purpose::Replica, &stored, &Protection::Plain, CHEAP).expect("encoded");
    fs::write(&path, &*bytes).expect("written");
    let error = KeyFile::new(&path).load::<ReplicaCredentials>(&Protection::Plain).expect_err("zeros");
    assert!(matches!(error, LoadKeyError::Damaged));
    assert!(format::encode(Purpose::Replica, &stored[1..], &Protection::Plain, CHEAP).is_err(), "a byte is missing");
}

#[test]
fn default_cost_is_what_the_file_says() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = KeyFile::new(dir.path().join("key"));
    file.save(&Identity::from_seed(&[1; 32]), &sealed_by("pass")).expect("saved");
    let bytes = fs::read(dir.path().join("key")).expect("readable");
    assert_eq!(bytes.len(), format::sealed_len(Purpose::Address));
    assert_eq!(bytes[11..23], [0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1], "64 MiB, 3 passes, 1 lane");
    assert!(file.load::<Identity>(&sealed_by("pass")).is_ok());
}

#[test]
fn opens_a_file_of_the_first_release() {
    // Written once by this code; keeps the format from drifting.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keyfile/sealed-v1.key");
    let loaded: Identity = KeyFile::new(path).load(&sealed_by("correct horse")).expect("loaded");
    assert_eq!(loaded.address(), Identity::from_seed(&[42; 32]).address());
}

#[test]
fn wrong_passphrase_is_told_from_damage() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = file_in(dir.path());
    file.save(&Identity::generate(), &sealed_by("pass")).expect("saved");
    let error = file.load::<Identity>(&sealed_by("Pass")).expect_err("wrong passphrase");
    assert!(matches!(error, LoadKeyError::WrongPassphrase));
    assert_eq!(error.kind(), ErrorKind::Authentication);
}

#[test]
fn key_is_loaded_for_its_own_purpose_only() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = file_in(dir.path());
    file.save(&LogKey::generate(), &sealed_by("pass")).expect("saved");
    let load = || file.load::<Identity>(&sealed_by("pass")).expect_err("a log key");
    assert!(matches!(load(), LoadKeyError::WrongPurpose));

    // Relabelling the file does not help: the purpose is sealed with the key.
    let mut bytes = fs::read(dir.path().join("key")).expect("readable");
    bytes[9] = Purpose::Address as u8;
    format::fix_checksum(&mut bytes);
    fs::write(dir.path().join("key"), bytes).expect("written");
    assert!(matches!(load(), LoadKeyError::WrongPassphrase));
}

#[test]
fn protection_must_be_the_one_that_the_file_has() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let plain = KeyFile::new(dir.path().join("plain"));
    plain.save(&Identity::generate(), &Protection::Plain).expect("saved");
    let error = plain.load::<Identity>(&sealed_by("pass")).expect_err("plain");
    assert!(matches!(error, LoadKeyError::NotSealed));
    let sealed = file_in(dir.path());
    sealed.save(&Identity::generate(), &sealed_by("pass")).expect("saved");
    let error = sealed.load::<Identity>(&Protection::Plain).expect_err("sealed");
    assert!(matches!(error, LoadKeyError::Sealed));
}

#[test]
fn never_replaces_a_key() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = file_in(dir.path());
    let first = Identity::generate();
    file.save(&first, &Protection::Plain).expect("saved");
    let error = file.save(&Identity::generate(), &Protection::Plain).expect_err("taken");
    assert!(matches!(error, SaveKeyError::AlreadyExists));
    let loaded: Identity = file.load(&Protection::Plain).expect("loaded");
    assert_eq!(loaded.address(), first.address());
}

#[test]
fn any_altered_byte_is_noticed() {
    for protection in [sealed_by("pass"), Protection::Plain] {
        let secret = Identity::from_seed(&[5; 32]).expanded_secret_key();
        let good = format::encode(Purpose::Address, &*secret, &protection, CHEAP).expect("encoded");
        for place in 0..good.len() {
            let mut bad = good.to_vec();
            bad[place] ^= 1;
            let error = format::decode(Purpose::Address, &bad, &protection).expect_err("altered");
            let expected = match place {
                0..8 => DecodeError::Magic,
                8 => DecodeError::Version,
                _ => DecodeError::Damaged,
            };
            assert_eq!(error, expected, "byte {place}");
        }
        for len in 0..good.len() {
            format::decode(Purpose::Address, &good[..len], &protection).expect_err("cut short");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(format::decode(Purpose::Address, &longer, &protection), Err(DecodeError::Damaged));
    }
}

#[test]
fn any_byte_altered_on_purpose_is_noticed_in_a_sealed_file() {
    let protection = sealed_by("pass");
    let secret = Identity::from_seed(&[5; 32]).expanded_secret_key();
    let good = format::encode(Purpose::Address, &*secret, &protection, CHEAP).expect("encoded");
    let covered = good.len() - 32;
    for place in 0..covered {
        let mut bad = good.to_vec();
        bad[place] ^= 1;
        format::fix_checksum(&mut bad);
        let error = format::decode(Purpose::Address, &bad, &protection).expect_err("altered");
        let expected: &[DecodeError] = match place {
            0..8 => &[DecodeError::Magic],
            8 => &[DecodeError::Version],
            9 => &[DecodeError::Purpose],
            10 => &[DecodeError::NotSealed],
            // A cost within the bounds derives another key.
            11..23 => &[DecodeError::Cost, DecodeError::Unsealing],
            _ => &[DecodeError::Unsealing],
        };
        assert!(expected.contains(&error), "byte {place}: {error:?}");
    }
}

#[test]
fn hostile_cost_is_refused_before_any_work() {
    let protection = sealed_by("pass");
    let good = format::encode(Purpose::Address, &[0; 64], &protection, CHEAP).expect("encoded");
    for (place, value) in [(11, 100 * 1024 * 1024), (11, u32::MAX), (11, 0), (15, u32::MAX), (15, 0), (19, u32::MAX)] {
        let mut bad = good.to_vec();
        bad[place..place + 4].copy_from_slice(&value.to_be_bytes());
        format::fix_checksum(&mut bad);
        let started = std::time::Instant::now();
        assert_eq!(format::decode(Purpose::Address, &bad, &protection), Err(DecodeError::Cost), "{place}: {value}");
        assert!(started.elapsed().as_millis() < 1000, "{place}: {value}");
    }
    assert_eq!(Argon2Cost::new(8 * 1024, 0, 1), Err(CostError));
    assert_eq!(Argon2Cost::new(8 * 1024 - 1, 1, 1), Err(CostError));
    assert!(Argon2Cost::new(1024 * 1024, 16, 4).is_ok());
}

#[test]
fn plain_file_with_a_key_that_is_none_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let bytes = format::encode(Purpose::Address, &[0xff; 64], &Protection::Plain, CHEAP).expect("encoded");
    fs::write(dir.path().join("key"), &*bytes).expect("written");
    let error = file_in(dir.path()).load::<Identity>(&Protection::Plain).expect_err("not clamped");
    assert!(matches!(error, LoadKeyError::Damaged));
}

#[test]
fn two_files_of_one_key_share_no_bytes_that_matter() {
    let secret = [7; 64];
    let file = || format::encode(Purpose::Log, &secret, &sealed_by("pass"), CHEAP).expect("encoded");
    let (a, b) = (file(), file());
    assert_ne!(a[23..39], b[23..39], "salt");
    assert_ne!(a[39..51], b[39..51], "nonce");
    assert!(a.windows(8).all(|w| w != [7; 8]), "the key is not in the clear");
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let load = |name: &str| KeyFile::new(dir.path().join(name)).load::<Identity>(&Protection::Plain);
    assert!(matches!(load("missing"), Err(LoadKeyError::NotFound)));
    fs::write(dir.path().join("long"), [0; 4096]).expect("written");
    assert!(matches!(load("long"), Err(LoadKeyError::NotAKeyFile)));
    fs::write(dir.path().join("short"), b"hello").expect("written");
    assert!(matches!(load("short"), Err(LoadKeyError::NotAKeyFile)));
    let in_nowhere = KeyFile::new(dir.path().join("no/such/dir/key"));
    let error = in_nowhere.save(&Identity::generate(), &Protection::Plain).expect_err("no directory");
    assert_eq!(error.kind(), ErrorKind::Storage);
}

#[test]
fn debug_of_protection_shows_no_passphrase() {
    assert!(!format!("{:?}", sealed_by("tell-tale")).contains("tell-tale"));
}

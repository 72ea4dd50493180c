use std::path::PathBuf;

use super::*;

/// Made by C tor itself.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ctor")
}

fn copy_of_fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    for file in [SECRET_FILE, PUBLIC_FILE, HOSTNAME_FILE] {
        fs::copy(fixture().join(file), dir.path().join(file)).expect("copied");
    }
    dir
}

#[test]
fn imports_what_c_tor_made_under_the_address_that_it_printed() {
    let identity = import(&fixture()).expect("imported");
    let printed = fs::read_to_string(fixture().join(HOSTNAME_FILE)).expect("readable");
    assert_eq!(format!("{}\n", identity.address()), printed);
    assert!(identity.address().verify(b"m", &identity.sign(b"m")).is_ok());
}

#[test]
fn exports_the_very_bytes_that_c_tor_wrote() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let target = dir.path().join("service");
    export(&import(&fixture()).expect("imported"), &target).expect("exported");
    for file in [SECRET_FILE, PUBLIC_FILE, HOSTNAME_FILE] {
        let read = |dir: &Path| fs::read(dir.join(file)).expect("readable");
        assert_eq!(read(&target), read(&fixture()), "{file}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&target), 0o700);
        assert_eq!(mode(&target.join(SECRET_FILE)), 0o600);
    }
}

#[test]
fn export_replaces_nothing() {
    for taken in [SECRET_FILE, PUBLIC_FILE, HOSTNAME_FILE] {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(taken), b"precious").expect("written");
        let error = export(&Identity::generate(), dir.path()).expect_err("taken");
        assert!(matches!(error, ExportKeyError::AlreadyExists));
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
        assert_eq!(fs::read(dir.path().join(taken)).expect("readable"), b"precious");
    }
}

#[test]
fn secret_key_alone_is_enough() {
    let dir = copy_of_fixture();
    fs::remove_file(dir.path().join(PUBLIC_FILE)).expect("removed");
    fs::remove_file(dir.path().join(HOSTNAME_FILE)).expect("removed");
    assert!(import(dir.path()).is_ok());
    fs::remove_file(dir.path().join(SECRET_FILE)).expect("removed");
    assert!(matches!(import(dir.path()), Err(ImportKeyError::NotFound)));
}

#[test]
fn refuses_what_does_not_belong_together() {
    let stranger = Identity::generate().address();
    let dir = copy_of_fixture();
    fs::write(dir.path().join(PUBLIC_FILE), public_key_file(stranger)).expect("written");
    assert!(matches!(import(dir.path()), Err(ImportKeyError::PublicKeyMismatch)));

    let dir = copy_of_fixture();
    for content in [format!("{stranger}\n"), "nonsense\n".to_owned(), String::new()] {
        fs::write(dir.path().join(HOSTNAME_FILE), content).expect("written");
        assert!(matches!(import(dir.path()), Err(ImportKeyError::HostnameMismatch)));
    }
}

#[test]
fn refuses_malformed_files() {
    let good = fs::read(fixture().join(SECRET_FILE)).expect("readable");
    for place in 0..32 {
        let mut bad = good.clone();
        bad[place] ^= 1;
        assert!(matches!(decode_secret_key(&bad), Err(ImportKeyError::Malformed(_))), "byte {place}");
    }
    for bad in [&good[..95], &[], &[good.as_slice(), b"\n"].concat()] {
        assert!(matches!(decode_secret_key(bad), Err(ImportKeyError::Malformed(_))), "{} bytes", bad.len());
    }
    let dir = copy_of_fixture();
    fs::write(dir.path().join(HOSTNAME_FILE), vec![b' '; HOSTNAME_LIMIT + 1]).expect("written");
    assert!(matches!(import(dir.path()), Err(ImportKeyError::Malformed(HOSTNAME_FILE))));
}

#[test]
fn flipped_secret_is_noticed_by_the_public_key_beside_it() {
    let good = fs::read(fixture().join(SECRET_FILE)).expect("readable");
    for place in 32..64 {
        let mut bad = good.clone();
        // A middle bit, so that the scalar stays clamped.
        bad[place] ^= 0x10;
        let dir = copy_of_fixture();
        fs::write(dir.path().join(SECRET_FILE), bad).expect("written");
        assert!(matches!(import(dir.path()), Err(ImportKeyError::PublicKeyMismatch)), "byte {place}");
    }
}

/// These run the system's `tor`, which has to be installed (`make deps`).
#[cfg(feature = "testing")]
mod with_real_tor {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// Runs `tor` offline on the service directory until it has written the host name, and returns that.
    fn hostname_by_tor(service: &Path) -> String {
        let data = tempfile::tempdir().expect("temporary directory");
        let log = data.path().join("log");
        let child = Command::new("tor")
            .args(["--ignore-missing-torrc", "-f", "/nonexistent/torrc", "--defaults-torrc", "/nonexistent/torrc"])
            .args(["--DisableNetwork", "1", "--SocksPort", "0"])
            .arg("--HiddenServiceDir")
            .arg(service)
            .args(["--HiddenServicePort", "80 127.0.0.1:9"])
            .arg("--DataDirectory")
            .arg(data.path().join("data"))
            .stdout(fs::File::create(&log).expect("created"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the `tor` program is needed for this test; install it with `make deps`");
        let mut child = Killed(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match fs::read_to_string(service.join(HOSTNAME_FILE)) {
                Ok(name) if name.ends_with('\n') => return name,
                _ => {}
            }
            let exited = child.0.try_wait().expect("waited for");
            if exited.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(log).unwrap_or_default();
                panic!("tor wrote no host name; exit {exited:?}; its log:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn tor_accepts_an_export_and_prints_the_same_address() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let service = dir.path().join("service");
        let identity = Identity::generate();
        export(&identity, &service).expect("exported");
        // tor has to derive it from the key that it loads.
        fs::remove_file(service.join(HOSTNAME_FILE)).expect("removed");
        assert_eq!(hostname_by_tor(&service), format!("{}\n", identity.address()));
        assert_eq!(import(&service).expect("imported").address(), identity.address());
    }

    #[test]
    fn imports_a_service_that_tor_makes_afresh() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let service = dir.path().join("service");
        let name = hostname_by_tor(&service);
        assert_eq!(format!("{}\n", import(&service).expect("imported").address()), name);
    }
}

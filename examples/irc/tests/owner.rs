//! The owner's work as an owner does it: real processes, files carried from folder to folder, no network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hcp_core::identity::keyfile::{KeyFile, Protection};
use hcp_core::identity::{Identity, OnionAddress, ReplicaSeed, ctor};
use hcp_core::owner::{Holdings, PeriodClock, Recipient};
use serde_json::Value;

/// An owner's folder and the homes of three nodes, the last of which does not publish.
struct Stage {
    folder: tempfile::TempDir,
    service: String,
}

const NODES: [&str; 3] = ["paris", "oslo", "lima"];

fn run(folder: &Path, line: &str) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hcp-irc")).current_dir(folder).args(line.split(' ')).output();
    output.expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

impl Stage {
    /// Makes everything up to the manifest.
    fn new(new: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut stage = Self { folder, service: String::new() };
        stage.service = stage.good(&format!("owner new --dir owner --plain-keys{new}")).trim().to_owned();
        stage.good("owner key --dir owner --plain-keys");
        for node in NODES {
            let block = stage.good(&format!("init --home {node} --plain-keys"));
            fs::write(stage.path(&format!("{node}.block")), block).expect("written");
        }
        stage.manifest(&NODES);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs it and returns what it prints.
    fn good(&self, line: &str) -> String {
        let output = run(self.folder.path(), line);
        assert!(output.status.success(), "{line}: {output:?}");
        text(&output.stdout)
    }

    /// Runs it and returns the one line with which it fails.
    fn refusal(&self, line: &str) -> String {
        let output = run(self.folder.path(), line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with("hcp-irc: ") && said.lines().count() == 1, "{line}: {said}");
        said
    }

    fn manifest(&self, nodes: &[&str]) -> String {
        let mut cluster = "name = \"irc.test\"\nnetwork = \"Test\"\nmotd = \"Be kind.\"\n".to_owned();
        for node in nodes {
            cluster.push_str(&fs::read_to_string(self.path(&format!("{node}.block"))).expect("made"));
            cluster.push_str(&format!("name = \"{node}\"\n"));
            if *node == "lima" {
                cluster.push_str("publisher = false\n");
            }
        }
        fs::write(self.path("cluster.toml"), cluster).expect("written");
        self.good("owner manifest --dir owner --plain-keys cluster.toml")
    }

    /// Has every node ask; returns the names of the files.
    fn requests(&self, nodes: &[&str]) -> String {
        for node in nodes {
            let line = format!("request --home {node} --service {} --out {node}.request --plain-keys", self.service);
            assert_eq!(self.good(&line).trim(), format!("{node}.request"));
        }
        nodes.iter().map(|node| format!("{node}.request")).collect::<Vec<_>>().join(" ")
    }

    fn import(&self, node: &str) -> String {
        self.good(&format!("import-grant --home {node} --plain-keys grants/{node}.grant"))
    }

    fn exposure(&self) -> Vec<Value> {
        let lines = self.good("owner exposure --dir owner --json");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn of<'e>(exposures: &'e [Value], node: &str) -> &'e Value {
        exposures.iter().find(|line| line["node"] == node).expect("in the book")
    }

    fn holdings(&self, node: &str) -> Holdings {
        let key: Identity =
            KeyFile::new(self.path(&format!("{node}/node.key"))).load(&Protection::Plain).expect("a key");
        let seed: ReplicaSeed =
            KeyFile::new(self.path(&format!("{node}/replica.key"))).load(&Protection::Plain).expect("a seed");
        let service: OnionAddress = self.service.parse().expect("an address");
        let recipient = Recipient::new(service, key.address(), seed);
        Holdings::open(self.path(&format!("{node}/grants")), recipient, now()).expect("opened")
    }

    fn serial(&self, node: &str) -> Option<u64> {
        self.holdings(node).credentials(now()).map(|credentials| credentials.delegation().serial())
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn an_owner_grants_renews_revokes_and_withdraws() {
    let stage = Stage::new("");
    let requests = stage.requests(&NODES);
    let granted = stage.good(&format!("owner grant --dir owner --hours 24 --plain-keys {requests}"));
    assert!(granted.starts_with("3 grants in grants"), "{granted}");
    let of_lima = granted.lines().find(|line| line.contains("lima")).expect("a line for each");
    assert!(of_lima.contains("speak 2") && of_lima.ends_with("publish not"), "{of_lima}");
    for node in NODES {
        let imported = stage.import(node);
        assert!(imported.starts_with("Imported.") && imported.contains("speaks for the service 2"), "{imported}");
        assert!(imported.contains("Manifest 1: irc.test on 3 nodes"), "{imported}");
        assert_eq!(stage.serial(node), Some(1));
        assert!(stage.import(node).contains("holds the grant already"));
        let holdings = stage.holdings(node);
        let manifest = holdings.manifest().expect("came with the grant");
        assert_eq!((manifest.contents().version(), manifest.contents().members().len()), (1, 3));
        let shared = text(manifest.contents().shared_configuration());
        assert!(shared.contains("Be kind."), "{shared}");
        let left = holdings.left(now());
        assert_eq!(left.publishes_until.is_some(), node != "lima");
    }
    let exposures = stage.exposure();
    let (paris, lima) = (Stage::of(&exposures, "paris"), Stage::of(&exposures, "lima"));
    let hours = |line: &Value, field: &str| line[field].as_u64().expect("a number");
    assert!((24..=25).contains(&hours(paris, "speaks_hours")), "{paris}");
    // Up to a day until the last period needed begins, and 42 hours until its certificate ends.
    assert!((42..=25 + 12 + 42 + 12).contains(&hours(paris, "publishes_hours")), "{paris}");
    assert_eq!((hours(lima, "publishes_hours"), &lima["publishes_until"]), (0, &Value::Null));

    // Renewed from the same requests, without naming them again.
    stage.good("owner grant --dir owner --hours 24 --rounds 3 --plain-keys");
    for node in NODES {
        stage.import(node);
        assert_eq!(stage.serial(node), Some(2));
    }
    assert_eq!(fs::read_dir(stage.path("paris/grants")).expect("readable").count(), 2, "the older one still counts");

    let said = run(stage.folder.path(), "owner revoke --dir owner lima");
    let revoked = text(&said.stdout);
    assert!(revoked.contains("lima") && revoked.contains("speak for the service 2"), "{revoked}");
    assert!(text(&said.stderr).contains("owner floor"), "{said:?}");
    let early = stage.refusal("owner floor --dir owner");
    assert!(early.contains("renewed") && (early.contains("paris") || early.contains("oslo")), "{early}");
    assert!(stage.refusal("owner grant --dir owner --hours 24 --plain-keys lima.request").contains("revoked"));
    stage.manifest(&NODES[..2]);
    stage.good("owner grant --dir owner --hours 24 --plain-keys");
    let floor = stage.good("owner floor --dir owner");
    assert!(floor.contains("below 5 "), "{floor}");
    assert!(Stage::of(&stage.exposure(), "paris")["withdrawn"] == false);
    let withdrawn = stage.exposure().into_iter().find(|line| line["revoked"] == true).expect("lima, by its address");
    assert_eq!(withdrawn["withdrawn"], true);
    stage.good("owner grant --dir owner --hours 24 --plain-keys");
    for node in &NODES[..2] {
        stage.import(node);
        let holdings = stage.holdings(node);
        let credentials = holdings.credentials(now()).expect("speaks");
        assert_eq!((credentials.delegation().serial(), credentials.delegation().lowest_serial()), (6, 5));
        assert_eq!(holdings.manifest().map(|manifest| manifest.contents().version()), Some(2));
        assert_eq!(holdings.manifest().map(|manifest| manifest.contents().members().len()), Some(2));
    }
    assert_eq!(stage.serial("lima"), Some(2), "it keeps what it has until that ends");
}

#[test]
fn what_is_not_for_a_node_is_refused_and_nothing_is_lost() {
    let (stage, other) = (Stage::new(""), Stage::new(""));
    let requests = stage.requests(&NODES);
    stage.good(&format!("owner grant --dir owner --hours 24 --plain-keys {requests}"));
    fs::rename(stage.path("grants"), stage.path("old")).expect("renamed");
    stage.good("owner grant --dir owner --hours 24 --plain-keys");
    stage.import("paris");
    let of_other = other.requests(&NODES);
    other.good(&format!("owner grant --dir owner --hours 24 --plain-keys {of_other}"));
    fs::copy(other.path("grants/paris.grant"), stage.path("foreign.grant")).expect("copied");
    let mut tampered = fs::read(stage.path("grants/paris.grant")).expect("made");
    tampered[500] ^= 1;
    fs::write(stage.path("tampered.grant"), &tampered).expect("written");
    fs::write(stage.path("huge.grant"), vec![0; 1 << 20]).expect("written");
    for (file, expected) in [
        ("old/paris.grant", "older"),
        ("grants/oslo.grant", "another node"),
        ("foreign.grant", "another service"),
        ("tampered.grant", "not what the owner key signed"),
        ("huge.grant", "too long"),
        ("cluster.toml", "layout"),
        ("missing.grant", "No such file"),
    ] {
        let said = stage.refusal(&format!("import-grant --home paris --plain-keys {file}"));
        assert!(said.contains(expected), "{file}: {said}");
        assert_eq!(stage.serial("paris"), Some(2), "{file}");
    }
    let said = stage.refusal(&format!("owner grant --dir owner --hours 24 --plain-keys {}", "tampered.grant"));
    assert!(said.contains("use the request"), "{said}");
    fs::copy(other.path("paris.request"), stage.path("foreign.request")).expect("copied");
    let said = stage.refusal("owner grant --dir owner --hours 24 --plain-keys foreign.request");
    assert!(said.contains("another service"), "{said}");
    let said = stage.refusal(&format!("request --home paris --service {} --plain-keys", other.service));
    assert!(said.contains("serves one"), "{said}");
}

#[test]
fn a_warden_hands_out_what_was_made_in_advance() {
    let stage = Stage::new("");
    let requests = stage.requests(&NODES);
    let made = stage.good(&format!("owner schedule --dir owner --hours 167 --rounds 7 --plain-keys {requests}"));
    assert!(made.starts_with("21 grants in stock"), "{made}");
    let handed_out = stage.good("warden --stock stock --out grants");
    assert_eq!(handed_out.lines().count(), 3, "{handed_out}");
    assert_eq!(stage.good("warden --stock stock --out grants"), "", "nothing new");
    for node in NODES {
        stage.import(node);
        assert_eq!(stage.serial(node), Some(1));
    }
    let exposures = stage.exposure();
    let paris = Stage::of(&exposures, "paris");
    assert!(paris["speaks_hours"].as_u64().is_some_and(|hours| hours <= 30), "{paris}");
    let (alone, with) = (paris["speaks_until"].as_u64(), paris["with_warden_speaks_until"].as_u64());
    assert!(with.zip(alone).is_some_and(|(with, alone)| with > alone + 5 * 86_400), "{paris}");
    let shown = stage.good("owner exposure --dir owner");
    assert!(shown.contains("with the warden seized too") && shown.contains("lima"), "{shown}");
}

#[test]
fn a_private_network_has_its_own_time_periods() {
    let stage = Stage::new(" --period-minutes 8");
    let clock = PeriodClock::of_minutes(8).expect("a clock");
    let line = format!("request --home paris --service {} --periods 40 --period-minutes 8 --plain-keys", stage.service);
    stage.good(&line);
    stage.good("owner grant --dir owner --hours 1 --plain-keys paris/node.request");
    stage.import("paris");
    let left = stage.holdings("paris").left(now());
    assert!(left.publishes_until.is_some_and(|until| until + 8 * 60 > now() + 3600), "{left:?}");
    assert_eq!(clock.offset(), 240);
    // Without the length, the request is for the public network.
    let request = stage.requests(&["oslo"]);
    let said = stage.refusal(&format!("owner grant --dir owner --hours 1 --plain-keys {request}"));
    assert!(said.contains("another length of time periods") && said.contains("oslo"), "{said}");
    let said = stage.refusal("owner new --dir elsewhere --period-minutes 1 --plain-keys");
    assert!(said.contains("5 to 14400"), "{said}");
}

#[test]
fn a_service_of_c_tor_is_imported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = Identity::generate();
    ctor::export(&identity, &folder.path().join("hs")).expect("exported");
    let made = run(folder.path(), "owner new --dir owner --import hs --plain-keys");
    assert_eq!(text(&made.stdout).trim(), identity.address().to_string(), "{made:?}");
    let again = run(folder.path(), "owner new --dir owner --import hs --plain-keys");
    assert!(text(&again.stderr).contains("exists already"), "{again:?}");
    let kept: Identity = KeyFile::new(folder.path().join("owner/identity.key")).load(&Protection::Plain).expect("kept");
    assert_eq!(kept.expanded_secret_key(), identity.expanded_secret_key());
}

#[test]
fn keys_are_sealed_and_steps_that_come_too_early_say_which_comes_first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("pass"), "correct horse\n").expect("written");
    let refused = |line: &str| {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        text(&output.stderr)
    };
    assert!(refused("owner key --dir owner --passphrase-file pass").contains("`owner new` come first"));
    let made = run(folder.path(), "owner new --dir owner --passphrase-file pass");
    assert!(made.status.success() && text(&made.stderr).contains("owner key --dir owner"), "{made:?}");
    assert!(refused("owner grant --dir owner --hours 1 --passphrase-file pass").contains("owner manifest"));
    assert!(refused("owner key --dir owner --plain-keys").contains("sealed"));
    let certified = run(folder.path(), "owner key --dir owner --days 30 --passphrase-file pass");
    assert!(text(&certified.stdout).contains("certified until"), "{certified:?}");
    let before = fs::read(folder.path().join("owner/owner.key")).expect("made");
    let again = run(folder.path(), "owner key --dir owner --days 30 --passphrase-file pass");
    assert!(again.status.success(), "{again:?}");
    assert_eq!(fs::read(folder.path().join("owner/owner.key")).expect("kept"), before, "certified anew, not made anew");
    let replaced = run(folder.path(), "owner key --dir owner --replace --passphrase-file pass");
    assert!(replaced.status.success(), "{replaced:?}");
    assert_ne!(fs::read(folder.path().join("owner/owner.key")).expect("made"), before);
    run(folder.path(), "init --home node --plain-keys");
    assert!(refused("request --home node --plain-keys").contains("--service"));
    assert!(refused("import-grant --home node --plain-keys x").contains("`request --service ADDRESS`"));
    assert!(refused("owner revoke --dir owner nobody").contains("no name in the manifest"));
}

#[test]
fn a_nodes_disk_holds_its_own_keys_and_nothing_of_the_identity() {
    let stage = Stage::new("");
    let requests = stage.requests(&NODES);
    stage.good(&format!("owner grant --dir owner --hours 24 --rounds 2 --plain-keys {requests}"));
    let load =
        |name: &str| -> Identity { KeyFile::new(stage.path(name)).load(&Protection::Plain).expect("a plain key") };
    let identity = load("owner/identity.key").expanded_secret_key();
    for node in NODES {
        stage.import(node);
        let own = load(&format!("{node}/node.key")).expanded_secret_key();
        let home = files(&stage.path(node));
        let holds = |secret: &[u8]| home.iter().any(|file| file.windows(secret.len()).any(|bytes| bytes == secret));
        assert!(home.len() >= 5, "three keys, the service, a grant");
        // The search finds what is there.
        assert!(holds(&own[..32]) && holds(&own[32..]));
        assert!(holds(stage.service.as_bytes()));
        assert!(!holds(&identity[..32]), "the identity's scalar");
        assert!(!holds(&identity[32..]), "the prefix that it signs with");
        assert!(!holds(&fs::read(stage.path("owner/owner.key")).expect("made")[11..75]), "the owner key");
        assert!(!holds(&fs::read(stage.path("owner/revisions.key")).expect("made")[11..43]), "the seed of revisions");
    }
    let owners = files(&stage.path("owner"));
    assert!(owners.iter().any(|file| file.windows(64).any(|bytes| bytes == identity.as_slice())), "the search works");
}

/// The content of all files below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(fs::read(path).expect("readable")) }
    }
    found
}

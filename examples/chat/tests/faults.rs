//! Kills a daemon at every point where a crash could hurt, on either side, and counts what arrives.
//!
//! Whatever `send` answered with ok is received once and in order, in the events read across the kill and in the history;
//! a file arrives whole. A point that no run reaches fails the test: it would prove nothing.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hcp_core::testing::fault::POINTS;
use hcp_demo::chat::{ChatDaemon, ChatProfile, Printed};
use hcp_demo::{Place, Result};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Scenarios at once: they wait more than they work.
const PARALLEL: usize = 4;
/// For one scenario, with pauses between attempts to dial.
const DEADLINE: Duration = Duration::from_secs(180);
/// At which passage of a point the process dies.
const PASSAGES: [u64; 2] = [1, 2];
/// How long after its pipes have broken a process may be seen to live.
const AT_ONCE: Duration = Duration::from_secs(10);
const TEXTS: usize = 3;
const FILE: usize = 2 * 1024 * 1024;
const ALICE: usize = 0;
const BOB: usize = 1;
const NAMES: [&str; 2] = ["alice", "bob"];

/// One side, over all runs of its daemon.
struct Side {
    profile: ChatProfile,
    arguments: Vec<String>,
    daemon: Option<ChatDaemon>,
    /// What earlier runs printed.
    earlier: Vec<Value>,
    /// It was killed by signal 9, at its point.
    fired: bool,
}

/// Both sides; either may end at any moment and is started again.
struct Pair {
    sides: [Side; 2],
    ends: Instant,
}

impl Side {
    fn start(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let after = self.earlier.iter().filter_map(|line| line["cursor"].as_u64()).max().unwrap_or(0).to_string();
        let mut arguments = vec!["--after", after.as_str()];
        arguments.extend(self.arguments.iter().map(String::as_str));
        self.daemon = Some(self.profile.start(&arguments, variables)?);
        Ok(())
    }

    /// Everything that was printed, in all runs.
    fn printed(&self) -> Printed {
        let mut lines = self.earlier.clone();
        lines.extend(self.daemon.iter().flat_map(|daemon| daemon.printed().lines));
        Printed { lines, ended: false }
    }

    fn has_ended(&self) -> bool {
        self.daemon.as_ref().is_none_or(|daemon| daemon.printed().ended)
    }

    /// Whether it ends now: its pipes break before the end of what it printed is seen.
    async fn ends_now(&self) -> bool {
        match &self.daemon {
            Some(daemon) => daemon.wait("its end", AT_ONCE, |printed| printed.ended.then_some(())).await.is_ok(),
            None => true,
        }
    }

    /// Starts it again, if it has ended, without the fault.
    async fn revive(&mut self) -> Result<()> {
        if !self.has_ended() {
            return Ok(());
        }
        if let Some(daemon) = self.daemon.take() {
            let (status, printed) = daemon.ended().await?;
            if status.signal() != Some(9) {
                return Err(format!("{} ended with {status}, not by the fault", self.profile.name).into());
            }
            self.fired = true;
            self.earlier.extend(printed.lines);
        }
        self.start(&[])
    }

    /// Asks until there is an answer, unless `done` says that an earlier attempt did it.
    async fn ask(&mut self, command: &Value, done: fn(&Self, &Value, &Value) -> bool, look: &Value) -> Result<()> {
        loop {
            self.revive().await?;
            let daemon = self.daemon.as_mut().ok_or("no daemon")?;
            match daemon.ask(command.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if !self.ends_now().await => return Err(error),
                Err(_) => {}
            }
            // It died with the answer: what is on disk says whether it did what it was asked.
            self.revive().await?;
            let daemon = self.daemon.as_mut().ok_or("no daemon")?;
            match daemon.ask(look.clone()).await {
                Ok(found) if done(self, command, &found) => return Ok(()),
                Err(error) if !self.ends_now().await => return Err(error),
                _ => {}
            }
        }
    }
}

impl Pair {
    /// Waits until both have printed what is looked for; who ends meanwhile is started again.
    async fn until(&mut self, what: &str, fits: impl Fn([&Printed; 2]) -> bool) -> Result<()> {
        loop {
            for side in &mut self.sides {
                side.revive().await?;
            }
            // Counted before it is looked at: what is printed in between must not be waited for.
            let seen = [ALICE, BOB]
                .map(|index| self.sides[index].daemon.as_ref().map_or(0, |daemon| daemon.printed().lines.len()));
            let (alice, bob) = (self.sides[ALICE].printed(), self.sides[BOB].printed());
            if fits([&alice, &bob]) {
                return Ok(());
            }
            let left = self.ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let told = format!("alice {:#?}\nbob {:#?}", alice.lines, bob.lines);
                return Err(format!("{what} did not come: {told}").into());
            }
            // An error is the daemon's end or the deadline: both are looked at above.
            let more =
                |seen: usize| move |printed: &Printed| (printed.lines.len() > seen || printed.ended).then_some(());
            let [one, other] = &self.sides;
            let (Some(first), Some(second)) = (&one.daemon, &other.daemon) else { continue };
            tokio::select! {
                _ = first.wait("more", left, more(seen[ALICE])) => {}
                _ = second.wait("more", left, more(seen[BOB])) => {}
            }
        }
    }
}

/// Runs everything with one side dying once; whether it died.
async fn scenario(templates: &Path, addresses: &[String; 2], point: &str, side: usize, passage: u64) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..FILE).map(|i| ((i * i) >> 7) as u8).collect();
    std::fs::write(at("file.bin"), &content)?;
    let mut sides = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        copy_folder(&templates.join("home").join(name), &at("home").join(name))?;
        let place = Place::Local(at("net"));
        let profile = ChatProfile::new(program(), &at("home"), name, place, &templates.join("passphrase"));
        let mut arguments = vec!["--until-eof".to_owned()];
        if index == BOB {
            arguments.extend(["--save-to".to_owned(), at("saved").display().to_string()]);
        }
        let mut made = Side { profile, arguments, daemon: None, earlier: Vec::new(), fired: false };
        let fault = format!("{point}:{passage}");
        let variables = [("HCP_FAULT", fault.as_str())];
        made.start(if index == side { &variables } else { &[] })?;
        sides.push(made);
    }
    let sides = sides.try_into().map_err(|_| "two sides")?;
    let mut pair = Pair { sides, ends: Instant::now() + DEADLINE };
    let [of_alice, of_bob] = addresses;

    let contacts = json!({"command": "contacts"});
    let add = json!({"command": "contact_add", "address": of_bob, "petname": "bob"});
    let is_known = |_: &Side, _: &Value, found: &Value| !found["contacts"].as_array().is_none_or(Vec::is_empty);
    pair.sides[ALICE].ask(&add, is_known, &contacts).await?;
    let contact_is =
        |printed: &Printed, state: &str| printed.events("contact").any(|event| event["contact"]["state"] == state);
    pair.until("the request", |[_, bob]| contact_is(bob, "pending")).await?;
    let accept = json!({"command": "contact_accept", "contact": of_alice});
    let is_accepted = |_: &Side, _: &Value, found: &Value| found["contacts"][0]["state"] == "accepted";
    pair.sides[BOB].ask(&accept, is_accepted, &contacts).await?;
    pair.until("the answer", |[alice, _]| contact_is(alice, "accepted")).await?;

    let texts = NAMES.map(|name| (1..=TEXTS).map(|i| format!("{name} {i}")).collect::<Vec<_>>());
    for both in texts[ALICE].iter().zip(&texts[BOB]) {
        for (side, text) in [(ALICE, both.0), (BOB, both.1)] {
            let to = &addresses[1 - side];
            let send = json!({"command": "send", "contact": to, "text": text});
            let look = json!({"command": "history", "contact": to});
            let is_written = |_: &Side, command: &Value, found: &Value| {
                let messages = found["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
                messages.iter().any(|message| message["text"] == command["text"])
            };
            pair.sides[side].ask(&send, is_written, &look).await?;
        }
    }
    let counts = |printed: &Printed| (printed.received().len(), count_delivered(printed));
    pair.until("all messages", |both| both.iter().all(|printed| counts(printed) >= (TEXTS, TEXTS))).await?;

    let offer = json!({"command": "file_offer", "contact": of_bob, "path": at("file.bin").display().to_string()});
    let is_offered = |_: &Side, _: &Value, found: &Value| !found["transfers"].as_array().is_none_or(Vec::is_empty);
    pair.sides[ALICE].ask(&offer, is_offered, &json!({"command": "files"})).await?;
    let is_done = |printed: &Printed| printed.events("transfer_state").any(|event| event["state"] == "done");
    pair.until("the file", |both| both.iter().all(|printed| is_done(printed))).await?;

    let mut fired = false;
    for (index, mut side) in pair.sides.into_iter().enumerate() {
        side.revive().await?;
        let daemon = side.daemon.take().ok_or("no daemon")?;
        let (status, printed) = daemon.terminate().await?;
        if status.signal() == Some(9) {
            side.fired = true;
        } else if !status.success() {
            return Err(format!("{} ended with {status}", NAMES[index]).into());
        }
        side.earlier.extend(printed.lines);
        let printed = side.printed();
        let expected = &texts[1 - index];
        if printed.received() != *expected {
            return Err(format!("{} was told of {:?}", NAMES[index], printed.received()).into());
        }
        check_history(&side, &addresses[1 - index], expected, &texts[index]).await?;
        fired |= side.fired;
    }
    if std::fs::read(at("saved").join("file.bin"))? != content {
        return Err("the file differs".into());
    }
    if std::fs::read_dir(at("saved"))?.count() != 1 {
        return Err("something is left beside the file".into());
    }
    Ok(fired)
}

/// Messages that are told to have arrived, each counted once.
fn count_delivered(printed: &Printed) -> usize {
    let mut ids: Vec<_> = printed
        .events("message_state")
        .filter(|event| event["state"] == "delivered")
        .filter_map(|event| event["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

async fn check_history(side: &Side, with: &str, came: &[String], went: &[String]) -> Result<()> {
    let history = side.profile.json(&["history", with]).await?;
    let messages = history["messages"].as_array().ok_or("no history")?;
    for (direction, expected) in [("incoming", came), ("outgoing", went)] {
        let of = messages.iter().filter(|message| message["direction"] == direction);
        let texts: Vec<_> = of.clone().filter_map(|message| message["text"].as_str()).collect();
        if texts != *expected || of.clone().any(|message| message["state"] != "delivered") {
            return Err(format!("{}'s history of what is {direction}: {messages:#?}", side.profile.name).into());
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hcp-chat"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_wherever_a_side_dies() {
    let began = Instant::now();
    let templates = tempfile::tempdir().unwrap();
    std::fs::write(templates.path().join("passphrase"), "correct horse\n").unwrap();
    let mut addresses = Vec::new();
    for name in NAMES {
        let place = Place::Local(templates.path().join("net"));
        let (home, passphrase) = (templates.path().join("home"), templates.path().join("passphrase"));
        addresses.push(ChatProfile::new(program(), &home, name, place, &passphrase).init(name).await.unwrap());
    }
    let addresses: Arc<[String; 2]> = Arc::new(addresses.try_into().unwrap());
    let templates = Arc::new(templates);
    let places = Arc::new(Semaphore::new(PARALLEL));
    let fired: Arc<Mutex<BTreeMap<&str, u32>>> = Arc::default();
    let mut runs = JoinSet::new();
    for point in POINTS {
        for side in [ALICE, BOB] {
            let (templates, addresses) = (Arc::clone(&templates), Arc::clone(&addresses));
            let (places, fired) = (Arc::clone(&places), Arc::clone(&fired));
            runs.spawn(async move {
                let _place = places.acquire_owned().await.expect("is never closed");
                for passage in PASSAGES {
                    let began = Instant::now();
                    let what = format!("{} dies at passage {passage} of {point:?}", NAMES[side]);
                    let end = scenario(templates.path(), &addresses, point, side, passage).await;
                    println!("{:6.2} s  {what}: {end:?}", began.elapsed().as_secs_f64());
                    match end {
                        Ok(true) => *fired.lock().expect("is not poisoned").entry(point).or_default() += 1,
                        // A point that this side does not pass once is not passed twice.
                        Ok(false) => return None,
                        Err(error) => return Some(format!("{what}: {error}")),
                    }
                }
                None
            });
        }
    }
    let failures: Vec<String> = runs.join_all().await.into_iter().flatten().collect();
    let fired = fired.lock().unwrap();
    println!("{:.0} s; times that a side died at each point: {fired:#?}", began.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let silent: Vec<_> = POINTS.iter().filter(|point| fired.get(**point).is_none_or(|times| *times == 0)).collect();
    assert!(silent.is_empty(), "no run reached {silent:?}, so nothing is known about them");
}

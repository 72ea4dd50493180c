//! Kills a daemon at every point where a crash could hurt, on either side, and counts what arrives.
//!
//! Whatever `send` answered with ok is received once and in order, in the events read across the kill and in the history;
//! a file arrives whole; what was taken back never arrives; a profile that is restored gets everything again. A point that
//! no run reaches fails the test: it would prove nothing.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
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
/// A text that is taken back before it can go.
const TAKEN_BACK: &str = "never";
const FILE: usize = 2 * 1024 * 1024;
/// Points that are passed only where a profile is backed up and restored.
const RESTORING: [&str; 5] = [
    "lost operations asked for, not given back",
    "lost operation stored, not committed",
    "lost operation committed, nothing more asked for",
    "backup without its key",
    "backup complete, not told",
];
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
        while self.attempt(command).await?.is_none() {
            // It died with the answer: what is on disk says whether it did what it was asked.
            let found = self.look(look).await?;
            if done(self, command, &found) {
                break;
            }
        }
        Ok(())
    }

    /// The answer to a question that changes nothing.
    async fn look(&mut self, command: &Value) -> Result<Value> {
        loop {
            if let Some(found) = self.attempt(command).await? {
                return Ok(found);
            }
        }
    }

    /// Asks once; `None` when it died with the answer.
    async fn attempt(&mut self, command: &Value) -> Result<Option<Value>> {
        self.revive().await?;
        let daemon = self.daemon.as_mut().ok_or("no daemon")?;
        match daemon.ask(command.clone()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if !self.ends_now().await => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Copies the profile to a folder below this one; which.
    async fn back_up(&mut self, below: &Path) -> Result<PathBuf> {
        for number in 0_u32.. {
            let folder = below.join(format!("{}-{number}", self.profile.name));
            let command = json!({"command": "backup", "folder": folder.display().to_string()});
            // It died: what it has left is a whole profile if it has a key.
            if self.attempt(&command).await?.is_some() || folder.join("profile.key").exists() {
                return Ok(folder);
            }
        }
        Err("no name is left".into())
    }

    /// Ends it as a supervisor does, unless it dies just now; what it had printed.
    async fn end(&mut self) -> Result<Printed> {
        self.revive().await?;
        let daemon = self.daemon.take().ok_or("no daemon")?;
        // Before, it does not know the signal. An error is its end.
        let _ = daemon.wait("readiness", DEADLINE, |printed| printed.events("ready").next().map(drop)).await;
        let (status, printed) = daemon.terminate().await?;
        if status.signal() == Some(9) {
            self.fired = true;
        } else if !status.success() {
            return Err(format!("{} ended with {status}", self.profile.name).into());
        }
        Ok(printed)
    }

    /// Ends it, and puts a copy into the place of its profile; what it printed is forgotten.
    async fn restore(&mut self, copy: &Path, variables: &[(&str, &str)]) -> Result<()> {
        self.end().await?;
        std::fs::remove_dir_all(self.profile.folder())?;
        copy_folder(copy, &self.profile.folder())?;
        self.earlier.clear();
        self.start(variables)
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

/// Starts both, one of which dies once.
fn begin(templates: &Path, folder: &Path, fault: &str, side: usize) -> Result<Pair> {
    let mut sides = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        copy_folder(&templates.join("home").join(name), &folder.join("home").join(name))?;
        let place = Place::Local(folder.join("net"));
        let profile = ChatProfile::new(program(), &folder.join("home"), name, place, &templates.join("passphrase"));
        let mut arguments = vec!["--until-eof".to_owned()];
        if index == BOB {
            arguments.extend(["--save-to".to_owned(), folder.join("saved").display().to_string()]);
        }
        let mut made = Side { profile, arguments, daemon: None, earlier: Vec::new(), fired: false };
        let variables = [("HCP_FAULT", fault)];
        made.start(if index == side { &variables } else { &[] })?;
        sides.push(made);
    }
    let sides = sides.try_into().map_err(|_| "two sides")?;
    Ok(Pair { sides, ends: Instant::now() + DEADLINE })
}

/// Has Alice ask, take back what she has written, and Bob accept.
async fn befriend(pair: &mut Pair, [of_alice, of_bob]: &[String; 2]) -> Result<()> {
    let contacts = json!({"command": "contacts"});
    let add = json!({"command": "contact_add", "address": of_bob, "petname": "bob"});
    let is_known = |_: &Side, _: &Value, found: &Value| !found["contacts"].as_array().is_none_or(Vec::is_empty);
    pair.sides[ALICE].ask(&add, is_known, &contacts).await?;
    let contact_is =
        |printed: &Printed, state: &str| printed.events("contact").any(|event| event["contact"]["state"] == state);
    pair.until("the request", |[_, bob]| contact_is(bob, "pending")).await?;
    send(pair, ALICE, of_bob, TAKEN_BACK).await?;
    let history = json!({"command": "history", "contact": of_bob});
    let written = pair.sides[ALICE].look(&history).await?;
    let cancel = json!({"command": "cancel", "message": written["messages"][0]["id"]});
    let is_cancelled = |_: &Side, _: &Value, found: &Value| found["messages"][0]["state"] == "cancelled";
    pair.sides[ALICE].ask(&cancel, is_cancelled, &history).await?;
    let accept = json!({"command": "contact_accept", "contact": of_alice});
    let is_accepted = |_: &Side, _: &Value, found: &Value| found["contacts"][0]["state"] == "accepted";
    pair.sides[BOB].ask(&accept, is_accepted, &contacts).await?;
    pair.until("the answer", |[alice, _]| contact_is(alice, "accepted")).await
}

async fn send(pair: &mut Pair, side: usize, to: &str, text: &str) -> Result<()> {
    let send = json!({"command": "send", "contact": to, "text": text});
    let look = json!({"command": "history", "contact": to});
    let is_written = |_: &Side, command: &Value, found: &Value| {
        let messages = found["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        messages.iter().any(|message| message["text"] == command["text"])
    };
    pair.sides[side].ask(&send, is_written, &look).await
}

/// Has both write these texts in turn.
async fn talk(pair: &mut Pair, addresses: &[String; 2], texts: [&[String]; 2]) -> Result<()> {
    for both in texts[ALICE].iter().zip(texts[BOB]) {
        for (side, text) in [(ALICE, both.0), (BOB, both.1)] {
            send(pair, side, &addresses[1 - side], text).await?;
        }
    }
    Ok(())
}

/// Ends both and looks at what they know; whether one of them died at its point.
async fn finish(pair: Pair, addresses: &[String; 2], texts: &[Vec<String>; 2]) -> Result<bool> {
    let mut fired = false;
    for (index, mut side) in pair.sides.into_iter().enumerate() {
        let lines = side.end().await?.lines;
        side.earlier.extend(lines);
        let printed = side.printed();
        let expected = &texts[1 - index];
        if printed.received() != *expected {
            return Err(format!("{} was told of {:?}", NAMES[index], printed.received()).into());
        }
        check_history(&side, &addresses[1 - index], expected, &texts[index]).await?;
        fired |= side.fired;
    }
    Ok(fired)
}

fn texts(count: usize) -> [Vec<String>; 2] {
    NAMES.map(|name| (1..=count).map(|i| format!("{name} {i}")).collect())
}

/// Has them talk and send a file, with one side dying once; whether it died.
async fn talking(templates: &Path, addresses: &[String; 2], fault: &str, side: usize) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..FILE).map(|i| ((i * i) >> 7) as u8).collect();
    std::fs::write(at("file.bin"), &content)?;
    let mut pair = begin(templates, folder.path(), fault, side)?;
    befriend(&mut pair, addresses).await?;
    let texts = texts(TEXTS);
    talk(&mut pair, addresses, [&texts[ALICE], &texts[BOB]]).await?;
    let counts = |printed: &Printed| (printed.received().len(), count_delivered(printed));
    pair.until("all messages", |both| both.iter().all(|printed| counts(printed) >= (TEXTS, TEXTS))).await?;

    let path = at("file.bin").display().to_string();
    let offer = json!({"command": "file_offer", "contact": addresses[BOB], "path": path});
    let is_offered = |_: &Side, _: &Value, found: &Value| !found["transfers"].as_array().is_none_or(Vec::is_empty);
    pair.sides[ALICE].ask(&offer, is_offered, &json!({"command": "files"})).await?;
    let is_done = |printed: &Printed| printed.events("transfer_state").any(|event| event["state"] == "done");
    pair.until("the file", |both| both.iter().all(|printed| is_done(printed))).await?;

    let fired = finish(pair, addresses, &texts).await?;
    if std::fs::read(at("saved").join("file.bin"))? != content {
        return Err("the file differs".into());
    }
    if std::fs::read_dir(at("saved"))?.count() != 1 {
        return Err("something is left beside the file".into());
    }
    Ok(fired)
}

/// Has them talk, and Alice lose what was written since her backup, with one side dying once; whether it died.
async fn restoring(templates: &Path, addresses: &[String; 2], fault: &str, side: usize) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let mut pair = begin(templates, folder.path(), fault, side)?;
    befriend(&mut pair, addresses).await?;
    let texts = texts(TEXTS + 1);
    let part = |range: std::ops::Range<usize>| [&texts[ALICE][range.clone()], &texts[BOB][range]];
    let received = |printed: &Printed, count: usize| printed.received().len() >= count;
    talk(&mut pair, addresses, part(0..1)).await?;
    pair.until("the first", |both| both.iter().all(|printed| received(printed, 1))).await?;
    let mut copies = Vec::new();
    for side in &mut pair.sides {
        copies.push(side.back_up(&folder.path().join("backups")).await?);
    }
    talk(&mut pair, addresses, part(1..TEXTS)).await?;
    let delivered = |printed: &Printed| received(printed, TEXTS) && count_delivered(printed) >= TEXTS;
    pair.until("all messages", |both| both.iter().all(|printed| delivered(printed))).await?;

    let variables = [("HCP_FAULT", fault)];
    let variables: &[_] = if side == ALICE && !pair.sides[ALICE].fired { &variables } else { &[] };
    pair.sides[ALICE].restore(&copies[ALICE], variables).await?;
    // Both what she has received and what she has written.
    let is_back = |printed: &Printed| {
        let written = printed.events("message_written").filter_map(|event| event["message"]["text"].as_str());
        let written: Vec<_> = written.collect();
        received(printed, TEXTS) && texts[ALICE][..TEXTS].iter().all(|text| written.contains(&text.as_str()))
    };
    pair.until("what was lost", |[alice, _]| is_back(alice)).await?;
    talk(&mut pair, addresses, part(TEXTS..TEXTS + 1)).await?;
    pair.until("the last", |both| both.iter().all(|printed| received(printed, TEXTS + 1))).await?;
    // What arrived last may not be known to be delivered yet.
    let is_delivered = |printed: &Printed, message: &Value| {
        let is_it = |event: &Value| event["id"] == message["id"] && event["state"] == "delivered";
        message["state"] == "delivered" || message["text"] == TAKEN_BACK || printed.events("message_state").any(is_it)
    };
    let all_are =
        |printed: &Printed| printed.events("message_written").all(|written| is_delivered(printed, &written["message"]));
    pair.until("all deliveries", |both| both.iter().all(|printed| all_are(printed))).await?;
    finish(pair, addresses, &texts).await
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
        let taken_back = |message: &Value| message["text"] == TAKEN_BACK && message["state"] == "cancelled";
        let of = messages.iter().filter(|message| message["direction"] == direction && !taken_back(message));
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
                    let fault = format!("{point}:{passage}");
                    let end = if RESTORING.contains(point) {
                        restoring(templates.path(), &addresses, &fault, side).await
                    } else {
                        talking(templates.path(), &addresses, &fault, side).await
                    };
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

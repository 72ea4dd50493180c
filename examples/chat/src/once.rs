//! One command, then the end: by the running daemon if there is one, otherwise on the profile itself, offline.

use std::path::Path;
use std::time::Duration;

use hcp_core::messenger::{Messenger, Profile};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::cli::Common;
use crate::execute::execute;
use crate::failure::Failure;
use crate::lines::{Line, Lines, MAX_LINE, MAX_REPLY};
use crate::request::{self, Numbered, Request};
use crate::{home, print, profile, show, socket};

/// How long a daemon may take to answer: reading a large file for its hash takes minutes.
const REPLY_DEADLINE: Duration = Duration::from_secs(600);

/// Who fulfilled a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Daemon,
    Offline,
}

/// Runs one command and prints what came of it.
pub(crate) async fn run(common: &Common, request: Request) -> Result<(), Failure> {
    let folder = home::profile_folder(common)?;
    let command = show::Command::of(&request);
    let (value, by) = loop {
        let daemon = socket::connect(&folder);
        let daemon = daemon.map_err(|error| Failure::file("use the daemon's socket in", &folder, &error))?;
        if let Some(stream) = daemon {
            break (ask(stream, &request, &folder).await?, By::Daemon);
        }
        if let Some(profile) = profile::open_for_a_moment(common).await? {
            break (offline(profile, request).await?, By::Offline);
        }
    };
    print(&if common.json { request::line(&value) } else { show::lines(command, &value, by) })
}

async fn offline(profile: Profile, request: Request) -> Result<Value, Failure> {
    let messenger = Messenger::new(profile);
    let result = execute(&messenger, request).await;
    messenger.shutdown().await;
    result.map_err(|refusal| Failure::new(refusal.message))
}

async fn ask(mut stream: UnixStream, request: &Request, folder: &Path) -> Result<Value, Failure> {
    let line = Numbered::line(1, request).map_err(|error| Failure::of("write the command", &error))?;
    if line.len() > MAX_LINE {
        return Err(Failure::new(format!("the command has {} bytes, more than the limit of {MAX_LINE}", line.len())));
    }
    let gone = || Failure::new(format!("the daemon of {} ended before it answered", folder.display()));
    let answer = async {
        let (read, mut write) = stream.split();
        // A daemon that has too many connections says so and does not read.
        let _ = write.write_all(line.as_bytes()).await;
        let mut lines = Lines::new(read, MAX_REPLY);
        match lines.next().await {
            Ok(Some(Line::Whole(line))) => Ok(line),
            Ok(Some(Line::TooLong)) => Err(Failure::new("the daemon's answer is too long: ask for less")),
            Ok(None) | Err(_) => Err(gone()),
        }
    };
    let answer = tokio::time::timeout(REPLY_DEADLINE, answer)
        .await
        .map_err(|_| Failure::new(format!("the daemon of {} does not answer: is it stopped?", folder.display())))??;
    let mut answer: Value =
        serde_json::from_slice(&answer).map_err(|error| Failure::of("understand the daemon", &error))?;
    match answer.get_mut("ok") {
        Some(value) => Ok(value.take()),
        None => Err(Failure::new(answer["error"]["message"].as_str().unwrap_or("the daemon refused"))),
    }
}

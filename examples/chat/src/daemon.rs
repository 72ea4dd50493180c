//! `hcp-chat daemon`: a profile that is online, driven by lines of JSON, until it is told to stop.

mod acceptor;
mod connections;
mod stdio;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hcp_core::messenger::{Cursor, Events, Messenger};
use hcp_core::network::ListenerStatus;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::acceptor::Acceptor;
use self::stdio::Output;
use crate::cli::{Common, Daemon};
use crate::execute::execute;
use crate::failure::Failure;
use crate::lines::{Line, MAX_LINE};
use crate::network::{self, Joined};
use crate::request::{self, Numbered, Refusal};
use crate::socket::Socket;
use crate::{json, profile};

/// How long closing the profile and leaving the network may take.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// Runs the daemon.
pub(crate) async fn daemon(common: &Common, command: Daemon) -> Result<(), Failure> {
    network::check(common)?;
    let save_to = command.save_to.as_deref().map(make_folder).transpose()?;
    let (profile, folder) = profile::open(common).await?;
    // Not before: Ctrl-C at the question for the passphrase ends the program as usual.
    let stop = stop_signal()?;
    let messenger = Messenger::new(profile);
    let (output, written) = Output::start();
    let mut joined = None;
    let end = async {
        let events = events(&messenger, command.after).await?;
        let socket = if command.no_socket { None } else { Some(listen(&folder)?) };
        let acceptor = Acceptor::new(messenger.clone(), command.accept_all, save_to).await?;
        tokio::select! {
            end = online(common, &folder, &messenger, events, &output, &mut joined) => end,
            end = commands(&messenger, &output, command.until_eof) => end,
            end = connections::serve(socket, messenger.clone()) => end,
            end = acceptor.run() => end,
        }
    };
    let end = tokio::select! {
        end = end => end,
        () = stop => Ok(()),
    };
    if tokio::time::timeout(END_DEADLINE, messenger.shutdown()).await.is_err() {
        tracing::warn!("closing took too long");
    }
    // The lock on Tor's folder goes with the process, so nobody waits for it here.
    drop(joined);
    drop(output);
    written.finish().await;
    end
}

/// Goes online and tells what happens. Ends only when something is wrong.
async fn online(
    common: &Common,
    folder: &Path,
    messenger: &Messenger,
    mut events: Events,
    output: &Output,
    joined: &mut Option<Joined>,
) -> Result<(), Failure> {
    let out_of_reach = async |problem: String| {
        tracing::warn!(problem, "cannot join the network yet");
        output.tell(&json!({"event": "unreachable", "message": problem})).await;
    };
    let network = joined.insert(network::join(common, folder, out_of_reach).await?).network();
    messenger.go_online(network).await.map_err(|error| Failure::of("go online", &error))?;
    output.tell(&json!({"event": "ready", "address": messenger.address().to_string()})).await;
    let mut status = messenger.status();
    let mut was = None;
    loop {
        let now = status.borrow_and_update().clone();
        if was.as_ref() != Some(&now) {
            match &now {
                ListenerStatus::Reachable => output.tell(&json!({"event": "reachable"})).await,
                ListenerStatus::Broken(problem) => {
                    output.tell(&json!({"event": "unreachable", "message": problem})).await;
                }
                _ => {}
            }
            was = Some(now);
        }
        tokio::select! {
            event = events.next() => {
                let event = event.map_err(|error| Failure::of("read the events", &error))?;
                if let Some(event) = json::event(&event) {
                    output.tell(&event).await;
                }
            }
            changed = status.changed() => {
                if changed.is_err() {
                    return Err(Failure::new("the profile was closed"));
                }
            }
        }
    }
}

/// Fulfils what standard input asks for, one after the other. Its end is the daemon's end when that was asked for.
async fn commands(messenger: &Messenger, output: &Output, until_eof: bool) -> Result<(), Failure> {
    let mut lines: mpsc::Receiver<Line> = stdio::input();
    while let Some(line) = lines.recv().await {
        let (id, result) = fulfil(messenger, &line).await;
        output.tell_line(request::reply(&id, &result)).await;
    }
    if until_eof { Ok(()) } else { std::future::pending().await }
}

/// Reads and fulfils one request.
async fn fulfil(messenger: &Messenger, line: &Line) -> (Value, Result<Value, Refusal>) {
    let Line::Whole(line) = line else { return (Value::Null, Err(too_long())) };
    let numbered = Numbered::parse(line);
    let result = match numbered.request {
        Ok(request) => execute(messenger, request).await,
        Err(refusal) => Err(refusal),
    };
    (numbered.id, result)
}

fn too_long() -> Refusal {
    Refusal::new(
        hcp_core::error::ErrorKind::LimitExceeded,
        format!("the line is longer than {MAX_LINE} bytes and was left out"),
    )
}

/// Events from behind a cursor on, or the new ones.
async fn events(messenger: &Messenger, after: Option<u64>) -> Result<Events, Failure> {
    let from = match after {
        Some(after) => Ok(Cursor(after)),
        None => messenger.cursor().await,
    };
    let events = match from {
        Ok(cursor) => messenger.events(cursor).await,
        Err(error) => Err(error),
    };
    events.map_err(|error| Failure::of("read the events that --after names", &error))
}

fn listen(folder: &Path) -> Result<Socket, Failure> {
    Socket::bind(folder).map_err(|error| {
        Failure::new(format!(
            "cannot make the socket in {}: {error}; --no-socket goes without, for file systems that have none",
            folder.display()
        ))
    })
}

fn make_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let made = std::path::absolute(folder).and_then(|folder| std::fs::create_dir_all(&folder).map(|()| folder));
    made.map_err(|error| Failure::file("use the folder", folder, &error))
}

/// Resolves on SIGTERM and SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let handle = |kind| signal(kind).map_err(|error| Failure::of("handle signals", &error));
    let (mut terminate, mut interrupt) = (handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

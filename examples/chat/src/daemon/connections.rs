//! Those who talk to the daemon through its socket.

use hcp_core::error::ErrorKind;
use hcp_core::messenger::{Cursor, Event, Events, EventsError, Messenger};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::{fulfil, too_long};
use crate::failure::Failure;
use crate::json;
use crate::lines::{Line, Lines, MAX_LINE};
use crate::request::{self, Numbered, Refusal, Request};
use crate::socket::Socket;

/// Connections at once. Each may hold a line and a reply in memory.
const MAX_CONNECTIONS: usize = 8;

/// Serves connections. Ends only when something is wrong.
pub(crate) async fn serve(socket: Option<Socket>, messenger: Messenger) -> Result<(), Failure> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, _) = accepted.map_err(|error| Failure::of("listen on the socket", &error))?;
        if connections.len() < MAX_CONNECTIONS {
            connections.spawn(connection(stream, messenger.clone()));
        } else {
            refuse(&stream);
        }
    }
}

/// Says that there are too many; whoever does not take a short line at once gets none.
fn refuse(stream: &UnixStream) {
    let message = format!("the daemon has {MAX_CONNECTIONS} connections already: end one");
    let refusal = Refusal::new(ErrorKind::LimitExceeded, message);
    let _ = stream.try_write(request::reply(&Value::Null, &Err(refusal)).as_bytes());
}

/// Fulfils requests one after the other, and tells events once they were asked for.
async fn connection(mut stream: UnixStream, messenger: Messenger) {
    let (read, mut write) = stream.split();
    let mut lines = Lines::new(read, MAX_LINE);
    let mut events = None;
    loop {
        let answer = tokio::select! {
            line = lines.next() => match line {
                Ok(Some(line)) => answer(&messenger, &line, &mut events).await,
                Ok(None) | Err(_) => return,
            },
            event = next(&mut events) => match event {
                Ok(event) => match json::event(&event) {
                    Some(event) => request::line(&event),
                    None => continue,
                },
                Err(error) => {
                    events = None;
                    request::reply(&Value::Null, &Err(error.into()))
                }
            },
        };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(messenger: &Messenger, line: &Line, events: &mut Option<Events>) -> String {
    let Line::Whole(bytes) = line else { return request::reply(&Value::Null, &Err(too_long())) };
    match Numbered::parse(bytes) {
        Numbered { id, request: Ok(Request::Events { after }) } => {
            request::reply(&id, &subscribe(messenger, after, events).await)
        }
        _ => {
            let (id, result) = fulfil(messenger, line).await;
            request::reply(&id, &result)
        }
    }
}

async fn subscribe(messenger: &Messenger, after: Option<u64>, events: &mut Option<Events>) -> Result<Value, Refusal> {
    if events.is_some() {
        return Err(Refusal::new(ErrorKind::Refused, "this connection is told of events already"));
    }
    let after = match after {
        Some(after) => Cursor(after),
        None => messenger.cursor().await?,
    };
    *events = Some(messenger.events(after).await?);
    Ok(json!({"after": after.0}))
}

async fn next(events: &mut Option<Events>) -> Result<Event, EventsError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

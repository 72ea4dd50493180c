//! The lines of JSON, on standard input and on the socket.

use hcp_demo::chat::ChatProfile;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::world::{SOON, World};

struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Connection {
    async fn open(profile: &ChatProfile) -> Self {
        let (read, write) = UnixStream::connect(profile.folder().join("daemon.sock")).await.unwrap().into_split();
        Self { lines: BufReader::new(read).lines(), write }
    }

    async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(SOON, self.lines.next_line()).await.expect("a line in time").unwrap_or(None);
        line.map(|line| serde_json::from_str(&line).unwrap())
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.write.write_all(line.as_bytes()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
        // Events may come in between.
        loop {
            let line = self.next().await.expect("an answer");
            if line.get("reply").is_some() {
                return line;
            }
        }
    }
}

/// Lines that are refused, with a part of the reason.
fn bad_lines() -> Vec<(String, &'static str, &'static str)> {
    vec![
        ("nonsense".into(), "not a JSON object", "invalid_input"),
        ("\u{1}\u{2}".into(), "not a JSON object", "invalid_input"),
        ("[]".into(), "not a JSON object", "invalid_input"),
        (r#"{"id":9}"#.into(), "missing field `command`", "invalid_input"),
        (r#"{"id":9,"command":"explode"}"#.into(), "unknown variant `explode`", "invalid_input"),
        (r#"{"id":9,"command":"id","extra":true}"#.into(), "unknown field `extra`", "invalid_input"),
        (r#"{"id":9,"command":"send","contact":"x"}"#.into(), "missing field `text`", "invalid_input"),
        (r#"{"id":9,"command":"history","contact":"x","limit":0}"#.into(), "petname", "invalid_input"),
        (
            r#"{"id":9,"command":"file_accept","transfer":"0123456789abcdef0123456789abcdef","path":"x"}"#.into(),
            "absolute",
            "invalid_input",
        ),
        (
            format!(r#"{{"id":9,"command":"cancel","message":"{}"}}"#, "x".repeat(300_000)),
            "longer than",
            "limit_exceeded",
        ),
    ]
}

fn check(reply: &Value, part: &str, kind: &str) {
    let message = reply["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(part) && reply["error"]["kind"] == kind, "{part}: {reply}");
    assert!(reply["reply"] == 9 || reply["reply"].is_null(), "{reply}");
}

#[tokio::test]
async fn bad_lines_are_refused_and_the_next_one_is_read() {
    let world = World::local();
    let mut alice = world.person("alice", &[]).await;
    for (number, (line, part, kind)) in bad_lines().into_iter().enumerate() {
        alice.daemon.write(format!("{line}\n").as_bytes()).await.unwrap();
        let nth = |printed: &hcp_demo::chat::Printed| {
            printed.lines.iter().filter(|line| line["error"].is_object()).nth(number).cloned()
        };
        check(&alice.wait("a refusal", nth).await, part, kind);
    }
    alice.ask(json!({"command": "id"})).await;

    let mut connection = Connection::open(&alice.profile).await;
    for (line, part, kind) in bad_lines() {
        check(&connection.ask(&line).await, part, kind);
    }
    let reply = connection.ask(r#"{"id":"text","command":"id"}"#).await;
    assert_eq!(reply, json!({"reply": "text", "ok": {"address": alice.address, "name": "alice"}}));
}

#[tokio::test]
async fn the_socket_takes_eight_at_once_and_others_when_one_has_gone() {
    let world = World::local();
    let alice = world.person("alice", &[]).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(&alice.profile).await;
        connection.ask(r#"{"command":"id"}"#).await;
        connections.push(connection);
    }
    let refused = Connection::open(&alice.profile).await.next().await.expect("a refusal");
    assert_eq!(refused["error"]["kind"], "limit_exceeded", "{refused}");
    assert!(crate::world::refusal(&alice.profile, &["id"]).await.contains("8 connections already"));
    connections.pop();
    let taken = async {
        // The daemon learns a moment later that one has gone.
        while alice.profile.run(&["id"]).await.is_err() {}
    };
    tokio::time::timeout(SOON, taken).await.expect("a place in time");
}

#[tokio::test]
async fn the_socket_tells_events_once_they_are_asked_for() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    let mut connection = Connection::open(&bob.profile).await;
    let begun = connection.ask(r#"{"id":1,"command":"events"}"#).await;
    let after = begun["ok"]["after"].as_u64().unwrap();
    let twice = connection.ask(r#"{"id":2,"command":"events","after":0}"#).await;
    assert_eq!(twice["error"]["kind"], "refused", "{twice}");
    alice.send("bob", "to all who listen").await;
    let event = loop {
        let event = connection.next().await.expect("an event");
        if event["event"] == "message_received" {
            break event;
        }
    };
    assert_eq!(event["message"]["text"], "to all who listen");
    assert!(event["cursor"].as_u64().unwrap() > after);
    // It still answers.
    assert_eq!(connection.ask(r#"{"id":3,"command":"id"}"#).await["reply"], 3);

    let mut from_the_start = Connection::open(&bob.profile).await;
    from_the_start.ask(r#"{"id":1,"command":"events","after":0}"#).await;
    let first = from_the_start.next().await.expect("an event");
    assert_eq!((&first["event"], &first["contact"]["address"]), (&json!("contact"), &json!(alice.address)));
    let refused = Connection::open(&bob.profile).await.ask(r#"{"id":1,"command":"events","after":99999}"#).await;
    assert_eq!(refused["error"]["kind"], "invalid_input", "{refused}");
}

#[tokio::test]
async fn json_has_the_same_shape_with_and_without_a_daemon() {
    let world = World::local();
    let (mut alice, bob) = world.friends(&[]).await;
    alice.send("bob", "hello").await;
    bob.receives(&["hello"]).await;
    let mut online = Vec::new();
    let commands: [&[&str]; 5] = [&["id"], &["status"], &["contact", "list"], &["history", "alice"], &["file", "list"]];
    for command in commands {
        online.push(bob.profile.json(command).await.unwrap());
    }
    let (bob, _) = bob.stop().await;
    for (command, online) in commands.iter().zip(online) {
        assert_eq!(shape(&bob.json(command).await.unwrap()), shape(&online), "{command:?}");
    }
    let history = bob.json(&["history", "alice"]).await.unwrap();
    let message = history["messages"][0].as_object().unwrap();
    let fields: Vec<_> = message.keys().map(String::as_str).collect();
    assert_eq!(fields, ["contact", "direction", "id", "position", "state", "text", "time_ms"]);
}

/// Names and kinds, without the values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        value => value.clone(),
    }
}

//! What a user can ask for, as a line of JSON: `{"id":1,"command":"send","contact":"bob","text":"hello"}`.
//!
//! Unknown commands and unknown fields are refused: a slip must not pass for something else.

use hcp_core::error::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One request. `contact` is an address or an unambiguous petname, `message` and `transfer` are ids.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Id {},
    Status {},
    Backup {
        folder: String,
    },
    Contacts {},
    ContactAdd {
        address: String,
        #[serde(default)]
        petname: String,
        #[serde(default)]
        greeting: String,
    },
    ContactAccept {
        contact: String,
    },
    ContactReject {
        contact: String,
    },
    ContactBlock {
        contact: String,
    },
    ContactUnblock {
        contact: String,
    },
    ContactArchive {
        contact: String,
    },
    ContactRename {
        contact: String,
        petname: String,
    },
    ContactConnect {
        contact: String,
    },
    Send {
        contact: String,
        text: String,
    },
    Cancel {
        message: String,
    },
    History {
        contact: String,
        #[serde(default)]
        limit: Option<u16>,
        #[serde(default)]
        before: Option<u64>,
    },
    Files {},
    FileOffer {
        contact: String,
        path: String,
    },
    FileAccept {
        transfer: String,
        path: String,
    },
    FileDecline {
        transfer: String,
    },
    FileCancel {
        transfer: String,
    },
    /// On a connection of its own only: events from behind a cursor on.
    Events {
        #[serde(default)]
        after: Option<u64>,
    },
}

/// A request with the number that its reply repeats.
pub(crate) struct Numbered {
    /// A number or a text; null when the request has none.
    pub(crate) id: Value,
    pub(crate) request: Result<Request, Refusal>,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind: name(kind).to_owned(), message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }
}

impl Numbered {
    /// Reads a line.
    pub(crate) fn parse(line: &[u8]) -> Self {
        let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => {
                let refusal = Refusal::invalid(format!("the line is not a JSON object: {error}"));
                return Self { id: Value::Null, request: Err(refusal) };
            }
        };
        let id = fields.remove("id").unwrap_or(Value::Null);
        if !matches!(id, Value::Null | Value::Number(_) | Value::String(_)) {
            return Self { id: Value::Null, request: Err(Refusal::invalid("the id is neither a number nor a text")) };
        }
        let request = serde_json::from_value(Value::Object(fields))
            .map_err(|error| Refusal::invalid(format!("the command cannot be understood: {error}")));
        Self { id, request }
    }

    /// What the sender of a request writes, with the end of the line.
    pub(crate) fn line(id: u64, request: &Request) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(request)?;
        value["id"] = id.into();
        Ok(line(&value))
    }
}

/// The line that answers a request.
pub(crate) fn reply(id: &Value, result: &Result<Value, Refusal>) -> String {
    line(&match result {
        Ok(value) => json!({"reply": id, "ok": value}),
        Err(refusal) => json!({"reply": id, "error": {"kind": refusal.kind, "message": refusal.message}}),
    })
}

/// A value on one line, with the end of the line. JSON leaves some control characters as they are; a terminal obeys them.
pub(crate) fn line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        // Control characters stand only in strings, where this is the same character.
        match c {
            '\u{7f}'..='\u{9f}' => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('\n');
    line
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "invalid_input",
        ErrorKind::ProtocolViolation => "protocol_violation",
        ErrorKind::Authentication => "authentication",
        ErrorKind::Refused => "refused",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::TimedOut => "timed_out",
        ErrorKind::LimitExceeded => "limit_exceeded",
        ErrorKind::InUse => "in_use",
        ErrorKind::Storage => "storage",
        ErrorKind::Closed => "closed",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> (Value, String) {
        let numbered = Numbered::parse(line.as_bytes());
        let Err(refusal) = numbered.request else { panic!("{line} is taken") };
        assert_eq!(refusal.kind, "invalid_input");
        (numbered.id, refusal.message)
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let request = Request::Send { contact: "bob".into(), text: "a \"quoted\" ü\u{9b}".into() };
        let line = Numbered::line(7, &request).unwrap();
        assert!(!line.contains('\u{9b}') && line.ends_with('\n'), "{line}");
        let read = Numbered::parse(line.as_bytes());
        assert_eq!(read.id, 7);
        let Ok(Request::Send { contact, text }) = read.request else { panic!("{line}") };
        assert_eq!((contact.as_str(), text.as_str()), ("bob", "a \"quoted\" ü\u{9b}"));
        let read = Numbered::parse(br#"{"command":"history","contact":"bob","id":"x"}"#);
        assert!(matches!(read.request, Ok(Request::History { limit: None, before: None, .. })));
        assert_eq!(read.id, "x");
    }

    #[test]
    fn slips_are_refused_with_the_id_when_there_is_one() {
        assert_eq!(refused("{").0, Value::Null);
        assert_eq!(refused("[1]").0, Value::Null);
        assert_eq!(refused(r#"{"id":{},"command":"id"}"#).0, Value::Null);
        for line in [
            r#"{"id":3}"#,
            r#"{"id":3,"command":"sned"}"#,
            r#"{"id":3,"command":"id","more":1}"#,
            r#"{"id":3,"command":"send","contact":"bob"}"#,
            r#"{"id":3,"command":"send","contact":"bob","text":"x","txet":"y"}"#,
            r#"{"id":3,"command":"history","contact":"bob","limit":-1}"#,
        ] {
            assert_eq!(refused(line).0, 3, "{line}");
        }
        assert!(refused(r#"{"command":"id","more":1}"#).1.contains("more"));
        let deep = format!("{{\"id\":{}", "[".repeat(100_000));
        assert!(refused(&deep).1.contains("recursion"));
    }

    #[test]
    fn replies_repeat_the_id() {
        assert_eq!(reply(&json!(1), &Ok(json!({}))), "{\"ok\":{},\"reply\":1}\n");
        let refused = reply(&Value::Null, &Err(Refusal::new(ErrorKind::InUse, "x")));
        assert_eq!(refused, "{\"error\":{\"kind\":\"in_use\",\"message\":\"x\"},\"reply\":null}\n");
    }
}

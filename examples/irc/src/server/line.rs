//! One outgoing line, encoded at most once for each set of capabilities and shared by all who get it.

use bytes::Bytes;

use crate::message::{MAX_BODY, truncate};
use crate::world::change::ServerTime;

/// The capabilities of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caps(u8);

impl Caps {
    pub(crate) const SERVER_TIME: Self = Self(1);
    pub(crate) const MESSAGE_TAGS: Self = Self(2);
    pub(crate) const ECHO_MESSAGE: Self = Self(4);
    /// Every capability with its name.
    pub(crate) const NAMES: [(&'static str, Self); 3] = [
        ("echo-message", Self::ECHO_MESSAGE),
        ("message-tags", Self::MESSAGE_TAGS),
        ("server-time", Self::SERVER_TIME),
    ];

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A line before it is encoded for its recipients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    body: String,
    time: Option<ServerTime>,
    msgid: Option<String>,
    tags: String,
    /// By server-time and message-tags.
    encoded: [Option<Bytes>; 4],
    /// Whether it is nothing but tags, and so only for those who see them.
    only_tags: bool,
}

impl Line {
    /// A line without tags; shortened to what IRC allows.
    pub(crate) fn new(body: impl Into<String>) -> Self {
        let mut body = body.into();
        body.truncate(truncate(&body, MAX_BODY).len());
        Self { body, ..Self::default() }
    }

    pub(crate) fn at(self, time: ServerTime) -> Self {
        Self { time: Some(time), ..self }
    }

    pub(crate) fn message(self, msgid: String, tags: String) -> Self {
        Self { msgid: Some(msgid), tags, ..self }
    }

    pub(crate) fn only_tags(self) -> Self {
        Self { only_tags: true, ..self }
    }

    pub(crate) fn is_only_tags(&self) -> bool {
        self.only_tags
    }

    /// The bytes for a client with these capabilities.
    pub(crate) fn bytes(&mut self, caps: Caps) -> Bytes {
        let (timed, tagged) = (caps.has(Caps::SERVER_TIME), caps.has(Caps::MESSAGE_TAGS));
        let index = usize::from(timed) | usize::from(tagged) << 1;
        if let Some(bytes) = &self.encoded[index] {
            return bytes.clone();
        }
        let mut tags = Vec::new();
        if let Some(time) = self.time.filter(|_| timed) {
            tags.push(format!("time={time}"));
        }
        if let Some(msgid) = self.msgid.as_ref().filter(|_| tagged) {
            tags.push(format!("msgid={msgid}"));
        }
        if tagged && !self.tags.is_empty() {
            tags.push(self.tags.clone());
        }
        let tags = tags.join(";");
        let space = if tags.is_empty() { "" } else { " " };
        let at = if tags.is_empty() { "" } else { "@" };
        let bytes = Bytes::from(format!("{at}{tags}{space}{}\r\n", self.body));
        self.encoded[index] = Some(bytes.clone());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_only_the_tags_that_a_client_asked_for() {
        let time = ServerTime { seconds: 0, order: 7 };
        let mut line = Line::new(":a PRIVMSG b :c").at(time).message("id".into(), "+x=y".into());
        assert_eq!(line.bytes(Caps::default()), ":a PRIVMSG b :c\r\n");
        assert_eq!(line.bytes(Caps::SERVER_TIME), "@time=1970-01-01T00:00:00.007Z :a PRIVMSG b :c\r\n");
        assert_eq!(line.bytes(Caps::MESSAGE_TAGS), "@msgid=id;+x=y :a PRIVMSG b :c\r\n");
    }

    #[test]
    fn a_body_never_exceeds_the_limit_of_irc() {
        let bytes = Line::new("é".repeat(400)).bytes(Caps::default());
        assert_eq!(bytes.len(), 512);
    }
}

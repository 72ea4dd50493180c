//! What nodes write into the log: one entry for each fact about a user, a channel or a message.
//!
//! Invariants: a decoded [`Entry`] is well-formed and bounded, whoever wrote it; nothing in it holds NUL, CR or LF, so it
//! can never break out of an IRC line. Users are named by a number that counts only together with the author's log:
//! an entry cannot speak for a user of another node. Unknown kinds decode to [`DecodeEntryError::UnknownKind`] and are
//! passed over, so that nodes of different versions share a log.

mod wire;

use bytes::Bytes;
use hcp_core::replica::LogId;
use prost::Message as _;

use crate::names::{ChannelId, ChannelName, Nick, UserId};

/// Bytes of a free text: a message, topic or reason. A line of IRC holds no more.
pub(crate) const MAX_TEXT: usize = 512;
/// Bytes of a username or a real name.
pub(crate) const MAX_USER_FIELD: usize = 64;
/// Changes in one MODE.
pub(crate) const MAX_MODE_CHANGES: usize = 20;
/// Bytes of a channel key.
pub(crate) const MAX_KEY: usize = 32;

/// A fact that every node applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The author's process started: users of its earlier runs have left.
    Start,
    Connect {
        user: u64,
        nick: Nick,
        username: String,
        realname: String,
    },
    Quit {
        user: u64,
        reason: String,
    },
    Nick {
        user: u64,
        nick: Nick,
    },
    UserMode {
        user: u64,
        invisible: bool,
    },
    Away {
        user: u64,
        message: Option<String>,
    },
    Join {
        user: u64,
        channel: ChannelName,
        standing: Standing,
    },
    Part {
        user: u64,
        channel: ChannelName,
        reason: String,
    },
    Kick {
        user: u64,
        channel: ChannelName,
        target: UserId,
        reason: String,
    },
    Topic {
        user: u64,
        channel: ChannelName,
        creation: ChannelId,
        by: String,
        text: String,
    },
    Mode {
        user: u64,
        channel: ChannelName,
        creation: ChannelId,
        changes: Vec<ModeChange>,
    },
    Text {
        user: u64,
        target: Target,
        kind: TextKind,
        text: String,
        tags: String,
    },
    Invite {
        user: u64,
        channel: ChannelName,
        creation: ChannelId,
        target: UserId,
    },
}

/// What a user who joins becomes in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its creator, by this number: the channel did not exist where the author was.
    Creator(u64),
    /// A member of the creation that the author saw.
    Member(ChannelId),
    /// The operator of a channel that lost all its members a moment ago.
    Reviver(ChannelId),
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Channel(ChannelName, ChannelId),
    User(UserId),
}

/// Which command sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextKind {
    Privmsg,
    Notice,
    Tagmsg,
}

impl TextKind {
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Privmsg => "PRIVMSG",
            Self::Notice => "NOTICE",
            Self::Tagmsg => "TAGMSG",
        }
    }
}

/// One change of a channel's modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeChange {
    Flag(Flag, bool),
    Key(Option<String>),
    Limit(Option<u32>),
    Operator(UserId, bool),
    Voice(UserId, bool),
}

impl ModeChange {
    /// The user whose rights it changes.
    pub(crate) fn target(&self) -> Option<UserId> {
        match self {
            Self::Operator(user, _) | Self::Voice(user, _) => Some(*user),
            Self::Flag(..) | Self::Key(_) | Self::Limit(_) => None,
        }
    }
}

/// A channel mode without a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flag {
    InviteOnly,
    Moderated,
    NoExternal,
    Secret,
    TopicLocked,
}

impl Flag {
    pub(crate) const ALL: [Self; 5] =
        [Self::InviteOnly, Self::Moderated, Self::NoExternal, Self::Secret, Self::TopicLocked];

    pub(crate) fn letter(self) -> char {
        match self {
            Self::InviteOnly => 'i',
            Self::Moderated => 'm',
            Self::NoExternal => 'n',
            Self::Secret => 's',
            Self::TopicLocked => 't',
        }
    }

    pub(crate) fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.letter() == letter)
    }
}

/// Why the bytes of an entry are passed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeEntryError {
    #[error("not an entry")]
    Malformed(#[from] prost::DecodeError),
    #[error("a kind of entry that this version does not know")]
    UnknownKind,
    #[error("a field of the entry is missing, malformed or too long")]
    InvalidField,
}

impl Entry {
    pub(crate) fn encode(self) -> Bytes {
        wire::Envelope::from(self).encode_to_vec().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeEntryError> {
        wire::Envelope::decode(bytes)?.try_into()
    }

    /// The user of `log` that the entry speaks for.
    pub(crate) fn author(&self, log: &LogId) -> Option<UserId> {
        match self {
            Self::Start => None,
            Self::Connect { user, .. }
            | Self::Quit { user, .. }
            | Self::Nick { user, .. }
            | Self::UserMode { user, .. }
            | Self::Away { user, .. }
            | Self::Join { user, .. }
            | Self::Part { user, .. }
            | Self::Kick { user, .. }
            | Self::Topic { user, .. }
            | Self::Mode { user, .. }
            | Self::Text { user, .. }
            | Self::Invite { user, .. } => Some(UserId::new(log, *user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn nick(name: &str) -> Nick {
        Nick::parse(name).expect("a valid nickname")
    }

    fn samples() -> Vec<Entry> {
        let channel = ChannelName::parse("#C").expect("a valid channel name");
        let (creation, target, user) = (ChannelId([7; 16]), UserId([9; 16]), 5);
        let join = |standing| Entry::Join { user, channel: channel.clone(), standing };
        let text = |target, kind| Entry::Text { user, target, kind, text: "hi".into(), tags: "+a=b".into() };
        vec![
            Entry::Start,
            Entry::Connect { user: 0, nick: nick("bob"), username: "u".into(), realname: String::new() },
            Entry::Quit { user, reason: "bye".into() },
            Entry::Nick { user: u64::MAX, nick: nick("bob2") },
            Entry::UserMode { user, invisible: true },
            Entry::Away { user, message: None },
            Entry::Away { user, message: Some("lunch".into()) },
            join(Standing::Creator(0)),
            join(Standing::Member(creation)),
            join(Standing::Reviver(creation)),
            Entry::Part { user, channel: channel.clone(), reason: String::new() },
            Entry::Kick { user, channel: channel.clone(), target, reason: "out".into() },
            Entry::Topic { user, channel: channel.clone(), creation, by: "bob".into(), text: "é".into() },
            Entry::Mode {
                user,
                channel: channel.clone(),
                creation,
                changes: vec![
                    ModeChange::Flag(Flag::InviteOnly, true),
                    ModeChange::Flag(Flag::TopicLocked, false),
                    ModeChange::Key(Some("k".into())),
                    ModeChange::Key(None),
                    ModeChange::Limit(Some(3)),
                    ModeChange::Limit(None),
                    ModeChange::Operator(target, true),
                    ModeChange::Voice(target, false),
                ],
            },
            text(Target::Channel(channel.clone(), creation), TextKind::Privmsg),
            text(Target::User(target), TextKind::Notice),
            text(Target::User(target), TextKind::Tagmsg),
            Entry::Invite { user, channel, creation, target },
        ]
    }

    #[test]
    fn every_kind_survives_encoding() {
        for entry in samples() {
            assert_eq!(Entry::decode(&entry.clone().encode()).expect("decodes"), entry);
        }
    }

    #[test]
    fn refuses_line_breaks_and_lengths_that_an_honest_node_never_writes() {
        for reason in ["a\r\nKILL x", "nul\0", &"x".repeat(MAX_TEXT + 1)] {
            let bytes = Entry::Quit { user: 1, reason: reason.to_owned() }.encode();
            assert!(matches!(Entry::decode(&bytes), Err(DecodeEntryError::InvalidField)), "{reason:?}");
        }
        let tags = Entry::Text {
            user: 1,
            target: Target::User(UserId([0; 16])),
            kind: TextKind::Privmsg,
            text: String::new(),
            tags: "+a b".into(),
        };
        assert!(matches!(Entry::decode(&tags.encode()), Err(DecodeEntryError::InvalidField)));
    }

    #[test]
    fn passes_over_a_kind_of_a_later_version() {
        // Field 99, a message of no bytes.
        assert!(matches!(Entry::decode(&[0x9a, 0x06, 0x00]), Err(DecodeEntryError::UnknownKind)));
    }

    #[test]
    fn survives_seeded_mutation() {
        let seed = rand::random::<u64>();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let samples: Vec<Bytes> = samples().into_iter().map(Entry::encode).collect();
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..50_000 {
            let mut bytes = samples[rng.random_range(0..samples.len())].to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..=bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes.insert(at, rng.random()),
                    1 if at < bytes.len() => bytes[at] = rng.random(),
                    _ => bytes.truncate(at),
                }
            }
            match Entry::decode(&bytes) {
                Ok(entry) => {
                    accepted += 1;
                    assert_eq!(Entry::decode(&entry.clone().encode()).expect("decodes again"), entry, "seed {seed}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused: seed {seed}");
    }
}

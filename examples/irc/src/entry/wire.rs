//! The protobuf form of an entry, and the checks between it and [`Entry`].

use prost::{Message, Oneof};

use super::{
    DecodeEntryError, Entry, Flag, MAX_KEY, MAX_MODE_CHANGES, MAX_TEXT, MAX_USER_FIELD, ModeChange, Standing, Target,
    TextKind,
};
use crate::message::MAX_CLIENT_TAGS;
use crate::names::{ChannelId, ChannelName, MAX_NICK, Nick, UserId};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Envelope {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Start(Start),
    #[prost(message, tag = "2")]
    Connect(Connect),
    #[prost(message, tag = "3")]
    Quit(Quit),
    #[prost(message, tag = "4")]
    Nick(NickChange),
    #[prost(message, tag = "5")]
    UserMode(UserMode),
    #[prost(message, tag = "6")]
    Away(Away),
    #[prost(message, tag = "7")]
    Join(Join),
    #[prost(message, tag = "8")]
    Part(Part),
    #[prost(message, tag = "9")]
    Kick(Kick),
    #[prost(message, tag = "10")]
    Topic(Topic),
    #[prost(message, tag = "11")]
    Mode(Mode),
    #[prost(message, tag = "12")]
    Text(Text),
    #[prost(message, tag = "13")]
    Invite(Invite),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Start {}

#[derive(Clone, PartialEq, Message)]
struct Connect {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    nick: String,
    #[prost(string, tag = "3")]
    username: String,
    #[prost(string, tag = "4")]
    realname: String,
}

#[derive(Clone, PartialEq, Message)]
struct Quit {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct NickChange {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    nick: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct UserMode {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(bool, tag = "2")]
    invisible: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Away {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, optional, tag = "2")]
    message: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Join {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(oneof = "JoinStanding", tags = "3, 4, 5")]
    standing: Option<JoinStanding>,
}

#[derive(Clone, PartialEq, Oneof)]
enum JoinStanding {
    #[prost(fixed64, tag = "3")]
    Creator(u64),
    #[prost(bytes, tag = "4")]
    Member(Vec<u8>),
    #[prost(bytes, tag = "5")]
    Reviver(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct Kick {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(bytes = "vec", tag = "3")]
    target: Vec<u8>,
    #[prost(string, tag = "4")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct Topic {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(bytes = "vec", tag = "3")]
    creation: Vec<u8>,
    #[prost(string, tag = "4")]
    by: String,
    #[prost(string, tag = "5")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Mode {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(bytes = "vec", tag = "3")]
    creation: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    changes: Vec<Change>,
}

/// One mode; the letter decides which of the other fields counts.
#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(uint32, tag = "1")]
    letter: u32,
    #[prost(bool, tag = "2")]
    on: bool,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(uint32, tag = "4")]
    limit: u32,
    #[prost(bytes = "vec", tag = "5")]
    target: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    /// Empty for a message to a user.
    #[prost(string, tag = "3")]
    channel: String,
    /// The creation of the channel, or the user.
    #[prost(bytes = "vec", tag = "4")]
    target: Vec<u8>,
    #[prost(string, tag = "5")]
    text: String,
    #[prost(string, tag = "6")]
    tags: String,
}

#[derive(Clone, PartialEq, Message)]
struct Invite {
    #[prost(fixed64, tag = "1")]
    user: u64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(bytes = "vec", tag = "3")]
    creation: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    target: Vec<u8>,
}

impl From<Entry> for Envelope {
    fn from(entry: Entry) -> Self {
        let kind = match entry {
            Entry::Start => Kind::Start(Start {}),
            Entry::Connect { user, nick, username, realname } => {
                Kind::Connect(Connect { user, nick: nick.to_string(), username, realname })
            }
            Entry::Quit { user, reason } => Kind::Quit(Quit { user, reason }),
            Entry::Nick { user, nick } => Kind::Nick(NickChange { user, nick: nick.to_string() }),
            Entry::UserMode { user, invisible } => Kind::UserMode(UserMode { user, invisible }),
            Entry::Away { user, message } => Kind::Away(Away { user, message }),
            Entry::Join { user, channel, standing } => {
                let standing = match standing {
                    Standing::Creator(nonce) => JoinStanding::Creator(nonce),
                    Standing::Member(id) => JoinStanding::Member(id.0.to_vec()),
                    Standing::Reviver(id) => JoinStanding::Reviver(id.0.to_vec()),
                };
                Kind::Join(Join { user, channel: channel.to_string(), standing: Some(standing) })
            }
            Entry::Part { user, channel, reason } => Kind::Part(Part { user, channel: channel.to_string(), reason }),
            Entry::Kick { user, channel, target, reason } => {
                Kind::Kick(Kick { user, channel: channel.to_string(), target: target.0.to_vec(), reason })
            }
            Entry::Topic { user, channel, creation, by, text } => {
                Kind::Topic(Topic { user, channel: channel.to_string(), creation: creation.0.to_vec(), by, text })
            }
            Entry::Mode { user, channel, creation, changes } => Kind::Mode(Mode {
                user,
                channel: channel.to_string(),
                creation: creation.0.to_vec(),
                changes: changes.into_iter().map(Change::from).collect(),
            }),
            Entry::Text { user, target, kind, text, tags } => {
                let (channel, target) = match target {
                    Target::Channel(name, creation) => (name.to_string(), creation.0.to_vec()),
                    Target::User(user) => (String::new(), user.0.to_vec()),
                };
                let kind = match kind {
                    TextKind::Privmsg => 0,
                    TextKind::Notice => 1,
                    TextKind::Tagmsg => 2,
                };
                Kind::Text(Text { user, kind, channel, target, text, tags })
            }
            Entry::Invite { user, channel, creation, target } => Kind::Invite(Invite {
                user,
                channel: channel.to_string(),
                creation: creation.0.to_vec(),
                target: target.0.to_vec(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Envelope> for Entry {
    type Error = DecodeEntryError;

    fn try_from(envelope: Envelope) -> Result<Self, DecodeEntryError> {
        Ok(match envelope.kind.ok_or(DecodeEntryError::UnknownKind)? {
            Kind::Start(Start {}) => Self::Start,
            Kind::Connect(Connect { user, nick: name, username, realname }) => Self::Connect {
                user,
                nick: nick(&name)?,
                username: text(username, MAX_USER_FIELD)?,
                realname: text(realname, MAX_USER_FIELD)?,
            },
            Kind::Quit(Quit { user, reason }) => Self::Quit { user, reason: text(reason, MAX_TEXT)? },
            Kind::Nick(NickChange { user, nick: name }) => Self::Nick { user, nick: nick(&name)? },
            Kind::UserMode(UserMode { user, invisible }) => Self::UserMode { user, invisible },
            Kind::Away(Away { user, message }) => {
                Self::Away { user, message: message.map(|message| text(message, MAX_TEXT)).transpose()? }
            }
            Kind::Join(Join { user, channel: name, standing }) => Self::Join {
                user,
                channel: channel(&name)?,
                standing: match standing.ok_or(DecodeEntryError::InvalidField)? {
                    JoinStanding::Creator(nonce) => Standing::Creator(nonce),
                    JoinStanding::Member(creation) => Standing::Member(ChannelId(id(&creation)?)),
                    JoinStanding::Reviver(creation) => Standing::Reviver(ChannelId(id(&creation)?)),
                },
            },
            Kind::Part(Part { user, channel: name, reason }) => {
                Self::Part { user, channel: channel(&name)?, reason: text(reason, MAX_TEXT)? }
            }
            Kind::Kick(Kick { user, channel: name, target, reason }) => Self::Kick {
                user,
                channel: channel(&name)?,
                target: UserId(id(&target)?),
                reason: text(reason, MAX_TEXT)?,
            },
            Kind::Topic(Topic { user, channel: name, creation, by, text: topic }) => Self::Topic {
                user,
                channel: channel(&name)?,
                creation: ChannelId(id(&creation)?),
                by: word(text(by, MAX_NICK)?)?,
                text: text(topic, MAX_TEXT)?,
            },
            Kind::Mode(Mode { user, channel: name, creation, changes }) => {
                if changes.len() > MAX_MODE_CHANGES {
                    return Err(DecodeEntryError::InvalidField);
                }
                Self::Mode {
                    user,
                    channel: channel(&name)?,
                    creation: ChannelId(id(&creation)?),
                    changes: changes.into_iter().map(ModeChange::try_from).collect::<Result<_, _>>()?,
                }
            }
            Kind::Text(message) => Self::Text {
                user: message.user,
                target: if message.channel.is_empty() {
                    Target::User(UserId(id(&message.target)?))
                } else {
                    Target::Channel(channel(&message.channel)?, ChannelId(id(&message.target)?))
                },
                kind: match message.kind {
                    0 => TextKind::Privmsg,
                    1 => TextKind::Notice,
                    2 => TextKind::Tagmsg,
                    _ => return Err(DecodeEntryError::UnknownKind),
                },
                text: text(message.text, MAX_TEXT)?,
                tags: client_tags(text(message.tags, MAX_CLIENT_TAGS)?)?,
            },
            Kind::Invite(Invite { user, channel: name, creation, target }) => Self::Invite {
                user,
                channel: channel(&name)?,
                creation: ChannelId(id(&creation)?),
                target: UserId(id(&target)?),
            },
        })
    }
}

impl From<ModeChange> for Change {
    fn from(change: ModeChange) -> Self {
        let blank = |letter: char, on| Self { letter: letter.into(), on, ..Self::default() };
        match change {
            ModeChange::Flag(flag, on) => blank(flag.letter(), on),
            ModeChange::Key(key) => Self { key: key.clone().unwrap_or_default(), ..blank('k', key.is_some()) },
            ModeChange::Limit(limit) => Self { limit: limit.unwrap_or_default(), ..blank('l', limit.is_some()) },
            ModeChange::Operator(user, on) => Self { target: user.0.to_vec(), ..blank('o', on) },
            ModeChange::Voice(user, on) => Self { target: user.0.to_vec(), ..blank('v', on) },
        }
    }
}

impl TryFrom<Change> for ModeChange {
    type Error = DecodeEntryError;

    fn try_from(change: Change) -> Result<Self, DecodeEntryError> {
        let letter = char::from_u32(change.letter).ok_or(DecodeEntryError::InvalidField)?;
        Ok(match letter {
            'k' if change.on => Self::Key(Some(channel_key(change.key)?)),
            'k' => Self::Key(None),
            'l' => Self::Limit(change.on.then_some(change.limit)),
            'o' => Self::Operator(UserId(id(&change.target)?), change.on),
            'v' => Self::Voice(UserId(id(&change.target)?), change.on),
            letter => Self::Flag(Flag::from_letter(letter).ok_or(DecodeEntryError::InvalidField)?, change.on),
        })
    }
}

fn text(value: String, limit: usize) -> Result<String, DecodeEntryError> {
    let fits = value.len() <= limit && !value.contains(['\0', '\r', '\n']);
    fits.then_some(value).ok_or(DecodeEntryError::InvalidField)
}

fn word(value: String) -> Result<String, DecodeEntryError> {
    let fits = !value.is_empty() && !value.contains(' ') && !value.starts_with(':');
    fits.then_some(value).ok_or(DecodeEntryError::InvalidField)
}

fn channel_key(value: String) -> Result<String, DecodeEntryError> {
    word(text(value, MAX_KEY)?)
}

fn client_tags(value: String) -> Result<String, DecodeEntryError> {
    let fits = value.is_empty() || (!value.contains(' ') && value.split(';').all(|tag| tag.starts_with('+')));
    fits.then_some(value).ok_or(DecodeEntryError::InvalidField)
}

fn nick(name: &str) -> Result<Nick, DecodeEntryError> {
    Nick::parse(name).ok_or(DecodeEntryError::InvalidField)
}

fn channel(name: &str) -> Result<ChannelName, DecodeEntryError> {
    ChannelName::parse(name).ok_or(DecodeEntryError::InvalidField)
}

fn id(bytes: &[u8]) -> Result<[u8; 16], DecodeEntryError> {
    bytes.try_into().map_err(|_| DecodeEntryError::InvalidField)
}

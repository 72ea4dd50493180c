//! Nicknames, channel names and the random ids behind them.
//!
//! Invariants: a value of a type here is well-formed; two names are the same name when their [`Folded`] forms are equal.
//! Case is folded for ASCII only (`CASEMAPPING=ascii`): other scripts would need tables that clients do not share.

use std::fmt;
use std::ops::RangeInclusive;

use data_encoding::HEXLOWER;
use hcp_core::replica::LogId;

/// Bytes of a nickname.
pub(crate) const MAX_NICK: usize = 30;
/// Bytes of a channel name, with its `#`.
pub(crate) const MAX_CHANNEL: usize = 64;

/// A name in the form in which names are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Folded(Box<str>);

impl Folded {
    /// Folds any text; looking up a malformed name finds nothing.
    pub(crate) fn of(name: &str) -> Self {
        Self(name.to_ascii_lowercase().into_boxed_str())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A nickname: ASCII letters, digits and `[]\`_^{|}-`, begun by neither a digit nor `-`.
///
/// ASCII only, because names that look alike would let one person pass for another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nick(Box<str>);

impl Nick {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let special = |b: u8| b"[]\\`_^{|}".contains(&b);
        let fits = (1..=MAX_NICK).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || special(b) || b == b'-')
            && !name.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        fits.then(|| Self(name.into()))
    }

    /// The name of a user whose own choice belongs to somebody else.
    pub(crate) fn guest(user: UserId) -> Self {
        Self(format!("{GUEST}{}", HEXLOWER.encode(&user.0[..4])).into_boxed_str())
    }

    /// Whether it has the form of [`Nick::guest`], which nobody may choose.
    pub(crate) fn is_guest(&self) -> bool {
        let folded = self.folded();
        folded.as_str().strip_prefix(GUEST).is_some_and(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// The ids whose [`Nick::guest`] this is; `None` for other names.
    pub(crate) fn guest_ids(&self) -> Option<RangeInclusive<UserId>> {
        let folded = self.folded();
        let start = HEXLOWER.decode(folded.as_str().strip_prefix(GUEST)?.as_bytes()).ok()?;
        let start: [u8; 4] = start.try_into().ok()?;
        let id = |rest| {
            let mut id = [rest; 16];
            id[..4].copy_from_slice(&start);
            UserId(id)
        };
        Some(id(0)..=id(u8::MAX))
    }

    pub(crate) fn folded(&self) -> Folded {
        Folded::of(&self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A channel name: `#` and at least one more character, without spaces, commas, colons and control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelName(Box<str>);

impl ChannelName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let fits = (2..=MAX_CHANNEL).contains(&name.len())
            && name.starts_with('#')
            && !name.contains([' ', ',', ':'])
            && !name.chars().any(char::is_control);
        fits.then(|| Self(name.into()))
    }

    pub(crate) fn folded(&self) -> Folded {
        Folded::of(&self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's id: a hash of the log it belongs to and a random number, so that no other log can make the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserId(pub(crate) [u8; 16]);

impl UserId {
    pub(crate) fn new(log: &LogId, nonce: u64) -> Self {
        Self(derive("hcp-irc 2026 user id", log, nonce))
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({})", HEXLOWER.encode(&self.0[..4]))
    }
}

/// The id of one creation of a channel, made like a [`UserId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId(pub(crate) [u8; 16]);

impl ChannelId {
    pub(crate) fn new(log: &LogId, nonce: u64) -> Self {
        Self(derive("hcp-irc 2026 channel id", log, nonce))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({})", HEXLOWER.encode(&self.0[..4]))
    }
}

fn derive(context: &str, log: &LogId, nonce: u64) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&log.node.0).update(&log.incarnation.0).update(&nonce.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    id
}

const GUEST: &str = "guest-";

#[cfg(test)]
mod tests {
    use hcp_core::replica::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn a_nickname_is_short_ascii_and_begins_with_a_letter_or_special() {
        for good in ["a", "Bob", "[x]", "_under", "a-b", "w^2"] {
            assert!(Nick::parse(good).is_some(), "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "a!b", "a@b", "é", "#a", "a.b", "a:b", &"x".repeat(31)] {
            assert!(Nick::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Nick::parse("BoB").map(|n| n.folded()), Nick::parse("bOb").map(|n| n.folded()));
    }

    #[test]
    fn a_channel_name_begins_with_a_hash_and_holds_no_separator() {
        for good in ["#a", "##", "#é", "#a!b"] {
            assert!(ChannelName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "#", "a", "&a", "#a b", "#a,b", "#a\u{7}", "#a:b", &format!("#{}", "x".repeat(64))] {
            assert!(ChannelName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_guest_name_is_a_nickname_that_nobody_may_choose() {
        let log = LogId { node: NodeId([1; 32]), incarnation: Incarnation([2; 16]) };
        let guest = Nick::guest(UserId::new(&log, 3));
        assert_eq!(Nick::parse(guest.as_str()), Some(guest.clone()));
        assert!(guest.is_guest());
        let ids = guest.guest_ids().expect("is a guest's");
        assert!(ids.contains(&UserId::new(&log, 3)) && !ids.contains(&UserId::new(&log, 4)));
        assert_eq!(Nick::parse("guest-bob").and_then(|nick| nick.guest_ids()), None);
        assert!(Nick::parse("GUEST-0123abcd").is_some_and(|nick| nick.is_guest()));
        assert!(Nick::parse("guest-bob").is_some_and(|nick| !nick.is_guest()));
    }

    #[test]
    fn ids_differ_by_log_number_and_purpose() {
        let log = |n| LogId { node: NodeId([n; 32]), incarnation: Incarnation([n; 16]) };
        assert_ne!(UserId::new(&log(1), 1), UserId::new(&log(2), 1));
        assert_ne!(UserId::new(&log(1), 1), UserId::new(&log(1), 2));
        assert_ne!(UserId::new(&log(1), 1).0, ChannelId::new(&log(1), 1).0);
    }
}

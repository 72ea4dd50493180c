//! The cases of the suite: what goes wrong, and what may follow from it.

use clap::ValueEnum;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Case {
    /// Nothing.
    Healthy,
    /// A node is killed (SIGKILL).
    Kill,
    /// A node stands still (SIGSTOP).
    Freeze,
    /// The link of a node is cut: its network namespace hears nothing and is not heard.
    Cut,
    /// A node is asked to end (SIGTERM).
    Stop,
    /// Two nodes are killed at once.
    Two,
    /// The node that published last is killed, three times.
    Publisher,
    /// All nodes are restarted, one after the other.
    Rolling,
    /// A live node is silent towards the others, which have declared it dead.
    Mute,
    /// A node goes on that stood still until its introduction points were taken over.
    Thaw,
    /// The clock of a node is 90 s fast.
    Fast,
    /// The clock of a node is 90 s slow.
    Slow,
    /// A member gossips introduction points that are nobody's; the others have published since.
    Garbage,
    /// A node has nothing to sign descriptors with, as the manifest names it as no publisher; the publisher is killed.
    Bare,
}

impl Case {
    /// Every case, in an order that begins with the healthy one, to which the others are compared.
    pub const ALL: [Self; 14] = [
        Self::Healthy,
        Self::Kill,
        Self::Freeze,
        Self::Cut,
        Self::Stop,
        Self::Two,
        Self::Publisher,
        Self::Rolling,
        Self::Mute,
        Self::Thaw,
        Self::Fast,
        Self::Slow,
        Self::Garbage,
        Self::Bare,
    ];

    /// What it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Kill => "kill -9",
            Self::Freeze => "SIGSTOP",
            Self::Cut => "link cut",
            Self::Stop => "clean stop",
            Self::Two => "two killed at once",
            Self::Publisher => "the publisher killed, three times",
            Self::Rolling => "rolling restart",
            Self::Mute => "a live node declared dead",
            Self::Thaw => "thawed after takeover",
            Self::Fast => "one clock +90 s",
            Self::Slow => "one clock -90 s",
            Self::Garbage => "garbage gossip",
            Self::Bare => "a node without material",
        }
    }

    /// How often the fault strikes among `nodes` nodes; connects are shared out among the rounds.
    pub fn rounds(self, nodes: usize) -> usize {
        match self {
            Self::Publisher => 3,
            Self::Rolling => nodes,
            _ => 1,
        }
    }

    /// Whether what strikes in several rounds is one thing, which clients that know the service see from its beginning to its end.
    pub fn is_one_fault(self) -> bool {
        self != Self::Publisher
    }

    /// Whether a node vanishes without a word to its introduction points, so that an introduction can reach it and be lost.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Freeze | Self::Cut)
    }

    /// Whether nodes die, or seem to, for others to take over from.
    pub fn is_taken_over(self) -> bool {
        self.is_silent() || matches!(self, Self::Kill | Self::Two | Self::Publisher | Self::Thaw | Self::Bare)
    }

    /// Whether the fault is there only once others were seen to act on what was done: then connects begin.
    pub fn is_seen_first(self) -> bool {
        matches!(self, Self::Mute | Self::Thaw | Self::Garbage)
    }

    /// Whether nodes have to be in network namespaces of their own.
    pub fn needs_namespaces(self) -> bool {
        self == Self::Cut
    }
}

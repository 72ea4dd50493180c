//! What a running node tells whoever started it, on standard output: a sentence, or a JSON object, on a line of its own.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The form of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// Something worth telling.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Report {
    /// How far joining the network has come.
    Bootstrap { percent: u8, message: String },
    /// Strangers can reach this node, or the service through it.
    Reachable {
        what: What,
        #[serde(serialize_with = "as_seconds")]
        seconds: Duration,
    },
    /// Another member came or went.
    Peer { member: usize, live: bool },
    /// A member is not heard any more.
    Dead { member: usize },
    /// It is heard again.
    Alive { member: usize },
    /// All that this node has to do for a death is done.
    Takeover { member: usize, points: usize, gave_up: usize },
    /// This node has uploaded a descriptor.
    Published { period: u64, listed: Vec<usize>, points: usize, accepted: usize, refused: usize, failed: usize },
    /// A warden has handed out grants to this node.
    Fetched { grants: usize },
    /// A client's stream was accepted at the shared address.
    Accepted { port: u16 },
    /// How many clients are registered here.
    Clients { count: usize },
    /// All parts run.
    Ready {
        #[serde(serialize_with = "as_seconds")]
        seconds: Duration,
    },
}

/// What can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    Node,
    Service,
}

/// Prints reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter(pub(crate) Form);

impl Reporter {
    /// Prints one report. A reader that has gone away is no reason to stop serving.
    pub(crate) fn tell(self, report: &Report) {
        let line = match self.0 {
            Form::Text => report.to_string(),
            Form::Json => serde_json::to_string(report).unwrap_or_else(|error| error.to_string()),
        };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap { percent, message } => write!(f, "joining the network: {percent} %, {message}"),
            Self::Reachable { what: What::Node, seconds } => {
                write!(f, "the other nodes can reach this one, after {:.1} s", seconds.as_secs_f64())
            }
            Self::Reachable { what: What::Service, seconds } => {
                write!(f, "clients can reach the service through this node, after {:.1} s", seconds.as_secs_f64())
            }
            Self::Peer { member, live: true } => write!(f, "linked with member {}", member + 1),
            Self::Peer { member, live: false } => write!(f, "lost member {}", member + 1),
            Self::Dead { member } => write!(f, "member {} is not heard any more", member + 1),
            Self::Alive { member } => write!(f, "member {} is heard again", member + 1),
            Self::Takeover { member, points, gave_up } => {
                write!(f, "took over {points} introduction points of member {}, gave up {gave_up}", member + 1)
            }
            Self::Published { listed, points, accepted, refused, failed, .. } => write!(
                f,
                "published a descriptor that lists {points} points of {} members: {accepted} directories took it, {refused} refused, \
                 {failed} failed",
                listed.len()
            ),
            Self::Fetched { grants } => write!(f, "took in {grants} grants from a warden"),
            Self::Accepted { port } => write!(f, "a client, on port {port}"),
            Self::Clients { count } => write!(f, "{count} clients"),
            Self::Ready { seconds } => write!(f, "ready, after {:.1} s", seconds.as_secs_f64()),
        }
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_supervisors_expect() {
        for (report, json) in [
            (Report::Peer { member: 2, live: true }, r#"{"event":"peer","member":2,"live":true}"#),
            (
                Report::Reachable { what: What::Service, seconds: Duration::from_millis(1500) },
                r#"{"event":"reachable","what":"service","seconds":1.5}"#,
            ),
            (Report::Ready { seconds: Duration::from_secs(2) }, r#"{"event":"ready","seconds":2.0}"#),
            (Report::Accepted { port: 6667 }, r#"{"event":"accepted","port":6667}"#),
            (Report::Clients { count: 3 }, r#"{"event":"clients","count":3}"#),
            (
                Report::Bootstrap { percent: 5, message: "x".into() },
                r#"{"event":"bootstrap","percent":5,"message":"x"}"#,
            ),
            (Report::Fetched { grants: 1 }, r#"{"event":"fetched","grants":1}"#),
            (Report::Dead { member: 1 }, r#"{"event":"dead","member":1}"#),
            (Report::Alive { member: 1 }, r#"{"event":"alive","member":1}"#),
            (
                Report::Takeover { member: 1, points: 3, gave_up: 0 },
                r#"{"event":"takeover","member":1,"points":3,"gave_up":0}"#,
            ),
            (
                Report::Published { period: 7, listed: vec![0, 2], points: 6, accepted: 6, refused: 1, failed: 0 },
                r#"{"event":"published","period":7,"listed":[0,2],"points":6,"accepted":6,"refused":1,"failed":0}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&report).expect("serializes"), json);
        }
    }
}

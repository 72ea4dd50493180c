//! The cluster file: what all nodes of a service have alike. `owner manifest` signs what it says.

use std::path::Path;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use hcp_core::identity::manifest::SoftwareVersion;
use hcp_core::identity::{DiscoveryKeyError, DiscoveryPublicKey, OnionAddress};
use hcp_core::replica::NodeId;
use serde::Deserialize;

use crate::failure::Failure;
use crate::settings::{self, Settings};

/// Nodes of one service: every node links with every other.
const MAX_MEMBERS: usize = 64;

/// A node of the service: where it is dialled, and the public half of its log key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: OnionAddress,
    pub(crate) node: NodeId,
}

/// The cluster file, checked.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) members: Vec<Member>,
    /// Beside each member.
    pub(crate) roles: Vec<MemberRole>,
    pub(crate) lowest_software: Option<SoftwareVersion>,
    /// Who alone can find the service, besides the members; empty when everybody can.
    pub(crate) clients: Vec<DiscoveryPublicKey>,
}

/// What a manifest says of a member besides its keys.
#[derive(Clone, Debug)]
pub(crate) struct MemberRole {
    pub(crate) publishes: bool,
    pub(crate) name: Option<String>,
    pub(crate) discovery_key: Option<DiscoveryPublicKey>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    network: String,
    #[serde(default)]
    motd: String,
    #[serde(default = "settings::default_history")]
    history: usize,
    #[serde(default = "settings::default_max_clients")]
    max_clients: usize,
    #[serde(default)]
    ctcp: bool,
    #[serde(default)]
    real_names: bool,
    lowest_software: Option<String>,
    clients: Option<Vec<String>>,
    member: Vec<MemberBlock>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberBlock {
    address: String,
    log_key: String,
    #[serde(default = "publishes_by_default")]
    publisher: bool,
    name: Option<String>,
    discovery_key: Option<String>,
}

impl Cluster {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Failure::file("read the cluster file", path, &error))?;
        Self::parse(&text).map_err(|message| Failure::new(format!("cluster file {}: {message}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {}", error.message().replace('\n', " "))
        })?;
        let settings = Settings {
            name: file.name,
            network: file.network,
            motd: file.motd,
            history: file.history,
            max_clients: file.max_clients,
            ctcp: file.ctcp,
            real_names: file.real_names,
        };
        let settings = settings.checked()?;
        let lowest_software = file.lowest_software.map(|text| text.parse()).transpose();
        let lowest_software =
            lowest_software.map_err(|_| "`lowest_software` must be a version such as \"0.1.0\"".to_owned())?;
        if !(1..=MAX_MEMBERS).contains(&file.member.len()) {
            return Err(format!("there must be 1 to {MAX_MEMBERS} [[member]] blocks, as `hcp-irc init` prints them"));
        }
        // An empty list restricts to nobody, which nobody means.
        if file.clients.as_ref().is_some_and(Vec::is_empty) {
            return Err("`clients` names nobody: leave it out if everybody shall find the service".to_owned());
        }
        let mut clients = Vec::new();
        for (index, client) in file.clients.unwrap_or_default().iter().enumerate() {
            let key = client.parse();
            let key = key.map_err(|error: DiscoveryKeyError| format!("`clients`, number {}: {error}", index + 1));
            clients.push(key?);
        }
        let (mut members, mut roles): (Vec<Member>, Vec<MemberRole>) = (Vec::new(), Vec::new());
        for (index, block) in file.member.iter().enumerate() {
            let at = format!("[[member]] number {}", index + 1);
            let address = OnionAddress::from_str(&block.address)
                .map_err(|error| format!("{at}: `address` is no onion address: {error}"))?;
            let key = HEXLOWER_PERMISSIVE.decode(block.log_key.as_bytes()).ok().and_then(|key| key.try_into().ok());
            let node = NodeId(key.ok_or_else(|| format!("{at}: `log_key` must be 64 hexadecimal digits"))?);
            if members.iter().any(|other| other.address == address || other.node == node) {
                return Err(format!("{at} has the address or the log key of another: each node needs its own `init`"));
            }
            let discovery_key = block.discovery_key.as_ref().map(|key| key.parse()).transpose();
            let discovery_key =
                discovery_key.map_err(|error: DiscoveryKeyError| format!("{at}: `discovery_key`: {error}"))?;
            members.push(Member { address, node });
            roles.push(MemberRole { publishes: block.publisher, name: block.name.clone(), discovery_key });
        }
        Ok(Self { settings, members, roles, lowest_software, clients })
    }
}

fn publishes_by_default() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use hcp_core::identity::{DiscoveryKey, Identity, LogKey};

    use super::*;

    fn member() -> String {
        let key = data_encoding::HEXLOWER.encode(&LogKey::generate().public_key());
        format!("[[member]]\naddress = \"{}\"\nlog_key = \"{key}\"\n", Identity::generate().address())
    }

    fn refusal(text: &str) -> String {
        let error = Cluster::parse(text).expect_err("is refused");
        assert!(!error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn reads_a_complete_file_and_fills_in_defaults() {
        let text = format!("name = \"irc.example\"\nnetwork = \"HCP\"\nmotd = \"a\\nb\"\n{}{}", member(), member());
        let cluster = Cluster::parse(&text).expect("is valid");
        let server = cluster.settings.server(&Identity::generate().address());
        assert_eq!((cluster.members.len(), server.history, server.motd.len()), (2, 200, 2));
        assert!(!server.ctcp && !server.real_names);
    }

    #[test]
    fn reads_who_finds_what_is_hidden() {
        let key = || DiscoveryKey::generate().public_key();
        let (client, own) = (key(), key());
        let head = "name = \"irc.example\"\nnetwork = \"HCP\"\n";
        let text = format!("{head}clients = [\"{client}\"]\n{}discovery_key = \"{own}\"\n{}", member(), member());
        let cluster = Cluster::parse(&text).expect("is valid");
        assert_eq!(cluster.clients, [client]);
        assert_eq!(cluster.roles.iter().map(|role| role.discovery_key).collect::<Vec<_>>(), [Some(own), None]);
        assert!(Cluster::parse(&format!("{head}{}", member())).expect("is valid").clients.is_empty());
    }

    #[test]
    fn names_what_is_wrong() {
        let head = "name = \"irc.example\"\nnetwork = \"HCP\"\n";
        let twice = member();
        for (text, expected) in [
            (format!("{head}histroy = 5\n{}", member()), "line 3: unknown field `histroy`"),
            (format!("network = \"x\"\n{}", member()), "missing field `name`"),
            (format!("name = \"a b\"\nnetwork = \"x\"\n{}", member()), "`name`"),
            (format!("{head}history = 99999\n{}", member()), "`history`"),
            (format!("{head}clients = []\n{}", member()), "`clients` names nobody"),
            (format!("{head}clients = [\"x\"]\n{}", member()), "`clients`, number 1: a discovery key begins"),
            (format!("{head}{}discovery_key = \"x\"\n", member()), "number 1: `discovery_key`"),
            (format!("{head}member = []"), "[[member]]"),
            (format!("{head}{twice}{twice}"), "number 2"),
            (format!("{head}[[member]]\naddress = \"x\"\nlog_key = \"00\"\n"), "number 1: `address`"),
        ] {
            assert!(refusal(&text).contains(expected), "{expected}: {}", refusal(&text));
        }
    }
}

//! What all nodes of a service have alike of the IRC server: part of the cluster file, and what a manifest carries.

use hcp_core::identity::OnionAddress;
use serde::{Deserialize, Serialize};

use crate::server::ServerConfig;

/// Messages that a channel keeps for those who join.
const HISTORY: usize = 200;
/// The most that may be configured; with 64 KiB of text for each channel this bounds memory anyway.
const MAX_HISTORY: usize = 10_000;
/// Clients of one node. Each costs a few KiB idle and at most 1 MiB when it reads slowly.
const MAX_CLIENTS: usize = 2000;

/// The settings, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) network: String,
    #[serde(default)]
    pub(crate) motd: String,
    #[serde(default = "default_history")]
    pub(crate) history: usize,
    #[serde(default = "default_max_clients")]
    pub(crate) max_clients: usize,
    #[serde(default)]
    pub(crate) ctcp: bool,
    #[serde(default)]
    pub(crate) real_names: bool,
}

impl Settings {
    /// Checks what was read.
    pub(crate) fn checked(self) -> Result<Self, String> {
        let word = |text: &str| !text.is_empty() && text.len() <= 63 && text.bytes().all(|b| b.is_ascii_graphic());
        if !word(&self.name) || self.name.starts_with(':') || !self.name.contains('.') {
            return Err(
                "`name` must look like a host name, for instance \"irc.example\", in at most 63 characters".into()
            );
        }
        if !word(&self.network) {
            return Err("`network` must be one word of at most 63 characters".into());
        }
        if self.motd.len() > 16 * 1024 || self.motd.chars().any(|c| c.is_control() && c != '\n') {
            return Err("`motd` must be at most 16 KiB of lines without control characters".into());
        }
        if self.history > MAX_HISTORY {
            return Err(format!("`history` must be at most {MAX_HISTORY}"));
        }
        if !(1..=10_000).contains(&self.max_clients) {
            return Err("`max_clients` must be 1 to 10000".into());
        }
        Ok(self)
    }

    /// Reads what a manifest carries.
    pub(crate) fn from_shared(shared: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(shared).map_err(|_| "it is not UTF-8".to_owned())?;
        let settings: Self = toml::from_str(text).map_err(|error| error.message().replace('\n', " "))?;
        settings.checked()
    }

    /// The server's configuration, for the service at `address`.
    pub(crate) fn server(&self, address: &OnionAddress) -> ServerConfig {
        ServerConfig {
            name: self.name.clone(),
            network: self.network.clone(),
            motd: self.motd.lines().map(str::to_owned).collect(),
            history: self.history,
            ctcp: self.ctcp,
            real_names: self.real_names,
            msgid_key: ServerConfig::derive_msgid_key(&address.to_string(), &self.name),
            max_clients: self.max_clients,
        }
    }

    /// What a manifest carries.
    pub(crate) fn to_shared(&self) -> Result<Vec<u8>, String> {
        toml::to_string(self).map(String::into_bytes).map_err(|error| error.to_string())
    }
}

pub(crate) fn default_history() -> usize {
    HISTORY
}

pub(crate) fn default_max_clients() -> usize {
    MAX_CLIENTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "irc.example".into(),
            network: "HCP".into(),
            motd: "Be kind.\n\"Quoted\" = [x]".into(),
            history: 7,
            max_clients: 9,
            ctcp: true,
            real_names: false,
        }
    }

    #[test]
    fn a_manifest_carries_them_whole() {
        let shared = settings().to_shared().expect("written");
        assert_eq!(Settings::from_shared(&shared), Ok(settings()));
    }

    #[test]
    fn what_a_manifest_must_not_carry_is_refused() {
        let refused = |shared: &[u8]| Settings::from_shared(shared).expect_err("is refused");
        assert!(refused(b"\xff").contains("UTF-8"));
        assert!(refused(b"name = 'a.b'\nnetwork = 'x'\nnew = 1").contains("new"));
        assert!(refused(b"name = 'a b'\nnetwork = 'x'").contains("`name`"));
        assert!(refused(b"network = 'x'").contains("name"));
    }
}

//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use hcp_core::identity::OnionAddress;

use crate::owner::args::{ImportGrant, Owner, Request, Warden};

/// An IRC server that lives at one onion address on many equal nodes.
///
/// No node holds the identity of the shared address. The owner, on a machine of its own: `owner new`, `owner key`. Each node:
/// `init`, which prints its block of the cluster file, and `request`. The owner: `owner manifest` with the cluster file,
/// `owner grant` with the requests. Each node: `import-grant`, then `serve`.
#[derive(Debug, Parser)]
#[command(name = "hcp-irc", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the keys of a node and print its block of the cluster file.
    Init(Init),
    /// Serve the shared address together with the other members.
    Serve(Serve),
    /// Make the key with which a client finds a service that only some clients find.
    ClientKey(ClientKey),
    /// Ask the owner for what this node needs to serve: public keys, signed by the node.
    Request(Request),
    /// Take in what the owner granted this node; a running node notices.
    ImportGrant(ImportGrant),
    /// The owner's work: the service's identity, the manifest, grants, revocation.
    Owner(Owner),
    /// Hand out grants that the owner made in advance, each when its time has come.
    Warden(Warden),
}

/// How key files are protected; there is no default.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyProtection {
    /// A file whose first line is the passphrase that seals the keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Keep keys in the clear, guarded by the file's permissions only.
    #[arg(long)]
    pub(crate) plain_keys: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The node's folder; made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
}

#[derive(Args, Debug)]
pub(crate) struct ClientKey {
    /// The service.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) service: OnionAddress,
    /// Where to put the secret half, as C tor wants it.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The node's folder, as `init` made it.
    #[arg(long, value_name = "DIR")]
    pub(crate) home: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyProtection,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Fetch grants from this warden, by its address, before those that the node has end; more than one for when one is down.
    #[arg(long = "warden", value_name = "ADDRESS")]
    pub(crate) wardens: Vec<OnionAddress>,
    /// Print events as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop when standard input ends, so that the node does not outlive its supervisor.
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
}

/// Where a node is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Where addresses are: `tor`, or `local:DIR` for development on one machine, which hides nothing.
    #[arg(long, default_value = "tor", value_name = "NETWORK")]
    pub(crate) network: NetworkChoice,
    /// Use the private Tor network that this file describes; it protects nobody.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_tor: Option<PathBuf>,
}

/// The network that nodes and clients meet on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkChoice {
    Tor,
    Local(PathBuf),
}

impl FromStr for NetworkChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "tor" => Ok(Self::Tor),
            Some(("local", folder)) if !folder.is_empty() => Ok(Self::Local(folder.into())),
            _ => Err("expected `tor` or `local:DIR`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn public_tor_is_the_default_and_the_protection_of_keys_has_none() {
        let serve = "hcp-irc serve --home h --plain-keys";
        let Ok(Cli { command: Command::Serve(parsed) }) = parse(serve) else { panic!("is valid") };
        assert_eq!((parsed.place.network, parsed.place.private_tor), (NetworkChoice::Tor, None));
        assert!(parse("hcp-irc serve --home h").is_err());
        assert!(parse("hcp-irc init --home h --plain-keys --passphrase-file f").is_err());
        assert!(parse(&format!("{serve} --network local:")).is_err());
        assert!(parse(&format!("{serve} --network local:x")).is_ok());
    }

    #[test]
    fn a_warden_fills_a_folder_or_listens_with_a_key_of_its_own() {
        let stock = "hcp-irc warden --stock s";
        for good in
            ["--out o", "--out o --every 5", "--listen --home h --plain-keys", "--listen --home h --passphrase-file f"]
        {
            assert!(parse(&format!("{stock} {good}")).is_ok(), "{good}");
        }
        let both = "--listen --home h --plain-keys --passphrase-file f";
        for wrong in
            ["", "--listen", "--listen --home h", "--listen --home h --plain-keys --out o", "--out o --home h", both]
        {
            assert!(parse(&format!("{stock} {wrong}")).is_err(), "{wrong}");
        }
    }
}

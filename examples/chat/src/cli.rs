//! The command line.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use hcp_core::messenger::MAX_TEXT;

use crate::failure::Failure;
use crate::home::ProfileName;
use crate::request::Request;

/// Talk and send files from person to person over Tor, without a server.
///
/// `init` makes a profile; `id` shows its address, which you give to friends; `contact add` asks a friend. `daemon` goes
/// online: it delivers what waits and receives what comes. The other commands talk to a running daemon, or work offline
/// when there is none.
///
/// Everything is kept in one folder (--home), encrypted under the passphrase. While a daemon runs, whoever can use its
/// socket in that folder, which is you and the machine's administrator, can use the profile without the passphrase.
#[derive(Debug, Parser)]
#[command(name = "hcp-chat", version)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The portable folder that holds everything [default: hcp-chat in $XDG_DATA_HOME or ~/.local/share].
    #[arg(long, global = true, value_name = "DIR", env = "HCP_CHAT_HOME", hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// The profile to use.
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    pub(crate) profile: ProfileName,
    /// Where addresses are: `tor`, or `local:FOLDER` for development on one machine, which hides nothing.
    #[arg(long, global = true, value_name = "NETWORK", default_value = "tor")]
    pub(crate) network: NetworkChoice,
    /// Use the private Tor network that this file describes; it protects nobody.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) private_tor: Option<PathBuf>,
    /// A file whose first line is the passphrase; otherwise it is asked for at the terminal.
    #[arg(long, global = true, value_name = "FILE", env = "HCP_CHAT_PASSPHRASE_FILE", hide_env_values = true)]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Print one JSON value instead of sentences.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write logs to standard error, such as `info` or `hcp_core=debug`; beyond `info` they may name addresses.
    #[arg(long, global = true, value_name = "FILTER", env = "HCP_LOG", hide_env_values = true)]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a profile with a new address.
    Init(Init),
    /// Show the profile's address: what you give to friends.
    Id,
    /// Change the passphrase.
    Passphrase(ChangePassphrase),
    /// Copy the profile to a folder, also while its daemon runs.
    ///
    /// To restore it, put the folder in the place of the profile's. What was written and received since then comes back from
    /// your contacts, as far as they still have it. The passphrase is that of the profile.
    Backup {
        /// The folder, which is made when it is missing.
        folder: PathBuf,
    },
    /// List the profiles in the home.
    Profiles,
    /// Ask, accept, refuse and list people.
    #[command(subcommand)]
    Contact(ContactCommand),
    /// Write a message; it is delivered when the contact can be reached.
    Send(Send),
    /// Take back a message that is still queued.
    Cancel {
        /// The message's id, as `send` and `history` show it.
        id: String,
    },
    /// Show what was written with a contact.
    History(History),
    /// Offer, accept and list files.
    File(File),
    /// Show how the profile stands.
    Status,
    /// Go online until told to stop (SIGINT, SIGTERM).
    ///
    /// Prints events and replies as lines of JSON on standard output, and takes commands as lines of JSON on standard
    /// input, such as {"id":1,"command":"send","contact":"bob","text":"hello"}.
    Daemon(Daemon),
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// What the profile calls itself towards contacts.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct ChangePassphrase {
    /// A file whose first line is the new passphrase; otherwise it is asked for at the terminal.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContactCommand {
    /// Ask somebody to become a contact.
    Add {
        /// Their address.
        address: String,
        /// What you call them; it stays on this machine.
        #[arg(long, value_name = "NAME", default_value = "")]
        petname: String,
        /// A text that they see with the request.
        #[arg(long, value_name = "TEXT", default_value = "")]
        greeting: String,
    },
    /// Say yes to a contact request.
    Accept(Who),
    /// Say no to a contact request.
    Reject(Who),
    /// Treat somebody as a stranger whose requests are not shown.
    Block(Who),
    /// End a block.
    Unblock(Who),
    /// Take a contact off the list and keep what was written.
    Archive(Who),
    /// Change what you call a contact.
    Rename {
        #[command(flatten)]
        who: Who,
        /// What you call them from now on.
        petname: String,
    },
    /// Dial a contact now instead of after the pause that follows failed attempts.
    Connect(Who),
    /// List everybody.
    List,
}

#[derive(Args, Debug)]
pub(crate) struct Who {
    /// An address, or what you call the contact.
    pub(crate) contact: String,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) who: Who,
    /// The text; `-` reads it from standard input, where no list of processes shows it.
    pub(crate) text: String,
}

#[derive(Args, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) who: Who,
    /// How many messages, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
}

/// With a contact and a path: the same as `file offer`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct File {
    #[command(subcommand)]
    pub(crate) command: Option<FileCommand>,
    /// An address, or what you call the contact.
    #[arg(required = true)]
    pub(crate) contact: Option<String>,
    /// The file to offer.
    #[arg(required = true)]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// Offer a file; it must stay as it is until it has been sent.
    #[command(alias = "send")]
    Offer {
        #[command(flatten)]
        who: Who,
        /// The file.
        path: PathBuf,
    },
    /// Accept an offered file.
    Accept {
        /// The transfer's id, as `file list` shows it.
        id: String,
        /// Where to save it: a path, or a folder [default: the current folder].
        path: Option<PathBuf>,
    },
    /// Say no to an offered file.
    Decline {
        /// The transfer's id.
        id: String,
    },
    /// End a transfer from either side.
    Cancel {
        /// The transfer's id.
        id: String,
    },
    /// List transfers.
    List,
}

#[derive(Args, Debug)]
pub(crate) struct Daemon {
    /// Print events from behind this cursor on; 0 is the beginning [default: only new ones].
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<u64>,
    /// Accept every contact request, for bots and tests.
    #[arg(long)]
    pub(crate) accept_all: bool,
    /// Accept every offered file into this folder, for bots and tests.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) save_to: Option<PathBuf>,
    /// End when standard input ends, so that the daemon does not outlive its supervisor.
    #[arg(long)]
    pub(crate) until_eof: bool,
    /// Do not listen on the socket, for file systems that have none.
    #[arg(long)]
    pub(crate) no_socket: bool,
}

/// The network that the profile lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkChoice {
    Tor,
    Local(PathBuf),
}

impl ContactCommand {
    pub(crate) fn request(self) -> Request {
        match self {
            Self::Add { address, petname, greeting } => Request::ContactAdd { address, petname, greeting },
            Self::Accept(Who { contact }) => Request::ContactAccept { contact },
            Self::Reject(Who { contact }) => Request::ContactReject { contact },
            Self::Block(Who { contact }) => Request::ContactBlock { contact },
            Self::Unblock(Who { contact }) => Request::ContactUnblock { contact },
            Self::Archive(Who { contact }) => Request::ContactArchive { contact },
            Self::Rename { who: Who { contact }, petname } => Request::ContactRename { contact, petname },
            Self::Connect(Who { contact }) => Request::ContactConnect { contact },
            Self::List => Request::Contacts {},
        }
    }
}

impl Send {
    pub(crate) fn request(self) -> Result<Request, Failure> {
        let text = if self.text == "-" { read_text()? } else { self.text };
        Ok(Request::Send { contact: self.who.contact, text })
    }
}

impl History {
    pub(crate) fn request(self) -> Request {
        Request::History { contact: self.who.contact, limit: Some(self.limit), before: None }
    }
}

impl From<File> for FileCommand {
    fn from(file: File) -> Self {
        match (file.command, file.contact, file.path) {
            (None, Some(contact), Some(path)) => Self::Offer { who: Who { contact }, path },
            (command, ..) => command.unwrap_or(Self::List),
        }
    }
}

impl FileCommand {
    pub(crate) fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::Offer { who: Who { contact }, path } => Request::FileOffer { contact, path: absolute(&path)? },
            Self::Accept { id, path } => {
                let path = absolute(&path.unwrap_or_else(|| PathBuf::from(".")))?;
                Request::FileAccept { transfer: id, path }
            }
            Self::Decline { id } => Request::FileDecline { transfer: id },
            Self::Cancel { id } => Request::FileCancel { transfer: id },
            Self::List => Request::Files {},
        })
    }
}

impl FromStr for NetworkChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "tor" => Ok(Self::Tor),
            Some(("local", folder)) if !folder.is_empty() => Ok(Self::Local(folder.into())),
            _ => Err("expected `tor` or `local:FOLDER`"),
        }
    }
}

/// A daemon works in another folder, and JSON holds only UTF-8.
pub(crate) fn absolute(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path).map_err(|error| Failure::file("use the path", path, &error))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| Failure::new(format!("the path {} is not UTF-8: rename it", path.display())))
}

fn read_text() -> Result<String, Failure> {
    let mut text = Vec::new();
    // One byte more than fits, so that what is too long is refused and not cut.
    let read = std::io::stdin().take(MAX_TEXT as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::of("read the text from standard input", &error))?;
    if text.len() > MAX_TEXT {
        return Err(Failure::new(format!("the text has more than the limit of {MAX_TEXT} bytes")));
    }
    String::from_utf8(text).map_err(|_| Failure::new("the text is not UTF-8"))
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
    fn public_tor_is_the_default() {
        let cli = parse("hcp-chat daemon").unwrap();
        assert_eq!((cli.common.network, cli.common.private_tor), (NetworkChoice::Tor, None));
        assert!(parse("hcp-chat daemon --network local:").is_err());
        assert!(parse("hcp-chat --network local:x id").is_ok());
    }

    #[test]
    fn a_file_is_offered_with_and_without_the_word() {
        for line in ["hcp-chat file bob x.bin", "hcp-chat file offer bob x.bin", "hcp-chat file send bob x.bin"] {
            let Command::File(file) = parse(line).unwrap().command else { panic!("{line}") };
            let Ok(Request::FileOffer { contact, path }) = FileCommand::from(file).request() else { panic!("{line}") };
            assert_eq!(contact, "bob");
            assert!(path.starts_with('/') && path.ends_with("/x.bin"), "{path}");
        }
        assert!(parse("hcp-chat file list").is_ok());
        assert!(parse("hcp-chat file").is_err());
        assert!(parse("hcp-chat file bob").is_err());
    }

    #[test]
    fn names_of_profiles_and_limits_are_checked() {
        assert!(parse("hcp-chat --profile ../x id").is_err());
        assert!(parse("hcp-chat history bob --limit 0").is_err());
        assert!(parse("hcp-chat history bob --limit 1001").is_err());
        assert!(parse("hcp-chat history bob --limit 1000").is_ok());
    }
}

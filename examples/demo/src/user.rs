//! A scripted person with an IRC client: reconnects by itself, says again what was never echoed, and keeps count.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hcp_core::network::{BoxedTransport, LocalNetwork, Network};
use hcp_core::testing::{socks_connect, socks_connect_isolated};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Result;

/// How long one attempt to reach the service may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may take to welcome a client.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// The wait between attempts.
const RETRY: Duration = Duration::from_millis(250);
/// The port of IRC at the service's address.
const IRC: u16 = 6667;
/// The token of the ping that marks the end of what is played back on joining.
const JOINED: &str = "joined";

/// Opens a connection to the service.
pub type Dial = Arc<dyn Fn() -> BoxFuture<'static, Result<BoxedTransport>> + Send + Sync>;

/// Dials `address` through a SOCKS proxy.
pub fn dial_socks(proxy: SocketAddr, address: &str) -> Dial {
    let address: Arc<str> = address.into();
    Arc::new(move || {
        let address = Arc::clone(&address);
        Box::pin(async move { Ok(Box::new(socks_connect(proxy, &address, IRC).await?) as BoxedTransport) })
    })
}

/// Connects as [`dial_socks`] does, each time on circuits of its own.
pub fn dial_socks_isolated(proxy: SocketAddr, address: &str) -> Dial {
    let address: Arc<str> = address.into();
    Arc::new(move || {
        let address = Arc::clone(&address);
        let alone = format!("{:016x}", rand::random::<u64>());
        Box::pin(
            async move { Ok(Box::new(socks_connect_isolated(proxy, &address, IRC, &alone).await?) as BoxedTransport) },
        )
    })
}

/// Dials `address` on the local network in `folder`.
///
/// # Errors
/// When the folder or the address cannot be used.
pub fn dial_local(folder: &Path, address: &str) -> Result<Dial> {
    let network = LocalNetwork::new(folder)?;
    let address = address.parse()?;
    Ok(Arc::new(move || {
        let network = network.clone();
        Box::pin(async move { Ok(network.dial(address, IRC).await?) })
    }))
}

/// Something that somebody else said, with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The nickname of who said it.
    pub from: String,
    /// What they said.
    pub text: String,
}

/// What a user has seen so far.
#[derive(Clone, Debug, Default)]
pub struct UserState {
    /// On the channel, with everything played back.
    pub joined: bool,
    /// The present nickname.
    pub nick: String,
    /// How often the user was welcomed.
    pub welcomes: usize,
    /// When the connection was last lost.
    pub lost: Option<Instant>,
    /// When the user was last welcomed.
    pub welcomed: Option<Instant>,
    /// What was said and echoed.
    pub echoed: BTreeSet<String>,
    /// What others said, each once.
    pub heard: Vec<Heard>,
    /// Nicknames that left.
    pub left: Vec<String>,
    ids: BTreeSet<String>,
}

impl UserState {
    /// Whether somebody was heard saying this.
    pub fn has_heard(&self, text: &str) -> bool {
        self.heard.iter().any(|heard| heard.text == text)
    }
}

/// A scripted person. Dropping it hangs up.
#[derive(Debug)]
pub struct User {
    say: mpsc::UnboundedSender<String>,
    state: watch::Receiver<UserState>,
    _task: JoinSet<()>,
}

impl User {
    /// Joins `channel` as `nick`, and comes back whenever the connection is lost.
    pub fn new(nick: &str, channel: &str, dial: Dial) -> Self {
        let (say, queue) = mpsc::unbounded_channel();
        let (sender, state) = watch::channel(UserState::default());
        let person = Person {
            nick: nick.to_owned(),
            channel: channel.to_owned(),
            dial,
            queue,
            unconfirmed: VecDeque::new(),
            state: sender,
        };
        let mut task = JoinSet::new();
        task.spawn(person.live());
        Self { say, state, _task: task }
    }

    /// Says something on the channel; again after a reconnect if it was neither echoed nor played back.
    pub fn say(&self, text: impl Into<String>) {
        let _ = self.say.send(text.into());
    }

    /// What the user has seen so far.
    pub fn state(&self) -> UserState {
        self.state.borrow().clone()
    }

    /// Waits until the user's state fits.
    ///
    /// # Errors
    /// When that takes longer than `deadline`.
    pub async fn wait(&self, what: &str, deadline: Duration, fits: impl Fn(&UserState) -> bool) -> Result<UserState> {
        let mut state = self.state.clone();
        match tokio::time::timeout(deadline, state.wait_for(|state| fits(state))).await {
            Ok(Ok(state)) => Ok(state.clone()),
            _ => Err(format!("{what} did not come within {deadline:?} for {}", self.state.borrow().nick).into()),
        }
    }
}

struct Person {
    nick: String,
    channel: String,
    dial: Dial,
    queue: mpsc::UnboundedReceiver<String>,
    unconfirmed: VecDeque<String>,
    state: watch::Sender<UserState>,
}

impl Person {
    async fn live(mut self) {
        loop {
            // An error is part of the story: somebody was killed, or the service is not there yet.
            let _ = self.connect().await;
            self.state.send_modify(|state| {
                if state.joined {
                    state.lost = Some(Instant::now());
                }
                state.joined = false;
            });
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&mut self) -> Result<()> {
        let stream = tokio::time::timeout(DIAL_TIMEOUT, (self.dial)()).await??;
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = BufReader::new(reader).lines();
        let hello = format!(
            "CAP REQ :server-time message-tags echo-message\r\nNICK {0}\r\nUSER {0} 0 * :{0}\r\nCAP END\r\n",
            self.nick
        );
        send(&mut writer, &hello).await?;
        self.state.send_modify(|state| state.nick.clone_from(&self.nick));
        tokio::time::timeout(WELCOME_TIMEOUT, self.join(&mut lines, &mut writer)).await??;
        for text in self.unconfirmed.clone() {
            send(&mut writer, &format!("PRIVMSG {} :{text}\r\n", self.channel)).await?;
        }
        loop {
            tokio::select! {
                line = lines.next_line() => {
                    let line = line?.ok_or("hung up")?;
                    self.handle(&line, &mut writer).await?;
                }
                text = self.queue.recv() => {
                    let text = text.ok_or("nobody is there to speak")?;
                    self.unconfirmed.push_back(text.clone());
                    send(&mut writer, &format!("PRIVMSG {} :{text}\r\n", self.channel)).await?;
                }
            }
        }
    }

    /// From the first line to the end of what is played back.
    async fn join(
        &mut self,
        lines: &mut tokio::io::Lines<BufReader<ReadHalf<BoxedTransport>>>,
        writer: &mut WriteHalf<BoxedTransport>,
    ) -> Result<()> {
        loop {
            let line = lines.next_line().await?.ok_or("hung up")?;
            let message = Line::parse(&line);
            match message.command {
                "001" => {
                    // Whoever lost its nickname meanwhile is welcomed by another one.
                    let nick = message.rest.split(' ').next().unwrap_or_default().to_owned();
                    self.state.send_modify(|state| {
                        state.nick = nick;
                        state.welcomes += 1;
                        state.welcomed = Some(Instant::now());
                    });
                    send(writer, &format!("JOIN {}\r\nPING {JOINED}\r\n", self.channel)).await?;
                }
                "PONG" if message.last() == JOINED => {
                    self.state.send_modify(|state| state.joined = true);
                    return Ok(());
                }
                _ => self.handle(&line, writer).await?,
            }
        }
    }

    async fn handle(&mut self, line: &str, writer: &mut WriteHalf<BoxedTransport>) -> Result<()> {
        let message = Line::parse(line);
        match message.command {
            "PING" => send(writer, &format!("PONG :{}\r\n", message.last())).await?,
            // The nickname is still held by the user's own ghost on a dead node.
            "433" => {
                let nick = format!("{}_", self.state.borrow().nick);
                send(writer, &format!("NICK {nick}\r\n")).await?;
                self.state.send_modify(|state| state.nick = nick);
            }
            "NICK" if message.from == self.state.borrow().nick => {
                self.state.send_modify(|state| state.nick = message.last().to_owned());
            }
            "QUIT" => {
                self.state.send_modify(|state| state.left.push(message.from.to_owned()));
                if message.from == self.nick && self.state.borrow().nick != self.nick {
                    send(writer, &format!("NICK {}\r\n", self.nick)).await?;
                }
            }
            "PRIVMSG" => self.hear(&message),
            "ERROR" => return Err(message.last().to_owned().into()),
            _ => {}
        }
        Ok(())
    }

    fn hear(&mut self, message: &Line<'_>) {
        let text = message.last().to_owned();
        let id = message.tag("msgid").unwrap_or_default().to_owned();
        // An echo, or one's own words played back after a reconnect.
        if message.from == self.state.borrow().nick || message.from.trim_end_matches('_') == self.nick {
            self.unconfirmed.retain(|unconfirmed| *unconfirmed != text);
            self.state.send_modify(|state| {
                state.echoed.insert(text);
            });
            return;
        }
        let from = message.from.to_owned();
        self.state.send_if_modified(|state| {
            let new = id.is_empty() || state.ids.insert(id);
            if new {
                state.heard.push(Heard { from, text });
            }
            new
        });
    }
}

async fn send(writer: &mut WriteHalf<BoxedTransport>, text: &str) -> Result<()> {
    writer.write_all(text.as_bytes()).await?;
    Ok(writer.flush().await?)
}

/// A line from the server, as far as the script cares.
struct Line<'a> {
    tags: &'a str,
    from: &'a str,
    command: &'a str,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let (tags, line) = match line.strip_prefix('@') {
            Some(line) => line.split_once(' ').unwrap_or((line, "")),
            None => ("", line),
        };
        let (from, line) = match line.strip_prefix(':') {
            Some(line) => line.split_once(' ').unwrap_or((line, "")),
            None => ("", line),
        };
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        Self { tags, from: from.split('!').next().unwrap_or(""), command, rest }
    }

    fn last(&self) -> &'a str {
        match self.rest.split_once(" :") {
            Some((_, last)) => last,
            None => self.rest.strip_prefix(':').unwrap_or_else(|| self.rest.rsplit(' ').next().unwrap_or("")),
        }
    }

    fn tag(&self, name: &str) -> Option<&'a str> {
        self.tags.split(';').find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn lines_come_apart() {
        let line = Line::parse("@time=x;msgid=abc :bob!b@c PRIVMSG #a :hello there");
        assert_eq!((line.from, line.command, line.last()), ("bob", "PRIVMSG", "hello there"));
        assert_eq!(line.tag("msgid"), Some("abc"));
        let line = Line::parse(":server PONG server :joined");
        assert_eq!((line.command, line.last()), ("PONG", "joined"));
        assert_eq!(Line::parse(":a NICK :b").last(), "b");
    }
}

//! What strangers may send, as arbitrary bytes: before TLS to either side, and inside TLS over a pair in memory.
//!
//! A session is begun here only as everywhere: by TLS, HELLO and PROOF. Every function panics when a session breaks its
//! word: it gives something impossible, or says something that its peer could not read.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::hello::Secrets;
use super::tls::{self, ServerKey};
use super::{
    Accepted, Accepting, Acceptor, ConnId, Credentials, Dial, Dialler, Event, Keepalive, MAX_LANES, MAX_MESSAGE,
    MAX_STREAMS, Machine, PRIMARY, Peer, STREAM_WINDOW, SessionError, hello,
};
use crate::identity::Identity;
use crate::identity::delegation::{SerialFloors, SessionKey};
use crate::wire::session_proto as proto;
use crate::wire::{Decoder, Frame, FrameKind};

/// The clock of every dialler: that of `tests/vectors/delegation.json`, as are the keys.
const UNIX_NOW: u64 = 1_790_000_000;

static SERVICE: LazyLock<Identity> = LazyLock::new(|| Identity::from_seed(&[1; 32]));
static ACCEPTOR: LazyLock<Arc<Acceptor>> = LazyLock::new(|| {
    Acceptor::new(&Credentials::Identity(SERVICE.clone()), Keepalive::default()).expect("a good TLS configuration")
});

/// The first thing inside TLS: an even first byte sends the rest as a replica that answers a dialler, an odd one as a
/// dialler that has been greeted. Gives what came of it.
pub(crate) fn first_words(data: &[u8]) -> Outcome {
    let Some((way, words)) = data.split_first() else { return Outcome::Nothing };
    let now = Instant::now();
    if way % 2 == 0 { answer_dialler(words, now) } else { knock(words, now) }
}

/// What first words led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    Session,
    Lane,
}

fn answer_dialler(words: &[u8], now: Instant) -> Outcome {
    let mut machine = dialler(now);
    let mut stranger = Stranger::server(&ServerKey::Session(SessionKey::from_seed(&[3; 32])));
    stranger.hear(&output(&mut machine, now, PRIMARY));
    let answer = stranger.say(words);
    let result = machine.handle_input(now, PRIMARY, &answer);
    if let Some(peer) = machine.peer() {
        assert_eq!(peer, Peer::Address(SERVICE.address()));
        assert!(machine.delegation().is_some(), "the key is not the service's own");
        stranger.hear(&output(&mut machine, now, PRIMARY));
        Outcome::Session
    } else {
        assert!(output(&mut machine, now, PRIMARY).is_empty(), "said something to nobody: {result:?}");
        Outcome::Nothing
    }
}

fn knock(words: &[u8], now: Instant) -> Outcome {
    let (mut stranger, mut accepting) = greeted(now);
    let words = stranger.say(words);
    match accepting.handle_input(now, &words) {
        Ok(None) => {
            assert!(accepting.poll_timeout().is_some());
            Outcome::Nothing
        }
        Ok(Some(Accepted::Session(mut machine))) => {
            assert_eq!(machine.peer(), Some(Peer::Anonymous), "nobody's signature is in the input");
            stranger.hear(&output(&mut machine, now, PRIMARY));
            Outcome::Session
        }
        Ok(Some(Accepted::Lane(request))) => {
            stranger.hear(&request.refuse());
            Outcome::Lane
        }
        Err(_) => {
            let mut last = Vec::new();
            accepting.poll_output(&mut last);
            stranger.hear(&last);
            Outcome::Nothing
        }
    }
}

/// A whole life: the first byte chooses whom the rest goes to and how, the second how it is cut.
///
/// 0 and 1: as it is, before TLS, to an acceptor and a dialler. 2 and 3: as changes of a real ClientHello and a real
/// server's flight. 4 and 5: inside TLS, to an acceptor and a dialler that have a session. 6: the same to an acceptor
/// whose session has a lane, in turns on both. Gives how many events the application saw.
pub(crate) fn session(data: &[u8]) -> usize {
    let [way, cut, rest @ ..] = data else { return 0 };
    let now = Instant::now();
    let chunks = rest.chunks(usize::from(*cut) * 8 + 1);
    match way % 7 {
        0 => feed_acceptor(chunks, now),
        1 => feed_dialler(&mut dialler(now), chunks, now),
        2 => {
            let hello = output(&mut dialler(now), now, PRIMARY);
            feed_acceptor([changed(hello, rest).as_slice()], now);
        }
        3 => {
            let mut machine = dialler(now);
            let mut accepting = Accepting::new(&ACCEPTOR, now).expect("a good TLS configuration");
            let mut flight = Vec::new();
            accepting.handle_input(now, &output(&mut machine, now, PRIMARY)).expect("a good ClientHello");
            accepting.poll_output(&mut flight);
            feed_dialler(&mut machine, [changed(flight, rest).as_slice()], now);
        }
        4 => {
            let (stranger, machine) = with_acceptor(now);
            return Talk::new(machine, stranger, now).run(chunks);
        }
        5 => {
            let (stranger, machine) = with_dialler(now);
            return Talk::new(machine, stranger, now).run(chunks);
        }
        _ => {
            let (stranger, machine) = with_acceptor(now);
            let mut talk = Talk::new(machine, stranger, now);
            talk.join();
            return talk.run(chunks);
        }
    }
    0
}

fn feed_acceptor<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, now: Instant) {
    let mut accepting = Accepting::new(&ACCEPTOR, now).expect("a good TLS configuration");
    for chunk in chunks {
        match accepting.handle_input(now, chunk) {
            Ok(None) => {}
            Ok(Some(accepted)) => panic!("{accepted:?} without TLS"),
            Err(_) => break,
        }
    }
    accepting.poll_output(&mut Vec::new());
    assert!(accepting.handle_timeout(now + Duration::from_secs(3_600)).is_err() || accepting.poll_timeout().is_none());
}

fn feed_dialler<'a>(machine: &mut Machine, chunks: impl IntoIterator<Item = &'a [u8]>, now: Instant) {
    drop(output(machine, now, PRIMARY));
    for chunk in chunks {
        if machine.handle_input(now, PRIMARY, chunk).is_err() {
            break;
        }
    }
    assert_eq!(
        machine.peer().is_some(),
        !output(machine, now, PRIMARY).is_empty(),
        "silent until it knows whom it reached"
    );
}

/// Three bytes a change: where, as a big-endian number, and with what the byte there is combined.
fn changed(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[place] ^= change[2];
    }
    bytes
}

/// A session with a stranger that says what it likes.
struct Talk {
    machine: Machine,
    stranger: Stranger,
    lane: Option<(ConnId, Stranger)>,
    now: Instant,
    events: usize,
}

impl Talk {
    fn new(machine: Machine, stranger: Stranger, now: Instant) -> Self {
        Self { machine, stranger, lane: None, now, events: 0 }
    }

    /// Joins a lane as a dialler does.
    fn join(&mut self) {
        let (mut lane, mut accepting) = greeted(self.now);
        let id = tls::session_id(&self.stranger.tls).expect("TLS stands");
        let secrets = Secrets::of(&self.stranger.tls, id).expect("TLS stands");
        let join = secrets.join(1, &lane.tls).expect("TLS stands");
        let words = lane.say(&encoded(&join));
        let Ok(Some(Accepted::Lane(request))) = accepting.handle_input(self.now, &words) else {
            panic!("a good JOIN is not taken")
        };
        let number = self.machine.join(self.now, request).expect("a good JOIN");
        self.lane = Some((number, lane));
    }

    fn run<'a>(mut self, chunks: impl IntoIterator<Item = &'a [u8]>) -> usize {
        for (turn, chunk) in chunks.into_iter().enumerate() {
            self.now += Duration::from_millis(1);
            let (conn, stranger) = match &mut self.lane {
                Some((lane, stranger)) if turn % 2 == 1 => (*lane, stranger),
                _ => (PRIMARY, &mut self.stranger),
            };
            let bytes = stranger.say(chunk);
            let result = self.machine.handle_input(self.now, conn, &bytes);
            if result.is_err() || !self.live() {
                self.machine.close(1);
                self.live();
                return self.events;
            }
        }
        // An hour of silence ends every session.
        let mut waited = 0;
        while let Some(due) = self.machine.poll_timeout() {
            self.now = self.now.max(due);
            if self.machine.handle_timeout(self.now).is_err() || !self.live() {
                break;
            }
            waited += 1;
            assert!(waited < 1_000, "the machine asks for the same time again and again");
        }
        self.events
    }

    /// What an application does with a session; `false` when it is over.
    fn live(&mut self) -> bool {
        while let Some(event) = self.machine.poll_event() {
            self.events += 1;
            match event {
                Event::Opened { stream, protocol, credit, .. } => {
                    assert!((1..=255).contains(&protocol.len()) && credit >= STREAM_WINDOW / 2);
                    self.machine.send(stream, Bytes::from_static(b"answer"));
                    if stream % 4 < 2 {
                        self.machine.finish(stream);
                    }
                }
                Event::Message { stream, message } => {
                    assert!(message.len() <= MAX_MESSAGE);
                    // Some are never read.
                    if stream % 8 < 6 {
                        self.machine.consumed(self.now, stream);
                    }
                }
                Event::Reset { stream, .. } | Event::Closed { stream } => self.machine.release(self.now, stream),
                Event::Drained => self.machine.close(0),
                _ => {}
            }
        }
        let stats = self.machine.stats();
        assert!(stats.open_streams <= 2 * MAX_STREAMS as usize && stats.lanes <= MAX_LANES);
        self.listen();
        self.machine.has_output(PRIMARY) || self.machine.poll_timeout().is_some()
    }

    /// Whatever the machine says is good frames.
    fn listen(&mut self) {
        self.stranger.hear(&output(&mut self.machine, self.now, PRIMARY));
        if let Some((lane, stranger)) = &mut self.lane {
            stranger.hear(&output(&mut self.machine, self.now, *lane));
        }
    }
}

/// The other end of a TLS connection, which has no rules.
struct Stranger {
    tls: rustls::Connection,
    decoder: Decoder,
}

impl Stranger {
    fn client() -> Self {
        Self::new(tls::client_config().and_then(tls::client).expect("a good TLS configuration").into())
    }

    fn server(key: &ServerKey) -> Self {
        Self::new(tls::server_config(key).and_then(tls::server).expect("a good TLS configuration").into())
    }

    fn new(mut tls: rustls::Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { tls, decoder: Decoder::default() }
    }

    /// Application data, and whatever TLS has to say before.
    fn say(&mut self, words: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(words).expect("no limit is set");
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("writing to memory");
        }
        out
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.tls.read_tls(&mut bytes).is_ok_and(|read| read > 0) {
            let Ok(state) = self.tls.process_new_packets() else { return };
            let mut words = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut words).expect("as many as TLS said");
            let mut words = &words[..];
            while self.decoder.next(&mut words).expect("a session sends good frames").is_some() {}
        }
    }
}

fn dialler(now: Instant) -> Machine {
    let dial = Dial {
        target: SERVICE.address(),
        me: Dialler::Anonymous,
        known: None,
        keepalive: Keepalive::default(),
        lanes: 0,
        unix_now: UNIX_NOW,
        floors: SerialFloors::new(),
    };
    Machine::dial(dial, now).expect("a good TLS configuration")
}

/// A stranger that has the acceptor's first flight.
fn greeted(now: Instant) -> (Stranger, Accepting) {
    let (mut stranger, mut flight) = (Stranger::client(), Vec::new());
    let mut accepting = Accepting::new(&ACCEPTOR, now).expect("a good TLS configuration");
    let taken = accepting.handle_input(now, &stranger.say(&[]));
    assert!(matches!(taken, Ok(None)), "a ClientHello is not enough");
    accepting.poll_output(&mut flight);
    stranger.hear(&flight);
    (stranger, accepting)
}

/// A session that a stranger opened as an anonymous dialler.
fn with_acceptor(now: Instant) -> (Stranger, Machine) {
    let (mut stranger, mut accepting) = greeted(now);
    let proof = proto::Proof { window: STREAM_WINDOW, max_streams: MAX_STREAMS, ..Default::default() };
    let words = stranger.say(&encoded(&Frame::control(FrameKind::Proof, 0, &proof)));
    let Ok(Some(Accepted::Session(machine))) = accepting.handle_input(now, &words) else {
        panic!("a good PROOF is not taken")
    };
    (stranger, *machine)
}

/// A session that a stranger accepted who holds the dialled key.
fn with_dialler(now: Instant) -> (Stranger, Machine) {
    let mut machine = dialler(now);
    let mut stranger = Stranger::server(&ServerKey::Identity(SERVICE.clone()));
    stranger.hear(&output(&mut machine, now, PRIMARY));
    let answer = stranger.say(&encoded(&hello::hello(&[], &[])));
    let result: Result<(), SessionError> = machine.handle_input(now, PRIMARY, &answer);
    result.expect("a good HELLO");
    (stranger, machine)
}

fn output(machine: &mut Machine, now: Instant, conn: ConnId) -> Vec<u8> {
    let mut out = Vec::new();
    machine.poll_output(now, conn, &mut out);
    out
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn corpus(entry: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(entry)).expect("part of the source")
    }

    #[test]
    fn the_corpus_of_first_words_gets_in_where_it_should() {
        let outcome = |entry: &str| first_words(&corpus(&format!("hello/{entry}")));
        assert_eq!(outcome("hello-good"), Outcome::Session);
        assert_eq!(outcome("hello-delegation--serial"), Outcome::Nothing);
        assert_eq!(outcome("proof-anonymous"), Outcome::Session);
        assert_eq!(outcome("proof-and-open"), Outcome::Session);
        assert_eq!(outcome("proof-signed"), Outcome::Nothing);
        assert_eq!(outcome("join"), Outcome::Lane);
    }

    #[test]
    fn the_corpus_of_sessions_makes_things_happen() {
        let events = |entry: &str| session(&corpus(&format!("session/{entry}")));
        for (entry, least) in [
            ("acceptor", 8),
            ("acceptor-in-pieces", 8),
            ("acceptor-opens-many", 32),
            ("dialler", 8),
            ("lane", 4),
            ("lane-turns", 1),
        ] {
            assert!(events(entry) >= least, "{entry}: {} events", events(entry));
        }
    }
}

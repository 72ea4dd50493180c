//! Streams: messages in order, who may speak, what is refused, what dropping does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hcp_core::identity::{Identity, OnionAddress};
use hcp_core::network::{BoxedTransport, DialError, HCP_PORT, ListenError, Listener, LocalNetwork, Network};
use hcp_core::node::{Access, ConnectError, MAX_HANDSHAKES, Node, OpenError, RecvError, SendError, Session, Stream};
use hcp_core::session::{MAX_MESSAGE, MAX_STREAMS, Peer, SessionError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::harness::{client, memory, server};

#[tokio::test(start_paused = true)]
async fn messages_of_every_size_come_back_whole_and_in_order() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/echo/1").await.unwrap();
    let sizes = [0, 1, 65_535, 65_536, 65_537, MAX_MESSAGE, 131_072, 3];
    let messages: Vec<Bytes> =
        sizes.iter().map(|size| (0..*size).map(|i| i as u8).collect::<Vec<u8>>().into()).collect();
    for message in &messages {
        stream.send(message.clone()).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().as_ref(), Some(message));
    }
    stream.finish().await;
    assert_eq!(stream.recv().await.unwrap(), None);
    assert_eq!(stream.send("late").await, Err(SendError::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_a_slow_receiver_and_loses_nothing() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/echo/1").await.unwrap();
    let mut sender = stream.sender();
    let total = 400u32;
    let sending = tokio::spawn(async move {
        for i in 0..total {
            sender.send([&i.to_be_bytes()[..], &[0; 60_000]].concat()).await.unwrap();
        }
    });
    for i in 0..total {
        let message = stream.recv().await.unwrap().unwrap();
        assert_eq!(message[..4], i.to_be_bytes());
    }
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_acceptor_knows_who_dialled_and_anonymous_diallers_get_only_what_is_open_to_them() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let known = client.connect(server.address()).await.unwrap();
    assert_eq!(known.peer(), Peer::Address(server.address()));
    let mut stream = known.open("test/members/1").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), client.address().to_string());

    let unknown = client.connect_anonymously(server.address()).await.unwrap();
    let mut stream = unknown.open("test/who/1").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "anonymous");
    let mut stream = unknown.open("test/members/1").await.unwrap();
    assert_eq!(stream.recv().await, Err(RecvError::AnonymousRefused));
    let mut stream = unknown.open("test/none/1").await.unwrap();
    assert_eq!(stream.recv().await, Err(RecvError::UnknownProtocol));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_dialled_key_is_refused_before_the_dialler_shows_itself() {
    let network = memory();
    let server = server(&network).await;
    // Somebody else's listener at the address that is dialled, forwarding to a server with another key.
    let victim = Identity::generate();
    let mut listener = network.listen(&victim, &[HCP_PORT]).await.unwrap();
    let behind = Arc::clone(&network);
    let address = server.address();
    let forwarding = tokio::spawn(async move {
        let mut near = listener.accept().await.unwrap().stream;
        let mut far = behind.dial(address, HCP_PORT).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    });
    let error = client(&network).await.connect(victim.address()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Session(SessionError::WrongKey)), "{error}");
    forwarding.abort();
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_and_harms_nobody_else() {
    let network = memory();
    let server = server(&network).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 70_000], &[22, 3, 1, 0xff, 0xff]] {
        let mut raw = network.dial(server.address(), HCP_PORT).await.unwrap();
        let _ = raw.write_all(garbage).await;
        let mut answer = Vec::new();
        // Ends by the server's refusal or, for a header without a body, by its handshake deadline.
        tokio::time::timeout(Duration::from_secs(30), raw.read_to_end(&mut answer))
            .await
            .expect("server hangs up")
            .ok();
    }
    let client = client(&network).await;
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/echo/1").await.unwrap();
    stream.send("still here").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "still here");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_an_orderly_end_arrives() {
    let network = memory();
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let listen = move |mut stream: Stream, _: Session| {
        let heard = heard.clone();
        async move {
            while let Ok(Some(message)) = stream.recv().await {
                heard.send(message.len()).unwrap();
            }
        }
    };
    let server = Node::builder(Identity::generate(), Arc::clone(&network))
        .protocol("test/listen/1", Access::Anyone, listen)
        .bind()
        .await
        .unwrap();
    let client = client(&network).await;
    // The session is shut down, …
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/listen/1").await.unwrap();
    for length in 1..=3 {
        stream.send(vec![0; length]).await.unwrap();
    }
    session.shutdown().await;
    // … or the stream is ended and dropped while the session goes on, …
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/listen/1").await.unwrap();
    stream.send(vec![0; 400_000]).await.unwrap();
    stream.finish().await;
    drop(stream);
    for length in [1, 2, 3, 400_000] {
        assert_eq!(hearing.recv().await, Some(length));
    }
    // … or everything is dropped at once.
    let mut stream = session.open("test/listen/1").await.unwrap();
    stream.send(vec![0; 5]).await.unwrap();
    stream.finish().await;
    drop((stream, session));
    assert_eq!(hearing.recv().await, Some(5));
}

#[tokio::test(start_paused = true)]
async fn receiving_can_be_cancelled_at_any_moment_without_losing_a_message() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/echo/1").await.unwrap();
    let mut sender = stream.sender();
    let sending = tokio::spawn(async move {
        for i in 0..3_000u32 {
            sender.send(i.to_be_bytes().to_vec()).await.unwrap();
        }
    });
    let mut wanted = 0u32;
    let mut cancelled = 0;
    while wanted < 3_000 {
        tokio::select! {
            biased;
            message = stream.recv() => {
                assert_eq!(message.unwrap().unwrap()[..], wanted.to_be_bytes());
                wanted += 1;
            }
            () = std::future::ready(()) => {
                cancelled += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    sending.await.unwrap();
    assert!(cancelled > 0);
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_dialler_serves_nothing() {
    let network = memory();
    let (asked, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let server = server(&network).await;
    let client = Node::builder(Identity::generate(), Arc::clone(&network))
        .protocol("test/who/1", Access::Anyone, move |_: Stream, session: Session| {
            let asked = asked.clone();
            async move { asked.send(session.peer()).unwrap() }
        })
        .bind()
        .await
        .unwrap();
    let session = client.connect_anonymously(server.address()).await.unwrap();
    let mut stream = session.open("test/who/1").await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap(), "anonymous");
    assert!(answers.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn strangers_who_say_nothing_lock_nobody_out() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let mut strangers = Vec::new();
    for _ in 0..2 * MAX_HANDSHAKES {
        strangers.push(network.dial(server.address(), HCP_PORT).await.unwrap());
    }
    client.connect(server.address()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_to_the_caller() {
    let network = memory();
    let (server, client) = (server(&network).await, client(&network).await);
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/echo/1").await.unwrap();
    let length = MAX_MESSAGE + 1;
    assert_eq!(stream.send(vec![0; length]).await, Err(SendError::TooLong { length }));
    assert_eq!(session.open("").await.unwrap_err(), OpenError::Name);
    let mut streams = vec![stream];
    while streams.len() < MAX_STREAMS as usize {
        streams.push(session.open("test/echo/1").await.unwrap());
    }
    assert_eq!(session.open("test/echo/1").await.unwrap_err(), OpenError::TooMany);
    // A dropped stream makes room.
    streams.pop();
    session.open("test/echo/1").await.unwrap();
}

/// A network whose connections can be made to swallow everything without closing.
#[derive(Debug)]
struct Swallowing {
    network: Arc<dyn Network>,
    swallow: watch::Receiver<bool>,
}

impl Network for Swallowing {
    fn dial(&self, address: OnionAddress, port: u16) -> BoxFuture<'_, Result<BoxedTransport, DialError>> {
        Box::pin(async move {
            let mut far = self.network.dial(address, port).await?;
            let (mut middle, near) = tokio::io::duplex(1024);
            let mut swallow = self.swallow.clone();
            tokio::spawn(async move {
                let swallowed = async { swallow.wait_for(|swallow| *swallow).await.map(drop) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut middle, &mut far) => return,
                    _ = swallowed => {}
                }
                std::future::pending::<()>().await;
            });
            Ok(Box::new(near) as BoxedTransport)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, ports: &'a [u16]) -> BoxFuture<'a, Result<Listener, ListenError>> {
        self.network.listen(identity, ports)
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_given_up_on_both_sides() {
    let network = memory();
    let server = server(&network).await;
    let (swallow, watched) = watch::channel(false);
    let client = client(&(Arc::new(Swallowing { network, swallow: watched }) as Arc<dyn Network>)).await;
    let session = client.connect(server.address()).await.unwrap();
    let mut stream = session.open("test/who/1").await.unwrap();
    stream.recv().await.unwrap().unwrap();
    assert_eq!(server.stats().sessions_open, 1);
    // An hour of idleness is no silence: pings are answered.
    assert!(tokio::time::timeout(Duration::from_secs(3600), session.closed()).await.is_err());
    assert!(session.round_trip().is_some());
    swallow.send_replace(true);
    let given_up = tokio::time::timeout(Duration::from_secs(16), session.closed()).await.unwrap();
    assert!(matches!(given_up, SessionError::Silent), "{given_up}");
    assert_eq!(stream.recv().await, Err(RecvError::SessionEnded));
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(server.stats().sessions_open, 0, "the other side has noticed by itself");
}

#[tokio::test]
async fn the_local_network_serves_one_address_from_several_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let network = LocalNetwork::new(folder.path()).unwrap();
    let shared = Identity::generate();
    let mut first = network.listen(&shared, &[80]).await.unwrap();
    let mut second = network.listen(&shared, &[80]).await.unwrap();
    let (mut by_first, mut by_second) = (false, false);
    while !(by_first && by_second) {
        let _stream = network.dial(shared.address(), 80).await.unwrap();
        tokio::select! {
            _ = first.accept() => by_first = true,
            _ = second.accept() => by_second = true,
        }
    }
    drop(first);
    let _stream = network.dial(shared.address(), 80).await.unwrap();
    second.accept().await.unwrap();
    drop(second);
    assert!(network.dial(shared.address(), 80).await.is_err());
}

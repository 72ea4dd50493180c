//! Connecting, capabilities, nicknames, limits.

use tokio::io::AsyncReadExt;

use super::harness::Service;

#[tokio::test]
async fn a_client_is_welcomed_and_told_what_is_supported() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut client = node.connect();
    client.send("NICK ann\r\nUSER secretlogin 0 * :My Real Name").await;
    assert_eq!(client.line().await.unwrap(), ":irc.test 001 ann :Welcome to the Test network, ann!~u@onion");
    let supported = client.until(" 005 ").await;
    for token in ["CASEMAPPING=ascii", "CHANMODES=,k,l,imnst", "PREFIX=(ov)@+", "NETWORK=Test"] {
        assert!(supported.contains(token), "{supported}");
    }
    client.until(" 376 ").await;
    let whois = client.ask("WHOIS ann", " 311 ").await;
    assert_eq!(whois, ":irc.test 311 ann ann ~u onion * :anonymous", "what USER said is not shown");
}

#[tokio::test]
async fn registration_waits_for_the_end_of_capability_negotiation() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut client = node.connect();
    let offered = client.ask("CAP LS 302\r\nNICK ann\r\nUSER a 0 * :a", " LS ").await;
    assert_eq!(offered, ":irc.test CAP * LS :echo-message message-tags server-time");
    assert!(client.drain().await.is_empty(), "not registered yet");
    assert!(client.ask("CAP REQ :server-time nonsense", " NAK ").await.ends_with(":server-time nonsense"));
    assert!(client.ask("CAP REQ :server-time message-tags", " ACK ").await.ends_with(":server-time message-tags"));
    assert!(client.ask("CAP REQ :-server-time", " ACK ").await.ends_with(":-server-time"));
    assert!(client.ask("CAP LIST", " LIST ").await.ends_with(":message-tags"));
    client.ask("CAP BOGUS", " 410 ").await;
    client.ask("CAP END", " 001 ").await;
}

#[tokio::test]
async fn refuses_what_registration_does_not_allow() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut client = node.connect();
    client.ask("JOIN #c", " 451 ").await;
    client.ask("NICK", " 431 ").await;
    client.ask("NICK 1abc", " 432 * 1abc ").await;
    client.ask("NICK guest-0123abcd", " 432 ").await;
    client.ask("USER a", " 461 ").await;
    client.ask("NICK ann\r\nUSER a 0 * :a", " 001 ").await;
    client.ask("USER a 0 * :a", " 462 ").await;
    client.ask("PASS x", " 462 ").await;
    client.ask("NONSENSE", " 421 ann NONSENSE ").await;
    client.ask("OPER a b", " 421 ").await;
}

#[tokio::test]
async fn a_nickname_in_use_is_refused_in_any_case_and_free_after_its_user_left() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut ann = node.user("ann").await;
    let mut other = node.connect();
    other.ask("NICK ANN\r\nUSER a 0 * :a", " 433 ").await;
    other.ask("NICK bob", " 001 bob ").await;
    other.ask("NICK Ann", " 433 bob Ann ").await;
    assert_eq!(other.ask("NICK Bob", " NICK ").await, ":bob!~u@onion NICK :Bob", "its own name in another case");
    ann.ask("JOIN #c", " 366 ").await;
    other.ask("JOIN #c", " 366 ").await;
    ann.ask("QUIT :bye", "ERROR").await;
    assert!(ann.line().await.is_none());
    other.until(":ann!~u@onion QUIT :Quit: bye").await;
    assert_eq!(other.ask("NICK ann", " NICK ").await, ":Bob!~u@onion NICK :ann");
}

#[tokio::test]
async fn of_two_clients_that_ask_for_a_name_at_once_one_gets_it() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut one, mut two) = (node.connect(), node.connect());
    one.send("NICK ann\r\nUSER a 0 * :a").await;
    two.send("NICK ann\r\nUSER a 0 * :a").await;
    let answers = [one.line().await.unwrap(), two.line().await.unwrap()];
    assert!(answers.iter().any(|line| line.contains(" 001 ")), "{answers:?}");
    assert!(answers.iter().any(|line| line.contains(" 433 ")), "{answers:?}");
}

#[tokio::test]
async fn clients_that_do_not_register_displace_each_other() {
    let service = Service { max_clients: 8, ..Service::new(1) };
    let node = service.start(0).await;
    let mut ann = node.user("ann").await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut client = node.connect();
        client.ask("PING here", "here").await;
        silent.push(client);
    }
    assert!(silent[0].until("ERROR").await.contains("Others wait to register"));
    silent[1].ask("PING still", "still").await;
    ann.ask("PING me", "me").await;
}

#[tokio::test]
async fn a_full_server_says_so() {
    let service = Service { max_clients: 1, ..Service::new(1) };
    let node = service.start(0).await;
    let _ann = node.user("ann").await;
    let mut late = node.connect();
    assert!(late.until("ERROR").await.contains("full"));
    assert!(late.line().await.is_none());
}

#[tokio::test]
async fn lines_that_break_a_limit_are_refused_and_the_connection_goes_on() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut client = node.user("ann").await;
    client.ask(&format!("PRIVMSG ann :{}", "x".repeat(600)), " 417 ").await;
    client.send_raw(b"PRIVMSG ann :\xff\xfe\r\n").await;
    client.until("INVALID_UTF8").await;
    client.send_raw(&[b'x'; 100_000]).await;
    client.send_raw(b"\n").await;
    client.until(" 417 ").await;
    client.ask("PING still-here", "PONG irc.test :still-here").await;
}

#[tokio::test]
async fn silent_clients_are_dropped_after_a_ping_if_they_are_registered() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let started = tokio::time::Instant::now();
    let (unregistered, client) = (node.connect(), node.user("ann").await);
    tokio::time::pause();
    let mut streams = [unregistered.into_stream(), client.into_stream()];
    let [strange, known] = streams.each_mut().map(|stream| async move {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        text
    });
    let (strange, known) = tokio::join!(strange, known);
    assert!(strange.contains("PING :irc.test") && strange.ends_with("timeout\r\n"), "{strange}");
    assert!(known.contains("PING :irc.test") && known.ends_with("ERROR :Closing link: Ping timeout\r\n"), "{known}");
    assert!(started.elapsed() >= hcp_irc::client::SILENCE);
}

//! Joining, dialling, being dialled, and the private network itself.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hcp_core::error::ErrorKind;
use hcp_core::identity::Identity;
use hcp_core::network::tor::BootstrapError;
use hcp_core::network::{DialError, DialPhase, HCP_PORT, ListenError, ListenerStatus, Network};
use hcp_core::testing::{
    PrivateTorDescription, PrivateTorNetwork, SocksError, StartError, TESTNET_VARIABLE, socks_connect,
    socks_connect_isolated,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::harness::{
    assert_no_key_on_disk, builder, client, converse, echo, eventually, fresh_client, home, joined, reachable, runs,
    testnet, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_reports_progress_up_to_ready() {
    let home = home();
    let builder = builder(&home, testnet().await);
    let mut progress = builder.progress();
    let seen = tokio::spawn(async move {
        let mut seen = vec![progress.borrow_and_update().clone()];
        while progress.changed().await.is_ok() {
            seen.push(progress.borrow_and_update().clone());
            if seen.last().unwrap().text == "ready" {
                break;
            }
        }
        seen
    });
    let network = within(60, builder.bootstrap()).await.unwrap();
    let seen = within(10, seen).await.unwrap();
    assert_eq!(seen[0].percent, 0);
    assert_eq!(seen.last().unwrap().percent, 100, "{seen:?}");
    assert!(seen.len() > 2, "{seen:?}");
    assert_eq!(network.progress().borrow().text, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_serves_one_network_at_a_time() {
    let home = home();
    let testnet = testnet().await;
    let network = within(60, builder(&home, testnet).bootstrap()).await.unwrap();
    let second = within(60, builder(&home, testnet).bootstrap()).await.unwrap_err();
    assert!(matches!(second, BootstrapError::StateLocked), "{second:?}");
    assert_eq!(second.kind(), ErrorKind::InUse);

    // Far below its own deadline of 10 s.
    within(5, network.shutdown()).await;
    within(60, builder(&home, testnet).bootstrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn arti_and_c_tor_clients_reach_the_named_ports_and_no_other() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b), tor) = tokio::join!(joined(testnet), joined(testnet), client(testnet));
    let identity = Identity::generate();
    let address = identity.address();
    let _echo = echo("server", reachable(server.listen(&identity, &[HCP_PORT, 6667]).await.unwrap()).await);

    for port in [HCP_PORT, 6667] {
        let start = Instant::now();
        let stream = within(200, client.dial(address, port)).await.unwrap();
        println!("dial of port {port}: {:.2} s", start.elapsed().as_secs_f64());
        assert_eq!(converse(stream).await, format!("server {port}"));
        let stream = socks_connect(tor.socks_addr(), &address.to_string(), port).await.unwrap();
        assert_eq!(converse(stream).await, format!("server {port}"));
    }

    let refused = within(200, client.dial(address, 80)).await.err().unwrap();
    assert!(matches!(refused, DialError::NotFound), "{refused:?}");
    let refused = socks_connect(tor.socks_addr(), &address.to_string(), 80).await.unwrap_err();
    assert!(matches!(refused, SocksError::Refused { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_an_address_that_nobody_serves_says_so() {
    let testnet = testnet().await;
    let ((network, _home), tor) = tokio::join!(joined(testnet), client(testnet));
    let address = Identity::generate().address();
    // The second time, Arti must not mistake its own limit on fetches for an answer.
    for _ in 0..2 {
        let error = within(60, network.dial(address, HCP_PORT)).await.err().unwrap();
        assert!(matches!(error, DialError::NotFound), "{error:?}");
        assert_eq!(error.to_string(), "nobody serves this address and port");
    }
    let error = socks_connect_isolated(tor.socks_addr(), &address.to_string(), HCP_PORT, "nobody").await.unwrap_err();
    assert!(matches!(error, SocksError::Refused { code: 0xf0 }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_to_connect_ends_at_its_deadline() {
    let home = home();
    let deadline = Duration::from_millis(1);
    let network = within(60, builder(&home, testnet().await).connect_deadline(deadline).bootstrap()).await.unwrap();
    let error = within(10, network.dial(Identity::generate().address(), HCP_PORT)).await.err().unwrap();
    assert!(matches!(error, DialError::TimedOut { phase: DialPhase::Connect }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_to_one_address_share_a_circuit_and_isolated_ones_do_not_wait_for_it() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let identity = Identity::generate();
    let _echo = echo("server", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();
        times.push(start.elapsed());
        assert_eq!(converse(stream).await, format!("server {HCP_PORT}"));
    }
    // The descriptor and the circuit of the first are there for the others: what is left is one round trip.
    println!(
        "first {:.3} s, then {:.3} s, {:.3} s",
        times[0].as_secs_f64(),
        times[1].as_secs_f64(),
        times[2].as_secs_f64()
    );
    assert!(times[1..].iter().all(|time| *time < times[0]), "{times:?}");
    let stream = within(200, client.dial_isolated(identity.address(), HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("server {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_serves_two_addresses_and_each_only_once() {
    let testnet = testnet().await;
    let ((server, home), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let (one, two) = (Identity::generate(), Identity::generate());
    let (first, second) = tokio::join!(server.listen(&one, &[HCP_PORT]), server.listen(&two, &[HCP_PORT]));
    assert!(matches!(server.listen(&one, &[80]).await, Err(ListenError::InUse)));
    assert!(matches!(server.listen(&two, &[]).await, Err(ListenError::InvalidPorts)));
    assert!(matches!(server.listen(&two, &[80, 81, 80]).await, Err(ListenError::InvalidPorts)));

    let _first = echo("one", reachable(first.unwrap()).await);
    let _second = echo("two", reachable(second.unwrap()).await);
    for (identity, name) in [(&one, "one"), (&two, "two")] {
        let stream = within(200, client.isolated().dial(identity.address(), HCP_PORT)).await.unwrap();
        assert_eq!(converse(stream).await, format!("{name} {HCP_PORT}"));
    }
    for identity in [&one, &two] {
        assert_no_key_on_disk(home.path(), identity);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_listener_is_withdrawn_and_a_new_one_is_found_by_old_clients() {
    let testnet = testnet().await;
    let ((server, _a), (client, _b)) = tokio::join!(joined(testnet), joined(testnet));
    let identity = Identity::generate();
    let echoing = echo("first", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let mut stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();

    echoing.abort();
    assert!(within(10, echoing).await.unwrap_err().is_cancelled());
    let error = within(200, client.dial(identity.address(), HCP_PORT)).await.err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut), "{error:?}");
    // Its handler ended with the listener's task; the circuit did not.
    let mut rest = Vec::new();
    let _ = within(60, stream.read_to_end(&mut rest)).await;

    let _echo = echo("second", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    let stream = within(200, client.dial(identity.address(), HCP_PORT)).await.unwrap();
    assert_eq!(converse(stream).await, format!("second {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_be_launched_anew_within_the_second_in_which_it_was_dropped_and_connections_go_on() {
    let testnet = testnet().await;
    let ((server, _a), tor) = tokio::join!(joined(testnet), client(testnet));
    let identity = Identity::generate();
    let address = identity.address().to_string();
    let mut first = reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await;
    let mut status = first.status();
    let dialled = socks_connect(tor.socks_addr(), &address, HCP_PORT);
    let (near, far) = within(200, async { tokio::join!(dialled, first.accept()) }).await;
    let (mut near, mut far) = (near.unwrap_or_else(|e| panic!("{e}: {}", tor.log())), far.unwrap().stream);

    drop(first);
    assert_eq!(*status.borrow_and_update(), ListenerStatus::Stopped);
    // Directories refuse what is no newer, by whole seconds, and Arti repeats it unchanged for minutes.
    let _echo = echo("anew", reachable(server.listen(&identity, &[HCP_PORT]).await.unwrap()).await);
    assert_eq!(fresh_client(testnet, &identity.address()).await, format!("anew {HCP_PORT}"));

    far.write_all(b"still here").await.unwrap();
    far.flush().await.unwrap();
    let mut heard = [0; 10];
    within(60, near.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
    // The client's circuit leads to whoever serves the address now.
    let stream = socks_connect(tor.socks_addr(), &address, HCP_PORT).await;
    assert_eq!(converse(stream.unwrap_or_else(|e| panic!("{e}: {}", tor.log()))).await, format!("anew {HCP_PORT}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_old_tor_is_named_on_one_line_with_what_to_do() {
    let error = PrivateTorNetwork::builder().tor("/nonexistent/tor").start().await.unwrap_err();
    assert!(matches!(error, StartError::TorMissing { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "`/nonexistent/tor` was not found: install Tor 0.4.8 or later (on Debian and Ubuntu: apt-get install tor)"
    );

    let folder = home();
    let old = folder.path().join("tor");
    std::fs::write(&old, "#!/bin/sh\necho 'Tor version 0.4.7.16.'\n").unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&old).status().unwrap().success());
    let error = PrivateTorNetwork::builder().tor(&old).start().await.unwrap_err();
    assert!(matches!(error, StartError::TorTooOld { .. }), "{error:?}");
    assert!(error.to_string().contains("is version 0.4.7.16: install Tor 0.4.8 or later"), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_ends_with_its_owner_even_when_that_is_killed() {
    let mut owner = tokio::process::Command::new(env!("CARGO_BIN_EXE_hcp-testnet"))
        .args(["--", "sh", "-c", &format!("echo ${TESTNET_VARIABLE}; cat")])
        .env_remove(TESTNET_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    within(150, BufReader::new(owner.stdout.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    let description = PrivateTorDescription::load(line.trim()).unwrap();
    let ids: Vec<u32> = std::fs::read_dir(description.directory())
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("pid")).ok()?.trim().parse().ok())
        .collect();
    assert_eq!(ids.len(), 8);
    assert!(ids.iter().all(|id| runs(*id)));

    owner.kill().await.unwrap();
    eventually(10, || !ids.iter().any(|id| runs(*id)) && !description.directory().exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_testnet_command_forwards_the_exit_code_and_passes_the_description() {
    let testnet = testnet().await;
    let attached = PrivateTorNetwork::attach(testnet.description_file()).unwrap();
    assert_eq!(attached.description(), testnet.description());
    assert!(PrivateTorNetwork::attach("/nonexistent").is_err());

    let status = Command::new(env!("CARGO_BIN_EXE_hcp-testnet"))
        .args(["--", "sh", "-c", &format!("test -s \"${TESTNET_VARIABLE}\" && exit 42")])
        .env(TESTNET_VARIABLE, testnet.description_file())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(42));
}

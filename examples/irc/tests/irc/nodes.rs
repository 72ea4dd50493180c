//! Several nodes: one view, lost nodes, restarts, splits that heal.

use std::time::Duration;

use hcp_core::replica::{Event, Frontier};

use super::harness::{Client, Running, Service};

async fn pair(service: &Service) -> (Running, Running) {
    let (a, b) = tokio::join!(service.start(0), service.start(1));
    a.linked(1).await;
    b.linked(1).await;
    (a, b)
}

/// Waits until `client` sees this member in the channel, or sees that it is not there.
async fn sees(client: &mut Client, nick: &str, there: bool) {
    super::harness::within("a member to come or go", async {
        loop {
            client.send("NAMES #c").await;
            let mut found = false;
            loop {
                let line = client.line().await.expect("the connection is open");
                let names = line.split_once(" 353 ").and_then(|(_, rest)| rest.split_once(" :"));
                found |= names.is_some_and(|(_, names)| names.split(' ').any(|n| n.trim_start_matches('@') == nick));
                if line.contains(" 366 ") {
                    break;
                }
            }
            if found == there {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn users_of_two_nodes_talk_as_if_on_one() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.modern("ann").await, b.modern("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    ann.until(":bob!~u@onion JOIN #c").await;
    let echo = ann.ask("PRIVMSG #c :hi bob", "PRIVMSG").await;
    let heard = bob.until("PRIVMSG").await;
    let id = |line: &str| line.split("msgid=").nth(1).map(|rest| rest.split([' ', ';']).next().map(str::to_owned));
    assert_eq!(id(&echo), id(&heard), "a message has one id on all nodes");
    bob.send("PRIVMSG ann :psst").await;
    ann.until(":bob!~u@onion PRIVMSG ann :psst").await;
    bob.ask("NICK ann", " 433 ").await;
    ann.ask("MODE #c +o bob", "MODE #c +o bob").await;
    bob.until("MODE #c +o bob").await;
    bob.ask("KICK #c ann", "KICK #c ann").await;
    ann.until(":bob!~u@onion KICK #c ann :bob").await;
    ann.ask("WHOIS bob", " 312 ann bob irc.test ").await;
}

#[tokio::test]
async fn an_echo_that_comes_behind_a_new_nickname_has_that_nickname() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.modern("ann").await, b.modern("bob").await);
    bob.ask("JOIN #c", " 366 ").await;
    sees(&mut ann, "bob", true).await;
    ann.ask("JOIN #c", " 366 ").await;
    // Both are applied here before the other node has confirmed the first.
    ann.ask("PRIVMSG #c :one\r\nNICK anna\r\nPRIVMSG #c :two", ":ann!~u@onion NICK :anna").await;
    for text in ["one", "two"] {
        let echo = ann.until(&format!("PRIVMSG #c :{text}")).await;
        assert!(echo.contains(":anna!~u@onion PRIVMSG"), "{echo}");
    }
    bob.until(":ann!~u@onion PRIVMSG #c :one").await;
    bob.until(":ann!~u@onion NICK :anna").await;
    bob.until(":anna!~u@onion PRIVMSG #c :two").await;
}

#[tokio::test]
async fn a_node_that_lost_its_disk_serves_nobody_before_it_has_what_the_others_have() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let mut ann = b.modern("ann").await;
    ann.ask("JOIN #c", " 366 ").await;
    ann.ask("TOPIC #c :kept", " TOPIC #c :kept").await;
    a.kill().await;
    service.lose(0);
    let a = service.start(0).await;
    let mut bob = a.modern("bob").await;
    bob.ask("JOIN #c", " 332 bob #c :kept").await;
    let names = bob.until(" 353 ").await;
    assert!(names.contains("@ann") && !names.contains("@bob"), "{names}");
}

#[tokio::test]
async fn what_was_said_survives_the_node_that_heard_it() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.modern("ann").await, b.modern("bob").await);
    bob.ask("JOIN #c", " 366 ").await;
    sees(&mut ann, "bob", true).await;
    ann.ask("JOIN #c", " 366 ").await;
    let echo = ann.ask("PRIVMSG #c :important", "PRIVMSG").await;
    a.kill().await;
    let mut carl = b.modern("carl").await;
    carl.ask("JOIN #c", " 366 ").await;
    let replayed = carl.until("PRIVMSG").await;
    let body = |line: &str| line.split_once(":ann!").map(|(_, body)| body.to_owned());
    assert_eq!(body(&replayed), body(&echo));
}

#[tokio::test]
async fn users_of_a_killed_node_leave_when_it_starts_again() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.user("ann").await, b.user("bob").await);
    bob.ask("JOIN #c", " 366 ").await;
    sees(&mut ann, "bob", true).await;
    ann.ask("JOIN #c", " 366 ").await;
    bob.until("ann!~u@onion JOIN").await;
    a.kill().await;
    let again = service.start(0).await;
    bob.until(":ann!~u@onion QUIT").await;
    assert!(again.user("ann").await.ask("WHOIS ann", " 311 ").await.contains(" 311 ann ann "));
}

#[tokio::test]
async fn users_of_a_node_that_cannot_be_reached_are_hidden_and_come_back_with_it() {
    let service = Service::new(2);
    let (mut a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.user("ann").await, b.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    a.cut();
    b.linked(0).await;
    tokio::time::pause();
    tokio::time::advance(hcp_irc::server::LAPSE + std::time::Duration::from_secs(1)).await;
    tokio::time::resume();
    bob.until(":ann!~u@onion QUIT :Connection to the service lost").await;
    bob.ask("PRIVMSG ann :there?", " 401 ").await;
    a.heal();
    bob.until(":ann!~u@onion JOIN #c").await;
    bob.until("MODE #c +o ann").await;
}

#[tokio::test]
async fn of_two_users_who_took_a_name_during_a_split_the_later_becomes_a_guest() {
    let service = Service::new(2);
    let (mut a, b) = pair(&service).await;
    a.cut();
    a.linked(0).await;
    b.linked(0).await;
    let mut first = a.user("ann").await;
    // Clocks tick in milliseconds, and within one of them the two claims are equally old.
    let claimed = std::time::Instant::now();
    while claimed.elapsed() < Duration::from_millis(5) {
        first.drain().await;
    }
    let mut second = b.user("ann").await;
    a.heal();
    let told = second.until(" NICK ").await;
    let guest = told.rsplit_once(':').map(|(_, nick)| nick.to_owned()).expect("a nickname");
    assert!(told.starts_with(":ann!~u@onion NICK :guest-"), "{told}");
    super::harness::within("the guest on the other node", async {
        while !first.ask(&format!("ISON {guest}"), " 303 ").await.ends_with(&guest) {}
    })
    .await;
    first.send(&format!("PRIVMSG {guest} :hello guest")).await;
    second.until(":ann!~u@onion PRIVMSG guest-").await;
    assert!(!first.drain().await.iter().any(|line| line.contains(" NICK ")));
}

#[tokio::test]
async fn a_split_heals_with_the_messages_of_both_sides_and_without_a_flood() {
    let service = Service::new(2);
    let (mut a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.modern("ann").await, b.modern("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    sees(&mut ann, "bob", true).await;
    a.cut();
    a.linked(0).await;
    b.linked(0).await;
    ann.ask("PRIVMSG #c :alone on a", "alone on a").await;
    bob.ask("PRIVMSG #c :alone on b", "alone on b").await;
    a.heal();
    ann.until("alone on b").await;
    bob.until("alone on a").await;
    let quiet = |lines: Vec<String>| !lines.iter().any(|line| line.contains(" QUIT ") || line.contains(" JOIN "));
    assert!(quiet(ann.drain().await) && quiet(bob.drain().await), "the split was shorter than a lapse");
}

#[tokio::test]
async fn a_node_that_stops_in_order_says_goodbye_for_its_users() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let (mut ann, mut bob) = (a.user("ann").await, b.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    a.stop().await;
    ann.until("ERROR :Closing link: The server process stops").await;
    bob.until(":ann!~u@onion QUIT").await;
}

#[tokio::test]
async fn who_comes_when_a_node_has_stopped_is_told_so() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let handle = node.handle.clone();
    // The server has not looked at this one when it stops.
    let mut early = node.connect();
    node.stop().await;
    early.until("ERROR :Closing link: The server process stops").await;
    let mut late = Client::of(handle);
    late.until("ERROR :Closing link: The server process stops").await;
    assert_eq!((early.line().await, late.line().await), (None, None));
}

#[tokio::test]
async fn a_name_taken_over_a_moment_before_its_holder_lapses_here_looks_like_a_lapse() {
    let service = Service::new(3);
    let (a, mut b, c) = tokio::join!(service.start(0), service.start(1), service.start(2));
    a.linked(2).await;
    b.linked(2).await;
    let (mut ann, mut bob, mut carl) = (a.user("ann").await, b.user("bob").await, c.user("carl").await);
    carl.ask("JOIN #c", " 366 ").await;
    sees(&mut ann, "carl", true).await;
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    // The second node dials the third only.
    b.cut();
    b.linked(1).await;
    tokio::time::pause();
    tokio::time::advance(hcp_irc::server::LAPSE + std::time::Duration::from_secs(1)).await;
    tokio::time::resume();
    bob.until(":carl!~u@onion QUIT").await;
    c.kill().await;
    a.linked(1).await;
    bob.ask("NICK carl", ":bob!~u@onion NICK :carl").await;
    assert!(ann.until(":carl!~u@onion ").await.contains(" QUIT "));
    ann.until(":bob!~u@onion NICK :carl").await;
}

#[tokio::test]
async fn channels_and_messages_survive_a_restart_of_all_nodes() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let mut ann = a.modern("ann").await;
    ann.ask("JOIN #c", " 366 ").await;
    ann.ask("TOPIC #c :what lasts", "TOPIC #c").await;
    ann.ask("MODE #c +mk sesame", "MODE #c").await;
    ann.ask("PRIVMSG #c :before the night", "PRIVMSG").await;
    b.linked(1).await;
    // All at once, as when the power fails.
    a.kill().await;
    b.kill().await;
    let (_a, b) = pair(&service).await;
    let mut bob = b.modern("bob").await;
    bob.ask("JOIN #c", " 475 ").await;
    bob.send("JOIN #c sesame").await;
    bob.until(" 332 bob #c :what lasts").await;
    bob.until("before the night").await;
    let modes = bob.ask("MODE #c", " 324 ").await;
    assert!(modes.contains('m') && modes.contains('k'), "{modes}");
}

/// What entries made takes their place: after a restart there are few of them, and everything is there.
#[tokio::test]
async fn entries_that_are_not_needed_any_more_go_and_what_they_made_stays() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    let mut ann = a.modern("ann").await;
    ann.ask("JOIN #c", " 366 ").await;
    ann.ask("TOPIC #c :what lasts", "TOPIC #c").await;
    for i in 0..300 {
        ann.send(&format!("PRIVMSG #c :line {i}")).await;
    }
    ann.until("line 299").await;
    let count = async |node: &Running| {
        let mut all = node.replica.subscribe(Frontier::start());
        let (mut entries, mut states) = (0, 0);
        loop {
            match super::harness::within("the log", all.next()).await.expect("is read").expect("goes on") {
                Event::Entry(_) => entries += 1,
                Event::State(_) => states += 1,
                Event::CaughtUp => return (entries, states),
                _ => {}
            }
        }
    };
    assert!(count(&a).await.0 > 300);
    a.replica.retain().await.expect("is asked for");
    for node in [&a, &b] {
        let mut status = node.replica.status();
        super::harness::within("the checkpoint", status.wait_for(|s| s.checkpoint)).await.expect("the replica runs");
    }
    let (entries, states) = count(&b).await;
    assert!(entries < 20 && states == 1, "{entries} entries, {states} states");
    a.kill().await;
    b.kill().await;
    let (a, b) = pair(&service).await;
    for (node, nick) in [(a, "carl"), (b, "dora")] {
        let mut guest = node.modern(nick).await;
        guest.send("JOIN #c").await;
        guest.until(&format!(" 332 {nick} #c :what lasts")).await;
        guest.until("line 299").await;
    }
}

/// A node that was cut off while the others went on without it: its clients connect again, and what they said is there.
#[tokio::test]
async fn a_node_that_was_left_behind_goes_on_from_a_checkpoint() {
    let service = Service::new(3);
    let (mut a, b, c) = tokio::join!(service.start(0), service.start(1), service.start(2));
    for node in [&a, &b, &c] {
        node.linked(2).await;
    }
    let (mut ann, mut bob) = (a.modern("ann").await, b.modern("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    sees(&mut bob, "ann", true).await;
    bob.ask("JOIN #c", " 366 ").await;
    ann.until("bob").await;
    a.cut();
    a.linked(0).await;
    b.linked(1).await;
    ann.ask("PRIVMSG #c :said alone", "said alone").await;
    for i in 0..50 {
        bob.send(&format!("PRIVMSG #c :line {i}")).await;
    }
    bob.until("line 49").await;
    b.replica.retain().await.expect("is asked for");
    for node in [&b, &c] {
        let mut status = node.replica.status();
        super::harness::within("the checkpoint", status.wait_for(|s| s.checkpoint)).await.expect("the replica runs");
    }
    a.heal();
    ann.until("ERROR :Closing link: This node was left behind").await;
    bob.until("said alone").await;
    let mut ready = a.handle.ready();
    super::harness::within("the node to serve again", ready.wait_for(|ready| *ready)).await.expect("the server runs");
    let mut again = a.modern("ann2").await;
    again.send("JOIN #c").await;
    again.until("said alone").await;
    again.send("PRIVMSG #c :back").await;
    bob.until("back").await;
}

#[tokio::test]
async fn one_signed_manifest_changes_the_message_of_the_day_on_all_nodes() {
    let service = Service::new(2);
    let (a, b) = pair(&service).await;
    a.replica.adopt(service.manifest(2, "New rules.")).await.expect("is newer");
    for (node, nick) in [(&a, "ann"), (&b, "bob")] {
        let mut user = node.user(nick).await;
        super::harness::within("the new message of the day", async {
            while !user.ask("MOTD", " 372 ").await.contains("New rules.") {
                user.until(" 376 ").await;
            }
        })
        .await;
        user.ask("QUIT", "ERROR").await;
    }
}

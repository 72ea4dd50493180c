//! Several nodes: one view, lost nodes, restarts, splits that heal.

use std::time::Duration;

use super::harness::{Client, Running, Service};

async fn pair(service: &Service) -> (Running, Running) {
    let (a, b) = (service.start(0).await, service.start(1).await);
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
async fn a_name_taken_over_a_moment_before_its_holder_lapses_here_looks_like_a_lapse() {
    let service = Service::new(3);
    let (a, mut b, c) = (service.start(0).await, service.start(1).await, service.start(2).await);
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

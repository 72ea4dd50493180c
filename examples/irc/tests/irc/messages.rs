//! Messages: delivery, echoes, tags, history, what is refused for the sender's own sake.

use super::harness::{Client, Service};

fn tag<'a>(line: &'a str, name: &str) -> &'a str {
    let tags = line.strip_prefix('@').and_then(|line| line.split(' ').next()).unwrap_or("");
    tags.split(';')
        .find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("{name}: {line}"))
}

#[tokio::test]
async fn pipelined_commands_take_effect_in_order() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut bob = node.user("bob").await;
    bob.ask("JOIN #c", " 366 ").await;
    let mut ann = node.connect();
    ann.send("NICK ann\r\nUSER a 0 * :a\r\nJOIN #c\r\nPRIVMSG #c :first\r\nNICK anna\r\nPRIVMSG #c :second\r\nPART #c")
        .await;
    bob.until(":ann!~u@onion JOIN #c").await;
    assert_eq!(bob.line().await.unwrap(), ":ann!~u@onion PRIVMSG #c :first");
    assert_eq!(bob.line().await.unwrap(), ":ann!~u@onion NICK :anna");
    assert_eq!(bob.line().await.unwrap(), ":anna!~u@onion PRIVMSG #c :second");
    assert_eq!(bob.line().await.unwrap(), ":anna!~u@onion PART #c");
}

#[tokio::test]
async fn echoes_come_in_order_with_the_id_that_others_see() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.modern("ann").await, node.modern("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    bob.ask("JOIN #c", " 366 ").await;
    ann.drain().await;
    let lines: Vec<String> = (0..60).map(|n| format!("PRIVMSG #c :{n}")).collect();
    ann.send(&lines.join("\r\n")).await;
    for n in 0..60 {
        let (echo, heard) = (ann.line().await.unwrap(), bob.until("PRIVMSG").await);
        assert!(echo.ends_with(&format!(":ann!~u@onion PRIVMSG #c :{n}")), "{echo}");
        assert_eq!(echo, heard);
    }
}

#[tokio::test]
async fn a_name_that_is_given_twice_in_a_line_counts_once() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #c,#C", " 366 ").await;
    bob.ask("JOIN #c,#C,#c", " 366 ").await;
    ann.send("PRIVMSG bob,BOB,#c,bob,#C,x,y :hi\r\nPART #c,#C").await;
    for line in ["PRIVMSG bob :hi", "PRIVMSG #c :hi", "PART #c"] {
        assert_eq!(bob.line().await.unwrap(), format!(":ann!~u@onion {line}"));
    }
    let refused: Vec<String> =
        ann.drain().await.into_iter().filter(|line| line.contains(" 407 ") || line.contains(" 442 ")).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_sender_without_the_capability_gets_no_echo() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    bob.ask("JOIN #c", " 366 ").await;
    ann.drain().await;
    ann.send("PRIVMSG #c :hi\r\nPRIVMSG bob,#c :both\r\nNOTICE bob :n").await;
    for line in ["PRIVMSG #c :hi", "PRIVMSG bob :both", "PRIVMSG #c :both", "NOTICE bob :n"] {
        assert_eq!(bob.line().await.unwrap(), format!(":ann!~u@onion {line}"));
    }
    assert!(ann.drain().await.is_empty());
}

#[tokio::test]
async fn ctcp_other_than_action_is_refused() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    ann.ask("PRIVMSG bob :\u{1}VERSION\u{1}", " 531 ").await;
    ann.ask("PRIVMSG #c :\u{1}DCC SEND x 1 2 3\u{1}", " 404 ").await;
    ann.send("NOTICE bob :\u{1}TIME Sun\u{1}\r\nPRIVMSG bob :\u{1}ACTION waves\u{1}").await;
    assert!(bob.line().await.unwrap().ends_with(":\u{1}ACTION waves\u{1}"), "the notice was dropped in silence");
}

#[tokio::test]
async fn client_tags_reach_those_who_asked_for_them() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob, mut old) = (node.modern("ann").await, node.modern("bob").await, node.user("old").await);
    for client in [&mut ann, &mut bob, &mut old] {
        client.ask("JOIN #c", " 366 ").await;
    }
    ann.drain().await;
    bob.drain().await;
    ann.send("@+typing=active;secret=1 TAGMSG #c\r\n@+draft/reply=x;time=forged PRIVMSG #c :hi").await;
    let typing = bob.until("TAGMSG").await;
    assert_eq!(tag(&typing, "+typing"), "active");
    assert!(!typing.contains("secret"));
    let message = bob.until("PRIVMSG").await;
    assert_eq!(tag(&message, "+draft/reply"), "x");
    assert!(!message.contains("forged"));
    assert_eq!(old.until(":ann").await, ":ann!~u@onion PRIVMSG #c :hi", "neither tags nor TAGMSG");
    old.ask("TAGMSG #c", " 421 ").await;
}

#[tokio::test]
async fn who_joins_gets_the_recent_messages_with_their_ids() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut ann = node.modern("ann").await;
    ann.ask("JOIN #c", " 366 ").await;
    let sent = [say(&mut ann, "one").await, say(&mut ann, "two").await];
    let (mut bob, mut old) = (node.modern("bob").await, node.user("old").await);
    bob.ask("JOIN #c", " 366 ").await;
    for line in &sent {
        assert_eq!(bob.line().await.unwrap(), *line, "the same bytes as live");
    }
    assert!(tag(&sent[0], "time") < tag(&sent[1], "time"));
    old.ask("JOIN #c", " 366 ").await;
    assert!(old.drain().await.is_empty(), "a client that cannot tell old from new gets nothing");
}

#[tokio::test]
async fn history_can_be_turned_off() {
    let service = Service { history: 0, ..Service::new(1) };
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.modern("ann").await, node.modern("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    say(&mut ann, "gone").await;
    bob.ask("JOIN #c", " 366 ").await;
    assert!(bob.drain().await.is_empty());
}

#[tokio::test]
async fn a_slow_client_is_dropped_and_the_others_go_on() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut slow, mut ann) = (node.user("slow").await, node.user("ann").await);
    slow.ask("JOIN #c", " 366 ").await;
    ann.ask("JOIN #c", " 366 ").await;
    slow.ask("MODE #c -n", "MODE #c -n").await;
    let mut senders = Vec::new();
    for n in 0..30 {
        senders.push(node.user(&format!("sender{n}")).await);
    }
    // 2,700 lines of 500 bytes are more than the send queue and the pipe to the slow client hold, and few enough that
    // no sender exceeds its burst.
    let line = format!("PRIVMSG #c :{}", "x".repeat(480));
    let lines = [line.as_str(); 90].join("\r\n");
    for sender in &mut senders {
        sender.send(&lines).await;
        for _ in 0..90 {
            if ann.until(":s").await.contains(":slow!~u@onion QUIT :It reads too slowly") {
                return;
            }
        }
    }
    panic!("it was not dropped");
}

async fn say(client: &mut Client, text: &str) -> String {
    client.ask(&format!("PRIVMSG #c :{text}"), &format!("PRIVMSG #c :{text}")).await
}

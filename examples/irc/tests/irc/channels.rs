//! Channels: joining, modes, operators, what is refused to whom.

use super::harness::Service;

#[tokio::test]
async fn the_creator_is_operator_and_members_see_each_other() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.send("JOIN #C").await;
    assert_eq!(ann.line().await.unwrap(), ":ann!~u@onion JOIN #C");
    assert_eq!(ann.line().await.unwrap(), ":irc.test 353 ann = #C :@ann");
    ann.until(" 366 ").await;
    ann.ask("TOPIC #c :hello there", ":ann!~u@onion TOPIC #C :hello there").await;
    bob.send("JOIN #c").await;
    assert_eq!(bob.line().await.unwrap(), ":bob!~u@onion JOIN #C");
    bob.until(" 332 bob #C :hello there").await;
    bob.until(" 333 bob #C ann ").await;
    let names = bob.until(" 353 ").await;
    assert!(names.contains("@ann") && names.contains("bob"), "{names}");
    ann.until(":bob!~u@onion JOIN #C").await;
    bob.ask("PART #c :bye", ":bob!~u@onion PART #C :bye").await;
    ann.until(":bob!~u@onion PART #C :bye").await;
    ann.ask("MODE #c", " 324 ann #C +nt").await;
}

#[tokio::test]
async fn refusals_have_their_numerics() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    for (line, numeric) in [
        ("JOIN", " 461 "),
        ("JOIN nothash", " 403 "),
        ("JOIN #a:b", " 403 "),
        ("PART #c", " 442 "),
        ("PART #missing", " 403 "),
        ("TOPIC #c :x", " 442 "),
        ("MODE #c +m", " 442 "),
        ("MODE #missing", " 403 "),
        ("KICK #c ann", " 442 "),
        ("KICK #c", " 461 "),
        ("PRIVMSG #c :x", " 404 "),
        ("PRIVMSG #missing :x", " 403 "),
        ("PRIVMSG nobody :x", " 401 "),
        ("PRIVMSG", " 411 "),
        ("PRIVMSG #c", " 412 "),
        ("MODE ann +i", " 502 "),
        ("MODE bob +x", " 501 "),
        ("WHOIS nobody", " 401 "),
        ("INVITE ann #c", " 442 "),
        ("PRIVMSG a,b,c,d,e :x", " 407 "),
    ] {
        bob.ask(line, numeric).await;
        bob.drain().await;
    }
    bob.ask("JOIN #c", " 366 ").await;
    for (line, numeric) in
        [("TOPIC #c :x", " 482 "), ("MODE #c +m", " 482 "), ("KICK #c ann", " 482 "), ("INVITE ann #c", " 443 ")]
    {
        bob.ask(line, numeric).await;
    }
    ann.drain().await;
    ann.ask("MODE #c +z", " 472 ann z ").await;
    ann.ask("MODE #c +o nobody", " 401 ").await;
    ann.ask("MODE #c +k", " 696 ").await;
    ann.ask("MODE #c b", " 368 ").await;
    ann.ask("KICK #c nobody", " 401 ").await;
}

#[tokio::test]
async fn modes_keep_out_whom_they_should() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #c", " 366 ").await;
    assert_eq!(
        ann.ask("MODE #c +kl sesame 5", " MODE ").await,
        ":ann!~u@onion MODE #c +lk 5 sesame".replace("+lk 5 sesame", "+kl sesame 5")
    );
    bob.ask("JOIN #c", " 475 ").await;
    bob.ask("JOIN #c wrong", " 475 ").await;
    ann.ask("MODE #c -k+l * 1", " MODE ").await;
    bob.ask("JOIN #c", " 471 ").await;
    ann.ask("MODE #c -l+i", " MODE ").await;
    bob.ask("JOIN #c", " 473 ").await;
    ann.ask("INVITE bob #c", " 341 ").await;
    bob.until(":ann!~u@onion INVITE bob #c").await;
    bob.ask("JOIN #c", " 366 ").await;
    ann.ask("MODE #c +m", " MODE ").await;
    bob.ask("PRIVMSG #c :muted", " 404 ").await;
    ann.ask("MODE #c +v bob", ":ann!~u@onion MODE #c +v bob").await;
    bob.until("MODE #c +v bob").await;
    bob.send("PRIVMSG #c :heard").await;
    ann.until(":bob!~u@onion PRIVMSG #c :heard").await;
    ann.ask("KICK #c bob :enough", ":ann!~u@onion KICK #c bob :enough").await;
    bob.until(":ann!~u@onion KICK #c bob :enough").await;
    bob.ask("PRIVMSG #c :x", " 404 ").await;
}

#[tokio::test]
async fn lists_show_what_is_not_secret() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.ask("JOIN #open,#hidden", "#hidden :End").await;
    ann.ask("MODE #hidden +s", " MODE ").await;
    bob.send("LIST").await;
    assert_eq!(bob.until(" 322 ").await, ":irc.test 322 bob #open 1 :");
    assert!(bob.until(" 32").await.contains(" 323 "), "the secret channel is not listed");
    assert!(bob.ask("NAMES #hidden", " 3").await.contains(" 366 "));
    assert!(bob.ask("WHO #hidden", " 3").await.contains(" 315 "));
    assert_eq!(bob.ask("WHO #open", " 352 ").await, ":irc.test 352 bob #open ~u onion irc.test ann H@ :0 anonymous");
    let channels = bob.ask("WHOIS ann", " 319 ").await;
    assert!(channels.contains("@#open") && !channels.contains("#hidden"));
    bob.ask("ISON ann nobody", " 303 bob :ann").await;
    bob.ask("USERHOST ann", " 302 bob :ann=+~u@onion").await;
    ann.ask("AWAY :lunch", " 306 ").await;
    bob.ask("PRIVMSG ann :there?", " 301 bob ann :lunch").await;
    ann.ask("AWAY", " 305 ").await;
    ann.ask("MODE ann +i", ":ann!~u@onion MODE ann +i").await;
    bob.ask("LUSERS", " 251 bob :There are 1 users and 1 invisible on 1 servers").await;
}

#[tokio::test]
async fn one_of_two_clients_that_create_a_channel_at_once_is_its_operator() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    ann.send("JOIN #new").await;
    bob.send("JOIN #new").await;
    ann.until(" 366 ").await;
    bob.until(" 366 ").await;
    let names = ann.ask("NAMES #new", " 353 ").await;
    assert_eq!(names.matches('@').count(), 1, "{names}");
}

#[tokio::test]
async fn a_channel_keeps_its_state_for_a_while_after_its_last_member() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut ann = node.user("ann").await;
    ann.ask("JOIN #c", " 366 ").await;
    ann.ask("TOPIC #c :kept", " TOPIC ").await;
    ann.ask("MODE #c +k sesame", " MODE ").await;
    ann.ask("PART #c", " PART ").await;
    ann.ask("JOIN #c", " 475 ").await;
    ann.ask("JOIN #c sesame", " 332 ann #c :kept").await;
    assert!(ann.until(" 353 ").await.ends_with(":@ann"));
}

#[tokio::test]
async fn a_client_that_creates_channels_too_fast_is_refused() {
    let service = Service::new(1);
    let node = service.start(0).await;
    let mut ann = node.user("ann").await;
    for n in 0..20 {
        ann.ask(&format!("JOIN #c{n}\r\nPART #c{n}"), " PART ").await;
    }
    ann.ask("JOIN #more", " 437 ann #more ").await;
    ann.ask("JOIN #c0", " 366 ").await;
}

//! What a member that lies can make a node do to another one.

use super::*;

#[test]
fn what_was_kept_of_a_run_with_a_later_clock_takes_nothing_from_a_node_that_is_heard() {
    for is_record in [false, true] {
        let mut harness = settled();
        let (owner, liar, me) = (harness.peers[0], harness.peers[1], address(10));
        let secrets = PointSecrets::from_bytes(&[9; 64]);
        let entrust = Entrust { incarnation: 1, relay: RelayId([99; 32]), secrets, holders: vec![me], before: 0 };
        harness.tell(Input::Message(owner, Message::Entrust(entrust)));
        harness.pass(Duration::from_secs(1));
        harness.take();
        let message = if is_record {
            let record = Record {
                incarnation: 99,
                version: 1,
                points: Vec::new(),
                holds: Vec::new(),
                publications: Vec::new(),
                taken: Vec::new(),
                stopping: false,
            };
            Message::Record(SignedRecord::sign(address(1), owner, record, &[], &unsigned()))
        } else {
            let count = harness.counts[&liar] + 1;
            harness.counts.insert(liar, count);
            Message::Heartbeat(Heartbeat {
                sent: count,
                echo: None,
                wall: harness.wall,
                pulse: Pulse::sign(address(1), liar, 1, count, &unsigned()),
                seeking: Vec::new(),
                sightings: vec![Pulse::sign(address(1), owner, 99, 1, &unsigned())],
            })
        };
        harness.tell(Input::Message(liar, message));
        harness.now += Duration::from_millis(50);
        harness.tell(Input::Tick);
        harness.pass(Duration::from_secs(5));
        assert!(established_at(&harness.take()).is_empty());
    }
}

/// To whom the machine has given secrets, and of which points.
fn entrusted(outputs: &[Output]) -> Vec<(OnionAddress, PointId)> {
    let entrusted = outputs.iter().filter_map(|output| match output {
        Output::Send(to, Message::Entrust(entrust)) => Some((*to, entrust.secrets.id())),
        _ => None,
    });
    entrusted.collect()
}

impl Harness {
    fn claims(&mut self, peer: OnionAddress, taken: Vec<PointId>) {
        let record = Record {
            incarnation: 1,
            version: taken.len() as u64,
            points: Vec::new(),
            holds: Vec::new(),
            publications: Vec::new(),
            taken,
            stopping: false,
        };
        let signed = SignedRecord::sign(address(1), peer, record, &[], &unsigned());
        self.tell(Input::Message(peer, Message::Record(signed)));
    }
}

#[test]
fn who_takes_points_of_a_node_that_it_hears_is_given_no_others() {
    for silence in [Duration::ZERO, Duration::from_secs(5)] {
        let mut harness = settled();
        let [peer, other] = [harness.peers[0], harness.peers[1]];
        let given = entrusted(&harness.take());
        let point = given.iter().find(|(to, _)| *to == peer).expect("both are successors").1;
        harness.alive.retain(|alive| silence.is_zero() || *alive != peer);
        harness.pass(silence);
        harness.take();
        harness.claims(peer, vec![point]);
        harness.alive = vec![peer, other];
        harness.pass(Duration::from_secs(10));
        let given = entrusted(&harness.take());
        let is_blamed = harness.machine.status().problems.contains(&Problem::Usurped(peer));
        assert_eq!(is_blamed, silence.is_zero(), "who was cut off did what it had to");
        assert_eq!(given.iter().any(|(to, _)| *to == peer), !silence.is_zero());
        assert!(given.iter().any(|(to, _)| *to == other), "somebody succeeds");
        assert_eq!(harness.machine.status().points, 3);
    }
}

use super::*;
use crate::network::Period;

#[test]
fn a_request_says_what_the_node_signed() {
    let service = Service::new(1);
    let node = &service.nodes[0];
    let request = node.request(PeriodClock::TOR, (7, 3), 2, NOW);
    let read = Request::verify(service.address(), &request.to_bytes()).expect("good");
    assert!(read == request);
    assert_eq!((read.service(), read.node(), read.clock()), (service.address(), node.address(), PeriodClock::TOR));
    let (first, _) = PeriodClock::TOR.needed(NOW, NOW);
    assert_eq!((read.end_number(), read.end_period().number), (10, first.number + 2));
    let keys: Vec<_> = read.session_keys_above(Some(7)).collect();
    let expected = |number| (number, node.recipient.seed.session_key(service.address(), number).public_key());
    assert_eq!(keys, [expected(8), expected(9)]);
    assert_eq!(read.session_keys_above(None).count(), 3);
    assert!(read.descriptor_key(first).is_some() && read.descriptor_key(read.end_period()).is_none());
    assert!(read.descriptor_key(first.previous().expect("not the first")).is_none());
    assert!(read.descriptor_key(Period { length: 8, ..first }).is_none());
}

#[test]
fn the_largest_request_has_the_length_that_is_promised() {
    let service = Service::new(1);
    let keys = (1, Request::MAX_SESSION_KEYS);
    let bytes = service.nodes[0].request(PeriodClock::TOR, keys, Request::MAX_PERIODS, NOW).to_bytes();
    assert_eq!(bytes.len(), Request::MAX_LEN);
    assert!(Request::verify(service.address(), &bytes).is_ok());
    let refused = [bytes, vec![0]].concat();
    assert_eq!(Request::verify(service.address(), &refused).err(), Some(RequestError::Malformed));
}

#[test]
fn requests_beyond_the_limits_cannot_be_made() {
    let service = Service::new(1);
    let (node, period) = (&service.nodes[0], PeriodClock::TOR.at(NOW));
    let make = |keys, period| Request::new(&node.identity, &node.recipient.seed, service.address(), keys, period).err();
    assert_eq!(make((1, 0), (period, 0)), Some(RequestError::TooMany));
    assert_eq!(make((1, Request::MAX_SESSION_KEYS + 1), (period, 0)), Some(RequestError::TooMany));
    assert_eq!(make((1, 1), (period, Request::MAX_PERIODS + 1)), Some(RequestError::TooMany));
    assert_eq!(make((u64::MAX, 1), (period, 0)), Some(RequestError::Malformed));
    assert_eq!(make((1, 1), (Period { number: u64::MAX, ..period }, 1)), Some(RequestError::Malformed));
    assert_eq!(make((1, 1), (Period { length: 0, ..period }, 1)), Some(RequestError::Malformed));
}

#[test]
fn any_altered_byte_of_a_request_is_noticed() {
    let service = Service::new(1);
    let good = service.nodes[0].request(PeriodClock::TOR, (1, 2), 1, NOW).to_bytes();
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        let error = Request::verify(service.address(), &bad).err();
        let expected: &[_] = match place {
            0 => &[RequestError::UnknownLayout],
            1..33 => &[RequestError::ForeignService, RequestError::Malformed],
            33..65 => &[RequestError::Tampered, RequestError::Malformed],
            _ => &[RequestError::Tampered],
        };
        assert!(error.is_some_and(|error| expected.contains(&error)), "byte {place}: {error:?}");
    }
    for len in 0..good.len() {
        assert!(Request::verify(service.address(), &good[..len]).is_err(), "{len} bytes");
    }
    let other = Identity::from_seed(&[9; 32]).address();
    assert_eq!(Request::verify(other, &good).err(), Some(RequestError::ForeignService));
}

#[test]
fn what_a_node_must_not_sign_is_refused_when_it_has() {
    let service = Service::new(1);
    let node = &service.nodes[0];
    let good = node.request(PeriodClock::TOR, (1, 2), 1, NOW).to_bytes();
    let signed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = good[..good.len() - 64].to_vec();
        change(&mut content);
        let message = crate::identity::delegation::signed(b"HCP/1 request\0", service.address(), &content);
        let bytes = [content, node.identity.sign(&message).to_vec()].concat();
        Request::verify(service.address(), &bytes).err()
    };
    // Layout, service, node, first number (8), count (2), two keys, clock (8), first period (8), count (2), one key.
    assert_eq!(signed(&|_| ()), None);
    assert_eq!(signed(&|c| c[73..75].copy_from_slice(&1_201_u16.to_be_bytes())), Some(RequestError::TooMany));
    assert_eq!(signed(&|c| c[155..157].copy_from_slice(&401_u16.to_be_bytes())), Some(RequestError::TooMany));
    assert_eq!(signed(&|c| c[74] = 1), Some(RequestError::Malformed), "the second key is no clock");
    assert_eq!(signed(&|c| c[75..107].fill(0)), Some(RequestError::Malformed), "a key of small order");
    assert_eq!(signed(&|c| c[139..143].fill(0)), Some(RequestError::Malformed), "periods of no time");
    assert_eq!(signed(&|c| c[65..73].fill(255)), Some(RequestError::Malformed), "numbers beyond the last");
    assert_eq!(signed(&|c| c.push(0)), Some(RequestError::Malformed));
    let no_keys = |c: &mut Vec<u8>| {
        c.drain(75..139);
        c[74] = 0;
    };
    assert_eq!(signed(&no_keys), Some(RequestError::TooMany));
}

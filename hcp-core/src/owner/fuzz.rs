//! Arbitrary bytes as requests, grants and books.

use std::sync::LazyLock;

use super::grant::Label;
use super::{Book, Grant, Recipient, Request};
use crate::identity::{Identity, ReplicaSeed};

/// As a request for the known service: what is taken is to the byte what would be sent.
pub(crate) fn request(data: &[u8]) {
    if let Ok(request) = Request::verify(KNOWN[0].service, data) {
        assert_eq!(request.to_bytes(), data);
        let keys = request.session_keys_above(None).count();
        assert!((1..=usize::from(Request::MAX_SESSION_KEYS)).contains(&keys));
        assert!(request.end_number() >= keys as u64);
    }
}

/// As a grant for each of the known nodes, as a warden sees it, and as a book: what is taken is to the byte what would be sent; every round of a
/// grant makes credentials, every period material.
pub(crate) fn grant(data: &[u8]) {
    for recipient in &*KNOWN {
        if let Ok(grant) = Grant::verify(recipient, data, NOW) {
            assert_eq!(grant.to_bytes().as_slice(), data);
            let label = Label::read(data).expect("what is verified can be read");
            assert_eq!((label.service, label.node), (recipient.service, recipient.node));
            assert_eq!((label.serial, label.speaks_until), (grant.serial(), grant.speaks_until()));
            let manifest = Label::manifest(data).expect("its manifest is good");
            assert_eq!(manifest.to_bytes(), grant.manifest.to_bytes());
            assert!(grant.rounds.iter().all(|round| grant.credentials(&recipient.seed, round).is_some()));
            for place in 0..grant.periods.len() {
                let period = grant.clock.period(grant.first_period + place as u64);
                assert!(grant.material(&recipient.seed, period).is_some());
            }
        }
    }
    // Whatever is read, a node verifies.
    drop((Label::read(data), Label::manifest(data)));
    if let Ok(book) = Book::from_bytes(data) {
        assert!(Book::from_bytes(&book.to_bytes()).is_ok_and(|again| again == book));
        assert_eq!(book.exposure(NOW).len(), book.nodes.len());
    }
}

/// The clock and the nodes of `tests/vectors/grant.json`.
const NOW: u64 = 20_000 * 86_400 + 14 * 3600;
static KNOWN: LazyLock<Vec<Recipient>> = LazyLock::new(|| {
    let service = Identity::from_seed(&[1; 32]).address();
    let recipient = |n: u8| {
        let node = Identity::from_seed(&[n; 32]).address();
        Recipient::new(service, node, ReplicaSeed::from_bytes(&[n + 100; 32]))
    };
    [10, 12].map(recipient).to_vec()
});

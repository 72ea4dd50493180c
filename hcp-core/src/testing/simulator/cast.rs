//! Who takes part: the same few identities in every run, since making keys takes longer than a session.

use std::sync::{Arc, LazyLock};

use crate::identity::delegation::{
    OwnerCertificate, OwnerKey, ReplicaCredentials, Round, SerialFloors, SessionKey, Validity,
};
use crate::identity::{Identity, OnionAddress};
use crate::session::{Acceptor, Credentials, Keepalive};

/// The wall clock of all runs, in Unix seconds.
pub(super) const UNIX_NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;
/// The number of the service's first good replica among the acceptors, and how many there are.
const REPLICAS: usize = 2;

/// An acceptor by its place in the cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Server {
    /// Speaks for an address of its own.
    Node,
    /// Somebody else.
    Stranger,
    /// One of the replicas of the service.
    Replica(usize),
    /// What a replica of the service is after the owner's next round.
    Renewed,
    /// A replica whose delegation has expired.
    Expired,
    /// A replica whose round the owner has withdrawn.
    Withdrawn,
}

/// Everybody.
pub(super) struct Cast {
    pub(super) dialler: Identity,
    pub(super) node: OnionAddress,
    pub(super) service: OnionAddress,
    acceptors: Vec<(Server, Arc<Acceptor>)>,
    floor: Vec<u8>,
    certificate: Vec<u8>,
    floor_key: [u8; 32],
}

impl Cast {
    /// The cast of all runs; nothing when TLS cannot be set up at all.
    pub(super) fn of_all() -> Option<&'static Self> {
        static CAST: LazyLock<Option<Cast>> = LazyLock::new(Cast::new);
        CAST.as_ref()
    }

    fn new() -> Option<Self> {
        let [dialler, node, stranger, service] = [1, 2, 3, 4].map(|number| Identity::from_seed(&[number; 32]));
        let owner = OwnerKey::from_seed(&[5; 32]);
        let valid = Validity::new(UNIX_NOW - DAY, UNIX_NOW + DAY).ok()?;
        let certificate = OwnerCertificate::issue(&service, owner.public_key(), valid);
        let replica = |number: u8, round: Round| {
            let key = SessionKey::from_seed(&[number; 32]);
            let delegation = owner.delegate(service.address(), key.public_key(), round);
            ReplicaCredentials::new(service.address(), certificate.clone(), delegation, key).ok()
        };
        let round = Round::new(9, 8, valid).ok()?;
        let first = replica(10, round)?;
        let replicas = [
            (Server::Replica(0), first.clone()),
            (Server::Replica(1), replica(11, round)?),
            (Server::Renewed, replica(14, Round::new(10, 8, valid).ok()?)?),
            (
                Server::Expired,
                replica(12, Round::new(9, 8, Validity::new(UNIX_NOW - DAY, UNIX_NOW - DAY / 2).ok()?).ok()?)?,
            ),
            (Server::Withdrawn, replica(13, Round::new(7, 7, valid).ok()?)?),
        ];
        let nodes = [(Server::Node, node.clone()), (Server::Stranger, stranger)];
        let credentials = nodes
            .into_iter()
            .map(|(server, identity)| (server, Credentials::Identity(identity)))
            .chain(replicas.into_iter().map(|(server, replica)| (server, Credentials::Replica(replica))));
        let acceptors: Option<Vec<_>> = credentials
            .map(|(server, shown)| Acceptor::new(&shown, Keepalive::default()).ok().map(|acceptor| (server, acceptor)))
            .collect();
        Some(Self {
            dialler,
            node: node.address(),
            service: service.address(),
            acceptors: acceptors?,
            floor: first.delegation().to_bytes().to_vec(),
            certificate: certificate.to_bytes().to_vec(),
            floor_key: *first.session_key().public_key().as_bytes(),
        })
    }

    pub(super) fn acceptor(&self, server: Server) -> Option<&Arc<Acceptor>> {
        self.acceptors.iter().find(|(who, _)| *who == server).map(|(_, acceptor)| acceptor)
    }

    /// What a dialler remembers that has met the service in its present round.
    pub(super) fn floors(&self) -> SerialFloors {
        use crate::identity::delegation::verify;
        let floors = SerialFloors::new();
        // A failure leaves no floor, and then the withdrawn round is taken, which a run notices.
        let _ = verify(self.service, &self.certificate, &self.floor, &self.floor_key, UNIX_NOW, &floors);
        floors
    }

    pub(super) fn other_replica(server: Server) -> Server {
        match server {
            Server::Replica(number) => Server::Replica((number + 1) % REPLICAS),
            _ => Server::Stranger,
        }
    }
}

//! Building descriptors: which points one lists, for whom, and with which revision.
//!
//! Who is authorised cannot be counted by those who know the address: as in C tor, made-up clients fill their number up to a
//! multiple of 16.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tor_cell::chancell::msg::HandshakeType;
use tor_hscrypto::RevisionCounter;
use tor_hscrypto::ope::AesOpeKey;
use tor_hscrypto::ope::SrvPeriodOffset;
use tor_linkspec::EncodedLinkSpec;
use tor_llcrypto::pk::keymanip::convert_curve25519_to_ed25519_public;
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_netdoc::NetdocBuilder as _;
use tor_netdoc::doc::hsdesc::{HsDescBuilder, IntroPointDesc};

use super::certificate::Signer;
use crate::identity::DiscoveryPublicKey;
use crate::network::MAX_DISCOVERY_CLIENTS;
use crate::network::onion::{CLIENT_PADDING, Period, PointDescription, RelayId, max_points};

/// How to reach a relay, from the consensus.
pub(super) struct Reach {
    pub(super) link_specifiers: Vec<EncodedLinkSpec>,
    pub(super) ntor: curve25519::PublicKey,
}

/// The points that a descriptor can list, of those that it should: what others say of theirs may be wrong, and one point that
/// cannot be encoded must not keep the rest from being found.
///
/// `reach` knows the relays of the consensus; a point at any other is left out, as clients could be led anywhere by it.
pub(super) fn list(points: &[PointDescription], reach: impl Fn(RelayId) -> Option<Reach>) -> Vec<IntroPointDesc> {
    let mut seen = HashSet::new();
    let describe = |point: &PointDescription| {
        let session_id = ed25519::PublicKey::from_bytes(&point.id.0).ok()?;
        let ntor = curve25519::PublicKey::from(point.ntor);
        convert_curve25519_to_ed25519_public(&ntor, 0)?;
        let Reach { link_specifiers, ntor: relay } = reach(point.relay)?;
        IntroPointDesc::builder()
            .link_specifiers(link_specifiers)
            .ipt_kp_ntor(relay)
            .kp_hs_ipt_sid(session_id.into())
            .kp_hss_ntor(ntor.into())
            .build()
            .ok()
    };
    points.iter().filter(|point| seen.insert(point.id)).filter_map(describe).collect()
}

/// Encrypts and signs a descriptor.
///
/// # Errors
/// When it is longer than `max_length`.
pub(super) fn build(
    signer: &Signer,
    points: &[IntroPointDesc],
    clients: &Clients<'_>,
    revision: RevisionCounter,
    now: SystemTime,
    max_length: usize,
) -> Result<String, tor_bytes::EncodeError> {
    let expires = now + POINT_CERTIFICATES;
    let clients = clients.padded();
    HsDescBuilder::default()
        .blinded_id(&signer.blinded)
        .hs_desc_sign(&signer.key)
        .hs_desc_sign_cert(signer.certificate.clone())
        .create2_formats(&[HandshakeType::NTOR])
        .auth_required(None)
        .is_single_onion_service(false)
        .intro_points(points)
        .intro_auth_key_cert_expiry(expires)
        .intro_enc_key_cert_expiry(expires)
        .lifetime(LIFETIME_MINUTES.into())
        .revision_counter(revision)
        .subcredential(signer.subcredential)
        .auth_clients(clients.as_deref())
        .max_generated_len(max_length)
        .build_sign(&mut rand::rng())
}

/// Who can find the service; everybody when there is none.
pub(super) struct Clients<'a>(Option<&'a [DiscoveryPublicKey]>);

impl<'a> Clients<'a> {
    /// None when there is nobody, somebody twice, or more than fit.
    pub(super) fn new(clients: Option<&'a [DiscoveryPublicKey]>) -> Option<Self> {
        let differ = |keys: &[DiscoveryPublicKey]| keys.iter().collect::<HashSet<_>>().len() == keys.len();
        let fit = |keys: &[DiscoveryPublicKey]| (1..=MAX_DISCOVERY_CLIENTS).contains(&keys.len()) && differ(keys);
        clients.is_none_or(fit).then_some(Self(clients))
    }

    /// How many points fit into a descriptor beside them.
    pub(super) fn max_points(&self) -> usize {
        max_points(self.0.map(<[_]>::len))
    }

    fn padded(&self) -> Option<Vec<curve25519::PublicKey>> {
        self.0.map(|keys| {
            let made_up = keys.len().next_multiple_of(CLIENT_PADDING) - keys.len();
            let made_up = std::iter::repeat_with(rand::random::<[u8; 32]>).take(made_up);
            keys.iter().map(|key| *key.as_bytes()).chain(made_up).map(curve25519::PublicKey::from).collect()
        })
    }
}

/// When descriptors were uploaded last.
#[derive(Default)]
pub(super) struct Revisions(Mutex<BTreeMap<Period, u32>>);

impl Revisions {
    /// The revision of a descriptor that is uploaded so long after the start of the period's shared random value: later than
    /// all that this process uploaded before, unless that was at a time so far ahead that a clock was wrong. None when the time
    /// makes no sense.
    ///
    /// Encrypts the time with a secret of the publishers, keeping its order (rend-spec-v3, appendix F), so that the one who
    /// uploads last is the one who counts, and the directory does not learn anybody's clock.
    pub(super) fn next(&self, period: Period, secret: &[u8; 32], since_start: Duration) -> Option<RevisionCounter> {
        let second = u32::try_from(since_start.as_secs()).ok()?;
        let second = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever says when it is uploaded knows what directories have.
            let most = second.saturating_add(MAX_AHEAD).min(MAX_SECOND);
            let later = last.get(&period).map(|last| last.saturating_add(1)).filter(|later| *later <= most);
            let second = later.map_or(second, |later| second.max(later));
            if second > MAX_SECOND {
                return None;
            }
            last.insert(period, second);
            if last.len() > MAX_PERIODS {
                last.pop_first();
            }
            second
        };
        Some(AesOpeKey::from_secret(secret).encrypt(SrvPeriodOffset::from(second)).into())
    }
}

/// As Arti and C tor have it: a descriptor may be there for 48 hours, and consensuses are used for some hours more.
const POINT_CERTIFICATES: Duration = Duration::from_secs(54 * 3600);

/// How long directories keep a descriptor, three hours as in Arti and C tor.
const LIFETIME_MINUTES: u16 = 180;

/// Thirty days: a shared random value lasts for two. Later seconds take long to encrypt.
const MAX_SECOND: u32 = 30 * 86_400;

/// Ten minutes: by so much a clock may be set back before what it was ahead is forgotten.
const MAX_AHEAD: u32 = 600;

/// There are two at a time.
const MAX_PERIODS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tor_hscrypto::pk::{HsClientDescEncKeypair, HsId, HsIdKey};
    use tor_linkspec::LinkSpec;
    use tor_llcrypto::pk::rsa::RsaIdentity;
    use tor_netdoc::doc::hsdesc::HsDesc;

    use super::super::certificate::tests::{PERIOD, material};
    use super::*;
    use crate::identity::{DiscoveryKey, Identity};
    use crate::network::onion::{MAX_POINTS, PointId, PointSecrets};

    fn reach(relay: RelayId) -> Option<Reach> {
        let specifiers = [
            LinkSpec::OrPort([192, 0, 2, 1].into(), 9001),
            LinkSpec::OrPort([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), 9001),
            LinkSpec::Ed25519Id(relay.0.into()),
            LinkSpec::RsaId(RsaIdentity::from([1; 20])),
        ];
        let link_specifiers = specifiers.iter().map(|specifier| specifier.encode().unwrap()).collect();
        (relay.0[31] != 0xff).then(|| Reach { link_specifiers, ntor: [3; 32].into() })
    }

    fn point(n: u8) -> PointDescription {
        PointSecrets::from_bytes(&[n; 64]).describe(RelayId([n; 32]))
    }

    fn points(n: usize) -> Vec<PointDescription> {
        (1..=n).map(|n| point(n.try_into().unwrap())).collect()
    }

    fn signer(identity: &Identity) -> Signer {
        let key = HsIdKey::try_from(HsId::from(*identity.address().public_key())).unwrap();
        Signer::new(&key, &material(identity, PERIOD, [5; 32]), now()).unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(PERIOD.start() + 60)
    }

    /// Whether a client can.
    fn reads(signer: &Signer, text: &str, key: Option<&HsClientDescEncKeypair>) -> bool {
        HsDesc::parse_decrypt_validate(text, &signer.blinded.id(), &signer.subcredential, key).is_ok()
    }

    #[test]
    fn a_point_that_cannot_be_listed_leaves_the_others_in() {
        let mut all = points(3);
        all.push(all[0]);
        all.push(PointDescription { relay: RelayId([0xff; 32]), ..point(4) });
        all.push(PointDescription { id: PointId([2; 32]), ..point(5) });
        assert!(ed25519::PublicKey::from_bytes(&[2; 32]).is_err(), "2 is not on the curve");
        let twisted = (2_u8..)
            .map(|n| [n; 32])
            .find(|key| convert_curve25519_to_ed25519_public(&curve25519::PublicKey::from(*key), 0).is_none());
        all.push(PointDescription { ntor: twisted.unwrap(), ..point(6) });
        let listed = list(&all, reach);
        assert_eq!(listed.len(), 3);
        let text = build(&signer(&Identity::from_seed(&[1; 32])), &listed, &Clients(None), 1.into(), now(), 50_000);
        assert!(text.is_ok());
    }

    #[test]
    fn everybody_who_knows_the_address_can_read_a_descriptor_of_bounded_length() {
        let signer = signer(&Identity::from_seed(&[1; 32]));
        let listed = list(&points(20), reach);
        let text = build(&signer, &listed, &Clients(None), 77.into(), now(), 50_000).unwrap();
        assert!(reads(&signer, &text, None));
        assert!(build(&signer, &listed, &Clients(None), 77.into(), now(), 20_000).is_err());
    }

    #[test]
    fn only_authorised_clients_can_read_a_restricted_one() {
        let signer = signer(&Identity::from_seed(&[1; 32]));
        let keypair = |n: u8| {
            let secret = curve25519::StaticSecret::from([n; 32]);
            HsClientDescEncKeypair::from_secret_key(secret.into())
        };
        let (client, stranger) = (keypair(1), keypair(2));
        let keys = [DiscoveryPublicKey::from_bytes(client.public().to_bytes()).unwrap()];
        let clients = Clients::new(Some(&keys)).unwrap();
        let text = build(&signer, &list(&points(3), reach), &clients, 1.into(), now(), 50_000).unwrap();
        assert!(reads(&signer, &text, Some(&client)));
        assert!(!reads(&signer, &text, Some(&stranger)));
        assert!(!reads(&signer, &text, None));
    }

    #[test]
    fn as_many_points_as_are_said_to_fit_do_fit() {
        let signer = signer(&Identity::from_seed(&[1; 32]));
        for number in [1, 16, 17, 96, 97, 160] {
            let keys: Vec<_> = (0..number).map(client).collect();
            let clients = Clients::new(Some(&keys)).unwrap();
            let fit = clients.max_points();
            assert!(fit >= 14, "{fit} points beside {number} clients");
            build(&signer, &list(&points(fit), reach), &clients, 1.into(), now(), 50_000)
                .unwrap_or_else(|e| panic!("{fit} points beside {number} clients: {e}"));
        }
        assert_eq!(Clients(None).max_points(), MAX_POINTS);
    }

    fn client(n: usize) -> DiscoveryPublicKey {
        let mut secret = [7; 32];
        secret[8..16].copy_from_slice(&n.to_be_bytes());
        DiscoveryKey::from_secret_bytes(&secret).public_key()
    }

    #[test]
    fn clients_that_make_no_sense_are_refused() {
        let is_taken = |keys: Vec<DiscoveryPublicKey>| Clients::new(Some(&keys)).is_some();
        assert!(!is_taken(vec![]));
        assert!(is_taken((0..160).map(client).collect()));
        assert!(!is_taken((0..161).map(client).collect()));
        assert!(!is_taken(vec![client(1), client(1)]));
        assert!(is_taken(vec![client(1)]));
    }

    #[test]
    fn revisions_rise_within_a_second_and_when_the_clock_is_set_back() {
        let revisions = Revisions::default();
        let at = |second| revisions.next(PERIOD, &[9; 32], Duration::from_secs(second)).map(u64::from);
        let mut last = 0;
        for second in [100, 100, 101, 50, 50, 200] {
            let revision = at(second).unwrap();
            assert!(revision > last);
            last = revision;
        }
        // All publishers have the same for the same second.
        let other = Revisions::default().next(PERIOD, &[9; 32], Duration::from_secs(200)).map(u64::from);
        assert_eq!(other, Some(last));
        let next = PERIOD.next().unwrap();
        assert!(revisions.next(next, &[9; 32], Duration::from_secs(1)).map(u64::from).unwrap() < last);
        assert_eq!(at(40 * 86_400), None);
        assert!(at(201).unwrap() > last);
        // A clock that was ahead for a moment keeps no later one from being right.
        let ahead = at(86_400).unwrap();
        assert!(at(300).unwrap() < ahead);
    }
}

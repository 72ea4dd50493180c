//! How Tor cuts time into periods, in which of them a service must be published, and the certificate that lets a publisher
//! sign descriptors in one.

use thiserror::Error;

use super::signer::{SignRequest, verify_blinded};
use crate::error::ErrorKind;
use crate::identity::OnionAddress;
use crate::identity::blinded::blinded_public_key;
use crate::identity::fields::Fields;
use crate::network::Period;

/// How a network cuts time into periods (rend-spec-v3, section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodClock {
    length: u32,
    offset: u32,
}

impl PeriodClock {
    /// The public Tor network: a day that begins at noon, UTC.
    pub const TOR: Self = Self { length: 1440, offset: 43_200 };
    /// The shortest and the longest period, in minutes, that Tor's consensus can set (`hsdir_interval`).
    pub const MINUTES: std::ops::RangeInclusive<u32> = 5..=14_400;

    /// Takes the length of a period in minutes, and when the first one began, in seconds since the epoch.
    ///
    /// # Errors
    /// [`PeriodClockError`] when the length is outside [`MINUTES`](Self::MINUTES), or the offset longer than a period can be.
    pub fn new(minutes: u32, offset_seconds: u32) -> Result<Self, PeriodClockError> {
        if !Self::MINUTES.contains(&minutes) || offset_seconds > *Self::MINUTES.end() * 60 {
            return Err(PeriodClockError);
        }
        Ok(Self { length: minutes, offset: offset_seconds })
    }

    /// A network whose periods begin half a period off the epoch, as those of all networks of C tor's do.
    ///
    /// # Errors
    /// [`PeriodClockError`], as of [`new`](Self::new).
    pub fn of_minutes(minutes: u32) -> Result<Self, PeriodClockError> {
        Self::new(minutes, minutes.saturating_mul(30))
    }

    /// The length of a period in minutes.
    pub fn minutes(&self) -> u32 {
        self.length
    }

    /// When the first period began, in seconds since the epoch.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// The period at `unix`, in Unix seconds; before the first, the first.
    pub fn at(&self, unix: u64) -> Period {
        self.period(unix.saturating_sub(self.offset.into()) / self.seconds())
    }

    /// Whether `period` is one of this clock's.
    pub fn has(&self, period: Period) -> bool {
        (period.length, period.offset) == (self.length, self.offset)
    }

    /// The first and the last period in which a service must be published to be found from `from` to `to`, in Unix seconds.
    ///
    /// At any time clients look in the current period; in its first half, until the authorities have agreed on a new shared
    /// random value, the previous period's descriptor is kept up too, and in its second half the next one's.
    pub fn needed(&self, from: u64, to: u64) -> (Period, Period) {
        let half = self.seconds() / 2;
        (self.at(from.saturating_sub(half)), self.at(to.saturating_add(half)))
    }

    /// The period with this number.
    pub(super) fn period(&self, number: u64) -> Period {
        Period { number, length: self.length, offset: self.offset }
    }

    fn seconds(&self) -> u64 {
        u64::from(self.length) * 60
    }

    /// Minutes and offset, 4 bytes each.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Self::new(fields.u32()?, fields.u32()?).ok()
    }

    pub(super) const LEN: usize = 8;
}

/// A length or an offset of time periods that no Tor network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a time period of a Tor network has 5 to 14400 minutes, and an offset that is no longer")]
pub struct PeriodClockError;

impl PeriodClockError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// The word of a period's blinded key that a descriptor-signing key may sign in that period (cert-spec, type 8), byte for byte
/// as it stands in a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PeriodCertificate([u8; Self::LEN]);

impl PeriodCertificate {
    pub(super) const LEN: usize = CERTIFIED_LEN + 64;

    /// What the blinded key of `period` has to sign.
    pub(super) fn to_sign(service: OnionAddress, period: Period, signing_key: &[u8; 32]) -> SignRequest {
        SignRequest::Blinded(period, content(service, period, signing_key, expiry(period)).to_vec())
    }

    /// Takes the signature that was made over [`to_sign`](Self::to_sign).
    pub(super) fn signed(service: OnionAddress, period: Period, signing_key: &[u8; 32], signature: &[u8; 64]) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..CERTIFIED_LEN].copy_from_slice(&content(service, period, signing_key, expiry(period)));
        bytes[CERTIFIED_LEN..].copy_from_slice(signature);
        Self(bytes)
    }

    /// Takes any bytes; whether they are what they should be, [`is_for`](Self::is_for) says.
    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether the blinded key of `service` in `period` signed it for `signing_key`, and it does not end before the period.
    pub(super) fn is_for(&self, service: OnionAddress, period: Period, signing_key: &[u8; 32]) -> bool {
        let Some((covered, signature)) = self.0.split_last_chunk::<64>() else { return false };
        // Every byte but the hour is known beforehand: whatever else a certificate may hold is not in this one.
        *covered == content(service, period, signing_key, self.expiry_hours())
            && self.ends() >= period.end()
            && verify_blinded(service, period, covered, signature).is_ok()
    }

    /// When it ends, in Unix seconds.
    pub(super) fn ends(&self) -> u64 {
        u64::from(self.expiry_hours()) * HOUR
    }

    fn expiry_hours(&self) -> u32 {
        let [_, _, a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

/// When the certificates of `period` end, in hours since the epoch.
///
/// A descriptor is looked for until half a period after its own has ended. Six hours more are for clients whose consensus is
/// old; on the public network that is 54 hours from when the period's descriptor is first published, as C tor and Arti have it.
fn expiry(period: Period) -> u32 {
    let last = period.end().saturating_add(u64::from(period.length) * 30).saturating_add(6 * HOUR);
    u32::try_from(last.div_ceil(HOUR)).unwrap_or(u32::MAX)
}

fn content(service: OnionAddress, period: Period, signing_key: &[u8; 32], expiry_hours: u32) -> [u8; CERTIFIED_LEN] {
    let blinded = blinded_public_key(service, period.number, period.length);
    let mut bytes = [0; CERTIFIED_LEN];
    let mut rest = &mut bytes[..];
    for part in [
        &[1, TYPE_BLINDED_ID_V_SIGNING][..],
        &expiry_hours.to_be_bytes(),
        &[KEY_ED25519],
        signing_key,
        // One extension of 32 bytes, type 4 (the signing key), no flags.
        &[1, 0, 32, 4, 0],
        &blinded,
    ] {
        let (field, behind) = rest.split_at_mut(part.len());
        field.copy_from_slice(part);
        rest = behind;
    }
    bytes
}

const HOUR: u64 = 3600;
const TYPE_BLINDED_ID_V_SIGNING: u8 = 8;
const KEY_ED25519: u8 = 1;
/// Version, type, expiry, type of the certified key, that key, number of extensions, the one with the signing key.
const CERTIFIED_LEN: usize = 1 + 1 + 4 + 1 + 32 + 1 + 2 + 1 + 1 + 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const NOON: u64 = 20_000 * 86_400 + 43_200;

    fn certificate(identity: &Identity, period: Period, key: &[u8; 32]) -> PeriodCertificate {
        let SignRequest::Blinded(_, message) = PeriodCertificate::to_sign(identity.address(), period, key) else {
            panic!("blinded keys sign descriptors' certificates");
        };
        let signature = identity.sign_blinded(period.number, period.length, &message);
        PeriodCertificate::signed(identity.address(), period, key, &signature)
    }

    #[test]
    fn periods_are_where_the_specification_has_them() {
        // rend-spec-v3, section 2.2.1: on 2016-04-13 11:15:00 the period is 16903; it begins at noon.
        let at = |unix| PeriodClock::TOR.at(unix).number;
        assert_eq!(at(1_460_546_100), 16_903);
        assert_eq!(at(1_460_548_799), 16_903);
        assert_eq!(at(1_460_548_800), 16_904);
        assert_eq!(at(5), 0);
        let period = PeriodClock::TOR.at(NOON);
        assert_eq!((period.start(), period.end()), (NOON, NOON + 86_400));
        assert_eq!(PeriodClock::of_minutes(1440), Ok(PeriodClock::TOR));
        assert!(PeriodClock::of_minutes(4).is_err() && PeriodClock::new(8, u32::MAX).is_err());
    }

    #[test]
    fn two_periods_are_needed_at_any_time() {
        let needed = |from, to| {
            let (first, last) = PeriodClock::TOR.needed(from, to);
            (first.number, last.number)
        };
        let number = PeriodClock::TOR.at(NOON).number;
        for (now, expected) in [
            (NOON, (number - 1, number)),
            (NOON + 43_199, (number - 1, number)),
            (NOON + 43_200, (number, number + 1)),
            (NOON + 86_399, (number, number + 1)),
        ] {
            assert_eq!(needed(now, now), expected);
        }
        assert_eq!(needed(NOON, NOON + 86_400), (number - 1, number + 1));
    }

    #[test]
    fn a_certificate_is_for_one_service_period_and_key() {
        let (identity, key) = (Identity::from_seed(&[1; 32]), [7; 32]);
        let period = PeriodClock::TOR.at(NOON);
        let good = certificate(&identity, period, &key);
        assert!(good.is_for(identity.address(), period, &key));
        assert_eq!(good.ends(), NOON + 86_400 + 18 * 3600);
        let other = Identity::from_seed(&[2; 32]).address();
        assert!(!good.is_for(other, period, &key));
        assert!(!good.is_for(identity.address(), PeriodClock::TOR.period(period.number + 1), &key));
        assert!(!good.is_for(identity.address(), period, &[8; 32]));
        for byte in 0..PeriodCertificate::LEN {
            let mut bad = *good.as_bytes();
            bad[byte] ^= 1;
            assert!(!PeriodCertificate::from_bytes(bad).is_for(identity.address(), period, &key), "byte {byte}");
        }
    }

    #[test]
    fn a_certificate_that_ends_before_its_period_is_refused() {
        let (identity, key) = (Identity::from_seed(&[1; 32]), [7; 32]);
        let period = PeriodClock::TOR.at(NOON);
        let hours = |unix: u64| u32::try_from(unix / 3600).expect("few");
        for (ends, good) in [(hours(period.end()) - 1, false), (hours(period.end()), true)] {
            let content = content(identity.address(), period, &key, ends);
            let signature = identity.sign_blinded(period.number, period.length, &content);
            let bytes = [&content[..], &signature].concat().try_into().expect("the length of one");
            assert_eq!(PeriodCertificate::from_bytes(bytes).is_for(identity.address(), period, &key), good);
        }
    }

    #[cfg(feature = "tor")]
    #[test]
    fn certificates_are_those_of_arti() {
        use std::time::{Duration, UNIX_EPOCH};

        use tor_hscrypto::pk::HsIdKeypair;
        use tor_hscrypto::time::TimePeriod;
        use tor_llcrypto::pk::ed25519;
        use tor_netdoc::doc::hsdesc::create_desc_sign_key_cert;

        for (seed, clock) in [(1, PeriodClock::TOR), (2, PeriodClock::of_minutes(8).expect("a clock"))] {
            let identity = Identity::from_seed(&[seed; 32]);
            let period = clock.at(NOON);
            let signing = ed25519::Keypair::from_bytes(&[seed + 10; 32]);
            let ours = certificate(&identity, period, &signing.verifying_key().to_bytes());

            let pair = ed25519::ExpandedKeypair::from_secret_key_bytes(*identity.expanded_secret_key()).expect("a key");
            let theirs = TimePeriod::from_parts(period.length, period.number, period.offset);
            let (_, blinded, _) = HsIdKeypair::from(pair).compute_blinded_key(theirs).expect("blinds");
            let expiry = UNIX_EPOCH + Duration::from_secs(ours.ends());
            let made = create_desc_sign_key_cert(&signing.verifying_key(), &blinded, expiry).expect("made");
            let made: Vec<u8> = made.into();
            assert_eq!(made, ours.as_bytes());
        }
    }
}

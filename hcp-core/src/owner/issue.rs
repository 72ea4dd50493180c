//! Making grants: for one horizon, or in advance and cut into steps that a warden hands out.
//!
//! All that the service's identity has to sign for an errand goes to the signer in one batch. The book changes only when
//! everything has been made.

mod error;
mod horizon;

use std::collections::BTreeMap;
use std::fmt;

pub use self::error::MakeError;
pub use self::horizon::Horizon;
use self::horizon::overlap;
use super::book::{Book, Granted};
use super::grant::{Grant, GrantedPeriod, GrantedRound, Parts};
use super::period::PeriodCertificate;
use super::request::Request;
use super::signer::{ServiceSigner, SignError, SignRequest, signed};
use crate::identity::delegation::{OwnerCertificate, OwnerKey, PublicKey, Round, Validity};
use crate::identity::manifest::Manifest;
use crate::identity::{OnionAddress, RevisionSeed};
use crate::network::Period;

/// Has the service's identity certify `owner_key`.
///
/// # Errors
/// [`SignError`].
pub async fn certify(
    signer: &dyn ServiceSigner,
    owner_key: PublicKey,
    validity: Validity,
) -> Result<OwnerCertificate, SignError> {
    let service = signer.service();
    let message = OwnerCertificate::to_sign(service, owner_key, validity);
    let signature = signed(signer, vec![SignRequest::Identity(message)]).await?.pop().ok_or(SignError::Wrong)?;
    OwnerCertificate::signed(service, owner_key, validity, signature).ok_or(SignError::Wrong)
}

/// Makes grants from requests.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// Signs with the service's identity.
    pub signer: &'a dyn ServiceSigner,
    /// Signs delegations, manifests and grants.
    pub key: &'a OwnerKey,
    /// What lets that key do so.
    pub certificate: &'a OwnerCertificate,
    /// What revision counters are made of.
    pub revisions: &'a RevisionSeed,
    /// Who the members are.
    pub manifest: &'a Manifest,
}

/// A grant that a warden keeps until its time has come.
pub struct Step {
    /// When to hand it out, in Unix seconds.
    pub hand_out: u64,
    /// What to hand out; its node is [`Grant::node`].
    pub grant: Grant,
}

impl Owner<'_> {
    /// Makes a grant for each node that requests, all rounds of the horizon in it.
    ///
    /// # Errors
    /// [`MakeError`]; the book is as it was.
    pub async fn grant(
        &self,
        book: &mut Book,
        requests: &[Request],
        horizon: Horizon,
    ) -> Result<Vec<Grant>, MakeError> {
        let window = Window::new(horizon, 0, horizon.rounds().collect());
        let plan = self.plan(book, requests, vec![window]).await?;
        let grants = requests.iter().map(|request| self.make(&plan, request, 0)).collect::<Result<_, _>>()?;
        *book = plan.book;
        Ok(grants)
    }

    /// Makes the grants of a horizon one for each round, to be handed out one after the other.
    ///
    /// They are made as they are taken from the schedule: together they may be large.
    ///
    /// # Errors
    /// [`MakeError`]; the book is as it was.
    pub async fn schedule<'s>(
        &'s self,
        book: &mut Book,
        requests: &'s [Request],
        horizon: Horizon,
    ) -> Result<Schedule<'s>, MakeError> {
        let windows = horizon.rounds().map(|(from, to)| {
            let hand_out = if from == horizon.begins() { 0 } else { from.saturating_sub(overlap(to + 1 - from)) };
            Window::new(horizon, hand_out, vec![(from, to)])
        });
        let plan = self.plan(book, requests, windows.collect()).await?;
        book.clone_from(&plan.book);
        Ok(Schedule { owner: self, requests, plan, next: 0 })
    }

    /// Checks everything, has everything signed, and notes it in a copy of the book.
    async fn plan(&self, book: &Book, requests: &[Request], windows: Vec<Window>) -> Result<Plan, MakeError> {
        let service = book.service();
        if self.signer.service() != service || self.manifest.service() != service {
            return Err(MakeError::ForeignService);
        }
        if !self.certificate.is_signed_for(service) || self.certificate.owner_key() != self.key.public_key() {
            return Err(MakeError::ForeignCertificate);
        }
        let rounds = windows.iter().map(|window| window.rounds.len()).sum();
        let begins = windows.first().map_or(0, |window| window.publishing.0);
        let ends = windows.last().map_or(begins, |window| window.publishing.1);
        if self.certificate.validity().not_after() < ends || self.certificate.validity().not_before() > ends {
            return Err(MakeError::CertificateEnds);
        }
        let mut plan = Plan {
            book: book.clone(),
            first_serial: book.next_serial,
            windows,
            used: BTreeMap::new(),
            certificates: BTreeMap::new(),
        };
        for request in requests {
            self.check(book, request, rounds)?;
            if plan.used.insert(request.node(), book.last_number(request.node())).is_some() {
                return Err(MakeError::Twice(request.node()));
            }
        }
        self.sign_periods(&mut plan, requests, (begins, ends)).await?;
        plan.note(requests, begins)?;
        Ok(plan)
    }

    fn check(&self, book: &Book, request: &Request, rounds: usize) -> Result<(), MakeError> {
        let node = request.node();
        if request.service() != book.service() {
            return Err(MakeError::ForeignService);
        }
        if request.clock() != book.clock() {
            return Err(MakeError::OtherClock(node));
        }
        if book.is_revoked(node) {
            return Err(MakeError::Revoked(node));
        }
        if self.manifest.contents().member(node).is_none() {
            return Err(MakeError::NotAMember(node));
        }
        if request.session_keys_above(book.last_number(node)).take(rounds).count() < rounds {
            return Err(MakeError::SessionKeysUsedUp(node));
        }
        Ok(())
    }

    /// Has all periods' certificates signed for all publishers.
    async fn sign_periods(&self, plan: &mut Plan, requests: &[Request], times: (u64, u64)) -> Result<(), MakeError> {
        let (clock, service) = (plan.book.clock(), plan.book.service());
        let (first, last) = clock.needed(times.0, times.1);
        let mut wanted = Vec::new();
        for request in requests.iter().filter(|request| self.publishes(request.node())) {
            for period in (first.number..=last.number).map(|number| clock.period(number)) {
                let key = request.descriptor_key(period).ok_or(MakeError::PeriodsMissing(request.node()))?;
                wanted.push((request.node(), period, *key.as_bytes()));
            }
        }
        let batch = wanted.iter().map(|(_, period, key)| PeriodCertificate::to_sign(service, *period, key)).collect();
        let signatures = signed(self.signer, batch).await?;
        for ((node, period, key), signature) in wanted.into_iter().zip(signatures) {
            let certificate = PeriodCertificate::signed(service, period, &key, &signature);
            plan.certificates.insert((node, period.number), certificate);
        }
        Ok(())
    }

    fn publishes(&self, node: OnionAddress) -> bool {
        self.manifest.contents().member(node).is_some_and(|member| member.is_publisher())
    }

    /// Makes what one node gets of one window.
    fn make(&self, plan: &Plan, request: &Request, window: usize) -> Result<Grant, MakeError> {
        let (service, node, clock) = (plan.book.service(), request.node(), plan.book.clock());
        let before: usize = plan.windows.iter().take(window).map(|window| window.rounds.len()).sum();
        let window = plan.windows.get(window).ok_or(MakeError::Horizon)?;
        let used = plan.used.get(&node).copied().flatten();
        let keys = request.session_keys_above(used).skip(before);
        let mut rounds = Vec::with_capacity(window.rounds.len());
        for (place, ((from, to), (number, key))) in (before as u64..).zip(window.rounds.iter().zip(keys)) {
            let round = Round::new(plan.first_serial + place, plan.book.floor(), Validity::new(*from, *to)?)?;
            rounds.push(GrantedRound { number, delegation: self.key.delegate(service, key, round) });
        }
        let periods = plan.certificates_of(node, window.publishing).map(|(period, certificate)| GrantedPeriod {
            certificate,
            revision_secret: self.revisions.of_period(service, period.number, period.length, period.offset),
        });
        let first_period = clock.needed(window.publishing.0, window.publishing.1).0.number;
        let parts = Parts {
            node,
            certificate: self.certificate.clone(),
            manifest: self.manifest.clone(),
            rounds,
            clock,
            first_period,
            periods: periods.collect(),
        };
        Ok(Grant::sign(self.key, parts))
    }
}

impl fmt::Debug for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// Grants that were made in advance, in the order in which they are handed out.
pub struct Schedule<'s> {
    owner: &'s Owner<'s>,
    requests: &'s [Request],
    plan: Plan,
    next: usize,
}

impl Iterator for Schedule<'_> {
    type Item = Result<Step, MakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let nodes = self.requests.len().max(1);
        let (window, request) = (self.next / nodes, self.requests.get(self.next % nodes)?);
        let hand_out = self.plan.windows.get(window)?.hand_out;
        self.next += 1;
        Some(self.owner.make(&self.plan, request, window).map(|grant| Step { hand_out, grant }))
    }
}

impl fmt::Debug for Schedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("steps", &self.plan.windows.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("hand_out", &self.hand_out).field("grant", &self.grant).finish()
    }
}

/// What goes into one grant of each node.
struct Window {
    hand_out: u64,
    rounds: Vec<(u64, u64)>,
    /// From when and to when a publisher must be able to publish with it.
    publishing: (u64, u64),
}

impl Window {
    fn new(horizon: Horizon, hand_out: u64, rounds: Vec<(u64, u64)>) -> Self {
        // The hour that has begun began before there was anything to publish with; periods may be shorter than that.
        let from = rounds.first().map_or(horizon.from, |(from, _)| *from).max(horizon.asked);
        Self { hand_out, publishing: (from, rounds.last().map_or(from, |(_, to)| *to)), rounds }
    }
}

/// All that was decided and signed before the first grant is made.
struct Plan {
    /// As it will be when all of them were given out.
    book: Book,
    first_serial: u64,
    windows: Vec<Window>,
    /// The last session key of each node that earlier errands used.
    used: BTreeMap<OnionAddress, Option<u64>>,
    /// By node and number of the period.
    certificates: BTreeMap<(OnionAddress, u64), PeriodCertificate>,
}

impl Plan {
    /// What `node` needs to publish from and to these times; nothing if it does not publish.
    fn certificates_of(
        &self,
        node: OnionAddress,
        (from, to): (u64, u64),
    ) -> impl Iterator<Item = (Period, PeriodCertificate)> + '_ {
        let (first, last) = self.book.clock().needed(from, to);
        let range = self.certificates.range((node, first.number)..=(node, last.number));
        range.map(|((_, number), certificate)| (self.book.clock().period(*number), *certificate))
    }

    /// Writes into the book what will have been given out.
    fn note(&mut self, requests: &[Request], begins: u64) -> Result<(), MakeError> {
        let rounds: usize = self.windows.iter().map(|window| window.rounds.len()).sum();
        self.book.next_serial = self.first_serial.checked_add(rounds as u64).ok_or(MakeError::TooMuch)?;
        self.book.forget_ended(begins);
        for request in requests {
            let node = request.node();
            let used = self.used.get(&node).copied().flatten();
            let last_number = request.session_keys_above(used).take(rounds).last().map(|(number, _)| number);
            let mut serial = self.first_serial;
            let mut granted = Vec::with_capacity(self.windows.len());
            for window in &self.windows {
                serial += window.rounds.len() as u64;
                let ends = self.certificates_of(node, window.publishing).map(|(_, certificate)| certificate.ends());
                granted.push(Granted {
                    serial: serial - 1,
                    handed_out: window.hand_out,
                    speaks_until: window.publishing.1,
                    publishes_until: ends.max().unwrap_or(0),
                });
            }
            self.book.note(node, last_number, granted).ok_or(MakeError::TooMuch)?;
        }
        Ok(())
    }
}

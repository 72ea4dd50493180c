//! Whether an introduction point is there: its relay says so to whoever introduces itself.

use std::sync::Arc;
use std::time::Duration;

use curve25519_dalek::MontgomeryPoint;
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tor_cell::relaycell::RelayMsg as _;
use tor_cell::relaycell::hs::{AuthKeyType, IntroduceAckStatus};
use tor_cell::relaycell::msg::{AnyRelayMsg, Introduce1};
use tor_netdir::Timeliness;
use tor_proto::{MetaCellDisposition, MsgHandler, TargetHop};
use tracing::debug;

use super::{Shared, view};
use crate::network::onion::{Checked, PointId, RelayId};

/// Asks the relay, over a circuit as clients build it, within [`DEADLINE`].
///
/// What is introduced makes no sense to the service, which drops it; to the relay it looks as any other (rend-spec-v3, section
/// 3.2.1).
pub(super) async fn check(service: &Arc<Shared>, relay: RelayId, point: PointId) -> Checked {
    match timeout(DEADLINE, ask(service, relay, point)).await {
        Ok(Some(IntroduceAckStatus::SUCCESS)) => Checked::There,
        Ok(Some(IntroduceAckStatus::NOT_RECOGNIZED)) => Checked::NotThere,
        _ => Checked::Unknown,
    }
}

async fn ask(service: &Arc<Shared>, relay: RelayId, point: PointId) -> Option<IntroduceAckStatus> {
    let netdir = service.directory.netdir(Timeliness::Timely).ok()?;
    let target = view::relay(&netdir, relay)?;
    let tunnel = service.pool().get_or_launch_client_intro(&netdir, target.clone()).await;
    // What Arti's errors say of relays stays at this level.
    let tunnel = tunnel.inspect_err(|error| debug!(%error, "an introduction point was not checked")).ok()?;
    drop(netdir);
    // A key as clients make one, and what nobody can read.
    let mut encrypted = vec![0; ENCRYPTED];
    rand::rng().fill(&mut encrypted[..]);
    let key = MontgomeryPoint::mul_base_clamped(rand::random());
    encrypted[..key.0.len()].copy_from_slice(&key.0);
    let request = Introduce1::new(AuthKeyType::ED25519_SHA3_256, point.0.to_vec(), encrypted);
    let (answer, answered) = oneshot::channel();
    let handler = Handler { answer: Some(answer) };
    let asked = tunnel.start_conversation(Some(request.into()), handler, TargetHop::LastHop).await;
    asked.inspect_err(|error| debug!(%error, "an introduction point was not checked")).ok()?;
    answered.await.ok()
}

struct Handler {
    answer: Option<oneshot::Sender<IntroduceAckStatus>>,
}

impl MsgHandler for Handler {
    fn handle_msg(&mut self, message: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
        match (message, self.answer.take()) {
            (AnyRelayMsg::IntroduceAck(ack), Some(answer)) => {
                let _ = answer.send(ack.status());
                Ok(MetaCellDisposition::CloseCirc)
            }
            (other, _) => Err(tor_proto::Error::CircProto(format!(
                "an unexpected {} where an introduction is answered",
                other.cmd()
            ))),
        }
    }
}

/// A circuit of four hops and an answer over it.
const DEADLINE: Duration = Duration::from_secs(15);
/// With the 56 bytes in front of it, what Arti's clients send (`INTRO1_TARGET_LEN` in tor-hsclient).
const ENCRYPTED: usize = 490 - 56;

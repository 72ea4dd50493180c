//! Bad behaviour on demand, which the fault suite asks for. Without the feature `testing` there is none.

use hcp_core::service::ReplicatedService;
use tokio::sync::mpsc;

/// Does what lines from standard input say, for ever; only when the environment has `HCP_FAULT=stdin`.
#[cfg(feature = "testing")]
pub(super) async fn obey(service: &ReplicatedService, mut orders: mpsc::Receiver<String>) {
    use hcp_core::service::Misbehaviour;

    if std::env::var_os("HCP_FAULT").is_some_and(|value| value == "stdin") {
        while let Some(order) = orders.recv().await {
            let what = match order.as_str() {
                "fault mute" => Misbehaviour::Mute,
                "fault unmute" => Misbehaviour::Unmute,
                "fault garbage" => Misbehaviour::AnnounceGarbage,
                _ => continue,
            };
            tracing::warn!(?what, "behaves badly, as it was told");
            service.misbehave(what).await;
        }
    }
    std::future::pending().await
}

/// Ignores them.
#[cfg(not(feature = "testing"))]
pub(super) async fn obey(_: &ReplicatedService, _: mpsc::Receiver<String>) {
    std::future::pending().await
}

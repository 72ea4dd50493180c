//! Keeping up with what the owner grants: the folder is read again from time to time, and the node speaks with the newest
//! delegation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::clock::unix_now;
use crate::node::Node;
use crate::owner::Holdings;

/// Looks at the grants whenever one begins or ends, whenever asked, and every [`LOOK_FOR_GRANTS`]; runs until nobody can ask
/// any more. `shown` is the serial that `node` speaks with at first.
pub(super) async fn keep(
    node: Node,
    held: watch::Sender<Arc<Holdings>>,
    mut shown: Option<u64>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let wait = until_change(&held.borrow());
        let done = tokio::select! {
            done = asked.recv() => match done {
                Some(done) => Some(done),
                None => return,
            },
            () = sleep(wait) => None,
        };
        let before = Arc::clone(&held.borrow());
        match tokio::task::spawn_blocking(move || before.reopen(unix_now())).await {
            Ok(Ok(now)) => drop(held.send_replace(Arc::new(now))),
            Ok(Err(error)) => {
                tracing::error!(%error, "the owner's grants cannot be read; those read before still count")
            }
            // The runtime is shutting down.
            Err(_) => return,
        }
        show(&node, &held.borrow(), &mut shown);
        if let Some(done) = done {
            // Who asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

/// Has the node speak with the delegation that counts now.
fn show(node: &Node, holdings: &Holdings, shown: &mut Option<u64>) {
    let Some(credentials) = holdings.credentials(unix_now()) else {
        return tracing::error!("no delegation is valid now: clients that check it refuse this node");
    };
    let serial = credentials.delegation().serial();
    if *shown == Some(serial) {
        return;
    }
    match node.renew(credentials) {
        Ok(()) => *shown = Some(serial),
        Err(error) => tracing::error!(%error, "the new delegation cannot be used"),
    }
}

/// Something begins or ends then, or somebody may have put a grant there.
fn until_change(holdings: &Holdings) -> Duration {
    let now = unix_now();
    let change = holdings.next_change(now).map_or(LOOK_FOR_GRANTS, |at| Duration::from_secs(at.saturating_sub(now)));
    change.clamp(Duration::from_secs(1), LOOK_FOR_GRANTS)
}

/// How often a node looks whether a grant was put into its folder.
const LOOK_FOR_GRANTS: Duration = Duration::from_secs(15);

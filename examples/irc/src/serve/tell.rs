//! What a running node tells whoever started it.

use std::time::Instant;

use hcp_core::network::ListenerStatus;
use hcp_core::replica::{Disk, Peers, ReplicaStatus};
use hcp_core::service::{ServiceEvent, ServiceStatus};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::config::Member;
use crate::report::{Report, Reporter, What};

pub(super) async fn peers(reporter: Reporter, members: Vec<Member>, mut peers: watch::Receiver<Peers>) {
    let mut told = vec![false; members.len()];
    loop {
        for (node, state) in peers.borrow_and_update().iter() {
            let Some(member) = members.iter().position(|member| member.node == node) else { continue };
            if std::mem::replace(&mut told[member], state.live) != state.live {
                reporter.tell(&Report::Peer { member, live: state.live });
            }
        }
        if peers.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the disk takes what it is given.
pub(super) async fn disk(mut status: watch::Receiver<ReplicaStatus>) {
    let mut was = Disk::Good;
    loop {
        let now = status.borrow_and_update().disk;
        if now != was {
            match now {
                Disk::Full => tracing::error!("the disk is full: free some space; nothing that was echoed is lost"),
                Disk::Good => tracing::info!("there is room on the disk again"),
                _ => tracing::error!("the disk cannot be used"),
            }
        }
        was = now;
        if status.changed().await.is_err() {
            return;
        }
    }
}

pub(super) async fn clients(reporter: Reporter, mut clients: watch::Receiver<usize>) {
    while clients.changed().await.is_ok() {
        let count = *clients.borrow_and_update();
        reporter.tell(&Report::Clients { count });
    }
}

/// Whether the other nodes reach this one.
pub(super) async fn node(reporter: Reporter, began: Instant, mut status: watch::Receiver<ListenerStatus>) {
    let mut was = false;
    loop {
        let now = status.borrow_and_update().clone();
        if let ListenerStatus::Broken(problem) = &now {
            tracing::warn!(problem, "the other nodes cannot reach this one");
        }
        let is = now == ListenerStatus::Reachable;
        if is && !was {
            reporter.tell(&Report::Reachable { what: What::Node, seconds: began.elapsed() });
        }
        was = is;
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Whether clients reach the service through this node, and what is wrong.
pub(super) async fn service(reporter: Reporter, began: Instant, mut status: watch::Receiver<ServiceStatus>) {
    let (mut was, mut problems) = (false, Vec::new());
    loop {
        let now = status.borrow_and_update().clone();
        if now.problems != problems {
            problems = now.problems.clone();
            if problems.is_empty() {
                tracing::info!("all is well with the shared address");
            } else {
                tracing::warn!(?problems, "something is wrong with the shared address");
            }
        }
        let is = is_served(&now);
        if is && !was {
            reporter.tell(&Report::Reachable { what: What::Service, seconds: began.elapsed() });
        }
        was = is;
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Clients find the service, and this node is reached: a member that dialled as they do says so. That a point has moved since, and
/// directories are told within a minute, changes nothing of it.
fn is_served(status: &ServiceStatus) -> bool {
    status.reachable && status.descriptors.iter().all(|descriptor| descriptor.published_by.is_some())
}

pub(super) async fn events(reporter: Reporter, members: Vec<Member>, mut events: broadcast::Receiver<ServiceEvent>) {
    let index = |address| members.iter().position(|member| member.address == address);
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events of the service went untold");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let report = match event {
            ServiceEvent::Died(address) => index(address).map(|member| Report::Dead { member }),
            ServiceEvent::Returned(address) => index(address).map(|member| Report::Alive { member }),
            ServiceEvent::TookOver { member, points, gave_up } => {
                index(member).map(|member| Report::Takeover { member, points, gave_up })
            }
            ServiceEvent::Published { period, listed, points, accepted, refused, failed } => {
                let mut listed: Vec<usize> = listed.into_iter().filter_map(index).collect();
                listed.sort_unstable();
                Some(Report::Published { period: period.number, listed, points, accepted, refused, failed })
            }
            ServiceEvent::Fetched { grants, .. } => Some(Report::Fetched { grants }),
            _ => None,
        };
        if let Some(report) = report {
            reporter.tell(&report);
        }
    }
}

/// Waits until all parts run.
pub(super) async fn ready(
    reporter: Reporter,
    began: Instant,
    mut server: watch::Receiver<bool>,
    mut node: watch::Receiver<ListenerStatus>,
    mut service: watch::Receiver<ServiceStatus>,
) {
    let run = server.wait_for(|ready| *ready).await.is_ok()
        && node.wait_for(|status| *status == ListenerStatus::Reachable).await.is_ok()
        && service.wait_for(is_served).await.is_ok();
    if run {
        reporter.tell(&Report::Ready { seconds: began.elapsed() });
    }
}

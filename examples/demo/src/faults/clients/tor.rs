//! C tor clients, as Debian has them.
//!
//! A process has one cache of descriptors. So who is to be fresh has a process to itself, and is asked whether it really holds
//! no descriptor; who has one cached shares a process with others, on circuits of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use hcp_core::testing::{PrivateTorNetwork, TorClientProcess, socks_connect_isolated};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::{AGAIN, Connect, IRC, Kind, Knowledge, Ticket, Wanted, before, greet, patiently};
use crate::Result;

/// Processes of C tor.
#[derive(Debug)]
pub(crate) struct TorClients {
    /// Each is used by one client at a time, which finds it without a descriptor.
    fresh: Vec<Arc<Mutex<TorClientProcess>>>,
    cached: Vec<Arc<TorClientProcess>>,
}

impl TorClients {
    /// Starts as many as `connects` in one case need.
    ///
    /// # Errors
    /// When one does not start.
    pub(crate) async fn start(tor: &PrivateTorNetwork, connects: usize) -> Result<Self> {
        // Fresh ones are half of the clients, and each process serves one before the tenth second and one after.
        let fresh = connects.div_ceil(4).max(1);
        let cached = connects.div_ceil(16).max(1);
        let mut all: Vec<_> = stream::iter(0..fresh + cached)
            .map(|_| async { Ok::<_, Box<dyn std::error::Error + Send + Sync>>(tor.start_client().await?) })
            .buffer_unordered(STARTS_AT_ONCE)
            .try_collect()
            .await?;
        let cached = all.split_off(fresh).into_iter().map(Arc::new).collect();
        Ok(Self { fresh: all.into_iter().map(|process| Arc::new(Mutex::new(process))).collect(), cached })
    }

    /// Makes sure that none of those that are to be fresh has the descriptor.
    pub(crate) async fn forget_all(&self, address: &str) -> Result<()> {
        let all = self.fresh.iter().map(|process| async { forget(&*process.lock().await, address).await });
        futures::future::try_join_all(all).await.map(drop)
    }

    /// Tries, again and again, until it is served or it is `until`; says when it was served.
    pub(crate) async fn until_served(&self, index: usize, address: &str, until: Instant) -> Option<Instant> {
        let process = self.fresh[index % self.fresh.len()].lock().await;
        let tries = async {
            while connect(&process, address).await.is_err() {
                sleep(AGAIN).await;
            }
        };
        timeout_at(until, tries).await.ok().map(|()| Instant::now())
    }

    pub(super) async fn tickets(&self, address: &str, wanted: Wanted) -> Result<Vec<Ticket>> {
        // What they hold is to be of now, as it is with the other kinds, and not of some earlier case, whose nodes are gone.
        let refreshed = self.cached.iter().map(|process| async {
            forget(process, address).await?;
            for _ in 0..REFRESHES {
                before("C tor", async || patiently(connect(process, address)).await).await?;
                if process.knows(address).await? {
                    return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(());
                }
                // The time period has just changed, and what it holds is of the one before.
                sleep(POLL).await;
            }
            Err("C tor has no descriptor of a service that it is connected with".into())
        });
        futures::future::try_join_all(refreshed).await?;
        self.forget_all(address).await?;
        let fresh = self.fresh.iter().cycle().take(wanted.fresh()).map(|process| {
            let (process, address) = (Arc::clone(process), address.to_owned());
            let connect: Connect = Box::new(move || {
                Box::pin(async move {
                    let process = process.lock().await;
                    let forgotten = forget(&process, &address).await;
                    let begun = Instant::now();
                    if let Err(error) = forgotten {
                        return (begun, Err(error));
                    }
                    let end = patiently(connect(&process, &address)).await;
                    // Now, so that it is done by the time it is this process's turn again.
                    let _ = process.forget().await;
                    (begun, end)
                })
            });
            Ticket { kind: Kind::Tor, knowledge: Knowledge::Fresh, connect }
        });
        let cached = self.cached.iter().cycle().take(wanted.cached()).map(|process| {
            let (process, address) = (Arc::clone(process), address.to_owned());
            let connect: Connect = Box::new(move || {
                Box::pin(async move {
                    let begun = Instant::now();
                    (begun, patiently(connect(&process, &address)).await)
                })
            });
            Ticket { kind: Kind::Tor, knowledge: Knowledge::Cached, connect }
        });
        Ok(fresh.chain(cached).collect())
    }
}

async fn connect(process: &TorClientProcess, address: &str) -> Result<()> {
    let isolation = format!("{:032x}", rand::random::<u128>());
    greet(socks_connect_isolated(process.socks_addr(), address, IRC, &isolation).await?).await
}

/// Waits until the process has no descriptor of the service.
async fn forget(process: &TorClientProcess, address: &str) -> Result<()> {
    let started = Instant::now();
    let mut told = None;
    while process.knows(address).await? {
        if started.elapsed() > FORGET {
            return Err("C tor does not forget a descriptor".into());
        }
        if told.is_none_or(|told: Instant| told.elapsed() > TOLD) {
            process.forget().await?;
            told = Some(Instant::now());
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Starting is mostly waiting, but not only.
const STARTS_AT_ONCE: usize = 4;

/// C tor forgets at most once in ten seconds.
const FORGET: Duration = Duration::from_secs(40);
const TOLD: Duration = Duration::from_secs(11);

/// Time periods change once in minutes.
const REFRESHES: usize = 3;
const POLL: Duration = Duration::from_millis(100);

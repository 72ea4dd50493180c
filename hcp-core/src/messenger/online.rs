//! The messenger's side of the network: its node, and the errands that the engine sends out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::engine::{Engine, Errand, Input, Inputs, Stopped};
use super::files::FILE_PROTOCOL;
use super::link;
use super::profile::Profile;
use super::transfer::TransferId;
use super::{GoOnlineError, moving};
use crate::identity::{Identity, OnionAddress};
use crate::network::{ListenerStatus, Network};
use crate::node::{Access, Node, Session, Stream};

/// The protocol of contacts and messages.
pub(super) const PROTOCOL: &str = "hcp/messenger/1";
/// When a silent session is probed: a mobile's radio is woken this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// When a silent session is given up; until then a contact that has vanished is shown as there.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Contacts that are dialled at once; each takes a circuit to be built.
const MAX_DIALS: usize = 8;

/// A messenger's share of a process: its engine, and its node while it is online.
pub(super) struct Handle {
    folder: PathBuf,
    identity: Identity,
    inputs: Inputs,
    online: Mutex<Option<Online>>,
    status: watch::Sender<ListenerStatus>,
    /// Being closed: nothing goes online any more.
    closing: watch::Sender<bool>,
}

/// While online; dropping it ends everything on the network.
struct Online {
    tasks: JoinSet<()>,
}

impl Handle {
    /// Starts to work on a profile.
    pub(super) fn start(profile: Profile) -> Arc<Self> {
        let (folder, identity) = (profile.folder.clone(), profile.identity.clone());
        let (status, closing) = (watch::Sender::new(ListenerStatus::Stopped), watch::Sender::new(false));
        Arc::new(Self { folder, identity, inputs: Inputs::start(profile), online: Mutex::new(None), status, closing })
    }

    pub(super) fn address(&self) -> OnionAddress {
        self.identity.address()
    }

    /// Where the profile is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn status(&self) -> watch::Receiver<ListenerStatus> {
        self.status.subscribe()
    }

    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.inputs.call(job).await
    }

    /// Waits until the profile is closed.
    pub(super) async fn stopped(&self) {
        self.inputs.stopped().await;
    }

    /// Waits until others can reach the node; `false` when the profile is closed before.
    pub(super) async fn reachable(&self) -> bool {
        let mut status = self.status();
        tokio::select! {
            reached = status.wait_for(|status| *status == ListenerStatus::Reachable) => reached.is_ok(),
            () = self.inputs.stopped() => false,
        }
    }

    pub(super) async fn go_online(self: &Arc<Self>, network: Arc<dyn Network>) -> Result<(), GoOnlineError> {
        // In a task of its own, since half of it must not be left when the caller gives up.
        let handle = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut closing = handle.closing.subscribe();
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Err(GoOnlineError::Closed),
                done = handle.begin(network) => done,
            }
        });
        task.await.unwrap_or(Err(GoOnlineError::Closed))
    }

    async fn begin(&self, network: Arc<dyn Network>) -> Result<(), GoOnlineError> {
        let mut online = self.online.lock().await;
        if online.is_some() {
            return Ok(());
        }
        let serve = self.inputs.clone();
        let messenger = move |stream: Stream, session: Session| {
            let inputs = serve.clone();
            async move {
                if let Some(peer) = session.peer().address() {
                    link::run(inputs, stream, session, peer, false).await;
                }
            }
        };
        let serve = self.inputs.clone();
        let files = move |stream: Stream, session: Session| moving::serve(serve.clone(), stream, session);
        let node = Node::builder(self.identity.clone(), network)
            .protocol(PROTOCOL, Access::Identified, messenger)
            .protocol(FILE_PROTOCOL, Access::Identified, files)
            .keepalive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
            .bind()
            .await?;
        let (errands, queue) = mpsc::unbounded_channel();
        let set = self.call(move |engine| engine.set_online(Some(errands))).await;
        set.map_err(|_| GoOnlineError::Closed)?.map_err(GoOnlineError::Store)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(node.status(), self.status.clone()));
        tasks.spawn(keep_time(self.inputs.clone()));
        tasks.spawn(run_errands(self.inputs.clone(), node, queue));
        *online = Some(Online { tasks });
        Ok(())
    }

    pub(super) async fn go_offline(self: &Arc<Self>) {
        let handle = Arc::clone(self);
        // As above; a task that is aborted with its runtime has nothing left to end.
        let _ = tokio::spawn(async move { handle.end().await }).await;
    }

    async fn end(&self) {
        let mut online = self.online.lock().await;
        if let Some(mut online) = online.take() {
            online.tasks.shutdown().await;
        }
        self.status.send_replace(ListenerStatus::Stopped);
        if let Ok(Err(error)) = self.call(|engine| engine.set_online(None)).await {
            tracing::error!(%error, "the profile's database failed while going offline");
        }
    }

    pub(super) async fn shutdown(self: &Arc<Self>) {
        self.closing.send_replace(true);
        let handle = Arc::clone(self);
        let _ = tokio::spawn(async move {
            handle.end().await;
            handle.inputs.stop().await;
        })
        .await;
    }
}

/// Shows the node's status as the messenger's.
async fn follow(mut node: watch::Receiver<ListenerStatus>, status: watch::Sender<ListenerStatus>) {
    loop {
        status.send_replace(node.borrow_and_update().clone());
        if node.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the engine when a deadline has passed.
async fn keep_time(inputs: Inputs) {
    let mut timeout = inputs.timeout();
    loop {
        let next = *timeout.borrow_and_update();
        let passed = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = timeout.changed() => if changed.is_err() { return },
            () = passed => {
                // The engine says the next deadline once it has seen to this one.
                if !inputs.send(Input::Timeout).await || timeout.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Runs the engine's errands until it lets go of the queue.
async fn run_errands(inputs: Inputs, node: Node, mut queue: mpsc::UnboundedReceiver<Errand>) {
    let mut tasks = JoinSet::new();
    let mut fetches: HashMap<TransferId, AbortHandle> = HashMap::new();
    let mut attempts: HashMap<OnionAddress, AbortHandle> = HashMap::new();
    // Those that have not come to a link yet.
    let mut dialling: HashMap<OnionAddress, Weak<()>> = HashMap::new();
    let dials = Arc::new(tokio::sync::Semaphore::new(MAX_DIALS));
    loop {
        let errand = tokio::select! {
            errand = queue.recv() => errand,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(errand) = errand else { return };
        match errand {
            Errand::Dial(address) => {
                attempts.retain(|_, attempt| !attempt.is_finished());
                dialling.retain(|_, attempt| attempt.strong_count() > 0);
                // Its result is that of this one, too: the engine may have forgotten it.
                if dialling.contains_key(&address) {
                    continue;
                }
                let under_way = Arc::new(());
                dialling.insert(address, Arc::downgrade(&under_way));
                let attempt = dial(inputs.clone(), node.clone(), address, Arc::clone(&dials), under_way);
                attempts.insert(address, tasks.spawn(attempt));
            }
            Errand::StopDial(address) => {
                dialling.remove(&address);
                if let Some(attempt) = attempts.remove(&address) {
                    attempt.abort();
                }
            }
            Errand::Fetch(id, session) => {
                fetches.retain(|_, fetch| !fetch.is_finished());
                fetches.insert(id, tasks.spawn(moving::fetch(inputs.clone(), id, node.clone(), session)));
            }
            Errand::Abort(id) => {
                if let Some(fetch) = fetches.remove(&id) {
                    fetch.abort();
                }
            }
        }
    }
}

async fn dial(
    inputs: Inputs,
    node: Node,
    address: OnionAddress,
    dials: Arc<tokio::sync::Semaphore>,
    under_way: Arc<()>,
) {
    let permit = dials.acquire_owned().await;
    let opened = match node.connect(address).await {
        Ok(session) => session.open(PROTOCOL).await.map(|stream| (session, stream)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    drop(permit);
    drop(under_way);
    match opened {
        Ok((session, stream)) => link::run(inputs, stream, session, address, true).await,
        Err(error) => {
            tracing::debug!(error, "a contact cannot be reached");
            inputs.send(Input::DialFailed(address)).await;
        }
    }
}

//! Files between the user's disk, the engine and a peer's stream.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::content::Outcome;
use super::engine::Inputs;
use super::files::{
    self, FILE_PROTOCOL, FetchEnd, Layout, Opened, PieceList, ServeEnd, Sink, SinkError, SourceError, Space,
};
use super::machine::Offer;
use super::store::TransferRow;
use super::text::FileName;
use super::transfer::{TransferError, TransferFailure, TransferId, TransferState};
use super::{Messenger, fault};
use crate::identity::OnionAddress;
use crate::node::{Node, OpenError, Session, Stream};
use crate::session::Priority;
use crate::store::StoreError;

/// When fetching is tried again after the other side ended it and is still there.
const RETRY: Duration = Duration::from_secs(5);
/// When a file is asked for once more that the other side has refused: until then its reason has come, if it has one, behind
/// what else it had to say.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);
/// How often a partial file that is still being written by what was ended before is tried again.
const BUSY_POLL: Duration = Duration::from_millis(100);

/// Offers a file.
pub(super) async fn offer(
    messenger: &Messenger,
    contact: OnionAddress,
    path: &Path,
) -> Result<TransferId, TransferError> {
    let path = std::path::absolute(path).map_err(io)?;
    let name = FileName::new(&path.file_name().unwrap_or_default().to_string_lossy())?;
    // Before a large file is read for nothing.
    messenger.read(move |machine| machine.may_offer(contact)).await?;
    let list = files::measure(path.clone()).await.map_err(|error| match error {
        SourceError::TooLarge { size } => TransferError::TooLarge { size },
        SourceError::Io(error) => io(error),
        error @ (SourceError::NotAFile | SourceError::Changed) => io(std::io::Error::other(error)),
    })?;
    let size = list.layout().size();
    let offer = Offer { name, size, root: list.root(), pieces: list.to_bytes(), path };
    messenger.change(move |machine, now| machine.offer_file(contact, &offer, now)).await
}

/// Accepts a file.
pub(super) async fn accept(messenger: &Messenger, id: TransferId, path: &Path) -> Result<(), TransferError> {
    let row = messenger.read(move |machine| machine.acceptable(id)).await?;
    let path = if path.is_dir() { path.join(&row.name) } else { path.to_owned() };
    let path = std::path::absolute(path).map_err(io)?;
    let layout = Layout::new(row.size).ok_or(TransferError::TooLarge { size: row.size })?;
    files::prepare(path.clone(), layout, Space::of_disk()).await.map_err(|error| match error {
        SinkError::Exists => TransferError::Exists,
        SinkError::NoSpace { needed, available } => TransferError::NoSpace { needed, available },
        SinkError::Io(error) => io(error),
        error => io(std::io::Error::other(error)),
    })?;
    let save_to = path.clone();
    let accepted = messenger.change(move |machine, _| machine.accept_file(id, &save_to)).await;
    if accepted.is_err() {
        // The partial file may be that of a transfer which runs.
        let discarded = messenger.call(move |engine| match engine.machine().store().is_saving_to(&path) {
            Ok(false) => files::discard(&path),
            _ => Ok(()),
        });
        if let Ok(Err(error)) = discarded.await {
            tracing::warn!(%error, "cannot delete an incomplete file");
        }
    }
    accepted
}

/// Fetches an accepted file over a session, until it is complete, cannot be, or the session ends.
pub(super) async fn fetch(inputs: Inputs, id: TransferId, node: Node, session: Session) {
    let mut refused = false;
    let outcome = loop {
        let pause = match attempt(&inputs, id, &node, &session).await {
            Attempt::Ended(outcome) => break Some(outcome),
            Attempt::Later(pause) => pause,
            Attempt::Refused if refused => break Some(Outcome::Failed(TransferFailure::SourceChanged)),
            Attempt::Refused => {
                refused = true;
                REFUSED_PAUSE
            }
            Attempt::NoMore => return,
        };
        tokio::select! {
            _ = session.closed() => break None,
            () = sleep(pause) => {}
        }
    };
    let ended = inputs.call(move |engine| {
        if outcome == Some(Outcome::Done) {
            fault::point("file complete, not noted");
        }
        engine.change(|machine, now| machine.fetch_ended(id, outcome, now))
    });
    report(ended.await);
}

/// What came of an attempt to fetch a file.
enum Attempt {
    Ended(Outcome),
    Later(Duration),
    /// The other side has no such file for us. It may have ended the transfer, which is on its way here then, or have lost
    /// its memory of it.
    Refused,
    /// It is not wanted any more, or the profile is closed.
    NoMore,
}

async fn attempt(inputs: &Inputs, id: TransferId, node: &Node, session: &Session) -> Attempt {
    let row = inputs.call(move |engine| engine.machine().store().transfer(id)).await;
    let Ok(Ok(Some(TransferRow { path: Some(path), size, root, done, state: TransferState::Running, .. }))) = row
    else {
        return Attempt::NoMore;
    };
    let Some(layout) = Layout::new(size) else {
        return Attempt::Ended(Outcome::Failed(TransferFailure::Mismatch));
    };
    let sink = match Sink::open(path, layout, root, done, Space::of_disk()).await {
        Ok(Opened::Done) => return Attempt::Ended(Outcome::Done),
        Ok(Opened::Ready(sink)) => sink,
        Err(SinkError::Busy) => return Attempt::Later(BUSY_POLL),
        Err(error) => return unwritable(&error),
    };
    let Some(stream) = open(node, session).await else { return Attempt::Later(RETRY) };
    let progress = |held| {
        let noted =
            inputs.call(move |engine| engine.change::<_, StoreError>(|machine, _| machine.transfer_progress(id, held)));
        async move { report(noted.await) }
    };
    match files::fetch(stream, id.0, sink, progress).await {
        FetchEnd::Complete => Attempt::Ended(Outcome::Done),
        FetchEnd::PeerGone => Attempt::Later(RETRY),
        FetchEnd::Damaged => Attempt::Later(Duration::ZERO),
        FetchEnd::SourceChanged => Attempt::Ended(Outcome::Failed(TransferFailure::SourceChanged)),
        FetchEnd::Refused => Attempt::Refused,
        FetchEnd::Mismatch(reason) => {
            tracing::warn!(reason, "a contact sends another file than it offered");
            Attempt::Ended(Outcome::Failed(TransferFailure::Mismatch))
        }
        FetchEnd::Disk(error) => unwritable(&error),
    }
}

/// Opens a stream for a file in a link's session, or in that which has replaced it while the link goes on.
async fn open(node: &Node, session: &Session) -> Option<Stream> {
    let opened = match (session.open_with(FILE_PROTOCOL, Priority::Bulk).await, session.peer().address()) {
        (Err(OpenError::Draining), Some(peer)) => match node.connect(peer).await {
            Ok(session) => session.open_with(FILE_PROTOCOL, Priority::Bulk).await,
            Err(error) => {
                tracing::debug!(%error, "cannot reach a contact for a file");
                return None;
            }
        },
        (opened, _) => opened,
    };
    opened.inspect_err(|error| tracing::debug!(%error, "cannot open a stream for a file")).ok()
}

fn unwritable(error: &SinkError) -> Attempt {
    tracing::warn!(%error, "an accepted file cannot be written");
    Attempt::Ended(Outcome::Failed(TransferFailure::Disk))
}

/// Serves a stream on which a peer asks for a file.
pub(super) async fn serve(inputs: Inputs, stream: Stream, session: Session) {
    let Some(peer) = session.peer().address() else { return };
    let asked = match files::asked(stream).await {
        Ok(asked) => asked,
        Err(end) => return tracing::debug!(%end, "a peer asked for no file"),
    };
    let id = TransferId(asked.transfer());
    // Each question is a transaction, whoever asks.
    inputs.paces().wait(peer, 1.0).await;
    let Ok(served) = inputs.call(move |engine| engine.serve(peer, id)).await else { return };
    let (served, ended) = match served {
        Ok(Some(served)) => served,
        Ok(None) => return asked.refuse().await,
        Err(error) => return tracing::error!(%error, "the profile's database failed"),
    };
    let list = Layout::new(served.size).and_then(|layout| PieceList::verify(layout, &served.root, &served.pieces));
    let Some(list) = list else { return asked.refuse().await };
    let progress = |held| {
        let noted =
            inputs.call(move |engine| engine.change::<_, StoreError>(|machine, _| machine.transfer_progress(id, held)));
        async move { report(noted.await) }
    };
    let end = tokio::select! {
        end = asked.serve(served.path, list, progress) => end,
        // Taken back, or asked for anew.
        _ = ended => return,
    };
    match end {
        ServeEnd::SourceChanged => {
            let ended = inputs.call(move |engine| engine.change(|machine, now| machine.source_changed(id, now)));
            report(ended.await);
        }
        end => tracing::debug!(%end, "serving a file has ended"),
    }
}

fn report<E>(result: Result<Result<(), StoreError>, E>) {
    if let Ok(Err(error)) = result {
        tracing::error!(%error, "the profile's database failed");
    }
}

fn io(error: std::io::Error) -> TransferError {
    TransferError::Io(Arc::new(error))
}

//! Whether the disk has room for what contacts write.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::messenger::files;
use crate::messenger::transfer::DISK_RESERVE;

/// How often the disk is asked for its room, in which time contacts can send some MiB of the reserve.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// Looked at now and then.
pub(super) struct Room {
    folder: PathBuf,
    /// When it was looked at last, and what was found.
    found: Option<(Instant, bool)>,
}

impl Room {
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder, found: None }
    }

    pub(super) fn there_is(&mut self, now: Instant) -> bool {
        if let Some((at, found)) = self.found
            && now.saturating_duration_since(at) < ROOM_EVERY
        {
            return found;
        }
        // Where that cannot be told, there is as much as there is.
        let found = files::free_space(&self.folder).map_or(true, |free| free >= DISK_RESERVE);
        if !found {
            tracing::warn!("the disk is nearly full: nothing more is received until there is room");
        }
        self.found = Some((now, found));
        found
    }
}

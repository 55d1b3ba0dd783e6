//! A copy that is being made. Whoever drops it before it is whole gives it up: its room is free again, and nothing is left.

use std::io;

use bytes::Bytes;

use super::{
    LocalRecovery,
    directory::{Staged, partial},
    plan::Purpose,
};

/// A copy that is being made.
pub(super) struct Copying {
    reserved: Reserved,
    /// Bytes of room that it has and does not fill yet.
    ahead: u64,
    purpose: Purpose,
    staged: Staged,
}

/// The room of a copy; free again when dropped, unless the copy is whole. What there is of it goes with the next removal:
/// whoever drops it must not wait for the disk.
struct Reserved {
    local: LocalRecovery,
    path: String,
    is_whole: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_whole {
            let mut state = self.local.state();
            state.copies.forget(&self.path);
            // It may get its name all the same, when a disk that took too long comes back.
            state.owed.extend([partial(&self.path), self.path.clone()]);
        }
    }
}

impl Copying {
    /// Begins a copy with room for so many bytes. `None` where there is no room, or the disk fails.
    pub(super) async fn begin(
        local: &LocalRecovery,
        path: &str,
        purpose: Purpose,
        ahead: u64,
    ) -> Option<Self> {
        let (directory, gone) = {
            let mut state = local.state();
            (state.directory.clone()?, state.copies.reserve(path, ahead, purpose)?)
        };
        let reserved = Reserved { local: local.clone(), path: path.to_owned(), is_whole: false };
        // With it goes what is owed: the removal of an older copy of this file would take the new one along.
        local.remove(gone).await;
        let name = path.to_owned();
        let staged = local.on_disk("begin a local copy", 0, move || directory.stage(&name)).await;
        match staged.and_then(|staged| reserved.told(staged)) {
            Some(staged) => Some(Self { reserved, ahead, purpose, staged }),
            None => reserved.give_up().await,
        }
    }

    /// Adds bytes. `None` if it had to be given up.
    pub(super) async fn write(self, bytes: Bytes) -> Option<Self> {
        let Self { reserved, ahead, purpose, mut staged } = self;
        let Reserved { local, path, .. } = &reserved;
        let len = bytes.len() as u64;
        if len > ahead {
            let Some(gone) = local.state().copies.reserve(path, len - ahead, purpose) else {
                return reserved.give_up().await;
            };
            local.remove(gone).await;
        }
        let write = move || staged.write(&bytes).map(|()| staged);
        let written = local.on_disk("write a local copy", len, write).await;
        match written.and_then(|written| reserved.told(written)) {
            Some(staged) => Some(Self { reserved, ahead: ahead.saturating_sub(len), purpose, staged }),
            None => reserved.give_up().await,
        }
    }

    /// Gives a copy that is whole its name. Says whether it is there now.
    pub(super) async fn publish(self) -> bool {
        let Self { mut reserved, staged, .. } = self;
        let published = reserved.local.on_disk("finish a local copy", 0, move || staged.publish()).await;
        if published.and_then(|published| reserved.told(published)).is_none() {
            return reserved.give_up::<()>().await.is_some();
        }
        reserved.is_whole = true;
        reserved.local.state().copies.written(&reserved.path);
        true
    }
}

impl Reserved {
    /// Its room on the disk is free again as soon as may be: others may need it.
    async fn give_up<T>(self) -> Option<T> {
        let local = self.local.clone();
        drop(self);
        local.remove_owed().await;
        None
    }

    /// What came of it; an error is told.
    fn told<T>(&self, result: io::Result<T>) -> Option<T> {
        result.map_err(|error| self.local.tell_failure(&self.local.place(&self.path), &error)).ok()
    }
}

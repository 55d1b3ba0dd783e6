//! Making a copy of a file that is only in the store, before a restore reads it.

use env::Store;
use types::SnapshotFile;

use super::{
    LocalRecovery, ReadBytes,
    checked::{Checked, Checking},
    copying::Copying,
    plan::Purpose,
};

/// How many bytes are asked for at a time.
const AT_ONCE: u64 = 4 << 20;

impl LocalRecovery {
    /// Reads a whole file from the store into a copy. `None` where there is no room, the disk fails, or the store does not
    /// give what the manifest names: then the store is read without a copy, and says itself what is wrong with it.
    pub(super) async fn fetch(
        &self,
        file: &SnapshotFile,
        store: &dyn Store,
        counts: &ReadBytes,
    ) -> Option<Checked> {
        let fetched = self.fetch_whole(file, store, counts).await;
        if fetched.is_none() {
            self.remove_owed().await;
        }
        fetched
    }

    async fn fetch_whole(
        &self,
        file: &SnapshotFile,
        store: &dyn Store,
        counts: &ReadBytes,
    ) -> Option<Checked> {
        // Room for all of it: a copy that would not fit is not begun.
        let mut copy = Copying::begin(self, &file.path, Purpose::Fetched, file.len).await?;
        let mut checking = Checking::default();
        let mut at = 0;
        while at < file.len {
            // One byte more than there should be, to notice a file that is too long.
            let end = (at + AT_ONCE).min(file.len + 1);
            let bytes = store.get_range(&file.path, at..end).await.ok()??;
            counts.add_store(bytes.len() as u64);
            at += bytes.len() as u64;
            if bytes.is_empty() || at > file.len {
                return None;
            }
            checking.add(&bytes);
            copy = copy.write(bytes).await?;
        }
        let checked = checking.finish(file, true).ok()?;
        copy.publish().await.then_some(checked)
    }
}

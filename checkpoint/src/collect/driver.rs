//! The collector of a running attempt: mark, delete, done. Marking and "done" are records and go through the history;
//! deleting in between may take long and needs no more than its permit, so that checkpoints go on meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use env::{Env, FaultPoint, Store, StoreEntry};
use types::{CheckpointId, Error, ErrorKind, RecordNumber, Result};

use super::plan::{self, Facts, Plan};
use crate::{
    history::{CompletedCheckpoint, DeletePermit, JobHistory, Kind, Records, Standing},
    manifest::{self, Manifest},
    storage::{paths, retry::Retry},
};

/// How each further file of a mark is tried once one could not be deleted: all may fail for the same reason, and each of
/// them is tried again after the next checkpoint.
const AFTER_A_FAILURE: Retry = Retry { deadline: Duration::from_secs(2), ..Retry::STORE };

/// What [`Collector::mark`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The right to delete what was marked, if anything was.
    pub permit: Option<DeletePermit>,
    /// No file of an older attempt is left that nothing refers to and that no mark lists.
    pub orphans_exhausted: bool,
}

/// What [`Collector::collect`] deleted: of what marks list, that which was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// By marks that were open before, with the numbers of their records.
    pub open: Vec<(RecordNumber, StoreEntry)>,
    /// By the new mark.
    pub marked: Vec<StoreEntry>,
    /// History records.
    pub records: Vec<StoreEntry>,
    /// No orphans are left.
    pub orphans_exhausted: bool,
}

/// Collects the garbage of one attempt.
pub struct Collector {
    env: Env,
    store: Arc<dyn Store>,
    retain: usize,
    /// The files of each held checkpoint; manifests never change, so each is read once.
    files: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// The milestone below which old records have been deleted.
    swept: Option<RecordNumber>,
}

impl Collector {
    /// A collector that retains the newest `retain` checkpoints (at least one).
    #[must_use]
    pub fn new(env: &Env, store: Arc<dyn Store>, retain: usize) -> Self {
        Self { env: env.clone(), store, retain, files: BTreeMap::new(), swept: None }
    }

    /// The files of each held checkpoint whose manifest could be read.
    pub(super) fn files(&self) -> &BTreeMap<CheckpointId, BTreeSet<String>> {
        &self.files
    }

    /// Takes note of a checkpoint's files, so that its manifest need not be read again.
    pub fn remember(&mut self, manifest_path: &str, manifest: &Manifest) {
        self.files.insert(manifest.checkpoint, files_of(manifest_path, manifest));
    }

    /// Marks what may be deleted now, if anything. `running` are checkpoints that are being copied or read; `orphans`
    /// also looks for files that died with older attempts, which lists the whole store: an attempt does so until they
    /// are exhausted.
    ///
    /// # Errors
    /// As [`JobHistory::append`]; `Retryable` or `Unavailable` if a manifest or the listing cannot be read.
    pub async fn mark(
        &mut self,
        history: &mut JobHistory,
        running: &BTreeSet<CheckpointId>,
        orphans: bool,
    ) -> Result<Marked> {
        let listing = if orphans { Some(self.list().await?) } else { None };
        self.mark_in(history, running, listing.as_deref()).await
    }

    async fn list(&self) -> Result<Vec<StoreEntry>> {
        Retry::STORE.run(&self.env, "list files", || self.store.list("")).await
    }

    async fn mark_in(
        &mut self,
        history: &mut JobHistory,
        running: &BTreeSet<CheckpointId>,
        listing: Option<&[StoreEntry]>,
    ) -> Result<Marked> {
        self.learn(history.standing()).await?;
        let (standing, files) = (history.standing(), &self.files);
        let facts = Facts { standing, retain: self.retain, files, running, listing };
        let Plan { mark, orphans_exhausted } = plan::plan(&facts);
        let permit = match mark {
            Some(mark) => history.append(Kind::GarbageMarked(mark)).await?.delete_permit(),
            None => None,
        };
        Ok(Marked { permit, orphans_exhausted })
    }

    /// Gives up all retained checkpoints of a job whose end as cancelled or failed this attempt has recorded, and what
    /// died with older attempts. A crash leaves all of them, or a mark that the next start goes on with.
    ///
    /// # Errors
    /// `Conflict` if the sinks have yet to commit one of them: nothing is given up. Otherwise as
    /// [`collect`](Self::collect).
    pub async fn give_up(&mut self, history: &mut JobHistory) -> Result<()> {
        if let Some(waiting) = history.standing().unconfirmed.first() {
            return Err(Error::conflict(format!("the sinks have not committed checkpoint {waiting}")));
        }
        self.learn(history.standing()).await?;
        if let Some(mark) = plan::everything(history.standing(), &self.files) {
            history.append(Kind::GarbageMarked(mark)).await?;
        }
        while !self.collect(history, &BTreeSet::new(), true).await?.orphans_exhausted {}
        Ok(())
    }

    /// Reads the manifests that are not known yet and forgets those that are not held any more.
    pub(super) async fn learn(&mut self, standing: &Standing) -> Result<()> {
        let held = standing.held();
        self.files.retain(|checkpoint, _| held.iter().any(|held| held.checkpoint == *checkpoint));
        for CompletedCheckpoint { checkpoint, manifest: file, .. } in held {
            if self.files.contains_key(checkpoint) {
                continue;
            }
            match manifest::read(&self.env, &*self.store, file).await {
                Ok(manifest) => self.remember(&file.path, &manifest),
                // The plan then deletes nothing that this checkpoint might refer to; a restore or `verify` reports it.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes what a mark lists. May be repeated, also by another attempt after a crash. Needs no collector, so that it
    /// can run beside the checkpoints that follow. A file that cannot be deleted keeps no other one.
    ///
    /// # Errors
    /// The first one, `Retryable` or `Unavailable`: some files may be left; delete again.
    pub async fn delete(env: &Env, store: &dyn Store, permit: &DeletePermit) -> Result<()> {
        let mut result = Ok(());
        for path in permit.files() {
            let retry = if result.is_ok() { Retry::STORE } else { AFTER_A_FAILURE };
            let deleted = delete_one(env, store, path, retry).await;
            result = result.and(deleted);
        }
        result
    }

    /// Records that the files of a mark are gone.
    ///
    /// # Errors
    /// As [`JobHistory::append`].
    pub async fn done(history: &mut JobHistory, permit: &DeletePermit) -> Result<()> {
        history.append(Kind::GarbageDone(permit.mark())).await.map(drop)
    }

    /// Deletes the history records that the last milestone up to `newest` has made superfluous, and returns them. May go
    /// on beside appends: what is below a milestone that exists is needed by nobody.
    ///
    /// # Errors
    /// `Retryable` or `Unavailable`: some may be left; sweep again, or with the next milestone.
    pub async fn sweep_records(records: &Records, newest: RecordNumber) -> Result<Vec<StoreEntry>> {
        let (env, store) = (records.env(), records.store());
        if records.milestones().at_or_below(newest).0 == 0 {
            return Ok(Vec::new());
        }
        let mut listing = Retry::STORE.run(env, "list the history", || store.list(paths::HISTORY)).await?;
        let old = plan::old_records(&listing, newest, records.milestones());
        for &number in &old {
            delete_one(env, &**store, &paths::record(number), Retry::STORE).await?;
        }
        let old: BTreeSet<_> = old.into_iter().collect();
        listing.retain(|entry| paths::record_number(&entry.path).is_some_and(|number| old.contains(&number)));
        Ok(listing)
    }

    /// All of it in one go, open marks of earlier attempts first: for an attempt that has just started, for tools, and
    /// for tests.
    ///
    /// # Errors
    /// As its parts.
    pub async fn collect(
        &mut self,
        history: &mut JobHistory,
        running: &BTreeSet<CheckpointId>,
        orphans: bool,
    ) -> Result<Collected> {
        let listing = self.list().await?;
        let open = history.open_garbage();
        let Marked { permit, orphans_exhausted } =
            self.mark_in(history, running, orphans.then_some(&*listing)).await?;
        for permit in open.iter().chain(&permit) {
            Self::delete(&self.env, &*self.store, permit).await?;
            Self::done(history, permit).await?;
        }
        let lens: BTreeMap<_, _> = listing.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let there = |permit: &DeletePermit| -> Vec<StoreEntry> {
            let files = permit.files().iter();
            files.filter_map(|path| lens.get(path.as_str()).copied().cloned()).collect()
        };
        let of_mark = |permit| there(permit).into_iter().map(move |entry| (permit.mark(), entry));
        let mut collected = Collected {
            open: open.iter().flat_map(of_mark).collect(),
            marked: permit.as_ref().map(there).unwrap_or_default(),
            records: Vec::new(),
            orphans_exhausted,
        };
        let newest = history.newest().number;
        let milestone = history.records().milestones().at_or_below(newest);
        if self.swept != Some(milestone) {
            collected.records = Self::sweep_records(history.records(), newest).await?;
            self.swept = Some(milestone);
        }
        Ok(collected)
    }
}

async fn delete_one(env: &Env, store: &dyn Store, path: &str, retry: Retry) -> Result<()> {
    env.fault(FaultPoint::DeleteBefore)?;
    retry.run(env, "delete a file", || store.delete(path)).await?;
    env.fault(FaultPoint::DeleteAfter)
}

fn files_of(manifest_path: &str, manifest: &Manifest) -> BTreeSet<String> {
    let files = manifest.files().into_iter().map(|file| file.path.clone());
    files.chain([manifest_path.to_owned()]).collect()
}

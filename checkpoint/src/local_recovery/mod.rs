//! Local recovery: copies of run files on a disk of this machine, so that a restart here reads them instead of the
//! checkpoint store. Which there are and which go is decided in [`plan`], pure; `directory` touches the disk, through the door
//! in `disk`, since it may hang; `checked` says whether a copy is what a manifest names; [`LocalStore`] is the checkpoint store
//! with the copies in front of it.
//!
//! A copy is only ever a shorter way to bytes that a manifest names. It is used where its length and digest are those of
//! the manifest, and every piece of it is compared again with what was digested when it is read; whatever goes wrong with
//! it, the store is read. So nothing here is synced, and no checkpoint depends on it.
//!
//! The directory of a job is held by a lock. What the last completed checkpoint and younger ones list stays in it, within
//! a bound; all else goes.

mod checked;
mod copying;
mod directory;
mod disk;
mod fetch;
pub mod plan;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use env::{Env, Store};
use types::{AttemptId, CheckpointId, JobId, SnapshotFile};

pub use self::store::{LocalStore, ReadBytes};
use self::{
    checked::{Checked, Flaw},
    directory::Directory,
    disk::Disk,
    plan::Copies,
};

/// The copies of a job on this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalRecovery(Arc<Shared>);

struct Shared {
    env: Env,
    job_name: String,
    root: PathBuf,
    limit: u64,
    disk: Disk,
    state: Mutex<State>,
    /// Held while what is owed is removed.
    removing: futures::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// `None` before the first attempt, and where there can be none.
    directory: Option<Arc<Directory>>,
    copies: Copies,
    /// What is known of each copy that was asked for. Whoever finds out holds the lock, so that it is found out once.
    known: BTreeMap<String, Arc<futures::lock::Mutex<Known>>>,
    job: Option<JobId>,
    /// Files that are to be removed and count no more: they go with the next removal, or when the disk hangs no longer.
    owed: BTreeSet<String>,
    /// What was told in this attempt: one line of each kind says it all.
    told_failure: bool,
    told_damage: bool,
}

/// What is known of the copy of a file.
#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    /// It is what the manifest names.
    Good(Arc<Checked>),
    /// There is none, and none is to be made.
    None,
}

/// What the disk says of a copy.
enum Found {
    Good(Checked),
    /// There is none any more, if there was one.
    None,
    /// Nothing.
    Silence,
}

impl std::fmt::Debug for LocalRecovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalRecovery({})", self.0.root.display())
    }
}

impl LocalRecovery {
    /// Copies of at most `limit` bytes in a directory of the job's below `root`. Touches nothing yet.
    #[must_use]
    pub fn new(env: &Env, job_name: &str, root: PathBuf, limit: u64) -> Self {
        let state = Mutex::new(State { copies: Copies::new(limit), ..State::default() });
        let disk = Disk::new(env);
        let (env, job_name, removing) = (env.clone(), job_name.to_owned(), futures::lock::Mutex::new(()));
        Self(Arc::new(Shared { env, job_name, root, limit, disk, state, removing }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt of the job begins with checkpoint `restored`, whose files of this process are `named`: all other copies
    /// go. Where the directory cannot be used, that is told, and it is tried again after each checkpoint.
    pub async fn begin<'a>(
        &self,
        job: JobId,
        attempt: AttemptId,
        restored: CheckpointId,
        named: impl Iterator<Item = &'a str>,
    ) {
        {
            let mut state = self.state();
            state.job = Some(job);
            (state.told_failure, state.told_damage) = (false, false);
        }
        if let Err(why) = self.open().await {
            self.tell_left_out(&why);
        }
        let gone = {
            let mut state = self.state();
            state.known.clear();
            state.copies.begin(attempt, restored, named)
        };
        self.remove(gone).await;
    }

    /// Opens the directory, if that has not been done yet; why it cannot be used, otherwise.
    async fn open(&self) -> Result<(), String> {
        let job = {
            let state = self.state();
            match state.job {
                Some(job) if state.directory.is_none() => job,
                _ => return Ok(()),
            }
        };
        let (files, root, limit) = (self.0.env.files(), self.0.root.clone(), self.0.limit);
        let holder = format!("pid {}, job {}", self.0.env.process_id(), self.0.job_name);
        let open = move || Directory::open(files, &root, job, &holder, limit);
        let opened = self.0.disk.call("open the directory of local recovery", 0, open).await;
        let opened = opened.map_err(|why| why.to_string())?.map_err(|error| error.to_string())?;
        let (directory, found) = opened.map_err(|holder| format!("its directory is in use by {holder}"))?;
        let mut state = self.state();
        state.directory = Some(Arc::new(directory));
        found.into_iter().for_each(|(path, len)| state.copies.found(path, len));
        Ok(())
    }

    /// A task has acknowledged `checkpoint`, which lists these files.
    pub fn listed<'a>(&self, checkpoint: CheckpointId, paths: impl Iterator<Item = &'a str>) {
        let mut state = self.state();
        paths.for_each(|path| state.copies.listed(checkpoint, path));
    }

    /// `checkpoint` is in the history: copies that neither it nor a younger one lists go.
    pub async fn completed(&self, checkpoint: CheckpointId) {
        // There may be room again, or the process that held the directory has ended. Why not was told.
        let _still = self.open().await;
        let gone = self.state().copies.completed(checkpoint);
        self.remove(gone).await;
    }

    /// The job has finished and is never restored: its directory goes.
    pub async fn clear(&self) {
        let directory = {
            let mut state = self.state();
            *state = State {
                copies: Copies::new(self.0.limit),
                directory: state.directory.take(),
                ..State::default()
            };
            state.directory.take()
        };
        let Some(directory) = directory else { return };
        // The next start of a job in this directory would do it as well.
        let _left =
            self.on_disk("remove the directory of local recovery", 0, move || directory.clear()).await;
    }

    /// Bytes of `file` from its copy; `None` where there is none that is what the manifest names. Where `store` is given, a copy that is missing is made of it first.
    async fn read(
        &self,
        file: &SnapshotFile,
        range: Range<u64>,
        store: Option<&dyn Store>,
        counts: &ReadBytes,
    ) -> Option<Bytes> {
        let checked = self.find(file, store, counts).await?;
        let directory = self.state().directory.clone()?;
        let (path, of) = (file.path.clone(), Arc::clone(&checked));
        let len = range.end.saturating_sub(range.start);
        let read = move || of.read(&*directory.open_copy(&path)?, range);
        match self.on_disk("read a local copy", len, read).await? {
            Ok(bytes) => {
                if !checked.is_fetched {
                    counts.add_local(bytes.len() as u64);
                }
                Some(bytes)
            }
            // It had to make room meanwhile.
            Err(Flaw::Missing) => None,
            Err(flaw) => {
                self.state().known.remove(&file.path);
                self.drop_damaged(file, &flaw.to_string()).await;
                None
            }
        }
    }

    async fn find(
        &self,
        file: &SnapshotFile,
        store: Option<&dyn Store>,
        counts: &ReadBytes,
    ) -> Option<Arc<Checked>> {
        let known = {
            let mut state = self.state();
            if store.is_none() && !state.copies.has(&file.path) {
                return None;
            }
            Arc::clone(state.known.entry(file.path.clone()).or_default())
        };
        let mut known = known.lock().await;
        if let Known::Nothing = *known {
            let found = match self.check(file).await {
                Found::Good(checked) => Some(checked),
                // There may be one: it is asked again.
                Found::Silence => return None,
                Found::None => match store {
                    Some(store) => self.fetch(file, store, counts).await,
                    None => None,
                },
            };
            *known = found.map_or(Known::None, |checked| Known::Good(Arc::new(checked)));
        }
        match &*known {
            Known::Good(checked) if checked.is_of(file) => Some(Arc::clone(checked)),
            _ => None,
        }
    }

    /// Reads the whole copy and compares it with what the manifest says.
    async fn check(&self, file: &SnapshotFile) -> Found {
        let directory = {
            let state = self.state();
            state.directory.clone().filter(|_| state.copies.has(&file.path))
        };
        let Some(directory) = directory else { return Found::None };
        let of = file.clone();
        let check = move || Checked::read_whole(&*directory.open_copy(&of.path)?, &of);
        match self.on_disk("check a local copy", file.len, check).await {
            None => Found::Silence,
            Some(Ok(checked)) => Found::Good(checked),
            Some(Err(Flaw::Missing)) => {
                self.state().copies.forget(&file.path);
                Found::None
            }
            Some(Err(flaw)) => {
                self.drop_damaged(file, &flaw.to_string()).await;
                Found::None
            }
        }
    }

    /// What `work` on the disk gives, which is about so many bytes. `None` where the disk takes too long, or has for another one
    /// and that has not come back.
    async fn on_disk<T: Send + 'static>(
        &self,
        what: &str,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let done = self.0.disk.call(what, bytes, work).await;
        if let Err(why) = done
            && !std::mem::replace(&mut self.state().told_failure, true)
        {
            self.tell_left_out(&format!("{why} (to {what})"));
        }
        done.ok()
    }

    /// Whether a new file is to be copied now.
    fn wants(&self, path: &str) -> bool {
        !self.0.disk.is_left_alone() && self.state().copies.wants(path)
    }

    async fn drop_damaged(&self, file: &SnapshotFile, why: &str) {
        let is_first = !std::mem::replace(&mut self.state().told_damage, true);
        let place = self.place(&file.path);
        if is_first {
            self.0.env.warn(&format!(
                "job {}: the local copy {} is not the file that the checkpoint names: {why}; it is dropped, others like it \
                 as well, and the checkpoint store is read: nothing is to be done",
                self.0.job_name,
                place.display()
            ));
        }
        self.state().copies.forget(&file.path);
        self.remove_files(vec![file.path.clone()]).await;
    }

    /// Where the copy of a file is, for messages.
    fn place(&self, path: &str) -> PathBuf {
        let directory = self.state().directory.clone();
        directory.map_or_else(|| self.0.root.clone(), |directory| directory.place(path))
    }

    /// Removes copies that the plan has given up.
    async fn remove(&self, paths: Vec<String>) {
        {
            let mut state = self.state();
            for path in &paths {
                state.known.remove(path);
            }
        }
        self.remove_files(paths).await;
    }

    /// Removes files, and what is owed of before.
    async fn remove_files(&self, paths: Vec<String>) {
        self.state().owed.extend(paths);
        self.remove_owed().await;
    }

    /// Removes what is owed, as far as the disk answers. What becomes owed meanwhile is not waited for.
    async fn remove_owed(&self) {
        let _alone = self.0.removing.lock().await;
        let (directory, owed) = {
            let state = self.state();
            match state.directory.clone() {
                Some(directory) if !state.owed.is_empty() => (directory, state.owed.clone()),
                _ => return,
            }
        };
        let paths = owed.clone();
        let remove = move || paths.iter().for_each(|path| directory.remove(path));
        if self.on_disk("remove local copies", 0, remove).await.is_some() {
            self.state().owed.retain(|path| !owed.contains(path));
        }
    }

    fn tell_left_out(&self, why: &str) {
        self.0.env.warn(&format!(
            "job {}: local recovery in {} is left out for now: {why}; nothing else depends on it: choose another place \
             with state.directory, or state.local-recovery = off",
            self.0.job_name,
            self.0.root.display()
        ));
    }

    fn tell_failure(&self, place: &Path, error: &io::Error) {
        if std::mem::replace(&mut self.state().told_failure, true) {
            return;
        }
        self.0.env.warn(&format!(
            "job {}: a copy for local recovery cannot be written to {}: {error}; the job and its checkpoints go on without: \
             free some space, choose another place with state.directory, or state.local-recovery = off",
            self.0.job_name,
            place.display()
        ));
    }
}

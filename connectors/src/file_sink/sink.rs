//! The exactly-once file sink: [`FileSink`], its writer on the task, and its committer.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io::Write,
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use engine::{
    api::sink::{CommitOutcome, Committer, Marker, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
    record::Batch,
};
use env::Env;
use types::{Error, Result};

use super::{
    naming::{self, PartName},
    output_dir::{OutputDir, PreparedFiles, failed},
    part::{Part, SealedParts},
};
use crate::place;

/// Writes records into files of a directory, exactly once.
///
/// Every subtask writes files of its own. A file is prepared in the hidden directory `.pending`, durable before its
/// checkpoint completes, and published as `part-LINEAGE-SUBTASK-ATTEMPT-CHECKPOINT-PLACE` by one rename afterwards:
/// whoever reads `part-*`, at any moment, sees committed records only, and a published file never changes. Names of one
/// subtask, compared number by number (`sort -V`), sort in the order in which the records were written. The files of one
/// checkpoint appear one after another, those of a subtask in the order of writing. A subtask that wrote nothing between
/// two checkpoints makes no file.
///
/// A directory belongs to one sink of one job; the file `.tidegate` says whose it is. Published files may be moved away
/// once their checkpoint is committed by all sinks of the job (`tidegate snapshots` says so); while they are there, a
/// start from a checkpoint older than they are is noticed.
///
/// **Guarantee:** exactly once, with checkpoints. The directory must be on one local file system that all subtasks see
/// and that renames atomically without replacing (ext4, XFS, Btrfs and tmpfs do).
pub struct FileSink<T, E = fn(&T, &mut Vec<u8>)> {
    dir: PathBuf,
    encode: E,
    roll_bytes: u64,
    roll_interval: Option<Duration>,
    /// Whether a sync of the directory has failed in this process.
    broken: Arc<AtomicBool>,
    records: PhantomData<fn(&T)>,
}

impl<T: Display> FileSink<T> {
    /// One line of text for each record.
    #[must_use]
    pub fn lines(dir: impl Into<PathBuf>) -> Self {
        Self::new(dir, |record, line| writeln!(line, "{record}").expect("writing into memory does not fail"))
    }
}

impl<T, E: Fn(&T, &mut Vec<u8>)> FileSink<T, E> {
    /// Records as `encode` appends them, line ends included.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, encode: E) -> Self {
        Self {
            dir: dir.into(),
            encode,
            roll_bytes: 128 << 20,
            roll_interval: None,
            broken: Arc::default(),
            records: PhantomData,
        }
    }

    /// Ends a file and begins the next one, between checkpoints too, once it holds `bytes` (128 MiB by default).
    #[must_use]
    pub fn roll_at(self, bytes: u64) -> Self {
        Self { roll_bytes: bytes, ..self }
    }

    /// Ends a file and begins the next one, between checkpoints too, at the first batch that comes `interval` or more
    /// after it was begun. Files always end at checkpoints.
    #[must_use]
    pub fn roll_after(self, interval: Duration) -> Self {
        Self { roll_interval: Some(interval), ..self }
    }
}

impl<T, E: Clone> Clone for FileSink<T, E> {
    fn clone(&self) -> Self {
        Self {
            dir: self.dir.clone(),
            encode: self.encode.clone(),
            broken: Arc::clone(&self.broken),
            records: PhantomData,
            ..*self
        }
    }
}

impl<T, E> TwoPhaseSink for FileSink<T, E>
where
    T: Send + 'static,
    E: Fn(&T, &mut Vec<u8>) + Clone + Send + Sync + 'static,
{
    type In = T;
    type Sealed = SealedParts;
    type Prepared = PreparedFiles;
    type Writer = FileWriter<T, E>;
    type Committer = FileCommitter;

    fn validate(&self) -> Result<()> {
        if self.dir.as_os_str().is_empty() {
            return Err(Error::invalid_job("the output directory has an empty name: give a path"));
        }
        if self.roll_bytes == 0 {
            return Err(Error::invalid_job(
                "files that roll at 0 bytes hold nothing: give roll_at 1 byte or more",
            ));
        }
        if self.roll_interval == Some(Duration::ZERO) {
            return Err(Error::invalid_job(
                "files that roll after no time hold nothing: give roll_after a time span",
            ));
        }
        Ok(())
    }

    async fn place(&self, env: &Env) -> Result<Option<String>> {
        let (files, dir) = (env.files(), self.dir.clone());
        let real = env.blocking("file sink place", move || place::real(&*files, &dir)).await?;
        let real = real.map_err(|error| failed("look for", &self.dir, error))?;
        Ok(Some(real.display().to_string()))
    }

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        let dir = Arc::new(OutputDir::new(&self.dir, context, &self.broken));
        let claimed = Arc::clone(&dir);
        let claimant = format!("{}-{}", context.attempt, context.subtask);
        context.env.blocking("file sink open", move || claimed.claim(&claimant)).await??;
        Ok(FileWriter {
            sink: self.clone(),
            context: context.clone(),
            dir,
            begun: 0,
            current: None,
            rolled: Vec::new(),
        })
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        let dir = Arc::new(OutputDir::new(&self.dir, context, &self.broken));
        Ok(FileCommitter { context: context.clone(), dir, prepared_here: BTreeSet::new() })
    }
}

/// Encodes records into files that nobody sees yet.
pub struct FileWriter<T, E> {
    sink: FileSink<T, E>,
    context: SinkContext,
    dir: Arc<OutputDir>,
    /// How many files this writer has begun; tells their names apart.
    begun: u64,
    current: Option<Part>,
    /// Earlier files of the open transaction.
    rolled: Vec<Part>,
}

impl<T, E: Fn(&T, &mut Vec<u8>)> FileWriter<T, E> {
    /// Encodes records until the batch is empty (`false`) or the buffer or the file is full (`true`).
    fn encode(&mut self, batch: &mut Batch<T>) -> bool {
        let Self { sink, context, dir, begun, current, .. } = self;
        let part = current.get_or_insert_with(|| {
            *begun += 1;
            let name = naming::open_name(context.lineage, context.attempt, context.subtask, *begun);
            Part::new(&context.env, dir, name)
        });
        let full = part.buffer_limit(sink.roll_bytes);
        while let Some(record) = batch.next() {
            (sink.encode)(&record.value, &mut part.buffer);
            if part.buffer.len() >= full {
                return true;
            }
        }
        false
    }

    /// Hands over a full buffer; ends the file if it is long or old enough.
    async fn tend(&mut self, buffer_full: bool) -> Result<()> {
        let Some(part) = &mut self.current else { return Ok(()) };
        let old = self
            .sink
            .roll_interval
            .is_some_and(|interval| part.len() > 0 && self.context.env.now().since(part.begun) >= interval);
        let ended = old || part.len() >= self.sink.roll_bytes;
        if ended || buffer_full {
            part.hand_over(ended).await?;
        }
        if ended {
            // One at a time: neither threads nor open files grow with the number of files.
            if let Some(before) = self.rolled.last_mut() {
                before.written().await?;
            }
            self.rolled.extend(self.current.take());
        }
        Ok(())
    }
}

impl<T, E> TwoPhaseWriter for FileWriter<T, E>
where
    T: Send + 'static,
    E: Fn(&T, &mut Vec<u8>) + Send + Sync + 'static,
{
    type In = T;
    type Sealed = SealedParts;

    async fn write(&mut self, mut batch: Batch<T>) -> Result<()> {
        while self.encode(&mut batch) {
            self.tend(true).await?;
        }
        self.tend(false).await
    }

    fn seal(&mut self, _id: &TransactionId) -> Result<Option<SealedParts>> {
        let mut parts = std::mem::take(&mut self.rolled);
        parts.extend(self.current.take().filter(|part| part.len() > 0));
        Ok(if parts.is_empty() { None } else { Some(SealedParts { parts }) })
    }
}

/// Prepares, publishes and removes the files of a sink; needs no writer.
pub struct FileCommitter {
    context: SinkContext,
    dir: Arc<OutputDir>,
    /// Transactions whose files this process wrote and has not tried to publish: their bytes are known to be good.
    prepared_here: BTreeSet<TransactionId>,
}

impl FileCommitter {
    /// Does `work` on the directory away from the tasks.
    async fn in_dir<R: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&OutputDir) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let dir = Arc::clone(&self.dir);
        self.context.env.blocking(name, move || work(&dir)).await?
    }
}

impl Committer for FileCommitter {
    type Sealed = SealedParts;
    type Prepared = PreparedFiles;

    async fn prepare(&mut self, id: &TransactionId, sealed: SealedParts) -> Result<PreparedFiles> {
        let mut parts = Vec::with_capacity(sealed.parts.len());
        for (place, part) in sealed.parts.into_iter().enumerate() {
            parts.push((PartName::new(id, place), part.finish_writing().await?));
        }
        let files = self.in_dir("file sink prepare", move |dir| {
            let prepared =
                parts.into_iter().map(|(name, part)| part.prepare(dir, &name)).collect::<Result<_>>()?;
            dir.sync_pending()?;
            Ok(prepared)
        });
        let prepared = PreparedFiles { files: files.await? };
        self.prepared_here.insert(id.clone());
        Ok(prepared)
    }

    async fn commit(&mut self, id: &TransactionId, prepared: &PreparedFiles) -> Result<CommitOutcome> {
        let known_good = self.prepared_here.remove(id);
        let (id, prepared) = (id.clone(), prepared.clone());
        self.in_dir("file sink commit", move |dir| dir.publish(&id, &prepared, known_good)).await
    }

    async fn revoke(&mut self, id: &TransactionId, prepared: &PreparedFiles) -> Result<bool> {
        self.prepared_here.remove(id);
        let (id, prepared) = (id.clone(), prepared.clone());
        self.in_dir("file sink revoke", move |dir| dir.withdraw(&id, &prepared)).await
    }

    async fn sweep(&mut self, keep: &[TransactionId]) -> Result<()> {
        let keep = keep.to_vec();
        let attempt = self.context.attempt;
        self.in_dir("file sink sweep", move |dir| {
            dir.claim(&format!("{attempt}-sweep"))?;
            dir.sweep(attempt, &keep)
        })
        .await
    }

    async fn finds(&mut self, id: &TransactionId, prepared: &PreparedFiles) -> Result<bool> {
        let (id, prepared) = (id.clone(), prepared.clone());
        self.in_dir("file sink find", move |dir| dir.holds(&id, &prepared)).await
    }

    async fn held(&mut self) -> Result<Vec<Marker>> {
        self.in_dir("file sink held", OutputDir::held).await
    }
}

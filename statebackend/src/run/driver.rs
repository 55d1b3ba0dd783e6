//! Merging runs of a store: reads windows as the [`Merger`] asks for them and runs it away from the tasks.
//!
//! [`merge`] writes neighbouring runs as one, [`copy_canonical`] writes all runs in the canonical form, [`scan`] shows the
//! entries that live. All three are this driver with another sink.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use env::{Env, FaultPoint, Store, StoreWriter};
use types::{Error, ExpiryClocks, KeyGroup, KeyGroupRange, Result, Run, RunIdentity};

use super::{
    block::{Home, RunCompression},
    canonical::{CanonicalWriter, StateSummary, Summarizer},
    entry::{Entry, decode},
    expire::Expiry,
    merge::{Merger, Sink, Step},
    reader::{RunReader, Window},
    schema::Schema,
    writer::{RunWriter, Written},
};
use crate::declare::StateSpec;

struct Driver {
    readers: Vec<RunReader>,
    /// The windows of each run that are not yet read.
    windows: Vec<std::vec::IntoIter<Range<usize>>>,
    merger: Merger,
    schema: Schema,
    feed: Option<(usize, Option<Window>)>,
}

impl Driver {
    async fn open(
        store: &dyn Store,
        runs: &[Run],
        includes_oldest: bool,
        clocks: &ExpiryClocks,
    ) -> Result<Self> {
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            readers.push(RunReader::open(store, run).await?);
        }
        let schema = Schema::union(runs.iter().zip(&readers).map(|(run, reader)| (run, &reader.schema)))?;
        let sources = runs.iter().zip(&readers);
        let sources = sources.map(|(run, reader)| (run.groups, reader.schema.places_in(&schema, run)));
        let merger = Merger::new(sources, includes_oldest, Expiry::new(&schema, clocks));
        let windows = runs.iter().zip(&readers).map(|(run, reader)| reader.windows(run.groups).into_iter());
        let windows = windows.collect();
        Ok(Self { readers, windows, merger, schema, feed: None })
    }

    /// Merges until the sink is full (`false`) or all is done (`true`).
    async fn step<S: Sink + Send + 'static>(
        self,
        env: &Env,
        store: &dyn Store,
        sink: S,
    ) -> Result<(Self, S, bool)> {
        let (mut driver, mut sink) = (self, sink);
        loop {
            let turn = env.blocking("merge", move || {
                if let Some((source, window)) = driver.feed.take() {
                    driver.merger.feed(source, window)?;
                }
                let step = driver.merger.run(&mut sink)?;
                Ok::<_, Error>((driver, sink, step))
            });
            let step;
            (driver, sink, step) = turn.await??;
            match step {
                Step::Feed(source) => {
                    let window = match driver.windows[source].next() {
                        Some(window) => Some(driver.readers[source].read(store, window).await?),
                        None => None,
                    };
                    driver.feed = Some((source, window));
                }
                Step::Full => return Ok((driver, sink, false)),
                Step::Done => return Ok((driver, sink, true)),
            }
        }
    }
}

/// The smallest range that holds the key groups of all runs.
fn hull(runs: &[Run]) -> KeyGroupRange {
    let ranges = runs.iter().map(|run| run.groups).filter(|groups| !groups.is_empty());
    ranges
        .reduce(|a, b| KeyGroupRange { start: a.start.min(b.start), end: a.end.max(b.end) })
        .unwrap_or(KeyGroupRange { start: 0, end: 0 })
}

/// A sink that writes a file.
trait FileSink: Sink + Sized + Send + 'static {
    type Summary;
    fn take_piece(&mut self) -> Option<Bytes>;
    fn finish(self) -> Result<(Bytes, Written, Self::Summary)>;
}

async fn write_all<S: FileSink>(
    env: &Env,
    from: &dyn Store,
    mut driver: Driver,
    mut sink: S,
    mut to: Box<dyn StoreWriter>,
) -> Result<(Written, S::Summary)> {
    let mut done = false;
    while !done {
        (driver, sink, done) = driver.step(env, from, sink).await?;
        while let Some(piece) = sink.take_piece() {
            to.write(piece).await?;
        }
    }
    let (last, written, summary) = sink.finish()?;
    to.write(last).await?;
    to.finish().await?;
    Ok((written, summary))
}

/// Merges neighbouring runs (oldest first) into one at `path`. Entries outside of a run's key groups are left out.
/// Tombstones are kept unless `includes_oldest` says that no older run exists. What has expired by `clocks` is left out: they
/// must not be ahead of those of a checkpoint that lists the new run.
///
/// # Errors
/// `Corrupt` for a damaged, missing or swapped file, `IncompatibleState` if two runs hold different states of one name.
/// Errors of the store as they are.
pub async fn merge(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    includes_oldest: bool,
    clocks: &ExpiryClocks,
    identity: RunIdentity,
    path: &str,
    compression: RunCompression,
) -> Result<Run> {
    let driver = Driver::open(store, runs, includes_oldest, clocks).await?;
    let sink = RunWriter::new(identity, hull(runs), driver.schema.clone(), compression)?;
    let (written, ()) = write_all(env, store, driver, sink, store.writer(path).await?).await?;
    env.fault(FaultPoint::MergeAfter)?;
    Ok(written.into_run(path))
}

/// Writes what lives in `runs` (all runs of one or more subtasks of an operator, oldest first) as one run in canonical
/// form at `path` of `to`: no tombstones, nothing that has expired by the `clocks` of their checkpoint, lists cut into chunks by
/// their elements alone. Counts and digests on the way.
///
/// # Errors
/// As [`merge`].
pub async fn copy_canonical(
    env: &Env,
    from: &dyn Store,
    runs: &[Run],
    clocks: &ExpiryClocks,
    to: &dyn Store,
    path: &str,
    identity: RunIdentity,
    compression: RunCompression,
) -> Result<(Run, StateSummary)> {
    let driver = Driver::open(from, runs, true, clocks).await?;
    let sink = CanonicalWriter::new(identity, hull(runs), driver.schema.clone(), compression)?;
    let (written, summary) = write_all(env, from, driver, sink, to.writer(path).await?).await?;
    Ok((written.into_run(path), summary))
}

/// Counts and digests what lives in `runs` (all runs of one or more subtasks of an operator, oldest first): what
/// [`copy_canonical`] would find, without writing anything.
///
/// # Errors
/// As [`merge`].
pub async fn summarize(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    clocks: &ExpiryClocks,
) -> Result<StateSummary> {
    let driver = Driver::open(store, runs, true, clocks).await?;
    let sink = Summarizer::new(&driver.schema);
    let (_, sink, _) = driver.step(env, store, sink).await?;
    Ok(sink.finish())
}

/// A live entry, as [`scan`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct LiveEntry<'a> {
    /// Its state.
    pub state: &'a StateSpec,
    /// Its key group.
    pub group: KeyGroup,
    /// Key, place below the key, and value. Never a tombstone.
    pub entry: Entry<'a>,
}

/// Calls `visit` with every entry that lives in `runs` (all runs, oldest first) and has not expired by the `clocks` of their
/// checkpoint, by state name, key group, key, and place below the key.
///
/// # Errors
/// As [`merge`], and the errors of `visit`.
pub async fn scan(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    clocks: &ExpiryClocks,
    mut visit: impl FnMut(LiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut scan = Scan::open(store, runs, clocks).await?;
    while let Some(batch) = scan.next(env, store).await? {
        batch.visit(&mut visit)?;
    }
    Ok(())
}

/// A [`scan`] that comes in batches, which can be worked on elsewhere.
pub(crate) struct Scan {
    /// `None` when all is merged.
    driver: Option<Driver>,
    specs: Arc<[Arc<StateSpec>]>,
}

impl Scan {
    pub(crate) async fn open(store: &dyn Store, runs: &[Run], clocks: &ExpiryClocks) -> Result<Self> {
        let driver = Driver::open(store, runs, true, clocks).await?;
        let specs = driver.schema.states.iter().map(|state| state.spec.clone()).collect();
        Ok(Self { driver: Some(driver), specs })
    }

    /// The next entries; `None` when there are no more.
    pub(crate) async fn next(&mut self, env: &Env, store: &dyn Store) -> Result<Option<LiveBatch>> {
        let Some(driver) = self.driver.take() else { return Ok(None) };
        let (driver, entries, done) = driver.step(env, store, Batch::default()).await?;
        self.driver = (!done).then_some(driver);
        Ok(Some(LiveBatch { specs: self.specs.clone(), entries }))
    }
}

/// Merged entries, in order.
pub(crate) struct LiveBatch {
    specs: Arc<[Arc<StateSpec>]>,
    entries: Batch,
}

impl LiveBatch {
    pub(crate) fn visit(&self, mut visit: impl FnMut(LiveEntry<'_>) -> Result<()>) -> Result<()> {
        for &(home, begin) in &self.entries.entries {
            let entry = decode(&self.entries.bytes[begin..]);
            visit(LiveEntry { state: &self.specs[usize::from(home.state)], group: home.group, entry })?;
        }
        Ok(())
    }
}

/// Entries on their way to a visitor.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    entries: Vec<(Home, usize)>,
}

/// The size of a batch in bytes.
const BATCH_LEN: usize = 1 << 20;

impl Sink for Batch {
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        self.entries.push((home, self.bytes.len()));
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_LEN
    }
}

impl Sink for RunWriter {
    #[inline]
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        RunWriter::push(self, home.state, home.group, bytes)
    }

    fn is_full(&self) -> bool {
        self.has_piece()
    }
}

impl FileSink for RunWriter {
    type Summary = ();

    fn take_piece(&mut self) -> Option<Bytes> {
        RunWriter::take_piece(self)
    }

    fn finish(self) -> Result<(Bytes, Written, ())> {
        let (last, written) = RunWriter::finish(self)?;
        Ok((last, written, ()))
    }
}

/// Never full: [`summarize`] merges in one step.
impl Sink for Summarizer {
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        Summarizer::push(self, home, &decode(bytes))
    }

    fn is_full(&self) -> bool {
        false
    }
}

impl Sink for CanonicalWriter {
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        CanonicalWriter::push(self, home, &decode(bytes), bytes)
    }

    fn is_full(&self) -> bool {
        self.writer.has_piece()
    }
}

impl FileSink for CanonicalWriter {
    type Summary = StateSummary;

    fn take_piece(&mut self) -> Option<Bytes> {
        self.writer.take_piece()
    }

    fn finish(self) -> Result<(Bytes, Written, StateSummary)> {
        CanonicalWriter::finish(self)
    }
}

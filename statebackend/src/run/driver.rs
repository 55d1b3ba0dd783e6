//! Merging runs of a store: reads windows as the [`Merger`] asks for them and runs it away from the tasks.
//!
//! [`merge`] writes neighbouring runs as one, [`copy_canonical`] writes all runs in the canonical form, [`summarize`] counts
//! what lives, [`Scan`](super::Scan) shows it, a restore loads it into a store. All are this driver with another sink.

use std::ops::Range;

use bytes::Bytes;
use env::{Env, FaultPoint, Store, StoreWriter};
use types::{Error, ExpiryClocks, KeyGroupRange, NOTHING_EXPIRED, Result, Run, RunIdentity};

use super::{
    block::{Home, RunCompression},
    canonical::{CanonicalWriter, StateSummary, Summarizer},
    entry::decode,
    expire::Expiry,
    merge::{Merger, Sink, Step},
    reader::{RunReader, Window},
    schema::Schema,
    select::Selection,
    writer::{RunWriter, Written},
};

/// Runs of an operator, oldest first, and until when its state has expired: by the checkpoint that lists them, or at a merge by the
/// task that has them.
#[derive(Clone, Copy, Debug)]
pub struct RunSet<'a> {
    /// The runs.
    pub runs: &'a [Run],
    /// Until when state has expired, by key group.
    pub clocks: &'a ExpiryClocks,
}

impl<'a> RunSet<'a> {
    /// These.
    #[must_use]
    pub fn new(runs: &'a [Run], clocks: &'a ExpiryClocks) -> Self {
        Self { runs, clocks }
    }

    /// These, of whose state nothing has expired.
    #[must_use]
    pub fn unexpired(runs: &'a [Run]) -> Self {
        Self { runs, clocks: &NOTHING_EXPIRED }
    }
}

/// A merge on its way.
pub(crate) struct Driver {
    readers: Vec<RunReader>,
    /// The windows of each run that are not yet read.
    windows: Vec<std::vec::IntoIter<Range<usize>>>,
    merger: Merger,
    schema: Schema,
    feed: Option<(usize, Option<Window>)>,
    /// Stored bytes of the windows that were read, and of all.
    progress: (u64, u64),
}

impl Driver {
    pub(crate) async fn open(store: &dyn Store, of: RunSet<'_>, includes_oldest: bool) -> Result<Self> {
        let RunSet { runs, clocks } = of;
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            readers.push(RunReader::open(store, run).await?);
        }
        let schema = Schema::union(runs.iter().zip(&readers).map(|(run, reader)| (run, &reader.schema)))?;
        let sources = runs.iter().zip(&readers);
        let sources = sources.map(|(run, reader)| (run.groups, reader.schema.places_in(&schema, run)));
        let merger = Merger::new(sources, includes_oldest, Expiry::new(&schema, clocks));
        let windows = runs.iter().zip(&readers).map(|(run, reader)| reader.windows(run.groups)).collect();
        Ok(Self::new(readers, windows, merger, schema))
    }

    /// What lives of `selection` by these clocks, and perhaps some entries of other keys in the same blocks. `runs` are all there are.
    pub(crate) async fn select(store: &dyn Store, of: RunSet<'_>, selection: &Selection) -> Result<Self> {
        let RunSet { runs, clocks } = of;
        let mut readers = Vec::new();
        let mut parts = Vec::new();
        for run in runs {
            if let Some(groups) = run.groups.intersect(selection.groups) {
                readers.push(RunReader::open(store, run).await?);
                parts.push((run, Selection { groups, ..selection.clone() }));
            }
        }
        let schema =
            Schema::union(parts.iter().map(|(run, _)| *run).zip(readers.iter().map(|it| &it.schema)))?;
        let (mut sources, mut windows) = (Vec::new(), Vec::new());
        for (reader, (run, part)) in readers.iter().zip(&parts) {
            let mut places = reader.schema.places_in(&schema, run);
            let names = reader.schema.states.iter().map(|state| &state.spec.name);
            for (place, name) in places.iter_mut().zip(names) {
                *place = place.filter(|_| *name == selection.state);
            }
            let wanted = places.iter().position(Option::is_some);
            windows.push(wanted.map_or_else(Vec::new, |state| {
                reader.windows_of(|number| part.may_be_in(state as u16, &reader.index, number))
            }));
            sources.push((part.groups, places));
        }
        let merger = Merger::new(sources, true, Expiry::new(&schema, clocks));
        Ok(Self::new(readers, windows, merger, schema))
    }

    fn new(readers: Vec<RunReader>, windows: Vec<Vec<Range<usize>>>, merger: Merger, schema: Schema) -> Self {
        let len = |(reader, windows): (&RunReader, &Vec<Range<usize>>)| {
            windows.iter().map(|window| reader.stored_len(window)).sum::<u64>()
        };
        let total = readers.iter().zip(&windows).map(len).sum();
        let windows = windows.into_iter().map(Vec::into_iter).collect();
        Self { readers, windows, merger, schema, feed: None, progress: (0, total) }
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Stored bytes that were read, and that will have been at the end.
    pub(crate) fn progress(&self) -> (u64, u64) {
        self.progress
    }

    /// Merges until the sink is full (`false`) or all is done (`true`).
    pub(crate) async fn step<S: Sink + Send + 'static>(
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
                        Some(window) => {
                            driver.progress.0 += driver.readers[source].stored_len(&window);
                            Some(driver.readers[source].read(store, window).await?)
                        }
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

/// Merges neighbouring runs into one at `path`. Entries outside of a run's key groups are left out.
/// Tombstones are kept unless `includes_oldest` says that no older run exists. What has expired is left out: the clocks
/// must not be ahead of those of a checkpoint that lists the new run.
///
/// # Errors
/// `Corrupt` for a damaged, missing or swapped file, `IncompatibleState` if two runs hold different states of one name.
/// Errors of the store as they are.
pub async fn merge(
    env: &Env,
    store: &dyn Store,
    of: RunSet<'_>,
    includes_oldest: bool,
    identity: RunIdentity,
    path: &str,
    compression: RunCompression,
) -> Result<Run> {
    env.fault(FaultPoint::MergeBefore)?;
    let driver = Driver::open(store, of, includes_oldest).await?;
    let sink = RunWriter::new(identity, hull(of.runs), driver.schema.clone(), compression)?;
    let (written, ()) = write_all(env, store, driver, sink, store.writer(path).await?).await?;
    env.fault(FaultPoint::MergeAfter)?;
    Ok(written.into_run(path))
}

/// Writes what lives in `runs` (all runs of one or more subtasks of an operator, oldest first) as one run in canonical
/// form at `path` of `to`: no tombstones, nothing that has expired, lists cut into chunks by
/// their elements alone. Counts and digests on the way.
///
/// # Errors
/// As [`merge`].
pub async fn copy_canonical(
    env: &Env,
    from: &dyn Store,
    of: RunSet<'_>,
    to: &dyn Store,
    path: &str,
    identity: RunIdentity,
    compression: RunCompression,
) -> Result<(Run, StateSummary)> {
    let driver = Driver::open(from, of, true).await?;
    let sink = CanonicalWriter::new(identity, hull(of.runs), driver.schema.clone(), compression)?;
    let (written, summary) = write_all(env, from, driver, sink, to.writer(path).await?).await?;
    Ok((written.into_run(path), summary))
}

/// Counts and digests what lives in `runs` (all runs of one or more subtasks of an operator, oldest first): what
/// [`copy_canonical`] would find, without writing anything.
///
/// # Errors
/// As [`merge`].
pub async fn summarize(env: &Env, store: &dyn Store, of: RunSet<'_>) -> Result<StateSummary> {
    let driver = Driver::open(store, of, true).await?;
    let sink = Summarizer::new(&driver.schema);
    let (_, sink, _) = driver.step(env, store, sink).await?;
    Ok(sink.finish())
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

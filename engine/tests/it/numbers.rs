//! A source of numbers in splits, for all tests here. Its pace, its size and its failures are the test's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use env::{Env, Monotonic, sim::Control};
use serde::{Deserialize, Serialize};
use tidegate_engine::api::source::{
    Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader,
};
use types::{Error, Result, Timestamp};

/// Finds the error that a source has instead of a number.
type Failure = dyn Fn(u64) -> Option<Error> + Send + Sync;

/// Emits `first + splits * i + split` for each split and each `i` below `each`, with the event time `10 * i` ms.
#[derive(Clone)]
pub(crate) struct Numbers {
    splits: u32,
    each: u64,
    first: u64,
    at_once: usize,
    pause: Duration,
    bounded: bool,
    find: Arc<dyn Fn() -> Result<()> + Send + Sync>,
    at: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    failure: Arc<Failure>,
    emitted: Arc<AtomicU64>,
    trace: Option<(&'static str, Control)>,
}

impl Numbers {
    /// `each` numbers in each of `splits` splits, as fast as they are taken.
    pub(crate) fn new(splits: u32, each: u64) -> Self {
        Self {
            splits,
            each,
            first: 0,
            at_once: usize::MAX,
            pause: Duration::ZERO,
            bounded: true,
            find: Arc::new(|| Ok(())),
            at: Arc::new(|| None),
            failure: Arc::new(|_| None),
            emitted: Arc::default(),
            trace: None,
        }
    }

    /// Numbers without end.
    pub(crate) fn endless(splits: u32) -> Self {
        Self { bounded: false, ..Self::new(splits, u64::MAX / 1_000_000) }
    }

    /// Numbers that are not there.
    pub(crate) fn missing() -> Self {
        Self::new(1, 0).found_by(|| Err(Error::bad_input("there are no numbers")))
    }

    /// Numbers that cannot be found for now.
    pub(crate) fn away() -> Self {
        Self::endless(2).found_by(|| Err(Error::retryable("the numbers are away")))
    }

    /// Asks `find` when it is to find its splits.
    pub(crate) fn found_by(mut self, find: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        self.find = Arc::new(find);
        self
    }

    /// Asks `at` where they are.
    pub(crate) fn placed_by(mut self, at: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.at = Arc::new(at);
        self
    }

    /// Begins with this number.
    pub(crate) fn from(mut self, first: u64) -> Self {
        self.first = first;
        self
    }

    /// At most `at_once` numbers of a split, then a pause.
    pub(crate) fn paced(mut self, at_once: usize, pause: Duration) -> Self {
        (self.at_once, self.pause) = (at_once, pause);
        self
    }

    /// Asks `failure` before each number.
    pub(crate) fn failing(mut self, failure: impl Fn(u64) -> Option<Error> + Send + Sync + 'static) -> Self {
        self.failure = Arc::new(failure);
        self
    }

    /// Notes each cut in the simulation's trace.
    pub(crate) fn traced(mut self, name: &'static str, sim: &Control) -> Self {
        self.trace = Some((name, sim.clone()));
        self
    }

    /// How many numbers were emitted so far, in all attempts.
    pub(crate) fn emitted(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.emitted)
    }

    /// All numbers with their event times.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Timestamp)> {
        let (splits, first) = (u64::from(self.splits), self.first);
        (0..self.each).flat_map(move |i| (0..splits).map(move |at| (first + splits * i + at, time(i))))
    }
}

fn time(index: u64) -> Timestamp {
    Timestamp(i64::try_from(index * 10).unwrap())
}

/// Where one split stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NumberSplit {
    split: u32,
    next: u64,
}

impl Split for NumberSplit {
    fn id(&self) -> String {
        format!("{:04}", self.split)
    }

    fn place(&self) -> String {
        format!("split {}, number {}", self.split, self.next)
    }
}

impl Source for Numbers {
    type Out = u64;
    type Split = NumberSplit;
    type Reader = NumberReader;

    fn boundedness(&self) -> Boundedness {
        if self.bounded { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    async fn place(&self, _env: &Env) -> Result<Option<String>> {
        Ok((self.at)())
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<NumberSplit>> {
        (self.find)()?;
        Ok((0..self.splits).map(|split| NumberSplit { split, next: 0 }).collect())
    }

    async fn open(&self, split: NumberSplit, context: &SourceContext) -> Result<NumberReader> {
        Ok(NumberReader { source: self.clone(), split, env: context.env.clone(), ready: None })
    }
}

pub(crate) struct NumberReader {
    source: Numbers,
    split: NumberSplit,
    env: Env,
    /// When the pause ends; it outlives a dropped `read`.
    ready: Option<Monotonic>,
}

impl SplitReader for NumberReader {
    type Out = u64;
    type Split = NumberSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        let Numbers { splits, each, first, at_once, pause, failure, emitted, .. } = &self.source;
        if !pause.is_zero() {
            let now = self.env.now();
            self.env.sleep(self.ready.get_or_insert(now + *pause).since(now)).await;
            self.ready = None;
        }
        for _ in 0..out.room().min(*at_once) {
            let index = self.split.next;
            if index == *each {
                return Ok(ReadStatus::End);
            }
            let number = first + u64::from(*splits) * index + u64::from(self.split.split);
            if let Some(error) = failure(number) {
                return Err(error);
            }
            out.emit_at(number, time(index));
            self.split.next += 1;
            emitted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> NumberSplit {
        if let Some((name, sim)) = &self.source.trace {
            sim.trace(format_args!("source {name} is cut, its position noted"));
        }
        self.split.clone()
    }
}

//! A sink that throws records away, counts them, and notes how long each batch came after the one before it: a task that
//! stands still for a checkpoint shows as a gap.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    record::Batch,
};
use env::{Env, Monotonic};
use types::Result;

use crate::figures::millis;

/// The width of a bucket.
const BUCKET: Duration = Duration::from_micros(20);
/// Longer gaps are in the last bucket: 1 s.
const BUCKETS: usize = 50_000;

/// How many gaps of each length there were, and how many records came, over all writers.
#[derive(Clone, Debug)]
pub struct Gaps(Arc<Mutex<Seen>>);

#[derive(Debug)]
struct Seen {
    buckets: Vec<u32>,
    records: u64,
    /// How many records do not count, when that many had come, and when the last one came.
    before: u64,
    began: Option<(u64, Monotonic)>,
    last: Option<Monotonic>,
}

impl Default for Gaps {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Gaps {
    /// Nothing yet; so many records at the beginning do not count.
    #[must_use]
    pub fn after(before: u64) -> Self {
        let buckets = vec![0; BUCKETS];
        Self(Arc::new(Mutex::new(Seen { buckets, records: 0, before, began: None, last: None })))
    }

    /// Records that count and the seconds that they took, if some do not count.
    #[must_use]
    pub fn counted(&self) -> Option<(u64, f64)> {
        let seen = self.lock();
        let ((records, began), last) = (seen.began?, seen.last?);
        (seen.before > 0).then(|| (seen.records - records, last.since(began).as_secs_f64()))
    }

    fn note(&self, records: usize, now: Monotonic, gap: Option<Duration>) {
        let mut seen = self.lock();
        seen.records += records as u64;
        seen.last = Some(now);
        if seen.began.is_none() && seen.records >= seen.before {
            seen.began = Some((seen.records, now));
        }
        if let Some(gap) = gap {
            let bucket = (gap.as_nanos() / BUCKET.as_nanos()) as usize;
            seen.buckets[bucket.min(BUCKETS - 1)] += 1;
        }
    }

    /// Records that the sink has taken.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.lock().records
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gap, in ms, that this part of the gaps does not exceed.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let buckets = &self.lock().buckets;
        let all: u64 = buckets.iter().map(|&count| u64::from(count)).sum();
        let mut seen = 0;
        let bucket = buckets.iter().position(|&count| {
            seen += u64::from(count);
            seen as f64 >= all as f64 * part
        });
        bucket.map_or(0.0, |bucket| millis(BUCKET) * (bucket + 1) as f64)
    }
}

/// Throws records away.
pub struct GapSink<T> {
    gaps: Gaps,
    records: PhantomData<fn(T)>,
}

impl<T> GapSink<T> {
    /// A sink that notes its gaps in `gaps`.
    #[must_use]
    pub fn new(gaps: Gaps) -> Self {
        Self { gaps, records: PhantomData }
    }
}

impl<T> Clone for GapSink<T> {
    fn clone(&self) -> Self {
        Self::new(self.gaps.clone())
    }
}

impl<T: Send + 'static> Sink for GapSink<T> {
    type In = T;
    type Writer = GapWriter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<GapWriter<T>> {
        let (gaps, env) = (self.gaps.clone(), context.env.clone());
        Ok(GapWriter { gaps, env, last: None, records: PhantomData })
    }
}

/// Throws the records of one subtask away.
pub struct GapWriter<T> {
    gaps: Gaps,
    env: Env,
    last: Option<Monotonic>,
    records: PhantomData<fn(T)>,
}

impl<T: Send + 'static> PlainWriter for GapWriter<T> {
    type In = T;

    async fn write(&mut self, batch: Batch<T>) -> Result<()> {
        let now = self.env.now();
        let gap = self.last.replace(now).map(|last| now.since(last));
        self.gaps.note(batch.len(), now, gap);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

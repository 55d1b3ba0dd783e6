//! How the records of an edge are spread over the downstream subtasks. An [`Exchange`] stands in the graph; its
//! `output` is the sending end that one upstream task drives. What differs between the kinds is a [`Router`]; the
//! collecting of partial batches is the same for all.

use std::{collections::VecDeque, marker::PhantomData, sync::Arc};

use statebackend::KeyRef;
use types::{Error, Result, Timestamp};

use super::operator::OutBatch;
use crate::{
    api::{
        data::Data,
        erased::{AnyOutput, Exchange, ExchangeContext},
    },
    record::{AnyBatch, Batch, BatchBuilder},
};

/// Says where the records of a batch go, by putting them there.
trait Router<T>: Send {
    /// Takes all records. Where this fails, the record that is to blame is the last one taken.
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()>;

    /// The target of whole batches, where records need not be looked at one by one.
    fn whole(&self) -> Option<usize> {
        None
    }
}

/// The partial batches of all targets, and those that are ready.
struct Targets<T> {
    partial: Vec<BatchBuilder<T>>,
    ready: VecDeque<(usize, OutBatch)>,
    batch_records: usize,
    batch_bytes: usize,
    /// What each record of the batch at hand is known to hold on the heap.
    bytes_each: usize,
}

impl<T: Send + 'static> Targets<T> {
    fn new(context: &ExchangeContext) -> Self {
        Self {
            partial: (0..context.targets).map(|_| BatchBuilder::default()).collect(),
            ready: VecDeque::new(),
            batch_records: context.batch_records,
            batch_bytes: context.batch_bytes,
            bytes_each: 0,
        }
    }

    #[inline]
    fn add(&mut self, target: usize, value: T, time: Option<Timestamp>) {
        self.partial[target].push(value, time);
        self.added(target);
    }

    #[inline]
    fn add_keyed(&mut self, target: usize, value: T, time: Option<Timestamp>, key: KeyRef<'_>) {
        self.partial[target].push_keyed(value, time, key);
        self.added(target);
    }

    #[inline]
    fn added(&mut self, target: usize) {
        let partial = &mut self.partial[target];
        partial.add_bytes(self.bytes_each);
        if partial.len() >= self.batch_records || partial.weight() >= self.batch_bytes {
            self.seal(target);
        }
    }

    fn seal(&mut self, target: usize) {
        if !self.partial[target].is_empty() {
            let batch = self.partial[target].take();
            self.ready.push_back((target, OutBatch::new(batch)));
        }
    }
}

/// The sending end of an edge.
struct Output<T, R> {
    router: R,
    targets: Targets<T>,
}

impl<T: Send + 'static, R: Router<T>> Output<T, R> {
    fn push_typed(&mut self, batch: &mut Batch<T>) -> Result<()> {
        self.targets.bytes_each = batch.noted_bytes_each();
        if let Some(target) = self.router.whole()
            && self.is_worth_passing_whole(target, batch)
        {
            self.targets.ready.push_back((target, OutBatch::new(std::mem::take(batch))));
            return Ok(());
        }
        self.router.route(batch, &mut self.targets)
    }

    /// Small batches are better collected, and nothing may overtake a partial batch.
    fn is_worth_passing_whole(&self, target: usize, batch: &Batch<T>) -> bool {
        let len = batch.len();
        self.targets.partial[target].is_empty()
            && len * 2 >= self.targets.batch_records
            && len <= self.targets.batch_records
    }
}

impl<T: Data, R: Router<T>> AnyOutput for Output<T, R> {
    fn push(&mut self, batch: &mut dyn AnyBatch) -> Result<()> {
        self.push_typed(batch.typed())
    }

    fn push_clone(&mut self, batch: &mut dyn AnyBatch) -> Result<()> {
        let batch = batch.typed::<T>();
        let copy = batch.clone();
        // The original is taken from, so that after a panic it says how far this came.
        self.push_typed(batch)?;
        *batch = copy;
        Ok(())
    }

    fn flush(&mut self) {
        for target in 0..self.targets.partial.len() {
            self.targets.seal(target);
        }
    }

    fn take_ready(&mut self) -> Option<(usize, OutBatch)> {
        self.targets.ready.pop_front()
    }

    fn has_partial(&self) -> bool {
        self.targets.partial.iter().any(|partial| !partial.is_empty())
    }
}

/// An exchange whose sending end is made from the context alone.
struct Exchanged<T, F> {
    make: F,
    types: PhantomData<fn() -> T>,
}

impl<T, R, F> Exchange for Exchanged<T, F>
where
    T: Data,
    R: Router<T> + 'static,
    F: Fn(&ExchangeContext) -> R + Send + Sync,
{
    fn output(&self, context: &ExchangeContext) -> Box<dyn AnyOutput> {
        Box::new(Output { router: (self.make)(context), targets: Targets::new(context) })
    }
}

fn exchange<T, R, F>(make: F) -> Arc<dyn Exchange>
where
    T: Data,
    R: Router<T> + 'static,
    F: Fn(&ExchangeContext) -> R + Send + Sync + 'static,
{
    Arc::new(Exchanged { make, types: PhantomData::<fn() -> T> })
}

/// Forward, rebalance and rescale: round robin over the targets, which is everything to the one target of a forward
/// edge. Subtasks begin at different targets, so that short streams spread too.
pub(crate) fn round_robin<T: Data>() -> Arc<dyn Exchange> {
    exchange::<T, _, _>(|context| RoundRobin {
        next: context.upstream.subtask.0 as usize % context.targets,
        targets: context.targets,
    })
}

struct RoundRobin {
    next: usize,
    targets: usize,
}

impl<T: Data> Router<T> for RoundRobin {
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            targets.add(self.next, record.value, record.time);
            self.next = if self.next + 1 == self.targets { 0 } else { self.next + 1 };
        }
        Ok(())
    }

    fn whole(&self) -> Option<usize> {
        (self.targets == 1).then_some(0)
    }
}

/// At random, each subtask with its own seeded generator.
pub(crate) fn shuffle<T: Data>() -> Arc<dyn Exchange> {
    exchange::<T, _, _>(|context| {
        let upstream = &context.upstream;
        let seed = upstream.env.seed(&format!("shuffle {} {}", upstream.operator, upstream.subtask));
        let (first, _) = seed.split_first_chunk().expect("a seed has 32 bytes");
        Shuffle { state: u64::from_le_bytes(*first), targets: context.targets as u64 }
    })
}

/// SplitMix64: spreading records asks for nothing better.
struct Shuffle {
    state: u64,
    targets: u64,
}

impl Shuffle {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl<T: Data> Router<T> for Shuffle {
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            let target = (u128::from(self.next()) * u128::from(self.targets)) >> 64;
            targets.add(target as usize, record.value, record.time);
        }
        Ok(())
    }
}

/// Every record to every target.
pub(crate) fn broadcast<T: Data>() -> Arc<dyn Exchange> {
    exchange::<T, _, _>(|_| Broadcast)
}

struct Broadcast;

impl<T: Data> Router<T> for Broadcast {
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            let last = targets.partial.len() - 1;
            for target in 0..last {
                targets.add(target, record.value.clone(), record.time);
            }
            targets.add(last, record.value, record.time);
        }
        Ok(())
    }
}

/// Every record to target 0.
pub(crate) fn global<T: Data>() -> Arc<dyn Exchange> {
    exchange::<T, _, _>(|_| Global)
}

struct Global;

impl<T: Data> Router<T> for Global {
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            targets.add(0, record.value, record.time);
        }
        Ok(())
    }

    fn whole(&self) -> Option<usize> {
        Some(0)
    }
}

/// By the user's function over a record and the number of targets.
pub(crate) fn custom<T, F>(partitioner: F) -> Arc<dyn Exchange>
where
    T: Data,
    F: Fn(&T, usize) -> usize + Send + Sync + 'static,
{
    let partitioner = Arc::new(partitioner);
    exchange::<T, _, _>(move |_| Custom { partitioner: Arc::clone(&partitioner) })
}

struct Custom<F> {
    partitioner: Arc<F>,
}

impl<T: Data, F: Fn(&T, usize) -> usize + Send + Sync> Router<T> for Custom<F> {
    fn route(&mut self, batch: &mut Batch<T>, targets: &mut Targets<T>) -> Result<()> {
        while let Some(record) = batch.next() {
            let count = targets.partial.len();
            let target = (self.partitioner)(&record.value, count);
            if target >= count {
                return Err(Error::user(format!(
                    "the partitioner chose subtask {target} of {count}: it must return a number below its second argument"
                )));
            }
            targets.add(target, record.value, record.time);
        }
        Ok(())
    }
}

mod hash;
#[cfg(test)]
mod tests;

pub(crate) use hash::{encode_borrowed, encode_owned, hash};

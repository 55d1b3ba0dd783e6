//! [`GeneratorSource`] and its reader.

use std::marker::PhantomData;

use engine::api::{
    pace::Pace,
    source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, SplitReader},
};
use types::{Error, Result};

use super::random::Random;
use crate::range::RangeSplit;

/// How many splits there are by default: enough for most machines, few enough to cost nothing.
const SPLITS: u32 = 8;
/// Makes records from the numbers 0, 1, 2, ...
///
/// With [`count`](Self::count) the source is bounded, and at parallelism 1 its records come in the order of their
/// numbers; without, it goes on for ever. **Guarantee:** exactly once, if the function always makes the same record of
/// the same number.
pub struct GeneratorSource<T, F> {
    make: F,
    count: Option<u64>,
    per_second: Option<f64>,
    splits: u32,
    records: PhantomData<fn() -> T>,
}

impl<T, F: Fn(u64) -> T> GeneratorSource<T, F> {
    /// Records made by `make` from their numbers.
    #[must_use]
    pub fn new(make: F) -> Self {
        Self { make, count: None, per_second: None, splits: SPLITS, records: PhantomData }
    }

    /// Ends after `records`. Keep it when a job goes on from a checkpoint: a lower number is refused there, a greater one
    /// counts from the next fresh start.
    #[must_use]
    pub fn count(self, records: u64) -> Self {
        Self { count: Some(records), ..self }
    }

    /// Emits at most `records` per second, all subtasks together.
    #[must_use]
    pub fn rate(self, records: impl Into<f64>) -> Self {
        Self { per_second: Some(records.into()), ..self }
    }

    /// Divides the numbers into `splits` parts (8 by default): the greatest parallelism of use. Keep it when a job goes
    /// on from a checkpoint; a new number counts from the next fresh start.
    #[must_use]
    pub fn splits(self, splits: u32) -> Self {
        Self { splits, ..self }
    }

    /// How much of the whole rate one reader has.
    fn share(&self, parallelism: u32) -> u32 {
        match self.boundedness_of() {
            // A subtask reads its splits one after another...
            Boundedness::Bounded => self.splits.min(parallelism).max(1),
            // ...or all of them at once.
            Boundedness::Unbounded => self.splits,
        }
    }

    /// Whether a split, perhaps of a checkpoint, is one of a generator with this count.
    fn check_count(&self, split: &RangeSplit) -> Result<()> {
        let (had, has) = match (split.is_endless(), self.count) {
            (true, Some(count)) if count < u64::MAX => ("no end".to_owned(), format!("ends after {count}")),
            (false, None) => (format!("its end at {} or later", split.end), "has no end".to_owned()),
            (false, Some(count)) if split.end > count => {
                (format!("its end at {} or later", split.end), format!("ends after {count}"))
            }
            _ => return Ok(()),
        };
        Err(Error::bad_input(format!(
            "the generator {has} and had {had} when the job first read it: go on with the same count, or start afresh"
        )))
    }

    fn boundedness_of(&self) -> Boundedness {
        if self.count.is_some() { Boundedness::Bounded } else { Boundedness::Unbounded }
    }
}

/// A [`GeneratorSource`] whose records are made from their numbers and from random numbers that follow from `seed` and
/// the record's number alone.
#[must_use]
pub fn random<T, G>(seed: u64, make: G) -> GeneratorSource<T, impl Fn(u64) -> T + Clone>
where
    G: Fn(u64, &mut Random) -> T + Clone,
{
    GeneratorSource::new(move |number| make(number, &mut Random::of(seed, number)))
}

impl<T, F: Clone> Clone for GeneratorSource<T, F> {
    fn clone(&self) -> Self {
        Self { make: self.make.clone(), records: PhantomData, ..*self }
    }
}

impl<T, F> Source for GeneratorSource<T, F>
where
    T: Send + 'static,
    F: Fn(u64) -> T + Clone + Send + Sync + 'static,
{
    type Out = T;
    type Split = RangeSplit;
    type Reader = GeneratorReader<T, F>;

    fn boundedness(&self) -> Boundedness {
        self.boundedness_of()
    }

    fn validate(&self) -> Result<()> {
        if self.splits == 0 {
            return Err(Error::invalid_job(
                "a generator without splits makes nothing: give splits 1 or more",
            ));
        }
        match self.per_second {
            Some(rate) if !(rate > 0.0 && rate.is_finite()) => Err(Error::invalid_job(format!(
                "a rate of {rate} records per second makes nothing: give a number above 0, or leave it out"
            ))),
            _ => Ok(()),
        }
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<RangeSplit>> {
        Ok(match self.count {
            Some(count) => RangeSplit::runs(count, self.splits),
            None => RangeSplit::dealt_out(self.splits),
        })
    }

    async fn open(&self, split: RangeSplit, context: &SourceContext) -> Result<Self::Reader> {
        split.check()?;
        self.check_count(&split)?;
        let per_second = self.per_second.map(|rate| rate / f64::from(self.share(context.parallelism)));
        let pace = per_second.map(|per_second| Pace::new(&context.env, per_second));
        Ok(GeneratorReader { make: self.make.clone(), split, pace, records: PhantomData })
    }
}

/// Makes the records of one split.
pub struct GeneratorReader<T, F> {
    make: F,
    split: RangeSplit,
    pace: Option<Pace>,
    records: PhantomData<fn() -> T>,
}

impl<T, F> SplitReader for GeneratorReader<T, F>
where
    T: Send + 'static,
    F: Fn(u64) -> T + Send + Sync + 'static,
{
    type Out = T;
    type Split = RangeSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, T>) -> Result<ReadStatus> {
        let left = self.split.left();
        if left == 0 {
            return Ok(ReadStatus::End);
        }
        let mut records = left.min(out.room() as u64);
        if let Some(pace) = &mut self.pace {
            records = records.min(pace.due().await);
            pace.emitted(records);
        }
        let RangeSplit { next, step, .. } = self.split;
        // In local variables, so that the loop is nothing but the function and the push.
        let mut number = next;
        for _ in 0..records {
            out.emit((self.make)(number));
            number = number.saturating_add(step);
        }
        self.split.next = number;
        Ok(ReadStatus::More)
    }

    fn position(&self) -> RangeSplit {
        self.split.clone()
    }
}

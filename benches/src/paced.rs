//! A source that gives every key once, as fast as it can, and then keys at random at a steady rate, for ever: a large
//! state of which a small part changes.

use engine::api::{
    pace::Pace,
    source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
};
use serde::{Deserialize, Serialize};
use types::Result;

use crate::mix;

/// See the file's first lines.
#[derive(Clone, Copy, Debug)]
pub struct LoadThenPace {
    /// How many keys there are.
    pub keys: u64,
    /// Records per second after all keys were given once, over all splits.
    pub rate: u64,
    /// How many splits there are: the parallelism.
    pub splits: u32,
}

/// The numbers `next, next + step, ...`: below the number of keys they are the keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Numbers {
    index: u32,
    next: u64,
    step: u64,
}

impl Numbers {
    /// All numbers, dealt out to so many splits.
    #[must_use]
    pub fn dealt(splits: u32) -> Vec<Self> {
        let step = u64::from(splits);
        (0..splits).map(|index| Self { index, next: index.into(), step }).collect()
    }

    /// How many are left below `limit`.
    #[must_use]
    pub fn before(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.next).div_ceil(self.step)
    }

    /// The next one.
    pub fn take(&mut self) -> u64 {
        let next = self.next;
        self.next += self.step;
        next
    }
}

impl Split for Numbers {
    fn id(&self) -> String {
        self.index.to_string()
    }
}

/// Reads one split.
pub struct PacedReader {
    keys: u64,
    numbers: Numbers,
    /// Of the steady part.
    pace: Pace,
}

impl Source for LoadThenPace {
    type Out = u64;
    type Split = Numbers;
    type Reader = PacedReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<Numbers>> {
        Ok(Numbers::dealt(self.splits))
    }

    async fn open(&self, numbers: Numbers, context: &SourceContext) -> Result<PacedReader> {
        let pace = Pace::new(&context.env, self.rate as f64 / f64::from(self.splits));
        Ok(PacedReader { keys: self.keys, numbers, pace })
    }
}

impl SplitReader for PacedReader {
    type Out = u64;
    type Split = Numbers;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        let keys = self.keys;
        let mut records = out.room() as u64;
        if self.numbers.next >= keys {
            records = records.min(self.pace.due().await);
            self.pace.emitted(records);
        }
        for _ in 0..records {
            let number = self.numbers.take();
            out.emit(if number < keys { number } else { mix(number) % keys });
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> Numbers {
        self.numbers.clone()
    }
}

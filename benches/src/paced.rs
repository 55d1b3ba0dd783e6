//! A source that gives every key once, as fast as it can, and then keys at random at a steady rate, for ever: a large
//! state of which a small part changes.

use std::time::Duration;

use engine::api::source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader};
use env::{Env, Monotonic};
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

impl Split for Numbers {
    fn id(&self) -> String {
        self.index.to_string()
    }
}

/// Reads one split.
pub struct PacedReader {
    source: LoadThenPace,
    numbers: Numbers,
    env: Env,
    /// When the steady part began, and the number at which it did.
    began: Option<(Monotonic, u64)>,
}

impl Source for LoadThenPace {
    type Out = u64;
    type Split = Numbers;
    type Reader = PacedReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<Numbers>> {
        let step = u64::from(self.splits);
        Ok((0..self.splits).map(|index| Numbers { index, next: index.into(), step }).collect())
    }

    async fn open(&self, numbers: Numbers, context: &SourceContext) -> Result<PacedReader> {
        Ok(PacedReader { source: *self, numbers, env: context.env.clone(), began: None })
    }
}

impl SplitReader for PacedReader {
    type Out = u64;
    type Split = Numbers;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        let LoadThenPace { keys, rate, splits } = self.source;
        let mut records = out.room() as u64;
        if self.numbers.next >= keys {
            let (began, first) = *self.began.get_or_insert((self.env.now(), self.numbers.next));
            let mut due = 0;
            while due == 0 {
                let allowed = self.env.now().since(began).as_secs_f64() * rate as f64 / f64::from(splits);
                due = (allowed as u64).saturating_sub((self.numbers.next - first) / self.numbers.step);
                if due == 0 {
                    self.env.sleep(Duration::from_millis(1)).await;
                }
            }
            records = records.min(due);
        }
        for _ in 0..records {
            let number = self.numbers.next;
            out.emit(if number < keys { number } else { mix(number) % keys });
            self.numbers.next += self.numbers.step;
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> Numbers {
        self.numbers.clone()
    }
}

//! A source that gives every key once, as fast as it can, and then keys at random in rounds, each when it is told to: a
//! large state of which a known part changes between two checkpoints.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use engine::api::source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, SplitReader};
use env::Env;
use types::Result;

use crate::{mix, paced::Numbers};

/// How often a reader that has nothing to read looks whether it may go on.
const LOOK: Duration = Duration::from_millis(1);

/// See the file's first lines. Clones are the same source.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// How many keys there are.
    keys: u64,
    /// How many splits there are: the parallelism.
    splits: u32,
    /// How many records may be given in all.
    allowed: Arc<AtomicU64>,
}

impl Rounds {
    /// Gives each of so many keys once, and then waits.
    #[must_use]
    pub fn new(keys: u64, splits: u32) -> Self {
        Self { keys, splits, allowed: Arc::new(AtomicU64::new(keys)) }
    }

    /// Lets it give so many keys more, at random. Returns how many records that makes since the beginning.
    pub fn go_on(&self, records: u64) -> u64 {
        self.allowed.fetch_add(records, Ordering::Relaxed) + records
    }
}

/// Reads one split.
pub struct RoundsReader {
    env: Env,
    numbers: Numbers,
    rounds: Rounds,
}

impl Source for Rounds {
    type Out = u64;
    type Split = Numbers;
    type Reader = RoundsReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<Numbers>> {
        Ok(Numbers::dealt(self.splits))
    }

    async fn open(&self, numbers: Numbers, context: &SourceContext) -> Result<RoundsReader> {
        Ok(RoundsReader { env: context.env.clone(), numbers, rounds: self.clone() })
    }
}

impl SplitReader for RoundsReader {
    type Out = u64;
    type Split = Numbers;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        let left = || self.numbers.before(self.rounds.allowed.load(Ordering::Relaxed));
        let mut records = left();
        while records == 0 {
            self.env.sleep(LOOK).await;
            records = left();
        }
        let keys = self.rounds.keys;
        for _ in 0..records.min(out.room() as u64) {
            let number = self.numbers.take();
            out.emit(if number < keys { number } else { mix(number) % keys });
        }
        Ok(ReadStatus::More)
    }

    fn position(&self) -> Numbers {
        self.numbers.clone()
    }
}

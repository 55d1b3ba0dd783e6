//! A job that counts numbers by key, and what its output must look like whenever it was stopped.

use std::time::Duration;

use tidegate_engine::prelude::*;

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, with_settings},
};

pub(crate) const KEYS: u64 = 5;

/// The job: each number becomes the running count of its key.
pub(crate) fn counting(source: &Numbers, settings: &[(&str, &str)], ledger: &Ledger<Row>) -> Job {
    let job = with_settings(Job::new("subject"), settings).unwrap();
    job.source("numbers", source.clone())
        .key_by(|number| number % KEYS)
        .count("count")
        .map(|(key, count)| Row(Kind::Count, key, count))
        .sink("out", ledger.clone());
    job
}

/// About 600 numbers a second.
pub(crate) fn endless() -> Numbers {
    Numbers::endless(2).paced(3, Duration::from_millis(10))
}

/// Whether each key's committed counts are 1..=n, each once, with this many in all at the least.
#[track_caller]
pub(crate) fn assert_gapless(ledger: &Ledger<Row>, least: usize) {
    let committed = ledger.committed();
    assert!(committed.len() >= least, "{} of {least}", committed.len());
    for key in 0..KEYS {
        let of_key = committed.iter().filter(|(row, _)| row.1 == key);
        let expected = of_key.clone().zip(1..).map(|(_, count)| (Row(Kind::Count, key, count), 1));
        assert!(of_key.map(|(row, times)| (*row, *times)).eq(expected), "key {key}");
    }
    assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
}

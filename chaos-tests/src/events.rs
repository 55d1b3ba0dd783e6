//! What the job with every kind of state reads: events made from their numbers alone, so that a source can go on anywhere
//! and an oracle needs no file. Few keys come often and many rarely; event times are all different, and out of order by a
//! little.

use serde::{Deserialize, Serialize};

use crate::Seeded;

/// Different keys.
const KEYS: u64 = 3_000;
/// By so many steps an event may be ahead of its number.
const DISORDER: u64 = 16;
/// Milliseconds of one step. Event times are even, so that an odd time is nobody's.
const STEP: i64 = 2 * DISORDER as i64;
/// Event time that passes before the last event.
const LAST_GAP: i64 = 20_000;

/// State expires so many milliseconds after it was written: soon, so that most of it expires before it is read again.
pub const SHORT: u64 = 2_000;
/// So that some of it expires.
pub const MIDDLE: u64 = 30_000;
/// So that all that was written lately lives at the end.
pub const LONG: u64 = 120_000;
/// A key that has been quiet for so many milliseconds raises an alarm. Odd.
pub const QUIET: i64 = 5_001;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// From 0 on.
    pub number: u64,
    /// Whose it is.
    pub key: u32,
    /// Its event time in milliseconds, which no other event has.
    pub time: i64,
    /// What it says.
    pub amount: u64,
    /// Whether it is the last one.
    pub is_last: bool,
}

impl Event {
    /// Event `number` of `total`.
    #[must_use]
    pub fn of(number: u64, total: u64) -> Self {
        let mut seeded = Seeded::new(number);
        let choice = seeded.within(0..10_000);
        let key = choice * choice * choice * KEYS / 1_000_000_000_000;
        let (ahead, is_last) = (seeded.within(0..DISORDER), number + 1 == total);
        // Equal sums of number and step differ in the number's rest.
        let time = STEP * (number + ahead) as i64 + 2 * (number % DISORDER) as i64;
        let gap = if is_last { STEP * DISORDER as i64 + LAST_GAP } else { 0 };
        Self { number, key: key as u32, time: time + gap, amount: seeded.within(0..1_000), is_last }
    }

    /// What no later event is before: known of some events, and of the last one.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        if self.is_last {
            return Some(self.time);
        }
        let knows = self.number % DISORDER == DISORDER - 1;
        knows.then(|| STEP * (self.number as i64 + 1) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn event_times_differ_and_watermarks_hold() {
        const TOTAL: u64 = 20_000;
        let (mut times, mut watermark, mut late) = (BTreeSet::new(), i64::MIN, 0);
        let mut before = i64::MIN;
        for event in (0..TOTAL).map(|number| Event::of(number, TOTAL)) {
            assert!(event.time > watermark && event.time % 2 == 0, "{event:?} comes after {watermark}");
            assert!(times.insert(event.time), "{event:?} has another's time");
            late += u64::from(event.time < before);
            before = event.time;
            watermark = watermark.max(event.watermark().unwrap_or(i64::MIN));
        }
        assert_eq!(times.last(), Some(&watermark), "the last event closes all");
        assert!(late > TOTAL / 10, "only {late} are out of order");
    }
}

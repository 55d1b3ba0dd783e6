//! Finding the newest record: a pure stepper over "does record k exist?". Used by every reader and by an attempt that
//! starts.
//!
//! Milestones are never deleted, so their existence is monotone and can be searched; above the last milestone nothing is
//! deleted until the next one exists. The answer counts only if the next milestone still does not exist after the
//! search: otherwise records may have gone meanwhile and the search goes on from there.

use types::RecordNumber;

/// Which records are milestones: the multiples of a number that is fixed for the life of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Milestones {
    every: u64,
}

impl Default for Milestones {
    fn default() -> Self {
        Self { every: 1000 }
    }
}

impl Milestones {
    /// Other milestones than those of real histories, so that tests need not write thousands of records.
    ///
    /// # Panics
    /// If `every` is 0.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn every(every: u64) -> Self {
        assert!(every > 0, "milestones need a distance");
        Self { every }
    }

    /// The milestone at or below a record.
    #[must_use]
    pub fn at_or_below(self, number: RecordNumber) -> RecordNumber {
        RecordNumber(number.0 - number.0 % self.every)
    }

    /// The next milestone above a record.
    #[must_use]
    pub fn above(self, number: RecordNumber) -> RecordNumber {
        RecordNumber(self.at_or_below(number).0.saturating_add(self.every))
    }

    /// Whether a record is one.
    #[must_use]
    pub fn contain(self, number: RecordNumber) -> bool {
        number.0.is_multiple_of(self.every)
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TailStep {
    /// Find out whether this record exists.
    Probe(RecordNumber),
    /// The newest record, `None` if there is none at all.
    Found(Option<RecordNumber>),
}

/// A search for the newest record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TailSearch {
    milestones: Milestones,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Whether there is a first record, or the hint's milestone: where to search from.
    First {
        from: RecordNumber,
        hint: RecordNumber,
    },
    /// Search the last milestone; positions count milestones.
    Milestones {
        search: Bisection,
        hint: RecordNumber,
    },
    /// Search the last record above the last milestone.
    Records(Bisection),
    /// Look again for the next milestone.
    Recheck {
        tail: RecordNumber,
    },
    Done(Option<RecordNumber>),
}

impl TailSearch {
    /// A search that begins near `hint`, a record that existed once.
    #[must_use]
    pub fn new(milestones: Milestones, hint: Option<RecordNumber>) -> Self {
        let hint = hint.unwrap_or_default();
        Self { milestones, phase: Phase::First { from: milestones.at_or_below(hint), hint } }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> TailStep {
        match &self.phase {
            Phase::First { from, .. } => TailStep::Probe(*from),
            Phase::Milestones { search, .. } => {
                TailStep::Probe(RecordNumber(search.probe().saturating_mul(self.milestones.every)))
            }
            Phase::Records(search) => TailStep::Probe(RecordNumber(search.probe())),
            Phase::Recheck { tail } => TailStep::Probe(self.milestones.above(*tail)),
            Phase::Done(found) => TailStep::Found(*found),
        }
    }

    /// Takes the answer to the last [`TailStep::Probe`].
    pub fn answer(&mut self, exists: bool) {
        let milestones = self.milestones;
        self.phase = match &mut self.phase {
            // A hint whose milestone does not exist is wrong: search from the beginning.
            Phase::First { from, .. } if !exists && from.0 > 0 => {
                Phase::First { from: RecordNumber(0), hint: RecordNumber(0) }
            }
            Phase::First { .. } if !exists => Phase::Done(None),
            Phase::First { from, hint } => {
                Phase::Milestones { search: Bisection::above(from.0 / milestones.every), hint: *hint }
            }
            Phase::Milestones { search, hint } => match search.answer(exists) {
                None => return,
                Some(last) => {
                    let last = RecordNumber(last.saturating_mul(milestones.every));
                    Phase::Records(Bisection::between(last, milestones.above(last), *hint))
                }
            },
            Phase::Records(search) => match search.answer(exists) {
                None => return,
                Some(tail) => Phase::Recheck { tail: RecordNumber(tail) },
            },
            Phase::Recheck { tail } if exists => {
                let next = milestones.above(*tail);
                Phase::Milestones { search: Bisection::above(next.0 / milestones.every), hint: next }
            }
            Phase::Recheck { tail } => Phase::Done(Some(*tail)),
            Phase::Done(_) => return,
        };
        // Milestones may lie side by side, with nothing between them to search.
        if let Phase::Records(search) = &self.phase
            && let Some(tail) = search.found()
        {
            self.phase = Phase::Recheck { tail: RecordNumber(tail) };
        }
    }
}

/// The last of the positions that exist, given that one at or below every existing one exists: gallop, then halve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bisection {
    exists: u64,
    missing: Option<u64>,
    stride: u64,
    first: Option<u64>,
}

impl Bisection {
    fn above(exists: u64) -> Self {
        Self { exists, missing: None, stride: 1, first: None }
    }

    /// Between two records, beginning at `hint` if it lies between them.
    fn between(exists: RecordNumber, missing: RecordNumber, hint: RecordNumber) -> Self {
        let first = (exists < hint && hint < missing).then_some(hint.0);
        Self { missing: Some(missing.0), first, ..Self::above(exists.0) }
    }

    fn found(&self) -> Option<u64> {
        (self.missing == Some(self.exists + 1)).then_some(self.exists)
    }

    fn probe(&self) -> u64 {
        let gallop = self.exists.saturating_add(self.stride);
        match (self.first, self.missing) {
            (Some(first), _) => first,
            (None, Some(missing)) => {
                gallop.min(self.exists + (missing - self.exists) / 2).max(self.exists + 1)
            }
            (None, None) => gallop,
        }
    }

    /// Takes the answer for [`probe`](Self::probe); returns the last one that exists when it is known.
    fn answer(&mut self, exists: bool) -> Option<u64> {
        let probed = self.probe();
        let galloped = self.first.take().is_none();
        if exists {
            self.exists = probed;
            // Little lies above a hint.
            self.stride = self.stride.saturating_mul(if galloped { 2 } else { 1 });
        } else {
            self.missing = Some(probed);
        }
        self.found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(
        milestones: Milestones,
        hint: Option<u64>,
        exists: impl Fn(u64) -> bool,
    ) -> (Option<u64>, usize) {
        let mut search = TailSearch::new(milestones, hint.map(RecordNumber));
        for probes in 0..200 {
            match search.next() {
                TailStep::Found(found) => return (found.map(|number| number.0), probes),
                TailStep::Probe(number) => search.answer(exists(number.0)),
            }
        }
        panic!("no end: {search:?}");
    }

    #[test]
    fn finds_the_tail_of_every_small_history_with_every_hint_and_everything_deletable_deleted() {
        for every in 1..6 {
            let milestones = Milestones::every(every);
            for len in 0..30_u64 {
                let tail = len.checked_sub(1);
                let last = tail.map_or(0, |tail| tail - tail % every);
                let kept = |k: u64| k < len && (k.is_multiple_of(every) || k > last);
                for hint in std::iter::once(None).chain((0..35).map(Some)) {
                    assert_eq!(
                        search(milestones, hint, kept).0,
                        tail,
                        "every {every} len {len} hint {hint:?}"
                    );
                    assert_eq!(search(milestones, hint, |k| k < len).0, tail);
                }
            }
        }
    }

    #[test]
    fn needs_few_probes() {
        for tail in [0, 999, 1000, 1001, 123_456, 98_765_432] {
            let (found, probes) = search(Milestones::default(), None, |k| k <= tail);
            assert_eq!(found, Some(tail));
            assert!(probes <= 60, "{probes} probes for {tail}");
            let (found, probes) = search(Milestones::default(), Some(tail), |k| k <= tail);
            assert_eq!(found, Some(tail));
            assert!(probes <= 5, "{probes} probes for {tail} with its hint");
        }
    }

    #[test]
    fn records_deleted_during_the_search_do_not_mislead_it() {
        // Milestones every 3; while records 3..=5 are searched, 6 and 7 appear and 4 and 5 go.
        let mut search = TailSearch::new(Milestones::every(3), None);
        let mut late = false;
        loop {
            match search.next() {
                TailStep::Found(found) => break assert_eq!(found, Some(RecordNumber(7))),
                TailStep::Probe(RecordNumber(number)) => {
                    late |= number == 4;
                    search.answer(if late { [0, 3, 6, 7].contains(&number) } else { number <= 5 });
                }
            }
        }
        assert!(late);
    }
}

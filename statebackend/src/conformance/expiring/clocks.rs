//! How late it is, as the model has it: until when state has expired, by key group.

use types::{ExpiryTimes, KeyGroup, SubtaskIndex, Timestamp};

use crate::conformance::model::MAX;

/// After a restore event time begins anew, by so much before what had been reached: in milliseconds.
const BEGINS_BEFORE: i64 = 4;

/// What was reached before the last restore, and what each subtask was told since.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::conformance) struct Clocks {
    /// By key group.
    reached: Vec<ExpiryTimes>,
    /// `None`: nothing yet.
    told: Vec<Option<Told>>,
}

/// What a subtask was told.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    /// Last: a clock of the machine may be set back.
    last: ExpiryTimes,
    /// At the latest: that is what counts.
    latest: ExpiryTimes,
}

impl Default for Clocks {
    fn default() -> Self {
        Self::begun(1)
    }
}

impl Clocks {
    /// Those of so many subtasks without a checkpoint: it is 0 o'clock.
    pub(in crate::conformance) fn begun(parallelism: u32) -> Self {
        let zero = ExpiryTimes { event: Timestamp(0), processing: Timestamp(0) };
        let reached = vec![ExpiryTimes::BEGINNING; usize::from(MAX.0)];
        Self { reached, told: vec![Some(Told { last: zero, latest: zero }); parallelism as usize] }
    }

    /// Those of so many subtasks that go on from here.
    pub(in crate::conformance) fn restored(&self, parallelism: u32) -> Self {
        let reached = (0..MAX.0).map(|group| self.at(KeyGroup(group))).collect();
        Self { reached, told: vec![None; parallelism as usize] }
    }

    /// Until when state of a key group has expired.
    pub(in crate::conformance) fn at(&self, group: KeyGroup) -> ExpiryTimes {
        let owner = MAX.owner(group, self.told.len() as u32);
        let reached = self.reached[usize::from(group.0)];
        self.told[owner.0 as usize].map_or(reached, |told| told.latest.max(reached))
    }

    /// What each subtask was told last, if anything.
    pub(in crate::conformance) fn told(&self) -> impl Iterator<Item = Option<ExpiryTimes>> {
        self.told.iter().map(|told| told.map(|told| told.last))
    }

    /// Time goes on in some subtasks, whose bits are set, or is said to be less than it was. Where nothing was said since a
    /// restore, it begins earlier than it was.
    pub(in crate::conformance) fn advance(&mut self, subtasks: u8, event: i64, processing: i64) {
        let parallelism = self.told.len() as u32;
        for (index, told) in
            (0..parallelism).zip(&mut self.told).filter(|(index, _)| subtasks >> index & 1 == 1)
        {
            let groups = MAX.range(SubtaskIndex(index), parallelism);
            let reached = &self.reached[usize::from(groups.start)..usize::from(groups.end)];
            let least = |of: fn(&ExpiryTimes) -> i64| reached.iter().map(of).min().unwrap_or(0);
            let (from, since) = match told {
                Some(told) => (told.last.event.0, told.last.processing.0),
                None => (least(|it| it.event.0) - BEGINS_BEFORE, least(|it| it.processing.0) - BEGINS_BEFORE),
            };
            let (event, processing) = (Timestamp(from + event), Timestamp(since + processing));
            let last = ExpiryTimes { event, processing };
            *told = Some(Told { last, latest: told.map_or(last, |told| told.latest.max(last)) });
        }
    }
}

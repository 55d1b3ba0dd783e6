//! The state of a subtask, to which changes are made as user code makes them.

use types::{
    AttemptId, CheckpointId, ExpiryTimes, JobId, KeyGroupRange, Result, Run, RunIdentity, SubtaskIndex,
    TimeDomain, Timestamp, Uid,
};

use super::{
    expiring,
    model::{Change, KEYS, MAX, Model, Outcome, Timer, key_of, longer},
};
use crate::{
    Aggregate, AggregatingState, Declared, Delta, KeyRef, KeyedContext, KeyedState, ListState, MapState,
    OwnedKey, ReducingState, StateDeclarations, ValueState,
};

/// One state of each kind.
#[derive(Clone, Copy)]
pub(super) struct Handles {
    value: ValueState<u64>,
    list: ListState<String>,
    map: MapState<u32, u64>,
    longest: ReducingState<String>,
    mean: AggregatingState<Mean>,
    expiring: expiring::Handles,
}

/// The mean of numbers, of their sum and their count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean;

impl Aggregate for Mean {
    type In = u32;
    type Accumulator = (u64, u32);
    type Out = f64;

    fn create(&self) -> (u64, u32) {
        (0, 0)
    }

    fn add(&self, (sum, count): &mut (u64, u32), number: u32) {
        *sum += u64::from(number);
        *count += 1;
    }

    fn result(&self, (sum, count): &(u64, u32)) -> f64 {
        *sum as f64 / f64::from(*count)
    }

    fn merge(&self, (sum, count): &mut (u64, u32), other: (u64, u32)) {
        *sum += other.0;
        *count += other.1;
    }
}

/// The name of the value state.
pub(super) const VALUE: &str = "total";

pub(super) fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles = Handles {
        value: states.value(VALUE),
        list: states.list("lines"),
        map: states.map("by-hour"),
        longest: states.reducing("longest", longer),
        mean: states.aggregating("mean", Mean),
        expiring: expiring::Handles::declare(&mut states),
    };
    (states.finish().expect("these states can be declared"), handles)
}

/// State of some key groups, and the runs that hold what was sealed of it.
pub(super) struct Subtask {
    pub(super) state: KeyedState,
    pub(super) groups: KeyGroupRange,
    pub(super) runs: Vec<Run>,
    /// The same, had there never been a merge.
    pub(super) unmerged: Vec<Run>,
    pub(super) index: u32,
    pub(super) next_run: u64,
}

/// User code that works on a key.
pub(super) struct Context<'a> {
    pub(super) state: &'a mut KeyedState,
    pub(super) key: &'a [u8],
    pub(super) time: Option<Timestamp>,
}

impl KeyedContext for Context<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }

    fn event_time(&self) -> Option<Timestamp> {
        self.time
    }
}

pub(super) fn identity(subtask: u32, number: u64) -> RunIdentity {
    RunIdentity {
        job: JobId(0x0102_0304),
        attempt: AttemptId(3),
        operator: Uid::new("subject").expect("a uid"),
        subtask: SubtaskIndex(subtask),
        number,
    }
}

fn timer((at, key): (Timestamp, OwnedKey)) -> Timer {
    (at.0, key.group.0, key.bytes.to_vec())
}

impl Subtask {
    pub(super) fn new(state: KeyedState, index: u32, next_run: u64) -> Self {
        Self { groups: state.groups(), state, runs: Vec::new(), unmerged: Vec::new(), index, next_run }
    }

    pub(super) fn next_identity(&mut self) -> RunIdentity {
        self.next_run += 1;
        identity(self.index, self.next_run - 1)
    }

    pub(super) fn owns(&self, index: usize) -> bool {
        self.groups.contains(KeyRef::new(&key_of(index), MAX).group)
    }

    /// Makes a change, with the texts that `before`, the model before it, says are new.
    pub(super) fn change(
        &mut self,
        handles: Handles,
        index: usize,
        change: &Change,
        before: &Model,
    ) -> Result<Outcome> {
        let Handles { value, list, map, longest, mean, expiring } = handles;
        let bytes = key_of(index);
        let key = KeyRef::new(&bytes, MAX);
        let state = &mut self.state;
        match *change {
            Change::Register(at) => state.register_event_timer(key, Timestamp(at)),
            Change::Delete(at) => state.delete_event_timer(key, Timestamp(at)),
            Change::RegisterProcessing(at) => state.register_processing_timer(key, Timestamp(at)),
            Change::DeleteProcessing(at) => state.delete_processing_timer(key, Timestamp(at)),
            Change::Fire(until) => {
                return Ok(Outcome::Timer(state.pop_event_timer(Timestamp(until)).map(timer)));
            }
            Change::FireProcessing(until) => {
                return Ok(Outcome::Timer(state.pop_processing_timer(Timestamp(until)).map(timer)));
            }
            Change::Expiring(ahead, ref change) => {
                return expiring.change(state, index, (ahead, change), before);
            }
            _ => {}
        }
        let ctx = &mut Context { state, key: &bytes, time: None };
        match *change {
            Change::Set(number) => return value.replace(ctx, number).map(Outcome::Number),
            Change::Increment => {
                value.update(ctx, |value| *value = Some(value.unwrap_or(0).wrapping_add(1)))?;
            }
            Change::Remove => return value.take(ctx).map(Outcome::Number),
            Change::Append(count) => list.extend(ctx, before.lines(count))?,
            Change::ClearList => list.clear(ctx)?,
            Change::ReplaceList(count) => list.replace(ctx, before.lines(count))?,
            Change::Put(sub, number) => return map.put(ctx, &sub, number).map(Outcome::Number),
            Change::RemoveEntry(sub) => return map.remove(ctx, &sub).map(Outcome::Number),
            Change::ClearMap => map.clear(ctx)?,
            Change::Reduce(length) => longest.add(ctx, before.reduced(length))?,
            Change::TakeLongest => return longest.take(ctx).map(Outcome::Text),
            Change::Aggregate(number) => mean.add(ctx, number)?,
            Change::Merge(number) => mean.merge(ctx, (u64::from(number) + 7, 2))?,
            Change::ClearMean => mean.clear(ctx)?,
            Change::Register(_)
            | Change::Delete(_)
            | Change::RegisterProcessing(_)
            | Change::DeleteProcessing(_)
            | Change::Fire(_)
            | Change::FireProcessing(_)
            | Change::Expiring(..) => {}
        }
        Ok(Outcome::Nothing)
    }

    /// Tells it how late it is.
    pub(super) fn tell(&mut self, told: ExpiryTimes) {
        for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
            self.state.advance(domain, told.of(domain));
        }
    }

    /// Makes the values of some keys resident, as the keys of a batch.
    pub(super) fn prepare(&mut self, keys: u8) -> Result<()> {
        let keys: Vec<_> = (0..KEYS).filter(|index| keys >> index & 1 == 1).map(key_of).collect();
        let keys = keys.iter().map(|bytes| KeyRef::new(bytes, MAX));
        let owned: Vec<_> = keys.filter(|key| self.groups.contains(key.group)).collect();
        self.state.prepare(owned.into_iter())
    }

    /// Compares everything that can be read of a key.
    pub(super) fn compare(&mut self, handles: Handles, index: usize, model: &Model) -> Result<()> {
        let Handles { value, list, map, longest, mean, expiring } = handles;
        let bytes = key_of(index);
        expiring.compare(&mut self.state, index, &model.living())?;
        let ctx = &mut Context { state: &mut self.state, key: &bytes, time: None };
        assert_eq!(longest.get(ctx)?, model.longest.get(&index).cloned(), "reducing state of key {index}");
        assert_eq!(mean.get(ctx)?, model.mean(index), "aggregating state of key {index}");
        assert_eq!(value.get(ctx)?, model.values.get(&index).copied(), "value state of key {index}");
        let expected = model.lists.get(&index).cloned().unwrap_or_default();
        assert_eq!(list.get(ctx)?, expected, "list state of key {index}");
        let expected = model.maps.get(&index).cloned().unwrap_or_default();
        assert_eq!(map.len(ctx)?, expected.len(), "map state of key {index}");
        assert_eq!(map.is_empty(ctx)?, expected.is_empty());
        assert_eq!(map.first(ctx)?, expected.first_key_value().map(|(key, value)| (*key, *value)));
        assert_eq!(map.last(ctx)?, expected.last_key_value().map(|(key, value)| (*key, *value)));
        assert_eq!(map.entries(ctx)?, expected.into_iter().collect::<Vec<_>>(), "map state of key {index}");
        Ok(())
    }

    /// Puts all of a model into fresh state.
    pub(super) fn fill(&mut self, handles: Handles, model: &Model) -> Result<()> {
        let Handles { value, list, map, longest, mean, expiring } = handles;
        expiring.fill(&mut self.state, &model.living())?;
        for index in 0..KEYS {
            let bytes = key_of(index);
            let ctx = &mut Context { state: &mut self.state, key: &bytes, time: None };
            if let Some(number) = model.values.get(&index) {
                value.set(ctx, *number)?;
            }
            if let Some(text) = model.longest.get(&index) {
                longest.add(ctx, text.clone())?;
            }
            for number in model.means.get(&index).into_iter().flatten() {
                mean.add(ctx, *number)?;
            }
            for line in model.lists.get(&index).into_iter().flatten() {
                list.append(ctx, line.clone())?;
            }
            for (sub, number) in model.maps.get(&index).into_iter().flatten() {
                map.put(ctx, sub, *number)?;
            }
        }
        for (at, _, bytes) in &model.event_timers {
            self.state.register_event_timer(KeyRef::new(bytes, MAX), Timestamp(*at));
        }
        for (at, _, bytes) in &model.processing_timers {
            self.state.register_processing_timer(KeyRef::new(bytes, MAX), Timestamp(*at));
        }
        Ok(())
    }

    /// Drains everything, at most `slice` cells at a time, and gives what each sealed checkpoint has changed.
    pub(super) fn sealed(&mut self, slice: usize) -> Result<Vec<(CheckpointId, Delta)>> {
        while self.state.drain(slice)? > 0 {}
        Ok(std::iter::from_fn(|| self.state.take_sealed()).collect())
    }
}

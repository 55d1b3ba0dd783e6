//! State with a time to live, to which changes are made as user code makes them.

use std::time::Duration;

use types::{Result, TimeDomain, Timestamp};

use super::{
    Change, Model, TTL,
    model::{Maps, Until, record_time},
};
use crate::{
    AggregatingState, Expiring, KeyedState, ListState, MapState, ReducingState, StateDeclarations, Ttl,
    ValueState,
    conformance::{
        model::{KEYS, Model as Everything, Outcome, group_of, key_of, longer, mean_of},
        subject::{Context, Mean},
    },
};

/// One state of each kind.
#[derive(Clone, Copy)]
pub(in crate::conformance) struct Handles {
    value: Expiring<ValueState<u64>>,
    list: Expiring<ListState<u32>>,
    map: Expiring<MapState<u32, u64>>,
    /// Refreshed by reads, as the next two.
    read_value: Expiring<ValueState<u64>>,
    read_list: Expiring<ListState<u32>>,
    read_map: Expiring<MapState<u32, u64>>,
    longest: Expiring<ReducingState<String>>,
    mean: Expiring<AggregatingState<Mean>>,
    /// In processing time.
    clocked: Expiring<ValueState<u64>>,
}

/// A record that writes what lives so long, into state of which nothing has expired.
fn writing<'a>(state: &'a mut KeyedState, key: &'a [u8], until: i64) -> Context<'a> {
    Context { state, key, time: Some(Timestamp(until - TTL as i64)) }
}

impl Handles {
    pub(in crate::conformance) fn declare(states: &mut StateDeclarations) -> Self {
        let ttl = Ttl::event_time(Duration::from_millis(TTL));
        let clock = Ttl::processing_time(Duration::from_millis(TTL));
        Self {
            value: states.expiring(ttl).value("recent-value"),
            list: states.expiring(ttl).list("recent-lines"),
            map: states.expiring(ttl).map("recent-hours"),
            read_value: states.expiring(ttl.refreshed_by_reads()).value("read-value"),
            read_list: states.expiring(ttl.refreshed_by_reads()).list("read-lines"),
            read_map: states.expiring(ttl.refreshed_by_reads()).map("read-hours"),
            longest: states.expiring(ttl).reducing("recent-longest", longer),
            mean: states.expiring(ttl).aggregating("recent-mean", Mean),
            clocked: states.expiring(clock).value("clocked"),
        }
    }

    /// Makes a change, by a record so much ahead of the clock of what there is `before`.
    pub(in crate::conformance) fn change(
        self,
        state: &mut KeyedState,
        index: usize,
        (ahead, change): (i64, &Change),
        before: &Everything,
    ) -> Result<Outcome> {
        let key = &key_of(index);
        let now = before.clocks.at(group_of(index));
        let ctx = &mut Context { state, key, time: Some(record_time(now, ahead)) };
        match *change {
            Change::Set(number) => return self.value.replace(ctx, number).map(Outcome::Number),
            Change::Add(number) => {
                self.value.update(ctx, |value| *value = Some(value.unwrap_or(0).wrapping_add(number)))?;
            }
            Change::Take => return self.value.take(ctx).map(Outcome::Number),
            Change::SetRead(number) => self.read_value.set(ctx, number)?,
            Change::Read => return self.read_value.get(ctx).map(Outcome::Number),
            Change::AppendRead(item) => self.read_list.append(ctx, item)?,
            Change::ReadList => return self.read_list.get(ctx).map(Outcome::Numbers),
            Change::PutRead(sub, value) => return self.read_map.put(ctx, &sub, value).map(Outcome::Number),
            Change::ReadEntry(sub) => return self.read_map.get(ctx, &sub).map(Outcome::Number),
            Change::Append(item) => self.list.append(ctx, item)?,
            Change::ReplaceList(item) => self.list.replace(ctx, [item, item / 2])?,
            Change::ClearList => self.list.clear(ctx)?,
            Change::Put(sub, value) => return self.map.put(ctx, &sub, value).map(Outcome::Number),
            Change::RemoveEntry(sub) => return self.map.remove(ctx, &sub).map(Outcome::Number),
            Change::ClearMap => self.map.clear(ctx)?,
            Change::Reduce(length) => self.longest.add(ctx, "-".repeat(length.into()))?,
            Change::TakeLongest => return self.longest.take(ctx).map(Outcome::Text),
            Change::Aggregate(number) => self.mean.add(ctx, number)?,
            Change::ClearMean => self.mean.clear(ctx)?,
            Change::SetClocked(number) => return self.clocked.replace(ctx, number).map(Outcome::Number),
            Change::TakeClocked => return self.clocked.take(ctx).map(Outcome::Number),
            Change::Look => self.compare(state, index, &before.living())?,
        }
        Ok(Outcome::Nothing)
    }

    /// Compares everything of a key that can be read without a change; nothing of `living` has expired.
    pub(in crate::conformance) fn compare(
        self,
        state: &mut KeyedState,
        index: usize,
        living: &Model,
    ) -> Result<()> {
        let ctx = &mut Context { state, key: &key_of(index), time: None };
        let value = |found: Option<&Until<u64>>| found.map(|it| it.0);
        assert_eq!(self.value.get(ctx)?, value(living.values.get(&index)), "expiring value of key {index}");
        assert_eq!(self.clocked.get(ctx)?, value(living.clocked.get(&index)), "clocked value of key {index}");
        let text = living.longest.get(&index).map(|it| it.0.clone());
        assert_eq!(self.longest.get(ctx)?, text, "expiring reducing state of key {index}");
        let mean = living.means.get(&index).map(|it| mean_of(&it.0));
        assert_eq!(self.mean.get(ctx)?, mean, "expiring aggregating state of key {index}");
        let list: Vec<u32> = living.lists.get(&index).into_iter().flatten().map(|it| it.0).collect();
        assert_eq!(self.list.is_empty(ctx)?, list.is_empty());
        assert_eq!(self.list.get(ctx)?, list, "expiring list state of key {index}");
        assert_eq!(self.read_list.is_empty(ctx)?, !living.read_lists.contains_key(&index));
        let entries = |maps: &Maps| -> Vec<(u32, u64)> {
            maps.get(&index).into_iter().flatten().map(|(sub, it)| (*sub, it.0)).collect()
        };
        let (map, read_map) = (entries(&living.maps), entries(&living.read_maps));
        assert_eq!(self.read_map.entries(ctx)?, read_map, "map state of key {index} that reading refreshes");
        assert_eq!(self.map.len(ctx)?, map.len(), "expiring map state of key {index}");
        assert_eq!(self.map.is_empty(ctx)?, map.is_empty());
        assert_eq!(self.map.first(ctx)?, map.first().copied());
        assert_eq!(self.map.last(ctx)?, map.last().copied());
        for sub in 0..6 {
            let expected = map.iter().find(|entry| entry.0 == sub).map(|entry| entry.1);
            assert_eq!(self.map.get(ctx, &sub)?, expected, "entry {sub} of key {index}");
        }
        assert_eq!(self.map.entries(ctx)?, map, "expiring map state of key {index}");
        Ok(())
    }

    /// Puts all of a model into fresh state, which is told how late it is on the way.
    pub(in crate::conformance) fn fill(self, state: &mut KeyedState, model: &Model) -> Result<()> {
        for index in 0..KEYS {
            let key = &key_of(index);
            if let Some((number, until)) = model.values.get(&index) {
                self.value.set(&mut writing(state, key, *until), *number)?;
            }
            if let Some((number, until)) = model.read_values.get(&index) {
                self.read_value.set(&mut writing(state, key, *until), *number)?;
            }
            if let Some((text, until)) = model.longest.get(&index) {
                self.longest.add(&mut writing(state, key, *until), text.clone())?;
            }
            if let Some((numbers, until)) = model.means.get(&index) {
                numbers
                    .iter()
                    .try_for_each(|number| self.mean.add(&mut writing(state, key, *until), *number))?;
            }
            for (list, lists) in [(self.list, &model.lists), (self.read_list, &model.read_lists)] {
                for (item, until) in lists.get(&index).into_iter().flatten() {
                    list.append(&mut writing(state, key, *until), *item)?;
                }
            }
            for (map, maps) in [(self.map, &model.maps), (self.read_map, &model.read_maps)] {
                for (sub, (value, until)) in maps.get(&index).into_iter().flatten() {
                    map.put(&mut writing(state, key, *until), sub, *value)?;
                }
            }
        }
        let mut clocked: Vec<_> = model.clocked.iter().collect();
        clocked.sort_by_key(|(_, (_, until))| *until);
        for (index, (number, until)) in clocked {
            state.advance(TimeDomain::ProcessingTime, Timestamp(until - TTL as i64));
            self.clocked.set(&mut Context { state, key: &key_of(*index), time: None }, *number)?;
        }
        Ok(())
    }
}

//! State with a time to live, case by case: what hides what when it has expired, what memory it takes, and what is refused.
//! Random jobs with such state are in `statebackend::conformance`.

use std::time::Duration;

use statebackend::{
    Declared, Expiring, KeyRef, KeyedContext, KeyedState, ListState, MapState, RunCompression, RunSet,
    StateDeclarations, Ttl, ValueState, merge, verify_run,
};
use types::{CheckpointId, ErrorKind, TimeDomain, Timestamp};

use crate::fixture::{MAX, Subtask, key, simulated, with_and_without_store};

/// In event time.
const TTL: i64 = 10;

#[derive(Clone, Copy)]
struct Handles {
    value: Expiring<ValueState<u64>>,
    list: Expiring<ListState<u32>>,
    map: Expiring<MapState<u32, u64>>,
    /// Lives for ever.
    plain: ValueState<u64>,
}

fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let ttl = Ttl::event_time(Duration::from_millis(TTL as u64));
    let handles = Handles {
        value: states.expiring(ttl).value("value"),
        list: states.expiring(ttl).list("list"),
        map: states.expiring(ttl).map("map"),
        plain: states.value("plain"),
    };
    (states.finish().unwrap(), handles)
}

fn key_of(index: usize) -> Vec<u8> {
    key(&format!("key-{index}"))
}

/// A context whose key and record are set by hand.
struct Record<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
    time: Option<Timestamp>,
}

impl KeyedContext for Record<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }

    fn event_time(&self) -> Option<Timestamp> {
        self.time
    }
}

/// The newest value has expired, and an older one has not: it must not come back, whichever runs are merged.
#[test]
fn what_has_expired_hides_what_is_older() {
    for merged in [0..2, 1..3, 0..3, 2..3] {
        for (name, behind) in with_and_without_store(9) {
            simulated(1, async |env, store| {
                let (declared, handles) = declare();
                let first = CheckpointId(1);
                let mut subtask = Subtask::of(declared, &behind, MAX.all(), 0, first);
                subtask.state.advance(TimeDomain::EventTime, Timestamp(100));
                let bytes = key_of(0);
                // A record far ahead of the watermark; then what it wrote is removed, and written by one at the watermark.
                let mut ctx = Record { state: &mut subtask.state, key: &bytes, time: Some(Timestamp(150)) };
                handles.map.put(&mut ctx, &1, 1).unwrap();
                handles.value.set(&mut ctx, 1).unwrap();
                subtask.state.flip(first);
                subtask.seal(&*store, 9).await;
                let mut ctx = Record { state: &mut subtask.state, key: &bytes, time: Some(Timestamp(100)) };
                assert_eq!(handles.map.remove(&mut ctx, &1).unwrap(), Some(1));
                handles.map.put(&mut ctx, &1, 2).unwrap();
                assert_eq!(handles.value.take(&mut ctx).unwrap(), Some(1));
                handles.value.set(&mut ctx, 2).unwrap();
                subtask.state.flip(CheckpointId(2));
                subtask.seal(&*store, 9).await;
                let other = key_of(1);
                let mut ctx = Record { state: &mut subtask.state, key: &other, time: None };
                handles.plain.set(&mut ctx, 3).unwrap();
                subtask.state.flip(CheckpointId(3));
                subtask.seal(&*store, 9).await;
                assert_eq!(subtask.runs.len(), 3);

                subtask.state.advance(TimeDomain::EventTime, Timestamp(100 + TTL));
                let (identity, clocks) = (subtask.next_identity(), subtask.state.expiry_clocks().unwrap());
                let (runs, zstd) =
                    (RunSet::new(&subtask.runs[merged.clone()], &clocks), RunCompression::Zstd);
                let run = merge(&env, &*store, runs, merged.start == 0, identity, "merged", zstd);
                let run = run.await.unwrap();
                verify_run(&env, &*store, &run, true).await.unwrap();
                subtask.runs.splice(merged.clone(), [run]);

                let mut restored = Subtask::of(declare().0, &behind, MAX.all(), 0, CheckpointId(4));
                restored.state.restore_expiry_clocks(&clocks);
                restored.restore(&env, &*store, &subtask.runs).await.unwrap();
                for state in [&mut subtask.state, &mut restored.state] {
                    let mut ctx = Record { state: &mut *state, key: &bytes, time: None };
                    assert_eq!(
                        handles.map.entries(&mut ctx).unwrap(),
                        [],
                        "merged {merged:?}, behind: {name}"
                    );
                    assert_eq!(
                        handles.value.take(&mut ctx).unwrap(),
                        None,
                        "merged {merged:?}, behind: {name}"
                    );
                    let mut ctx = Record { state, key: &other, time: None };
                    assert_eq!(handles.plain.get(&mut ctx).unwrap(), Some(3));
                }
            });
        }
    }
}

/// Keys that come once and never again: the table holds about those that live.
#[test]
fn memory_follows_what_lives() {
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    let mut most = 0;
    for number in 0..20_000_u64 {
        let bytes = key(&format!("{number}"));
        state.advance(TimeDomain::EventTime, Timestamp(number as i64));
        if number % 50 == 0 {
            state.prepare(std::iter::empty()).unwrap();
            most = most.max(state.cell_count());
        }
        if number % 100 == 0 {
            state.flip(CheckpointId(number / 100 + 1));
            while state.drain(100).unwrap() > 0 {}
            state.take_sealed().unwrap();
        }
        let mut ctx = Record { state: &mut state, key: &bytes, time: None };
        handles.list.extend(&mut ctx, [1, 2, 3]).unwrap();
        handles.map.put(&mut ctx, &1, number).unwrap();
        handles.value.set(&mut ctx, number).unwrap();
    }
    // Five cells and elements for each of the ten keys that live, for those of the batch at hand and those that are to be drained,
    // and as many again.
    assert!(most <= 2 * 5 * (TTL as usize + 50 + 100), "{most} cells");
}

/// No step of dropping is long, however large a map is, and all of it goes.
#[test]
fn a_large_map_is_looked_over_in_steps() {
    const ENTRIES: u32 = 100_000;
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    state.advance(TimeDomain::EventTime, Timestamp(0));
    let bytes = key_of(0);
    for entry in 0..ENTRIES {
        handles.map.put(&mut Record { state: &mut state, key: &bytes, time: None }, &entry, 1).unwrap();
    }
    state.flip(CheckpointId(1));
    while state.drain(1000).unwrap() > 0 {}
    state.advance(TimeDomain::EventTime, Timestamp(TTL));
    state.prepare(std::iter::empty()).unwrap();
    assert_eq!(state.cell_count(), ENTRIES as usize, "nothing goes before what was flipped is taken");
    state.take_sealed().unwrap();
    let mut steps = 0;
    while state.cell_count() > 0 {
        let before = state.cell_count();
        state.prepare(std::iter::empty()).unwrap();
        assert!(before - state.cell_count() <= 4096, "a step of {}", before - state.cell_count());
        steps += 1;
        assert!(steps < 20_000, "{} are left", state.cell_count());
    }
}

/// Cells of several tables, a hand that has stopped amid a map, and flips that take their time: all that has expired goes.
#[test]
fn the_hand_waits_while_a_flip_is_drained() {
    const ENTRIES: u32 = 1000;
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    state.advance(TimeDomain::EventTime, Timestamp(0));
    for index in 0..ENTRIES {
        let bytes = key_of(index as usize);
        handles.value.set(&mut Record { state: &mut state, key: &bytes, time: None }, 1).unwrap();
        let bytes = key_of(0);
        handles.map.put(&mut Record { state: &mut state, key: &bytes, time: None }, &index, 1).unwrap();
    }
    state.flip(CheckpointId(1));
    while state.drain(1000).unwrap() > 0 {}
    state.take_sealed().unwrap();
    state.advance(TimeDomain::EventTime, Timestamp(TTL));
    let mut number = 1;
    // A table, a key group, a place in it and half a map: wherever the hand has come to, it goes on from there.
    while state.cell_count() > 1 {
        let bytes = key_of(0);
        handles.plain.set(&mut Record { state: &mut state, key: &bytes, time: None }, number).unwrap();
        number += 1;
        state.flip(CheckpointId(number));
        let before = state.cell_count();
        for _ in 0..3 {
            state.prepare(std::iter::empty()).unwrap();
        }
        assert_eq!(state.cell_count(), before, "nothing goes before what was flipped is taken");
        while state.drain(1000).unwrap() > 0 {}
        state.take_sealed().unwrap();
        state.prepare(std::iter::empty()).unwrap();
        assert!(number < 2 * u64::from(ENTRIES), "{} are left", state.cell_count());
    }
}

#[test]
fn a_record_without_event_time_cannot_write_what_expires_in_it() {
    let (declared, handles) = declare();
    let mut state = KeyedState::new(declared, MAX.all(), CheckpointId(1));
    let bytes = key_of(0);
    let mut ctx = Record { state: &mut state, key: &bytes, time: None };
    assert_eq!(handles.value.take(&mut ctx).unwrap(), None);
    assert!(handles.list.get(&mut ctx).unwrap().is_empty());
    let error = handles.list.append(&mut ctx, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("no event time"), "{error}");
    ctx.time = Some(Timestamp(5));
    handles.list.append(&mut ctx, 1).unwrap();
    assert_eq!(handles.list.get(&mut ctx).unwrap(), [1]);
    // The last watermark says that nothing follows, and not that time has passed.
    state.advance(TimeDomain::EventTime, Timestamp::MAX);
    let mut ctx = Record { state: &mut state, key: &bytes, time: None };
    assert_eq!(handles.list.get(&mut ctx).unwrap(), [1]);
}

#[test]
fn a_ttl_of_nothing_is_refused() {
    for too_short in [Duration::ZERO, Duration::from_micros(999)] {
        let mut states = StateDeclarations::new();
        states.expiring(Ttl::event_time(too_short)).value::<u64>("seen");
        let error = states.finish().map(drop).unwrap_err();
        assert!(error.to_string().contains(&format!("a ttl of {too_short:?}")), "{error}");
    }
}

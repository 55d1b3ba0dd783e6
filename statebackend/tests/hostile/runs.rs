//! Small real run files of every kind, and bombs: what the corpus begins with.

use statebackend::{
    KeyRef, KeyedContext, KeyedState, ListState, MapState, RunCompression, StateDeclarations, ValueState,
    hostile::RUN, write_run,
};
use types::{
    AttemptId, CheckpointId, JobId, KeyGroupRange, MaxParallelism, RunIdentity, SubtaskIndex, Timestamp, Uid,
};

use crate::corpus::Seed;

const MAX: MaxParallelism = MaxParallelism(8);

struct Context<'a> {
    state: &'a mut KeyedState,
    key: &'a [u8],
}

impl KeyedContext for Context<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }
}

#[derive(Clone, Copy)]
struct Handles {
    total: ValueState<u64>,
    lines: ListState<String>,
    by_hour: MapState<u32, u64>,
}

fn key(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    types::ordered::encode_into(text, &mut bytes).unwrap();
    bytes
}

fn identity() -> RunIdentity {
    RunIdentity {
        job: JobId(7),
        attempt: AttemptId(3),
        operator: Uid::new("count").unwrap(),
        subtask: SubtaskIndex(0),
        number: 1,
    }
}

/// The run of what `change` does to state that `before` has filled.
fn run(
    compression: RunCompression,
    before: impl Fn(&mut KeyedState, Handles),
    change: impl Fn(&mut KeyedState, Handles),
) -> Vec<u8> {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles =
        Handles { total: states.value("total"), lines: states.list("lines"), by_hour: states.map("by-hour") };
    let groups: KeyGroupRange = MAX.all();
    let mut state = KeyedState::new(states.finish().unwrap(), groups, CheckpointId(1));
    let mut delta = None;
    for (checkpoint, make) in [(1, &before as &dyn Fn(&mut KeyedState, Handles)), (2, &change)] {
        make(&mut state, handles);
        state.flip(CheckpointId(checkpoint));
        while state.drain(100).unwrap() > 0 {}
        delta = state.take_sealed();
    }
    let (_, delta) = delta.unwrap();
    write_run(delta, identity(), groups, compression).unwrap().payload.concat()
}

fn fill(state: &mut KeyedState, handles: Handles) {
    for number in 0..6_u64 {
        let key = key(&format!("key {number}"));
        let ctx = &mut Context { state, key: &key };
        handles.total.set(ctx, number << (number * 10)).unwrap();
        handles.lines.extend(ctx, (0..number).map(|line| format!("line {line}"))).unwrap();
        handles.by_hour.put(ctx, &(number as u32), number).unwrap();
        handles.by_hour.put(ctx, &1000, 1).unwrap();
        state.register_event_timer(KeyRef::new(&key, MAX), Timestamp(number as i64 - 3));
    }
}

fn remove(state: &mut KeyedState, handles: Handles) {
    for number in 0..6 {
        let key = key(&format!("key {number}"));
        let ctx = &mut Context { state, key: &key };
        match number % 3 {
            0 => handles.total.clear(ctx).unwrap(),
            1 => drop(handles.by_hour.remove(ctx, &1000).unwrap()),
            _ => handles.by_hour.clear(ctx).unwrap(),
        }
        handles.lines.clear(ctx).unwrap();
        handles.lines.append(ctx, "new".to_owned()).unwrap();
        state.delete_event_timer(KeyRef::new(&key, MAX), Timestamp(number - 3));
        state.register_processing_timer(KeyRef::new(&key, MAX), Timestamp(number));
    }
}

/// Several blocks, so that the index is more than one line.
fn blocks(state: &mut KeyedState, handles: Handles) {
    let mut noise = 1_u64;
    for number in 0..900_u64 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = key(&format!("key {number}"));
        let ctx = &mut Context { state, key: &key };
        handles.lines.append(ctx, format!("{noise:x}").repeat(10)).unwrap();
    }
}

/// Little that becomes much: what a compressed block may hold at most for its length.
fn bomb(len: usize) -> impl Fn(&mut KeyedState, Handles) {
    move |state, handles| {
        for number in 0..3 {
            let key = key(&format!("key {number}"));
            handles.lines.append(&mut Context { state, key: &key }, "a".repeat(len)).unwrap();
        }
    }
}

/// Values of megabytes, which are stored as small as is allowed.
pub(crate) fn large() -> Vec<u8> {
    let bytes = run(RunCompression::Zstd, |_, _| (), bomb(3 << 20));
    assert!((3 << 20..4 << 20).contains(&bytes.len()), "{} bytes", bytes.len());
    bytes
}

/// The same with another plain length of the first block, or number of its entries.
fn announced(mut bytes: Vec<u8>, field: usize, number: u32) -> Vec<u8> {
    const PLACE_OF_INDEX: usize = 256 - 96;
    let place = bytes.len() - PLACE_OF_INDEX;
    let index = u64::from_le_bytes(bytes[place..place + 8].try_into().unwrap()) as usize;
    bytes[index + field..index + field + 4].copy_from_slice(&number.to_le_bytes());
    (RUN.repair)(&mut bytes);
    bytes
}

/// One run of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let nothing = |_: &mut KeyedState, _: Handles| ();
    let (plain, zstd) = (RunCompression::None, RunCompression::Zstd);
    vec![
        (RUN.name, "puts", run(plain, nothing, fill)),
        (RUN.name, "puts-zstd", run(zstd, nothing, fill)),
        (RUN.name, "deletes", run(plain, fill, remove)),
        (RUN.name, "deletes-zstd", run(zstd, fill, remove)),
        (RUN.name, "blocks", run(zstd, nothing, blocks)),
        (RUN.name, "bomb-of-columns", run(zstd, nothing, bomb(100 << 10))),
        (RUN.name, "bomb-of-rows", run(zstd, nothing, bomb(380 << 10))),
        (RUN.name, "announced-columns", announced(run(zstd, nothing, fill), 12, 1 << 30)),
        (RUN.name, "announced-rows", announced(run(zstd, nothing, bomb(380 << 10)), 12, 1 << 30)),
        (RUN.name, "announced-entries", announced(run(zstd, nothing, fill), 20, 1 << 30)),
    ]
}

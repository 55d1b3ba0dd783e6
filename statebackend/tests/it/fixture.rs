//! A subtask without an engine: state, a store, and the list of runs that a checkpoint would hold.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use env::{Env, Store, sim::Simulation};
use statebackend::{
    Declared, KeyRef, KeyedContext, KeyedState, ListState, MapState, RunCompression, StateDeclarations,
    ValueState, restore, run_of,
    store::{KeyValueStore, StoreSettings, Stores},
    write_run,
};
use tempfile::TempDir;
use types::{
    AttemptId, CheckpointId, JobId, KeyGroupRange, MaxParallelism, Result, Run, RunIdentity, SubtaskIndex,
    Uid,
};

use crate::gauge::{Gauge, Gauged};

/// Every store that may stand behind the tables, by its name in `Stores`. All tests of what stands there run with each: a
/// new one gets its line here.
pub(crate) const STORES: &[&str] = &[
    "sorted-map",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "sled")]
    "sled",
];

/// Stores that drop what has expired while they write, so that the tests of the tables see it go. RocksDB drops when it compacts,
/// which it need not do here, and the map in memory never does.
pub(crate) const DROPPING: &[&str] = &["sled"];

/// With these options a store that gathers what it is told writes small amounts to disk, too: tests write no large ones.
const SMALL_BUFFERS: &[(&str, &[(&str, &str)])] =
    &[("rocksdb", &[("write_buffer_size", "65536"), ("arena_block_size", "8192")])];

/// Opens an empty store with little memory, in this directory if it needs one.
pub(crate) fn open(name: &str, dir: &Path) -> Box<dyn KeyValueStore> {
    let small = SMALL_BUFFERS.iter().filter(|(store, _)| *store == name).flat_map(|(_, options)| *options);
    let options: BTreeMap<_, _> = small.map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let settings = StoreSettings { memory: 8 << 20, stores: 1, options: &options };
    Stores::new(name, &settings).unwrap().open(env::real_files(), dir).unwrap()
}

/// Few groups, so that each holds several keys.
pub(crate) const MAX: MaxParallelism = MaxParallelism(8);

/// A state of each kind that cells are made for.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    pub(crate) value: ValueState<u64>,
    pub(crate) list: ListState<String>,
    pub(crate) map: MapState<u32, u64>,
}

pub(crate) fn declare() -> (Declared, Handles) {
    let mut states = StateDeclarations::new();
    states.key::<String>();
    let handles =
        Handles { value: states.value("total"), list: states.list("lines"), map: states.map("by-hour") };
    (states.finish().unwrap(), handles)
}

/// A context whose key is set by hand.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut KeyedState,
    pub(crate) key: &'a [u8],
}

impl KeyedContext for Context<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(self.key, MAX), self.state)
    }
}

/// The ordered bytes of a text key.
pub(crate) fn key(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    types::ordered::encode_into(text, &mut bytes).unwrap();
    bytes
}

pub(crate) fn identity(subtask: u32, number: u64) -> RunIdentity {
    RunIdentity {
        job: JobId(0x0102_0304),
        attempt: AttemptId(3),
        operator: Uid::new("count").unwrap(),
        subtask: SubtaskIndex(subtask),
        number,
    }
}

/// What stands behind the tables.
#[derive(Clone)]
pub(crate) enum Behind {
    Nothing,
    /// A store, with a table of so many cells in front.
    Store(&'static str, usize, Arc<Gauge>),
}

impl Behind {
    pub(crate) fn store(name: &'static str, cells: usize) -> (Self, Arc<Gauge>) {
        let gauge = Arc::new(Gauge::default());
        (Self::Store(name, cells, gauge.clone()), gauge)
    }

    pub(crate) fn state(&self, declared: Declared, groups: KeyGroupRange, first: CheckpointId) -> KeyedState {
        match self {
            Self::Nothing => KeyedState::new(declared, groups, first),
            Self::Store(name, cells, gauge) => {
                let dir = TempDir::new().unwrap();
                let store = open(name, dir.path());
                let store = Gauged::new(store, gauge.clone(), dir);
                KeyedState::with_store(declared, groups, first, Box::new(store), *cells)
            }
        }
    }
}

/// Runs a test with each store, which it puts behind a table of as many cells as it says.
#[expect(clippy::disallowed_macros, reason = "a test that fails must say with which store")]
pub(crate) fn each_store(test: impl Fn(&dyn Fn(usize) -> (Behind, Arc<Gauge>))) {
    for &name in STORES {
        println!("behind the table: {name}");
        test(&|cells| Behind::store(name, cells));
    }
}

/// Nothing, and every store, behind a table of so many cells, each with its name.
pub(crate) fn with_and_without_store(cells: usize) -> impl Iterator<Item = (&'static str, Behind)> {
    let stores = STORES.iter().map(move |name| (*name, Behind::store(name, cells).0));
    std::iter::once(("nothing", Behind::Nothing)).chain(stores)
}

/// State of some key groups, and the runs that hold what was sealed of it.
pub(crate) struct Subtask {
    pub(crate) state: KeyedState,
    pub(crate) groups: KeyGroupRange,
    pub(crate) runs: Vec<Run>,
    pub(crate) index: u32,
    pub(crate) next_run: u64,
}

impl Subtask {
    pub(crate) fn new(groups: KeyGroupRange, index: u32, first: CheckpointId) -> Self {
        Self::before(&Behind::Nothing, groups, index, first)
    }

    pub(crate) fn before(behind: &Behind, groups: KeyGroupRange, index: u32, first: CheckpointId) -> Self {
        Self::of(declare().0, behind, groups, index, first)
    }

    pub(crate) fn of(
        declared: Declared,
        behind: &Behind,
        groups: KeyGroupRange,
        index: u32,
        first: CheckpointId,
    ) -> Self {
        Self { state: behind.state(declared, groups, first), groups, runs: Vec::new(), index, next_run: 1 }
    }

    /// A new owner of `groups`, restored from what others wrote; run numbers begin at `next_run`.
    pub(crate) async fn restored(
        env: &Env,
        store: &dyn Store,
        groups: KeyGroupRange,
        index: u32,
        runs: &[Run],
        first: CheckpointId,
        next_run: u64,
    ) -> Result<Self> {
        let mut subtask = Self::new(groups, index, first);
        subtask.next_run = next_run;
        subtask.restore(env, store, runs).await?;
        Ok(subtask)
    }

    /// Restores what belongs to its key groups.
    pub(crate) async fn restore(&mut self, env: &Env, store: &dyn Store, runs: &[Run]) -> Result<()> {
        let groups = self.groups;
        let clipped = runs
            .iter()
            .filter_map(|run| run.groups.intersect(groups).map(|groups| Run { groups, ..run.clone() }));
        self.runs = clipped.collect();
        restore(env, store, runs, &mut self.state).await?;
        Ok(())
    }

    pub(crate) fn next_identity(&mut self) -> RunIdentity {
        self.next_run += 1;
        identity(self.index, self.next_run - 1)
    }

    /// Drains everything, at most `slice` cells at a time, and writes a run for each sealed checkpoint that has changes.
    pub(crate) async fn seal(&mut self, store: &dyn Store, slice: usize) -> Vec<CheckpointId> {
        while self.state.drain(slice).unwrap() > 0 {}
        let mut sealed = Vec::new();
        while let Some((checkpoint, delta)) = self.state.take_sealed() {
            sealed.push(checkpoint);
            if !delta.is_empty() {
                let identity = self.next_identity();
                let path = format!("runs/{}-{}.run", self.index, identity.number);
                let written = write_run(delta, identity, self.groups, RunCompression::Zstd).unwrap();
                let run = run_of(&written, &path);
                store.put(&path, written.payload).await.unwrap();
                self.runs.push(run);
            }
        }
        sealed
    }
}

/// Runs `body` in a simulated world with an empty store.
pub(crate) fn simulated<T>(seed: u64, body: impl AsyncFnOnce(Env, Arc<dyn Store>) -> T) -> T {
    Simulation::new(seed).run(async |env: Env| {
        let store = env.open_store("memory:state").unwrap();
        body(env, store).await
    })
}

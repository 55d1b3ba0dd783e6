//! What one operation on keyed state costs, by kind of state, backend and size of a value: those of the list that Flink
//! publishes for its own backends, on 500 k keys in random order, a batch of 1,024 keys at a time as a task takes them.
//! `state_access [--keys N] [--seconds S] [--memory BYTES] [--entries N]`. Prints a table of thousand operations a second.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program that measures no job, and its output"
)]

use std::{
    collections::BTreeMap,
    hint::black_box,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use env::Env;
use statebackend::{
    KeyRef, KeyedContext, KeyedState, ListState, MapState, StateDeclarations, ValueState,
    store::{StoreSettings, Stores},
};
use tidegate_benches::{mix, payload::Padded};
use tokio::runtime::Runtime;
use types::{CheckpointId, Error, MaxParallelism, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MAX: MaxParallelism = MaxParallelism(128);
/// Keys of a batch.
const BATCH: usize = 1024;

#[derive(Clone, Parser)]
struct Args {
    /// Keys
    #[arg(long, default_value_t = 500_000)]
    keys: u64,
    /// How long each operation is done
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of memory for tables and stores together
    #[arg(long, default_value_t = 512 << 20)]
    memory: usize,
    /// Elements of each list, entries of each map, before the operations
    #[arg(long, default_value_t = 10)]
    entries: u64,
}

/// What is kept: eight bytes or a hundred.
trait Payload: types::serde::Serialize + types::serde::de::DeserializeOwned + Clone + Send + 'static {
    fn of(number: u64) -> Self;
}

impl Payload for u64 {
    fn of(number: u64) -> Self {
        number
    }
}

impl Payload for Padded {
    fn of(number: u64) -> Self {
        Self::new(number)
    }
}

/// State of one subtask and its handles.
struct Subject<P> {
    state: KeyedState,
    value: ValueState<P>,
    list: ListState<P>,
    map: MapState<u64, P>,
    dir: PathBuf,
}

/// One key of it.
struct At<'a> {
    state: &'a mut KeyedState,
    key: [u8; 8],
}

impl KeyedContext for At<'_> {
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        (KeyRef::new(&self.key, MAX), self.state)
    }
}

impl<P: Payload> Subject<P> {
    fn new(backend: &str, args: &Args) -> Result<Self> {
        let mut states = StateDeclarations::new();
        states.key::<u64>();
        let (value, list, map) = (states.value("value"), states.list("list"), states.map("map"));
        let mut state = KeyedState::new(states.finish()?, MAX.all(), CheckpointId(1));
        let dir = std::env::temp_dir().join(format!("tidegate-access-{}-{backend}", std::process::id()));
        if backend != "memory" {
            let settings = StoreSettings { memory: args.memory, stores: 1, options: &BTreeMap::new() };
            let stores = Stores::new(backend, &settings)?;
            let runtime = Runtime::new().map_err(|error| Error::io("cannot start the runtime", error))?;
            let files = runtime.block_on(async { Env::real().files() });
            state.use_store(stores.open(files, &dir)?, stores.tables().share());
        }
        Ok(Self { state, value, list, map, dir })
    }

    /// Does something with each key of a batch, as a task does: what the batch needs is read first.
    fn batch(&mut self, keys: &[u64], mut work: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        let bytes: Vec<[u8; 8]> = keys.iter().map(|key| key.to_be_bytes()).collect();
        self.state.prepare(bytes.iter().map(|bytes| KeyRef::new(bytes, MAX)))?;
        keys.iter().try_for_each(|&key| work(self, key))
    }

    fn at(&mut self, key: u64) -> At<'_> {
        At { state: &mut self.state, key: key.to_be_bytes() }
    }

    /// Ends an interval, so that the next operation meets state as a running job has it: most of it drained.
    fn checkpoint(&mut self, number: u64) -> Result<()> {
        self.state.flip(CheckpointId(number));
        while self.state.drain(1 << 16)? > 0 {}
        drop(self.state.take_sealed());
        Ok(())
    }
}

/// An operation: its name, and what it does with a key. The number is another one at each call.
type Operation<P> = (&'static str, fn(&mut Subject<P>, u64, u64) -> Result<()>);

fn operations<P: Payload>() -> Vec<Operation<P>> {
    vec![
        ("value add", |it, key, number| {
            // Keys that there are not yet.
            let value = it.value;
            value.set(&mut it.at(mix(number) | 1 << 63 | key), P::of(number))
        }),
        ("value get", |it, key, _| {
            let value = it.value;
            value.with(&mut it.at(key), |value| {
                let _ = black_box(value.is_some());
            })
        }),
        ("value update", |it, key, number| {
            let value = it.value;
            value.set(&mut it.at(key), P::of(number))
        }),
        ("list add", |it, key, number| {
            let list = it.list;
            list.append(&mut it.at(key), P::of(number))
        }),
        ("list get", |it, key, _| {
            let list = it.list;
            let mut count = 0;
            list.for_each(&mut it.at(key), |_| count += 1)?;
            let _ = black_box(count);
            Ok(())
        }),
        ("list update", |it, key, number| {
            let list = it.list;
            list.replace(&mut it.at(key), [P::of(number), P::of(key)])
        }),
        ("map get", |it, key, number| {
            let map = it.map;
            let _ = black_box(map.get(&mut it.at(key), &(number % 10))?);
            Ok(())
        }),
        ("map put", |it, key, number| {
            let map = it.map;
            map.put(&mut it.at(key), &(number % 10), P::of(number)).map(drop)
        }),
        ("map contains", |it, key, number| {
            let map = it.map;
            map.contains(&mut it.at(key), &(number % 20)).map(|found| {
                let _ = black_box(found);
            })
        }),
        ("map is empty", |it, key, _| {
            let map = it.map;
            map.is_empty(&mut it.at(key)).map(|found| {
                let _ = black_box(found);
            })
        }),
        ("map iterate", |it, key, _| {
            let map = it.map;
            let mut sum = 0;
            map.for_each(&mut it.at(key), |entry, _| sum += entry)?;
            let _ = black_box(sum);
            Ok(())
        }),
        ("map remove and put", |it, key, number| {
            let map = it.map;
            drop(map.remove(&mut it.at(key), &(number % 10))?);
            map.put(&mut it.at(key), &(number % 10), P::of(number)).map(drop)
        }),
    ]
}

/// Thousand operations a second of each kind.
fn measure<P: Payload>(backend: &str, args: &Args) -> Result<Vec<f64>> {
    let mut subject = Subject::<P>::new(backend, args)?;
    let (value, list, map) = (subject.value, subject.list, subject.map);
    let all: Vec<u64> = (0..args.keys).collect();
    let entries = args.entries;
    for (number, keys) in (1..).zip(all.chunks(BATCH)) {
        subject.batch(keys, |it, key| {
            value.set(&mut it.at(key), P::of(key))?;
            list.extend(&mut it.at(key), (0..entries).map(P::of))?;
            (0..entries).try_for_each(|entry| map.put(&mut it.at(key), &entry, P::of(entry)).map(drop))
        })?;
        if number % 64 == 0 {
            subject.checkpoint(number)?;
        }
    }
    let mut checkpoint = args.keys;
    let mut rates = Vec::new();
    for (name, operation) in operations::<P>() {
        checkpoint += 1;
        subject.checkpoint(checkpoint)?;
        let (began, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds));
        let mut number = name.len() as u64;
        let mut done = 0_u64;
        while began.elapsed() < limit {
            let keys: Vec<u64> = (0..BATCH as u64).map(|at| mix(number + at) % args.keys).collect();
            subject.batch(&keys, |it, key| {
                number += 1;
                operation(it, key, number)
            })?;
            done += BATCH as u64;
        }
        rates.push(done as f64 / began.elapsed().as_secs_f64() / 1000.0);
    }
    let dir = subject.dir.clone();
    drop(subject);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|error| Error::io(dir.display(), error))?;
    }
    Ok(rates)
}

fn run(args: &Args) -> Result<()> {
    let backends: &[&str] = &[
        "memory",
        #[cfg(feature = "rocksdb")]
        "rocksdb",
        #[cfg(feature = "sled")]
        "sled",
    ];
    let mut columns = Vec::new();
    for backend in backends {
        columns.push((format!("{backend}, 8 B"), measure::<u64>(backend, args)?));
        columns.push((format!("{backend}, 100 B"), measure::<Padded>(backend, args)?));
    }
    let heads: Vec<&str> = columns.iter().map(|(head, _)| head.as_str()).collect();
    println!("| thousand operations a second | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(heads.len()));
    for (row, (name, _)) in operations::<u64>().into_iter().enumerate() {
        let figures: Vec<String> = columns.iter().map(|(_, rates)| format!("{:.0}", rates[row])).collect();
        println!("| {name} | {} |", figures.join(" | "));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

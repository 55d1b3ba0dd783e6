//! What all processes of one simulation share: clock, randomness, options, faults, trace, machines. Called by the rest
//! of `sim` alone; whatever is drawn here is drawn in the order of the one thread, so it follows from the seed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};
use types::Timestamp;

use super::{
    Disk, FaultAction, Options,
    net::Network,
    store::{StoreCall, StoreRule},
    trace::Trace,
    world::{Machine, ProcessState},
};
use crate::{FaultPoint, Monotonic, Rng, store::MemoryStores};

/// The wall clock at the start: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);

/// Armed fault points and the hits so far.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) hits: BTreeMap<FaultPoint, u64>,
    pub(super) armed: Vec<(FaultPoint, u64, FaultAction)>,
}

/// What all processes of one simulation share.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) runtime: Handle,
    pub(super) start: Instant,
    pub(super) wall_shift: AtomicI64,
    pub(super) rng: Mutex<Rng>,
    pub(super) options: Mutex<Options>,
    pub(super) faults: Mutex<Faults>,
    pub(super) trace: Mutex<Trace>,
    pub(super) machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    pub(super) next_process: AtomicU32,
    pub(super) next_task: AtomicU64,
    /// Blocking calls that have not come back.
    pub(super) blocking_calls: AtomicU64,
    pub(super) vars: Mutex<BTreeMap<String, String>>,
    pub(super) printed: Mutex<Vec<(String, String)>>,
    pub(super) output_full: AtomicBool,
    pub(super) network: Network,
    pub(super) far_stores: MemoryStores,
    pub(super) store_rule: Mutex<Option<Arc<StoreRule>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(seed: u64, runtime: Handle) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let options = Options::draw(&mut rng);
        let start = {
            let _context = runtime.enter();
            Instant::now()
        };
        Self {
            seed,
            runtime,
            start,
            wall_shift: AtomicI64::new(0),
            rng: Mutex::new(rng),
            options: Mutex::new(options),
            faults: Mutex::default(),
            trace: Mutex::default(),
            machines: Mutex::default(),
            next_process: AtomicU32::new(1),
            next_task: AtomicU64::new(1),
            blocking_calls: AtomicU64::new(0),
            vars: Mutex::default(),
            printed: Mutex::default(),
            output_full: AtomicBool::new(false),
            network: Network::default(),
            far_stores: MemoryStores::default(),
            store_rule: Mutex::default(),
        }
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    pub(super) fn options(&self) -> Options {
        *lock(&self.options)
    }

    /// What the test's rule makes of a call to a store.
    pub(super) fn rule(&self, process: &str, call: &str) -> StoreCall {
        // Outside the lock: a rule may set another one.
        let rule = lock(&self.store_rule).clone();
        rule.map_or(StoreCall::Goes, |rule| rule(process, call))
    }

    pub(super) fn now(&self) -> Monotonic {
        let _context = self.runtime.enter();
        Monotonic(Instant::now() - self.start)
    }

    pub(super) fn wall(&self) -> Timestamp {
        let at = START + self.now().0;
        Timestamp(at.0.saturating_add(self.wall_shift.load(Ordering::Relaxed)))
    }

    pub(super) fn sleep(&self, span: Duration) -> tokio::time::Sleep {
        let _context = self.runtime.enter();
        tokio::time::sleep(span)
    }

    pub(super) async fn pause(&self, span: Duration) {
        if !span.is_zero() {
            self.sleep(span).await;
        }
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// Runs something that belongs to no process.
    pub(super) fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.spawn(task));
    }

    /// Runs something that belongs to no process, and waits for it if the caller lives.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.spawn(task)
            .await
            .expect("it is never aborted, and a panic in a store is a bug of the simulation")
    }

    /// How often to yield now, seeded; mostly not at all.
    pub(super) fn yields(&self) -> Option<u32> {
        let often = self.options().yields;
        let mut rng = self.rng();
        (often > 0.0 && rng.random_bool(often)).then(|| rng.random_range(1..=3))
    }

    pub(super) fn blocking_delay(&self) -> Duration {
        let longest = u64::try_from(self.options().blocking_delay.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng().random_range(0..=longest))
    }

    pub(super) fn derive(&self, name: &str) -> [u8; 32] {
        let mut seed = [0; 32];
        for (part, bytes) in seed.chunks_exact_mut(8).enumerate() {
            let text = format!("{}/{part}/{name}", self.seed);
            bytes.copy_from_slice(&types::key_hash(text.as_bytes()).to_le_bytes());
        }
        seed
    }

    pub(super) fn number(&self) -> u64 {
        self.next_task.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, process: &str, event: &str) {
        lock(&self.trace).add(self.now(), process, event);
    }

    pub(super) fn var(&self, name: &str) -> Option<String> {
        lock(&self.vars).get(name).cloned()
    }

    pub(super) fn vars(&self, prefix: &str) -> Vec<String> {
        lock(&self.vars).keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    pub(super) fn printed(&self, process: &ProcessState, line: &str) {
        if process.is_alive() {
            lock(&self.printed).push((process.name.clone(), line.to_owned()));
        }
    }

    /// Counts a hit; what is armed for it goes off once.
    pub(super) fn hit(&self, point: FaultPoint) -> Option<FaultAction> {
        let mut faults = lock(&self.faults);
        let hits = faults.hits.entry(point).or_default();
        *hits += 1;
        let hits = *hits;
        let armed = faults.armed.iter().position(|(at, nth, _)| (*at, *nth) == (point, hits))?;
        Some(faults.armed.remove(armed).2)
    }

    pub(super) fn machine(&self, name: &str) -> Arc<Machine> {
        let mut machines = lock(&self.machines);
        let new = || Arc::new(Machine { disk: Disk::new(), processes: Mutex::default() });
        Arc::clone(machines.entry(name.to_owned()).or_insert_with(new))
    }
}

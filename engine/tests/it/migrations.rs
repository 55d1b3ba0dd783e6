//! Jobs that are killed and go on with new code, whose states have other types: what they write and what they keep is what a job
//! has that had the newest types all along, at any parallelism and with any backend. A migration that fails ends the start in one
//! line, and the old code goes on as if nothing had been.

use std::time::Duration;

use checkpoint::{history, manifest};
use env::Env;
use serde::{Deserialize, Serialize};
use statebackend::{RunSet, StateSummary, summarize};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};
use types::Run;

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const KEYS: u64 = 13;
pub(crate) const NUMBERS: u64 = 1_500;

fn numbers() -> Numbers {
    // One split, so that what a key has seen does not depend on how splits take turns.
    Numbers::new(1, NUMBERS).paced(5, Duration::from_millis(10))
}

/// A type that holds an amount, in one version or another.
pub(crate) trait Money: Data + Sync {
    fn of(amount: u64) -> Self;
    fn amount(&self) -> u64;
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct V1 {
    euros: u32,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct V2 {
    cents: u64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct V3 {
    currency: String,
    cents: u64,
}

impl Money for V1 {
    fn of(amount: u64) -> Self {
        Self { euros: amount as u32 }
    }

    fn amount(&self) -> u64 {
        self.euros.into()
    }
}

impl Money for V2 {
    fn of(amount: u64) -> Self {
        Self { cents: amount * 100 }
    }

    fn amount(&self) -> u64 {
        self.cents / 100
    }
}

impl Money for V3 {
    fn of(amount: u64) -> Self {
        Self { currency: "EUR".to_owned(), cents: amount * 100 }
    }

    fn amount(&self) -> u64 {
        self.cents / 100
    }
}

fn first(old: V1) -> Result<V2> {
    Ok(V2 { cents: u64::from(old.euros) * 100 })
}

fn second(old: V2) -> Result<V3> {
    Ok(V3 { currency: "EUR".to_owned(), cents: old.cents })
}

fn add<T: Money>(a: T, b: T) -> T {
    T::of(a.amount() + b.amount())
}

#[derive(Clone, Copy)]
struct Total<T>(std::marker::PhantomData<fn() -> T>);

impl<T: Money> Aggregate for Total<T> {
    type In = u64;
    type Accumulator = T;
    type Out = u64;

    fn create(&self) -> T {
        T::of(0)
    }

    fn add(&self, total: &mut T, amount: u64) {
        *total = T::of(total.amount() + amount);
    }

    fn result(&self, total: &T) -> u64 {
        total.amount()
    }

    fn merge(&self, total: &mut T, other: T) {
        *total = T::of(total.amount() + other.amount());
    }
}

pub(crate) struct Kept<T: Money> {
    value: ValueState<T>,
    list: ListState<T>,
    map: MapState<u64, T>,
    sum: ReducingState<T>,
    total: AggregatingState<Total<T>>,
    own: OperatorListState<T>,
    hundreds: OperatorListState<T>,
    /// Never changes its type.
    count: ValueState<u64>,
}

/// The code of a job at one time.
pub(crate) trait Stage: Clone + Send + Sync + 'static {
    type Account: Money;
    fn declare(states: &mut Declarations) -> Kept<Self::Account>;
    fn shared(states: &mut Declarations) -> BroadcastState<u64, Self::Account>;
}

/// As if there had been no other version.
fn plain<T: Money>(states: &mut Declarations) -> Kept<T> {
    Kept {
        value: states.value("value"),
        list: states.list("list"),
        map: states.map("map"),
        sum: states.reducing("sum", add),
        total: states.aggregating("total", Total(std::marker::PhantomData)),
        own: states.operator_list("own"),
        hundreds: states.operator_union_list("hundreds"),
        count: states.value("count"),
    }
}

type Step = fn(V1) -> Result<V2>;

/// The second version, where the values of the map and the elements of a list are migrated by these.
fn second_by(states: &mut Declarations, map: Step, own: Step) -> Kept<V2> {
    Kept {
        value: states.migrating(first).value("value"),
        list: states.migrating(first).list("list"),
        map: states.migrating(map).map("map"),
        sum: states.migrating(first).reducing("sum", add),
        total: states.migrating(first).aggregating("total", Total(std::marker::PhantomData)),
        own: states.migrating(own).operator_list("own"),
        hundreds: states.migrating(first).operator_union_list("hundreds"),
        count: states.value("count"),
    }
}

fn third(states: &mut Declarations) -> Kept<V3> {
    Kept {
        value: states.migrating(first).then(second).value("value"),
        list: states.migrating(first).then(second).list("list"),
        map: states.migrating(first).then(second).map("map"),
        sum: states.migrating(first).then(second).reducing("sum", add),
        total: states.migrating(first).then(second).aggregating("total", Total(std::marker::PhantomData)),
        own: states.migrating(first).then(second).operator_list("own"),
        hundreds: states.migrating(first).then(second).operator_union_list("hundreds"),
        count: states.value("count"),
    }
}

fn refuse(old: V1) -> Result<V2> {
    match old.euros {
        0..50 => first(old),
        euros => Err(Error::retryable(format!("{euros} is too much"))),
    }
}

fn panicking(old: V1) -> Result<V2> {
    assert!(old.euros < 50, "{} is too much", old.euros);
    first(old)
}

macro_rules! stages {
    ($($name:ident: $account:ty = $declare:expr, $shared:expr;)*) => {$(
        #[derive(Clone)]
        pub(crate) struct $name;

        impl Stage for $name {
            type Account = $account;

            fn declare(states: &mut Declarations) -> Kept<$account> {
                let declare: fn(&mut Declarations) -> Kept<$account> = $declare;
                declare(states)
            }

            fn shared(states: &mut Declarations) -> BroadcastState<u64, $account> {
                let declare: fn(&mut Declarations) -> BroadcastState<u64, $account> = $shared;
                declare(states)
            }
        }
    )*};
}

stages! {
    First: V1 = plain, |states| states.operator_broadcast("shared");
    Second: V2 = |states| second_by(states, first, first),
        |states| states.migrating(first).operator_broadcast("shared");
    Third: V3 = third, |states| states.migrating(first).then(second).operator_broadcast("shared");
    Always: V3 = plain, |states| states.operator_broadcast("shared");
    Failing: V2 = |states| second_by(states, refuse, first), |states| states.operator_broadcast("shared");
    Panicking: V2 = |states| second_by(states, panicking, first), |states| states.operator_broadcast("shared");
    FailingShared: V2 = |states| second_by(states, first, first),
        |states| states.migrating(refuse).operator_broadcast("shared");
    FailingList: V2 = |states| second_by(states, first, refuse), |states| states.operator_broadcast("shared");
}

/// Keeps what comes in every kind of state, and tells after each number what it has of its key.
#[derive(Clone)]
struct Bank<S>(S);

impl<S: Stage> ProcessFunction for Bank<S> {
    type Key = u64;
    type In = u64;
    type Out = Row;
    type State = Kept<S::Account>;

    fn declare(states: &mut Declarations) -> Self::State {
        S::declare(states)
    }

    fn process(&mut self, number: u64, kept: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let (key, of) = (*ctx.key(), S::Account::of);
        let before = kept.value.get(ctx)?.map_or(0, |value| value.amount());
        if number.is_multiple_of(50) {
            // Runs hold tombstones, too.
            kept.value.clear(ctx)?;
            kept.list.clear(ctx)?;
            kept.map.clear(ctx)?;
        } else {
            kept.value.set(ctx, of(before + number % 10))?;
            kept.list.append(ctx, of(number))?;
            kept.map.put(ctx, &(number % 5), of(number))?;
        }
        kept.sum.add(ctx, of(number % 7))?;
        kept.total.add(ctx, number % 11)?;
        let count = kept.count.get(ctx)?.unwrap_or(0) + 1;
        kept.count.set(ctx, count)?;
        kept.own.get(ctx).push(of(number));
        if number.is_multiple_of(100) {
            kept.hundreds.get(ctx).push(of(number));
        }
        let value = kept.value.get(ctx)?.map_or(0, |value| value.amount());
        let list: u64 = kept.list.get(ctx)?.iter().map(Money::amount).sum();
        let map: u64 = kept.map.entries(ctx)?.iter().map(|(at, value)| at * 1_000 + value.amount()).sum();
        let sums =
            kept.sum.get(ctx)?.map_or(0, |sum| sum.amount()) * 100_000 + kept.total.get(ctx)?.unwrap_or(0);
        ctx.emit(Row(Kind::Count, key, value * 1_000_000 + count));
        ctx.emit(Row(Kind::Held, key, list));
        ctx.emit(Row(Kind::Windowed, key, map));
        ctx.emit(Row(Kind::Seen, key, sums));
        Ok(())
    }
}

pub(crate) fn job<S: Stage>(stage: S, more: &[(&str, &str)], ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.interval", "100ms"),
        ("parallelism", "2"),
        ("restart", "fixed-delay:3:10ms"),
        ("snapshot.merge-fan-in", "2"),
    ];
    let job = with_settings(Job::new("subject"), &[&settings[..], more].concat()).unwrap();
    let keyed = job.source("numbers", numbers()).key_by(|number| *number % KEYS);
    keyed.process("bank", Bank(stage)).sink("out", ledger.clone());
    job
}

pub(crate) fn settings<'a>(url: &'a str, parallelism: &'a str, backend: &'a str) -> [(&'a str, &'a str); 3] {
    [("checkpoints.url", url), ("parallelism", parallelism), ("state.backend", backend)]
}

/// What the newest checkpoint of a directory holds of the operator: the canonical form of its keyed state, the elements of its
/// list states, sorted, and its runs.
pub(crate) async fn kept(env: &Env, url: &str) -> (StateSummary, Vec<Vec<Vec<u8>>>, Vec<Run>) {
    let store = env.open_store(url).unwrap();
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let completed = newest.standing.completed.last().unwrap().manifest.clone();
    let manifest = manifest::read(env, &*store, &completed).await.unwrap();
    let operator = manifest.operators.iter().find(|it| it.uid.as_str() == "bank").unwrap();
    let mut summary = StateSummary::default();
    let mut lists = vec![Vec::new(), Vec::new()];
    for subtask in &operator.subtasks {
        let clocks = subtask.expiry_clocks().unwrap();
        summary.add(&summarize(env, &*store, RunSet::new(&subtask.runs, &clocks)).await.unwrap());
        for (all, name) in lists.iter_mut().zip(["own", "hundreds"]) {
            let part = subtask.lists.iter().find(|part| part.name == name).unwrap();
            all.extend(part.elements.iter().map(<[u8]>::to_vec));
        }
    }
    for all in &mut lists {
        all.sort();
        // Those of a union list are there once for each subtask of each restore.
        all.dedup();
    }
    (summary, lists, operator.subtasks.iter().flat_map(|subtask| subtask.runs.clone()).collect())
}

#[test]
fn a_job_goes_on_with_new_types_as_if_it_had_always_had_them() {
    simulate(async |sim, env: Env| {
        let twin = Ledger::default();
        run(sim, job(Always, &settings("/twin", "2", "filesystem"), &twin)).await.unwrap();

        let ledger = Ledger::default();
        type Make = fn(&[(&str, &str)], &Ledger<Row>) -> Job;
        let lives: [(Make, &str, &str, u64); 6] = [
            (|more, ledger| job(First, more, ledger), "2", "filesystem", 600),
            // Before the first checkpoint with the new code: it is migrated again.
            (|more, ledger| job(Second, more, ledger), "3", "sorted-map", 50),
            (|more, ledger| job(Second, more, ledger), "1", "filesystem", 550),
            (|more, ledger| job(Third, more, ledger), "4", "sorted-map", 40),
            (|more, ledger| job(Third, more, ledger), "2", "filesystem", 550),
            (|more, ledger| job(Third, more, ledger), "3", "sorted-map", 450),
        ];
        for (make, parallelism, backend, millis) in lives {
            let settings = settings("/checkpoints", parallelism, backend);
            let (process, handle) = start(sim, make(&settings, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(millis)).await;
            if millis > 100 {
                handle.control().ask(Ask::Checkpoint).await.unwrap();
                env.sleep(Duration::from_millis(30)).await;
            }
            process.kill();
        }
        run(sim, job(Third, &settings("/checkpoints", "4", "filesystem"), &ledger)).await.unwrap();
        assert_eq!(ledger.committed(), twin.committed());
        let [migrated, expected] = [kept(&env, "/checkpoints").await, kept(&env, "/twin").await];
        assert_eq!(migrated.0, expected.0, "keyed state");
        assert_eq!(migrated.1, expected.1, "list states");
        assert_eq!(expected.1.iter().map(Vec::len).collect::<Vec<_>>(), [NUMBERS as usize, 15]);
    });
}

/// The first checkpoint after a migration refers to no run for states that it holds in another shape.
#[test]
fn no_checkpoint_mixes_two_types() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        for (stage, millis) in [(true, 500), (false, 60)] {
            let settings = settings("/checkpoints", "2", "filesystem");
            let job = if stage { job(First, &settings, &ledger) } else { job(Second, &settings, &ledger) };
            let (process, handle) = start(sim, job).await.unwrap();
            env.sleep(Duration::from_millis(millis)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            process.kill();
        }
        let (_, _, runs) = kept(&env, "/checkpoints").await;
        let (old, new): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.identity.attempt.0 == 0);
        // The counts are as they were, and lie in the old runs.
        assert!(!old.is_empty());
        for run in old {
            assert_eq!(run.without, ["list", "map", "sum", "total", "value"]);
        }
        assert!(
            new.iter().any(|run| run.identity.number == 0) && new.iter().all(|run| run.without.is_empty())
        );
    });
}

#[test]
fn a_migration_that_fails_ends_the_start_and_changes_nothing() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let settings = settings("/checkpoints", "2", "filesystem");
        let (process, handle) = start(sim, job(First, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_millis(30)).await;
        process.kill();
        let (before, committed) = (kept(&env, "/checkpoints").await, ledger.committed());

        let keyed = [
            "operator bank: state \"map\", key ",
            ": its migration: ",
            "is too much; nothing was changed: mend the migration, or start the program that wrote the snapshot",
            ", map key ",
        ];
        let error = run(sim, job(Failing, &settings, &ledger)).await.unwrap_err();
        assert_says(&error, ErrorKind::IncompatibleState, &keyed);
        let error = run(sim, job(Panicking, &settings, &ledger)).await.unwrap_err();
        assert_says(&error, ErrorKind::IncompatibleState, &keyed);
        let error = run(sim, job(FailingList, &settings, &ledger)).await.unwrap_err();
        let listed = ["operator bank: list state \"own\": element V1 { euros: ", keyed[1], keyed[2]];
        assert_says(&error, ErrorKind::IncompatibleState, &listed);

        assert!(kept(&env, "/checkpoints").await == before, "the checkpoint is another one");
        assert_eq!(ledger.committed(), committed);
        run(sim, job(First, &settings, &ledger)).await.unwrap();
        let twin = Ledger::default();
        run(sim, job(Always, &[("checkpoints.url", "/twin")], &twin)).await.unwrap();
        assert_eq!(ledger.committed(), twin.committed());
    });
}

/// A shape that is none of those that the code knows is refused before anything begins.
#[test]
fn an_unknown_type_is_refused_with_all_that_are_known() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let settings = settings("/checkpoints", "2", "filesystem");
        let (process, handle) = start(sim, job(Always, &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(200)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        process.kill();
        let store = env.open_store("/checkpoints").unwrap();
        let before = store.list("").await.unwrap();
        let error = run(sim, job(Second, &settings, &ledger)).await.unwrap_err();
        let texts =
            ["operator bank, state \"list\"", "expected struct V2", "found struct V3", "euros", "migration"];
        assert_says(&error, ErrorKind::IncompatibleState, &texts);
        assert_eq!(store.list("").await.unwrap(), before);
    });
}

/// Every subtask has the amounts by number modulo 7.
#[derive(Clone)]
struct Shared<S>(S);

impl<S: Stage> ProcessFunction for Shared<S> {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = BroadcastState<u64, S::Account>;

    fn declare(states: &mut Declarations) -> Self::State {
        S::shared(states)
    }

    fn process(&mut self, number: u64, shared: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let place = shared.get_mut(ctx).entry(number % 7).or_insert_with(|| S::Account::of(0));
        *place = S::Account::of(place.amount() + number % 10);
        let amount = place.amount();
        if ctx.runtime().subtask.0 == 0 {
            ctx.emit(Row(Kind::Count, number % 7, amount));
        }
        Ok(())
    }
}

fn sharing<S: Stage>(stage: S, url: &str, parallelism: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", url),
        ("checkpoints.interval", "100ms"),
        ("parallelism", parallelism),
        ("restart", "none"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", numbers()).broadcast().process("bank", Shared(stage)).sink("out", ledger.clone());
    job
}

#[test]
fn values_of_a_broadcast_state_are_migrated_in_every_copy() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        type Make = fn(&str, &Ledger<Row>) -> Job;
        let lives: [(Make, &str); 3] = [
            (|parallelism, ledger| sharing(First, "/checkpoints", parallelism, ledger), "2"),
            (|parallelism, ledger| sharing(Second, "/checkpoints", parallelism, ledger), "3"),
            (|parallelism, ledger| sharing(Third, "/checkpoints", parallelism, ledger), "1"),
        ];
        for (make, parallelism) in lives {
            let (process, handle) = start(sim, make(parallelism, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(500)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(50)).await;
            process.kill();
            if parallelism == "2" {
                let failing = sharing(FailingShared, "/checkpoints", "3", &ledger);
                let error = run(sim, failing).await.unwrap_err();
                let texts = [
                    "operator bank: list state \"shared\": key ",
                    ": its migration: ",
                    "is too much; nothing",
                ];
                assert_says(&error, ErrorKind::IncompatibleState, &texts);
            }
        }
        run(sim, sharing(Third, "/checkpoints", "4", &ledger)).await.unwrap();
        let (mut sums, numbers) = ([0; 7], numbers());
        let rows = numbers.all().map(|(number, _)| {
            let key = (number % 7) as usize;
            sums[key] += number % 10;
            Row(Kind::Count, number % 7, sums[key])
        });
        assert_eq!(ledger.committed(), counted(rows));
    });
}

//! Mistakes get one clear line and change nothing on the disk.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use env::{Env, sim::Control};
use serde::{Serialize, de::DeserializeOwned};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{assert_says, run, simulate, start, with_settings},
};

const URL: &str = "/checkpoints";

fn numbers() -> Numbers {
    Numbers::new(2, 200).paced(2, Duration::from_millis(10))
}

fn settled(settings: &[(&str, &str)]) -> Job {
    let common = [("checkpoints.url", URL), ("checkpoints.interval", "100ms")];
    with_settings(Job::new("subject"), &[&common, settings].concat()).unwrap()
}

/// All that lies below the checkpoint directory, but for the lock.
async fn disk(env: &Env) -> BTreeMap<String, Vec<u8>> {
    let store = env.open_store(URL).unwrap();
    let mut files = BTreeMap::new();
    for entry in store.list("").await.unwrap() {
        let bytes = store.get(&entry.path).await.unwrap().unwrap();
        if entry.path != "job.lock" {
            files.insert(entry.path, bytes.to_vec());
        }
    }
    files
}

/// A counting job that is killed after some checkpoints.
async fn leave_checkpoints(sim: &Control, env: &Env, job: Job) {
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_millis(600)).await;
    assert!(handle.control().view().checkpoints.completed > 1);
    process.kill();
}

/// Runs `job`, which must be refused like this, and change nothing.
async fn refused(sim: &Control, env: &Env, job: Job, kind: ErrorKind, texts: &[&str]) {
    let before = disk(env).await;
    let error = run(sim, job).await.unwrap_err();
    assert_says(&error, kind, texts);
    let after = disk(env).await;
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "files have changed: {error}");
    assert!(after == before, "a file has changed: {error}");
}

fn counting(settings: &[(&str, &str)], uid: &str) -> Job {
    let job = settled(settings);
    job.source("numbers", numbers())
        .key_by(|number| number % 3)
        .count(uid)
        .map(|(key, _)| key)
        .sink("out", Ledger::default());
    job
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let cases = [
        ("checkpoint.interval", "10s", vec!["unknown setting", "checkpoints.interval"]),
        ("checkpoints.interval", "10", vec!["checkpoints.interval", "a number and a unit"]),
        ("checkpoints.interval", "10 parsecs", vec!["checkpoints.interval", "a number and a unit"]),
        ("channel.bytes", "1 parsec", vec!["channel.bytes", "KiB"]),
        ("state.backend", "floppy", vec!["state.backend", "memory, filesystem, rocksdb"]),
        ("checkpoints.mode", "sometimes", vec!["checkpoints.mode", "exactly-once or at-least-once"]),
        ("restart", "maybe", vec!["restart", "no restart strategy", "fixed-delay"]),
        ("parallelism", "0", vec!["parallelism", "1 or more"]),
        ("checkpoints.retained", "none", vec!["checkpoints.retained", "1 or more"]),
        ("batch.records", "5000", vec!["batch.records", "a number up to 1024"]),
        ("rest", "foo", vec!["rest", "HOST:PORT"]),
        ("rest", "127.0.0.1:99999", vec!["rest", "65535"]),
        ("take-over", "yes", vec!["take-over", "true or false"]),
    ];
    for (name, value, texts) in cases {
        let error = with_settings(Job::new("subject"), &[(name, value)]).err().unwrap();
        assert_says(&error, ErrorKind::InvalidJob, &texts);
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused_at_the_start() {
    simulate(async |sim, env| {
        /// Settings, and what their refusal says.
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 6] = [
            (&[("checkpoints.url", "gopher://x/y")], &["gopher"]),
            (&[("checkpoints.interval", "1s")], &["no place for checkpoints", "--checkpoints DIR"]),
            (&[], &["sink out is exactly-once", "--checkpoints DIR"]),
            (&[("state.backend", "memory")], &["sink out", "--allow-volatile"]),
            (&[("checkpoints.url", "memory:x")], &["sink out", "--allow-volatile"]),
            (&[("state.backend", "memory"), ("checkpoints.url", URL)], &["memory backend", URL]),
        ];
        for (settings, texts) in cases {
            let job = with_settings(Job::new("subject"), settings).unwrap();
            job.source("numbers", numbers()).sink("out", Ledger::default());
            refused(sim, &env, job, ErrorKind::InvalidJob, texts).await;
        }
        sim.set_var("TIDEGATE_CHECKPOINTS_INTERVAL", "soon");
        let texts = ["TIDEGATE_CHECKPOINTS_INTERVAL", "soon"];
        refused(sim, &env, counting(&[], "count"), ErrorKind::InvalidJob, &texts).await;
    });
}

#[test]
fn a_graph_that_cannot_be_is_refused_with_everything_that_is_wrong() {
    simulate(async |sim, env| {
        let job = settled(&[]);
        let all = job.source("numbers", numbers());
        all.clone()
            .key_by(|number| *number)
            .count("twice")
            .map(|(key, _)| key)
            .sink("out", Ledger::default());
        all.key_by(|number| BTreeMap::from([(*number, 1_u64)]))
            .count("twice")
            .map(|_| 0_u64)
            .sink("Out!", Ledger::default());
        let texts = ["problems:", "twice", "Out!", "key"];
        refused(sim, &env, job, ErrorKind::InvalidJob, &texts).await;
    });
}

/// A state as the first version of a program has it.
mod before {
    #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    pub(super) struct Total {
        pub(super) total: u64,
    }
}

/// The same in the next version.
mod after {
    #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    pub(super) struct Total {
        pub(super) sum: u64,
    }
}

#[test]
fn state_that_does_not_fit_is_refused_before_anything_starts() {
    simulate(async |sim, env| {
        leave_checkpoints(sim, &env, counting(&[], "count")).await;
        let incompatible = ErrorKind::IncompatibleState;

        refused(
            sim,
            &env,
            counting(&[("max-parallelism", "64")], "count"),
            incompatible,
            &["max parallelism 128", "64", "set it back"],
        )
        .await;

        let job = counting(&[], "other");
        let texts = ["operator count", "formerly()", "--allow-dropped-state count"];
        refused(sim, &env, job, incompatible, &texts).await;

        let job = counting(&[("allow-dropped-state", "cuont")], "other");
        let texts = ["--allow-dropped-state cuont", "it holds", "count"];
        refused(sim, &env, job, ErrorKind::InvalidJob, &texts).await;

        let job = settled(&[]);
        job.source("numbers", numbers())
            .key_by(|number| number.to_string())
            .count("count")
            .map(|_| 0_u64)
            .sink("out", Ledger::default());
        refused(sim, &env, job, incompatible, &["operator count", "key"]).await;
    });
}

#[test]
fn a_changed_shape_is_refused_with_the_field_that_changed() {
    simulate(async |sim, env| {
        fn summing<A: Clone + Send + Sync + Serialize + DeserializeOwned + 'static>(
            init: A,
            of: impl Fn(&mut A) + Send + Sync + 'static,
        ) -> Job {
            let job = settled(&[]);
            job.source("numbers", numbers())
                .key_by(|number| number % 3)
                .fold("sum", init, move |sum, _| of(sum))
                .map(|(key, _)| key)
                .sink("out", Ledger::default());
            job
        }
        leave_checkpoints(sim, &env, summing(before::Total::default(), |it| it.total += 1)).await;
        let job = summing(after::Total::default(), |it| it.sum += 1);
        let texts = ["operator sum", "state \"value\"", "field `sum`"];
        refused(sim, &env, job, ErrorKind::IncompatibleState, &texts).await;
    });
}

#[test]
fn state_is_dropped_where_the_user_says_so() {
    simulate(async |sim, env| {
        leave_checkpoints(sim, &env, counting(&[], "count")).await;
        run(sim, counting(&[("allow-dropped-state", "count")], "other")).await.unwrap();
    });
}

/// Counts each key's numbers in `kept`, and in `gone` if that is declared; emits key, `kept` and `gone`.
#[derive(Clone)]
struct Counts<const BOTH: bool>;

impl<const BOTH: bool> ProcessFunction for Counts<BOTH> {
    type Key = u64;
    type In = u64;
    type Out = (u64, u64, u64);
    type State = (ValueState<u64>, Option<ValueState<u64>>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.value("kept"), BOTH.then(|| states.value("gone")))
    }

    fn process(&mut self, number: u64, state: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let mut counts = [0, 0];
        for (at, state) in [Some(&state.0), state.1.as_ref()].into_iter().enumerate() {
            let Some(state) = state else { continue };
            counts[at] = state.get(ctx)?.unwrap_or(0) + 1;
            state.set(ctx, counts[at])?;
        }
        ctx.emit((number % 7, counts[0], counts[1]));
        Ok(())
    }
}

#[test]
fn one_state_of_an_operator_is_dropped_for_good() {
    fn counts<const BOTH: bool>(ledger: &Ledger<(u64, u64, u64)>, more: &[(&str, &str)]) -> Job {
        let settings = [("snapshot.merge-fan-in", "2"), ("parallelism", if BOTH { "1" } else { "3" })];
        let job = settled(&[&settings, more].concat());
        job.source("numbers", Numbers::endless(2).paced(2, Duration::from_millis(10)))
            .key_by(|number| number % 7)
            .process("counts", Counts::<BOTH>)
            .sink("out", ledger.clone());
        job
    }
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        leave_checkpoints(sim, &env, counts::<true>(&ledger, &[])).await;
        let texts = ["operator counts", "value state \"gone\"", "--allow-dropped-state counts"];
        let fewer = counts::<false>(&ledger, &[]);
        refused(sim, &env, fewer, ErrorKind::IncompatibleState, &texts).await;
        leave_checkpoints(sim, &env, counts::<false>(&ledger, &[("allow-dropped-state", "counts")])).await;
        // It was said once. Runs with the entries are still there, or merged meanwhile.
        leave_checkpoints(sim, &env, counts::<false>(&ledger, &[])).await;
        leave_checkpoints(sim, &env, counts::<true>(&ledger, &[])).await;
        run_for(sim, &env, counts::<true>(&ledger, &[])).await;
        let rows: Vec<_> = ledger.committed().into_keys().collect();
        for key in 0..7 {
            let mine = rows.iter().filter(|(of, ..)| *of == key);
            let kept: Vec<_> = mine.clone().map(|(_, kept, _)| *kept).collect();
            assert!(kept.iter().copied().eq(1..=kept.len() as u64), "key {key}: {kept:?}");
            let before = mine.clone().take_while(|(_, _, gone)| *gone > 0).count() as u64;
            let between = mine.clone().filter(|(_, _, gone)| *gone == 0).count() as u64;
            let after = mine.clone().filter(|(_, kept, _)| *kept > before + between);
            let gone: Vec<_> = after.map(|(_, _, gone)| *gone).collect();
            assert!(before > 10 && between > 10 && gone.len() > 10, "{before}, {between}, {}", gone.len());
            assert!(gone.iter().copied().eq(1..=gone.len() as u64), "key {key}: it is back: {gone:?}");
        }
    });
}

/// Runs the job for a while, and stops it.
async fn run_for(sim: &Control, env: &Env, job: Job) {
    let (_process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_millis(600)).await;
    handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
    handle.join().await.unwrap();
}

fn writing(url: &str, name: &str, ledger: &Ledger<u64>, more: &[(&str, &str)]) -> Job {
    let own = [("checkpoints.url", url), ("checkpoints.interval", "100ms")];
    let job = with_settings(Job::new(name), &[&own, more].concat()).unwrap();
    job.source("numbers", numbers()).sink("out", ledger.clone());
    job
}

#[test]
fn directories_and_outputs_of_others_are_refused() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, writing(URL, "subject", &ledger, &[])).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        process.kill();
        let old = disk(&env).await;

        // Another job's directory.
        let job = writing(URL, "other", &Ledger::default(), &[]);
        let texts = ["belongs to job \"subject\", not to \"other\""];
        refused(sim, &env, job, ErrorKind::Conflict, &texts).await;

        // A new history beside output of the old one.
        let texts = ["sink out", "another line of history", "--accept-foreign-output"];
        let job = writing(URL, "subject", &ledger, &[("from", "none")]);
        refused(sim, &env, job, ErrorKind::Conflict, &texts).await;
        let error = run(sim, writing("/empty", "subject", &ledger, &[])).await.unwrap_err();
        assert_says(&error, ErrorKind::Conflict, &texts);

        // The checkpoint directory of yesterday beside the output of today.
        let (process, _handle) = start(sim, writing(URL, "subject", &ledger, &[])).await.unwrap();
        env.sleep(Duration::from_millis(700)).await;
        process.kill();
        let yesterday = env.open_store("/yesterday").unwrap();
        for (path, bytes) in &old {
            yesterday.put(path, vec![bytes.clone().into()]).await.unwrap();
        }
        let error = run(sim, writing("/yesterday", "subject", &ledger, &[])).await.unwrap_err();
        assert_says(
            &error,
            ErrorKind::Conflict,
            &["sink out", "the checkpoint directory is older than the output"],
        );

        // Nothing to continue.
        let job = writing("/nothing", "subject", &Ledger::default(), &[("from", "latest")]);
        let error = run(sim, job).await.unwrap_err();
        assert_says(&error, ErrorKind::InvalidJob, &["--from latest", "has none"]);
        let job = writing("/nothing", "subject", &Ledger::default(), &[("from", "/nowhere")]);
        let error = run(sim, job).await.unwrap_err();
        assert_says(&error, ErrorKind::InvalidJob, &["/nowhere"]);
    });
}

/// Passes numbers on, and owns a list of `T`.
#[derive(Clone)]
struct Listing<T>(PhantomData<fn() -> T>);

impl<T: Default + Clone + Send + Sync + Serialize + DeserializeOwned + 'static> ProcessFunction
    for Listing<T>
{
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = OperatorListState<T>;

    fn declare(states: &mut Declarations) -> OperatorListState<T> {
        states.operator_list("seen")
    }

    fn process(&mut self, number: u64, seen: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        seen.get(ctx).push(T::default());
        ctx.emit(number);
        Ok(())
    }
}

/// The same with a list that all subtasks get.
#[derive(Clone)]
struct Union;

impl ProcessFunction for Union {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = OperatorListState<before::Total>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_union_list("seen")
    }

    fn process(&mut self, number: u64, _seen: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(number);
        Ok(())
    }
}

/// The same without the list.
#[derive(Clone)]
struct Passing;

impl ProcessFunction for Passing {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = ();

    fn declare(_states: &mut Declarations) {}

    fn process(&mut self, number: u64, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(number);
        Ok(())
    }
}

fn listing<F: ProcessFunction<Key = (), In = u64, Out = u64>>(settings: &[(&str, &str)], function: F) -> Job {
    let job = settled(settings);
    job.source("numbers", numbers()).process("listing", function).sink("out", Ledger::default());
    job
}

#[test]
fn list_states_that_do_not_fit_are_refused_before_anything_starts() {
    simulate(async |sim, env| {
        leave_checkpoints(sim, &env, listing(&[], Listing::<before::Total>(PhantomData))).await;
        let changed = listing(&[], Listing::<after::Total>(PhantomData));
        let texts = [
            "checkpoint",
            "operator listing",
            "list state \"seen\"",
            "field `sum`",
            "is missing in what was found",
        ];
        refused(sim, &env, changed, ErrorKind::IncompatibleState, &texts).await;

        let union = listing(&[], Union);
        let texts = ["operator listing", "\"seen\" was stored as list, this program declares union list"];
        refused(sim, &env, union, ErrorKind::IncompatibleState, &texts).await;

        let texts =
            ["operator listing", "list state \"seen\"", "no longer declares", "--allow-dropped-state"];
        refused(sim, &env, listing(&[], Passing), ErrorKind::IncompatibleState, &texts).await;
        run(sim, listing(&[("allow-dropped-state", "listing")], Passing)).await.unwrap();
    });
}

#[test]
fn input_that_is_not_there_leaves_nothing_behind() {
    simulate(async |sim, env| {
        let job = settled(&[]);
        job.source("numbers", Numbers::missing()).sink("out", Ledger::default());
        refused(sim, &env, job, ErrorKind::BadInput, &["source numbers", "there are no numbers"]).await;
        assert!(disk(&env).await.is_empty());
    });
}

//! Savepoints that the command line makes: renamed, without a state, and whole or none wherever the power fails.

use std::sync::Arc;

use env::{Env, sim::Simulation};
use tidegate_checkpoint::{
    manifest::{ListPart, Manifest, OperatorSnapshot, Redistribution, StateDescription, invariants},
    savepoint::{self, Changed, SnapshotLocation},
    snapshots::verify,
};
use types::{ErrorKind, ExpiryClocks, ExpiryTimes, KeyGroupRange, Result, SubtaskIndex, Timestamp, Uid};

use crate::{
    crashes::Work,
    fixture::{Job, operator},
    snapshots::Joiner,
};

const JOB: &str = "/jobs/a";
const SAVEPOINT: &str = "/savepoints/s";

fn list(name: &str) -> ListPart {
    ListPart {
        name: name.to_owned(),
        redistribution: Redistribution::Split,
        codec: "bincode2".to_owned(),
        shape: Vec::new(),
        elements: [[1]].iter().collect(),
    }
}

/// Operator `count` with keyed states `count` and `last` and a list `seen`; source `numbers` with its splits.
async fn manifest(env: &Env) -> Manifest {
    let store = env.open_store(JOB).unwrap();
    let mut job = Job::start(env, &store).await.unwrap();
    job.checkpoint().await.unwrap();
    let checkpoint = job.checkpoint().await.unwrap();
    let mut manifest = job.manifest(checkpoint);
    let last = StateDescription { name: "last".to_owned(), ..manifest.operators[0].states[0].clone() };
    manifest.operators[0].states.push(last);
    manifest.operators[0].subtasks[0].lists = vec![list("seen")];
    let source = operator(Vec::new());
    let mut subtask = source.subtasks[0].clone();
    (subtask.lists, subtask.groups.end) = (vec![list("splits")], 0);
    manifest.operators.push(OperatorSnapshot {
        uid: Uid::new("numbers").unwrap(),
        kind: "source".to_owned(),
        states: Vec::new(),
        subtasks: vec![subtask],
        enumerator: Some(vec![0]),
        ..source
    });
    manifest
}

fn uids(manifest: &Manifest) -> Vec<&str> {
    manifest.operators.iter().map(|operator| operator.uid.as_str()).collect()
}

#[test]
fn an_operator_is_renamed_with_all_that_it_has() {
    Simulation::new(31).run(async |env| {
        let source = Arc::new(manifest(&env).await);
        let changed = Changed::rename_uid(Arc::clone(&source), "count", "tally").unwrap();
        assert_eq!(uids(changed.manifest()), ["numbers", "tally"], "in the order of uids");
        let tally = Uid::new("tally").unwrap();
        let runs = &source.operators[0].subtasks[0].runs;
        assert_eq!(changed.runs_before(&tally, SubtaskIndex(0)), runs);
        assert_eq!(changed.runs_before(&tally, SubtaskIndex(1)), []);
        let store = env.open_store(JOB).unwrap();
        savepoint::write(&env, &*store, changed.manifest(), SAVEPOINT, &Joiner).await.unwrap();
        let made = SnapshotLocation::resolve(&env, SAVEPOINT).await.unwrap().manifest;
        let run = &made.operators[1].subtasks[0].runs[0];
        assert_eq!((run.file.path.as_str(), &run.identity.operator), ("runs/tally/0-0.run", &tally));
        assert_eq!(made.operators[1].subtasks[0].lists, source.operators[0].subtasks[0].lists);
        assert_eq!(made.operators[0], source.operators[1]);

        // The checkpoint as it is, and the same otherwise changed, are other savepoints.
        let asked = [
            Changed::nothing(Arc::clone(&source)),
            Changed::rename_uid(Arc::clone(&source), "count", "sum").unwrap(),
            Changed::drop_state(Arc::clone(&source), "count", Some("last")).unwrap(),
        ];
        for other in asked {
            let refused =
                savepoint::write(&env, &*store, other.manifest(), SAVEPOINT, &Joiner).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            assert!(refused.message().contains("holds another savepoint"), "{refused}");
        }
        savepoint::write(&env, &*store, changed.manifest(), SAVEPOINT, &Joiner).await.unwrap();
    });
}

#[test]
fn a_state_is_dropped_and_nothing_else() {
    Simulation::new(32).run(async |env| {
        let source = Arc::new(manifest(&env).await);
        let drop = |uid, state| Changed::drop_state(Arc::clone(&source), uid, state).unwrap();
        let names = |changed: &Changed| -> Vec<String> {
            let operator = &changed.manifest().operators[0];
            let keyed = operator.states.iter().map(|state| state.name.clone());
            keyed.chain(operator.subtasks[0].lists.iter().map(|list| list.name.clone())).collect()
        };
        let keyed = drop("count", Some("count"));
        assert_eq!(names(&keyed), ["last", "seen"]);
        assert!(keyed.manifest().operators[0].subtasks[0].runs.iter().all(|run| run.without == ["count"]));
        let uid = Uid::new("count").unwrap();
        assert_eq!(keyed.dropped(&uid), ["count".to_owned()].into());
        assert!(keyed.runs_before(&uid, SubtaskIndex(0)).iter().all(|run| run.without.is_empty()));
        assert!(keyed.dropped(&Uid::new("numbers").unwrap()).is_empty());
        assert_eq!(keyed.manifest().operators[1], source.operators[1]);
        assert_eq!(names(&drop("count", Some("seen"))), ["count", "last"]);
        assert_eq!(uids(drop("count", None).manifest()), ["numbers"]);
        assert_eq!(uids(drop("numbers", None).manifest()), ["count"]);
    });
}

#[test]
fn until_when_state_had_expired_goes_with_the_last_state_that_does() {
    Simulation::new(34).run(async |env| {
        let mut source = manifest(&env).await;
        let count = &mut source.operators[0];
        for state in &mut count.states {
            state.kind += ", event-time ttl";
        }
        for subtask in &mut count.subtasks {
            let times = ExpiryTimes { event: Timestamp(7), processing: Timestamp(8) };
            let KeyGroupRange { start, end } = subtask.groups;
            let clocks = ExpiryClocks::new(start, (start..end).map(|_| times));
            subtask.lists.insert(0, ListPart::of_expiry_clocks(&clocks).unwrap());
        }
        let clocks = |changed: &Changed| {
            assert_eq!(invariants::violation(changed.manifest()), None);
            let tally = &changed.manifest().operators[0];
            tally.subtasks.iter().filter(|it| it.lists.iter().any(ListPart::is_expiry_clocks)).count()
        };
        let all = source.operators[0].subtasks.len();
        let source = Arc::new(source);
        assert_eq!(clocks(&Changed::rename_uid(Arc::clone(&source), "count", "a").unwrap()), all);
        let one = Changed::drop_state(Arc::clone(&source), "count", Some("last")).unwrap();
        assert_eq!(clocks(&one), all, "count expires still");
        let none = Changed::drop_state(Arc::new(one.manifest().clone()), "count", Some("count")).unwrap();
        assert_eq!(clocks(&none), 0);
    });
}

#[test]
fn what_is_not_there_or_may_not_be_is_refused_with_what_is() {
    Simulation::new(33).run(async |env| {
        let source = Arc::new(manifest(&env).await);
        let rename = |old, new| Changed::rename_uid(Arc::clone(&source), old, new);
        let drop = |uid, state| Changed::drop_state(Arc::clone(&source), uid, state);
        for (refused, text) in [
            (rename("cuont", "x"), "the snapshot has no operator \"cuont\"; it has count, numbers"),
            (rename("count", "numbers"), "the snapshot has an operator numbers already: choose another uid"),
            (rename("count", "count"), "the snapshot has an operator count already"),
            (rename("count", "Tally"), "uid \"Tally\" is not allowed: use 1 to 64 of the characters"),
            (drop("sum", None), "the snapshot has no operator \"sum\"; it has count, numbers"),
            (drop("count", Some("sum")), "operator count has no state \"sum\"; it has count, last, seen"),
            (drop("numbers", Some("x")), "operator numbers has no state \"x\"; it has splits"),
            (drop("numbers", Some("splits")), "input would be lost without it: leave out --state"),
        ] {
            let refused = refused.map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidJob, "{refused}");
            assert!(refused.message().contains(text), "{text}: {refused}");
        }
    });
}

async fn copy(env: &Env) -> Result<()> {
    // The same manifest each time: the job is made before the power first fails, and goes on no more.
    let store = env.open_store(JOB)?;
    let source = SnapshotLocation::resolve(env, JOB).await?.manifest;
    let changed = Changed::rename_uid(source, "count", "tally")?;
    savepoint::write(env, &*store, changed.manifest(), SAVEPOINT, &Joiner).await.map(drop)
}

#[test]
fn wherever_the_power_fails_a_copy_is_whole_or_none_and_the_next_try_makes_it_whole() {
    let work = Work {
        before: |env| {
            Box::pin(async move {
                let store = env.open_store(JOB).unwrap();
                let mut job = Job::start(&env, &store).await.unwrap();
                job.checkpoint().await.unwrap();
                job.checkpoint().await.unwrap();
            })
        },
        work: |env| Box::pin(async move { copy(&env).await }),
        check: |env, place| {
            Box::pin(async move {
                let store = env.open_store(SAVEPOINT).unwrap();
                if SnapshotLocation::savepoint(&env, &store).await.unwrap().is_some() {
                    let report = verify(&env, Arc::clone(&store), &mut |_| {}).await.unwrap();
                    assert!(report.is_whole() && report.files == 1, "{place}: {:?}", report.problems);
                } else {
                    let none = SnapshotLocation::resolve(&env, SAVEPOINT).await.unwrap_err();
                    assert_eq!(none.kind(), ErrorKind::InvalidJob, "{place}");
                }
                copy(&env).await.unwrap();
                let report = verify(&env, Arc::clone(&store), &mut |_| {}).await.unwrap();
                assert!(report.problems.is_empty() && report.files == 1, "{place}: {:?}", report.problems);
                let report = verify(&env, env.open_store(JOB).unwrap(), &mut |_| {}).await.unwrap();
                assert!(report.problems.is_empty(), "{place}: the job's own: {:?}", report.problems);
            })
        },
    };
    for seed in 40..43 {
        let failed = work.at_every_change(seed);
        assert!(failed > 15, "only {failed} changes");
    }
}

//! Deleting savepoints: what was begun is ended, whatever happens in between, and nothing else goes.

use std::sync::Arc;

use env::{
    Env,
    sim::{Simulation, StoreCall},
};
use tidegate_checkpoint::{
    savepoint::{self, SnapshotLocation, delete},
    snapshots::verify,
};
use types::{CheckpointId, Digest, Error, ErrorKind, Result};

use crate::{crashes::Work, fixture::Job, snapshots::Joiner};

const JOB: &str = "/jobs/a";
const SAVEPOINT: &str = "/savepoints/s";

async fn savepoint(env: &Env) -> Job {
    let store = env.open_store(JOB).unwrap();
    let mut job = Job::start(env, &store).await.unwrap();
    let checkpoint = job.checkpoint().await.unwrap();
    savepoint::write(env, &*store, &job.manifest(checkpoint), SAVEPOINT, &Joiner).await.unwrap();
    job
}

/// No job needs it.
async fn anybody(_: Digest) -> Result<()> {
    Ok(())
}

async fn paths(env: &Env, url: &str) -> Vec<String> {
    let listing = env.open_store(url).unwrap().list("").await.unwrap();
    listing.into_iter().map(|entry| entry.path).collect()
}

#[test]
fn a_savepoint_goes_with_its_directory_and_without_what_is_not_its_own() {
    Simulation::new(51).run(async |env| {
        let job = savepoint(&env).await;
        let deleted = delete(&env, &env.open_store(SAVEPOINT).unwrap(), anybody).await.unwrap();
        assert_eq!((deleted.checkpoint, deleted.files, deleted.resumed), (CheckpointId(1), 2, false));
        assert_eq!((deleted.left.len(), deleted.bytes > 0), (0, true));
        assert!(env.files().metadata(SAVEPOINT.as_ref()).unwrap().is_none(), "the directory is gone");

        let manifest = job.manifest(CheckpointId(1));
        savepoint::write(&env, &*job.store, &manifest, SAVEPOINT, &Joiner).await.unwrap();
        let store = env.open_store(SAVEPOINT).unwrap();
        for path in ["notes.txt", "runs/count/mine"] {
            store.put(path, vec!["mine".into()]).await.unwrap();
        }
        let deleted = delete(&env, &store, anybody).await.unwrap();
        assert_eq!(deleted.left, ["notes.txt", "runs/count/mine"]);
        assert_eq!(paths(&env, SAVEPOINT).await, deleted.left);
    });
}

#[test]
fn what_is_no_savepoint_is_refused_and_left_alone() {
    Simulation::new(52).run(async |env| {
        let job = savepoint(&env).await;
        env.open_store("/other").unwrap().put("notes", vec!["mine".into()]).await.unwrap();
        let half = env.open_store("/half").unwrap();
        for path in paths(&env, SAVEPOINT).await.iter().filter(|path| *path != "manifest") {
            let bytes = env.open_store(SAVEPOINT).unwrap().get(path).await.unwrap().unwrap();
            half.put(path, vec![bytes]).await.unwrap();
        }
        half.put("partial", vec!["a claim".into()]).await.unwrap();
        env.open_store("/damaged").unwrap().put("manifest", vec!["not one".into()]).await.unwrap();
        env.open_store("/dead").unwrap().put("deleted", vec!["not one".into()]).await.unwrap();
        for (url, kind, text) in [
            (JOB, ErrorKind::Conflict, "/jobs/a is the checkpoint directory of job \"job\""),
            ("/other", ErrorKind::InvalidJob, "/other holds no savepoint: nothing was deleted"),
            ("/half", ErrorKind::Conflict, "whoever copies it may still be at work"),
            ("/damaged", ErrorKind::Corrupt, "remove the directory if you want none of it"),
            ("/dead", ErrorKind::Corrupt, "remove the directory if you want none of it"),
        ] {
            let before = paths(&env, url).await;
            let refused = delete(&env, &env.open_store(url).unwrap(), anybody).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
            assert!(refused.message().contains(text), "{text}: {refused}");
            assert_eq!(paths(&env, url).await, before);
        }
        // A manifest that names files which no savepoint has.
        let mut foreign = job.manifest(CheckpointId(1));
        foreign.kind = tidegate_checkpoint::manifest::SnapshotKind::Savepoint;
        let bytes = tidegate_checkpoint::manifest::encode(&foreign).unwrap();
        env.open_store("/foreign").unwrap().put("manifest", vec![bytes]).await.unwrap();
        let refused = delete(&env, &env.open_store("/foreign").unwrap(), anybody).await.unwrap_err();
        assert!(refused.message().contains("no savepoint has a file \"attempt-0/"), "{refused}");
        assert_eq!(paths(&env, "/foreign").await, ["manifest"]);
    });
}

#[test]
fn what_somebody_needs_stays_as_long_as_anybody_can_start_from_it() {
    let sim = Simulation::new(53);
    sim.run(async |env| {
        drop(savepoint(&env).await);
        let store = env.open_store(SAVEPOINT).unwrap();
        let manifest = SnapshotLocation::savepoint(&env, &store).await.unwrap().unwrap().file.digest;
        let needed = async |asked: Digest| {
            assert_eq!(asked, manifest);
            Err(Error::conflict("needed"))
        };
        let before = paths(&env, SAVEPOINT).await;
        let kept = delete(&env, &store, needed).await.unwrap_err();
        assert_eq!((kept.message(), paths(&env, SAVEPOINT).await), ("needed", before));

        // Also by who goes on with a deletion that has got as far as its tombstone.
        sim.rule_stores(|_, call| match call {
            "delete manifest" => StoreCall::Fails(ErrorKind::Unavailable),
            _ => StoreCall::Goes,
        });
        delete(&env, &store, anybody).await.unwrap_err();
        sim.rule_stores(|_, _| StoreCall::Goes);
        let kept = delete(&env, &store, needed).await.unwrap_err();
        assert_eq!(kept.message(), "needed");
        assert!(SnapshotLocation::savepoint(&env, &store).await.unwrap().is_some());

        // Nobody starts from it without its manifest.
        store.delete("manifest").await.unwrap();
        let never = async |_| -> Result<()> { panic!("there is nothing to ask about") };
        assert!(delete(&env, &store, never).await.unwrap().resumed);
        assert!(env.files().metadata(SAVEPOINT.as_ref()).unwrap().is_none());
    });
}

#[test]
fn wherever_the_power_fails_a_savepoint_is_whole_or_none_and_the_next_try_ends_it() {
    let work = Work {
        before: |env| {
            Box::pin(async move {
                drop(savepoint(&env).await);
                env.open_store(SAVEPOINT).unwrap().put("notes", vec!["mine".into()]).await.unwrap();
            })
        },
        work: |env| {
            Box::pin(async move { delete(&env, &env.open_store(SAVEPOINT)?, anybody).await.map(drop) })
        },
        check: |env, place| {
            Box::pin(async move {
                let store = env.open_store(SAVEPOINT).unwrap();
                let there = paths(&env, SAVEPOINT).await;
                let is_whole = SnapshotLocation::savepoint(&env, &store).await.unwrap().is_some();
                if is_whole {
                    let report = verify(&env, Arc::clone(&store), &mut |_| {}).await.unwrap();
                    assert!(report.is_whole() && report.files == 1, "{place}: {:?}", report.problems);
                } else {
                    SnapshotLocation::resolve(&env, SAVEPOINT).await.unwrap_err();
                }
                let tombstone = there.contains(&"deleted".to_owned());
                let manifest =
                    Job::start(&env, &env.open_store(JOB).unwrap()).await.unwrap().manifest(CheckpointId(1));
                let from = env.open_store(JOB).unwrap();
                if tombstone {
                    let refused =
                        savepoint::write(&env, &*from, &manifest, SAVEPOINT, &Joiner).await.unwrap_err();
                    assert!(
                        refused.message().contains("half deleted: end that with tidegate delete"),
                        "{refused}"
                    );
                }
                match delete(&env, &store, anybody).await {
                    Ok(deleted) => {
                        assert_eq!(
                            (deleted.resumed, deleted.left),
                            (tombstone, vec!["notes".to_owned()]),
                            "{place}"
                        );
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::InvalidJob, "{place}: {error}");
                        assert_eq!(there, ["notes"], "{place}: nothing of it was left");
                    }
                }
                assert_eq!(paths(&env, SAVEPOINT).await, ["notes"], "{place}");
            })
        },
    };
    for seed in 60..63 {
        let failed = work.at_every_change(seed);
        assert!(failed >= 8, "only {failed} changes");
    }
}

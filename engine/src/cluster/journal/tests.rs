//! The worker alone, over a real history in a simulated store whose deletes are slow or fail.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use checkpoint::{
    collect::FILES_IN_OPEN_MARKS,
    history::{
        self, CheckpointKind, Completion, GarbageMark, JobLock, Kind, Milestones, Savepoint, StartRequest,
        Started,
    },
    manifest::{self, Manifest, SnapshotKind},
    storage::paths,
};
use env::{
    Env, Message, Store,
    sim::{Control, Options, Simulation, StoreCall},
};
use types::{
    AttemptId, CheckpointId, Digest, ErrorKind, JobId, Lineage, MaxParallelism, RecordNumber, SnapshotFile,
    Timestamp,
};

use super::{Journal, JournalDone, JournalWork};

fn simulate(body: impl AsyncFnOnce(&Control, Env)) {
    let sim = Simulation::new(1);
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let control = sim.control();
    sim.run(async |env| body(&control, env).await);
}

/// The worker of a history with more records than a milestone leaves.
struct Subject {
    env: Env,
    store: Arc<dyn Store>,
    journal: Journal,
    job: (JobId, Lineage, AttemptId),
}

impl Subject {
    async fn start(env: &Env) -> Self {
        let store = env.open_store("/checkpoints").unwrap();
        let lock = JobLock::acquire(env, &*store, true).await.unwrap();
        let request = StartRequest::new("subject", MaxParallelism(1), 1);
        let started = history::start(env, Arc::clone(&store), &lock, &request).await.unwrap();
        let Started::Running(history, _) = started else { panic!("there is no older history") };
        let job = (history.job(), history.lineage(), history.attempt());
        let journal = Journal::start(env, Arc::clone(&store), *history, 1);
        let mut subject = Self { env: env.clone(), store, journal, job };
        let every = Milestones::default().above(RecordNumber(0)).0;
        for _ in 0..every {
            let manifest = SnapshotFile { path: "manifest".into(), len: 1, digest: Digest(1) };
            let savepoint = Savepoint { checkpoint: CheckpointId(1), url: "/savepoint".into(), manifest };
            subject.append(Kind::SavepointCompleted(savepoint)).await;
        }
        subject
    }

    /// Appends, while nothing else is reported to have gone wrong; says how long it took.
    async fn append(&mut self, kind: Kind) -> Duration {
        let since = self.env.now();
        self.journal.work.send(Message(JournalWork::Append(Box::new(kind)))).await.unwrap();
        match self.journal.done.recv().await.unwrap().0 {
            JournalDone::Appended(result) => result.map(drop).unwrap(),
            other => panic!("{other:?}"),
        }
        self.env.now().since(since)
    }

    /// A checkpoint whose sinks have committed, and what falls out of retention thereby.
    async fn checkpoint(&mut self, number: u64) -> Duration {
        let (job, lineage, attempt) = self.job;
        let manifest = Manifest {
            kind: SnapshotKind::Checkpoint,
            job_name: "subject".into(),
            job,
            lineage,
            attempt,
            checkpoint: CheckpointId(number),
            max_parallelism: MaxParallelism(1),
            drained: false,
            ended: false,
            triggered_at: Timestamp(0),
            operators: Vec::new(),
        };
        let file = manifest::write(&self.env, &*self.store, &manifest).await.unwrap();
        let (checkpoint, kind) = (CheckpointId(number), CheckpointKind::Ordinary);
        let completion = Completion { checkpoint, manifest: file, kind };
        let took = self.append(Kind::CheckpointCompleted(completion)).await
            + self.append(Kind::SinksConfirmed(checkpoint)).await;
        self.journal.work.send(Message(JournalWork::Collect(BTreeSet::new()))).await.unwrap();
        took
    }

    /// How many records are left below the milestone.
    async fn old_records(&self) -> usize {
        let milestone = paths::record(Milestones::default().above(RecordNumber(0)));
        let listing = self.store.list(paths::HISTORY).await.unwrap();
        listing.iter().filter(|entry| entry.path < milestone).count()
    }

    async fn retained(&self) -> Vec<u64> {
        let newest = history::open(&self.env, Arc::clone(&self.store)).await.unwrap().unwrap();
        newest.standing.completed.iter().map(|held| held.checkpoint.0).collect()
    }
}

#[test]
fn no_append_waits_while_old_records_are_deleted() {
    simulate(async |sim, env| {
        let mut subject = Subject::start(&env).await;
        sim.rule_stores(|_, call| match call.starts_with("delete history/") {
            true => StoreCall::Waits(Duration::from_secs(10)),
            false => StoreCall::Goes,
        });
        for number in 1..=5 {
            let took = subject.checkpoint(number).await;
            assert!(took < Duration::from_secs(1), "checkpoint {number}: {took:?}");
        }
        let before = subject.old_records().await;
        env.sleep(Duration::from_secs(100)).await;
        let gone = before - subject.old_records().await;
        assert!((9..=11).contains(&gone), "{gone} records are deleted, one at a time");
    });
}

#[test]
fn old_records_that_cannot_be_deleted_keep_no_checkpoint_and_are_told_of_once() {
    simulate(async |sim, env| {
        let mut subject = Subject::start(&env).await;
        sim.rule_stores(|_, call| match call.starts_with("delete history/") {
            true => StoreCall::Fails(ErrorKind::Unavailable),
            false => StoreCall::Goes,
        });
        for number in 1..=5 {
            subject.checkpoint(number).await;
            env.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(subject.retained().await, [5]);
        let told = |(_, line): &(String, String)| line.contains("deleting old history records");
        assert_eq!(sim.printed().iter().filter(|line| told(line)).count(), 1);
        sim.rule_stores(|_, _| StoreCall::Goes);
        subject.checkpoint(6).await;
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!(subject.old_records().await, 1, "the first one is a milestone");
    });
}

/// As after a start that has found a mark of many files, one of which no delete gets rid of.
#[test]
fn one_large_mark_that_stays_open_does_not_end_collection() {
    simulate(async |_, env| {
        let mut subject = Subject::start(&env).await;
        let files = 0..FILES_IN_OPEN_MARKS as u64 + 100;
        let files = files.map(|number| format!("attempt-0/manifest-{}", 1_000 + number)).collect();
        subject.append(Kind::GarbageMarked(GarbageMark { checkpoints: Vec::new(), files })).await;
        for number in 1..=5 {
            subject.checkpoint(number).await;
            env.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(subject.retained().await, [5]);
    });
}

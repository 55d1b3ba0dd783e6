//! A checkpoint directory as a job leaves it: a keyed count on two subtasks, two checkpoints that share runs, a savepoint,
//! and the end.

use std::{path::PathBuf, sync::Arc};

use checkpoint::history::CheckpointKind;
use env::Files;
use statebackend::{StateDeclarations, ValueState};
use tempfile::TempDir;
use types::CheckpointId;

use crate::job::{Job, Keyed, Place, really};

/// The directories, in a folder that goes with it: `ck`, a checkpoint directory, and `sp`, a savepoint.
pub(crate) struct Directory {
    pub(crate) folder: TempDir,
    pub(crate) files: Arc<dyn Files>,
}

impl Directory {
    /// 100 words counted in checkpoint 1, ten of them again in checkpoint 2, which is copied to the savepoint.
    pub(crate) fn new() -> Self {
        Self::of(async |mut job, count, savepoint| {
            add(&mut job, count, 0..100);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            add(&mut job, count, 0..10);
            let manifest = job.checkpoint(CheckpointKind::Savepoint).await.unwrap();
            job.savepoint(&manifest, savepoint).await.unwrap();
            job.stop().await.unwrap();
        })
    }

    /// The same, but for the savepoint and the end: the job has died with output of checkpoint 2 that its sink `out` has not
    /// committed, and with runs that no checkpoint lists.
    pub(crate) fn died() -> Self {
        Self::of(async |mut job, count, _| {
            add(&mut job, count, 0..100);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            add(&mut job, count, 0..10);
            job.complete(CheckpointKind::Ordinary, 1).await.unwrap();
            add(&mut job, count, 0..1);
            job.seal(CheckpointId(3), "count").await.unwrap();
        })
    }

    fn of(live: impl AsyncFnOnce(Job, ValueState<u64>, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = really(async |env| {
            let (checkpoints, savepoint) = (folder.path().join("ck"), folder.path().join("sp"));
            let mut states = StateDeclarations::new();
            states.key::<String>();
            let count = states.value("count");
            let operators = vec![Keyed { uid: "count", declared: states.finish().unwrap() }];
            let place = Place { url: checkpoints.to_str().unwrap(), max: 8, parallelism: 2 };
            let job = Job::start(&env, &place, operators).await.unwrap();
            live(job, count, savepoint.to_str().unwrap()).await;
            env.files()
        });
        Self { folder, files }
    }

    /// A file below the checkpoint directory.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("ck").join(path)
    }
}

/// Counts words with these numbers once more.
fn add(job: &mut Job, count: ValueState<u64>, words: std::ops::Range<u64>) {
    for word in words {
        job.with("count", &format!("word {word}"), |context| {
            let before = count.get(context).unwrap().unwrap_or(0);
            count.set(context, before + 1).unwrap();
        });
    }
}

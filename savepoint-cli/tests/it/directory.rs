//! A checkpoint directory as a job leaves it: a keyed count on two subtasks, two checkpoints that share runs, a savepoint,
//! and the end.

use std::{path::PathBuf, sync::Arc};

use checkpoint::history::CheckpointKind;
use env::Files;
use statebackend::{StateDeclarations, ValueState};
use tempfile::TempDir;

use crate::job::{Job, Keyed, Place, really};

/// The directories, in a folder that goes with it: `ck`, a checkpoint directory, and `sp`, a savepoint.
pub(crate) struct Directory {
    pub(crate) folder: TempDir,
    pub(crate) files: Arc<dyn Files>,
}

impl Directory {
    /// 100 words counted in checkpoint 1, ten of them again in checkpoint 2, which is copied to the savepoint.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = really(async |env| {
            let (checkpoints, savepoint) = (folder.path().join("ck"), folder.path().join("sp"));
            let mut states = StateDeclarations::new();
            states.key::<String>();
            let count = states.value("count");
            let operators = vec![Keyed { uid: "count", declared: states.finish().unwrap() }];
            let place = Place { url: checkpoints.to_str().unwrap(), max: 8, parallelism: 2 };
            let mut job = Job::start(&env, &place, operators).await.unwrap();
            add(&mut job, count, 0..100);
            job.checkpoint(CheckpointKind::Ordinary).await.unwrap();
            add(&mut job, count, 0..10);
            let manifest = job.checkpoint(CheckpointKind::Savepoint).await.unwrap();
            job.savepoint(&manifest, savepoint.to_str().unwrap()).await.unwrap();
            job.stop().await.unwrap();
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

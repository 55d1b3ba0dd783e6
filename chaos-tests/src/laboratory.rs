//! A copy of a killed job's checkpoint directory in memory, to which damage is done thousands of times: what does
//! `verify` say of it, and what would a start restore?

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use checkpoint::{
    history::{self, JobLock, Source, StartRequest, Started},
    manifest::Manifest,
    snapshots::{self, Problem},
    storage::paths,
};
use env::{Env, Store};
use statebackend::{KeyRef, KeyedState, StateDeclarations};
use tokio::runtime::Runtime;
use types::{CheckpointId, Error, MaxParallelism, Result, Uid, ordered};

use crate::damage::Image;

/// The job whose directory is examined: the word count, as `examples/word_count.rs` declares it.
const JOB: &str = "word-count";
const COUNT: &str = "count";
const STATE: &str = "value";

/// What a start would go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Positions, prepared transactions, the list of runs: the manifest says it all but the counts.
    pub manifest: Manifest,
    /// The count of each word.
    pub counts: BTreeMap<String, u64>,
}

/// What became of a damaged directory.
#[derive(Debug)]
pub struct Examination {
    /// The files that the retained checkpoints need, as `verify` finds them.
    pub needed: Vec<String>,
    /// What `verify` complains about.
    pub problems: Vec<Problem>,
    /// What a start restores, or why it refuses.
    pub restored: Result<Restored>,
}

/// A directory in memory.
pub struct Laboratory {
    runtime: Runtime,
    env: Env,
    store: Arc<dyn Store>,
    image: Image,
    words: Vec<String>,
}

impl Laboratory {
    /// A laboratory for `image`, the lock and other things beside the objects left out; `words` are all words that may have a count.
    ///
    /// # Errors
    /// What the world says.
    pub fn new(mut image: Image, words: Vec<String>) -> Result<Self> {
        image.retain(|path, _| path != paths::LOCK && !path.contains('~'));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("a runtime", error))?;
        let (env, store) = runtime.block_on(async {
            let env = Env::real();
            let store = env.open_store("memory:laboratory")?;
            Ok::<_, Error>((env, store))
        })?;
        let laboratory = Self { runtime, env, store, image, words };
        laboratory.runtime.block_on(laboratory.reset())?;
        Ok(laboratory)
    }

    /// The undamaged files.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Puts `outcome` in the place of files, examines the directory, and makes it whole again.
    ///
    /// # Errors
    /// What the world says: damage is never an error here.
    pub fn examine(&self, outcome: Vec<(String, Option<Vec<u8>>)>) -> Result<Examination> {
        self.runtime.block_on(async {
            for (file, bytes) in outcome {
                match bytes {
                    Some(bytes) => self.store.put(&file, vec![bytes.into()]).await?,
                    None => self.store.delete(&file).await?,
                }
            }
            let report = snapshots::verify(&self.env, Arc::clone(&self.store), &mut |_| {}).await?;
            let restored = self.restore().await;
            self.reset().await?;
            Ok(Examination { needed: needed(&report.manifests), problems: report.problems, restored })
        })
    }

    /// Starts an attempt and restores the counts, as the word count does.
    async fn restore(&self) -> Result<Restored> {
        let lock = JobLock::acquire(&self.env, &*self.store, false).await?;
        let request = StartRequest::new(JOB, MaxParallelism::DEFAULT, 1);
        let started = history::start(&self.env, Arc::clone(&self.store), &lock, &request).await?;
        let Started::Running(_, plan) = started else {
            return Err(Error::internal("the job had finished"));
        };
        let Source::Own { manifest, .. } = plan.source else {
            return Err(Error::internal("there was nothing to restore"));
        };
        let counts = self.counts(&manifest, plan.first_checkpoint).await?;
        Ok(Restored { manifest: Manifest::clone(&manifest), counts })
    }

    async fn counts(&self, manifest: &Manifest, first: CheckpointId) -> Result<BTreeMap<String, u64>> {
        let uid = Uid::new(COUNT)?;
        let operator = manifest.operators.iter().find(|operator| operator.uid == uid);
        let operator = operator.ok_or_else(|| Error::internal(format!("there is no operator {uid}")))?;
        let runs: Vec<_> = operator.subtasks.iter().flat_map(|subtask| &subtask.runs).cloned().collect();
        let mut states = StateDeclarations::new();
        states.key::<String>();
        let value = states.value::<u64>(STATE);
        let groups = manifest.max_parallelism.all();
        let mut state = KeyedState::new(states.finish()?, groups, first);
        statebackend::restore(&self.env, &*self.store, &runs, &mut state).await?;
        state.make_waiting(usize::MAX)?;
        let table = state.value_table(value);
        let mut counts = BTreeMap::new();
        for word in &self.words {
            let mut key = Vec::new();
            ordered::encode_into(word, &mut key)?;
            if let Some(count) = table.get(KeyRef::new(&key, manifest.max_parallelism)) {
                counts.insert(word.clone(), *count);
            }
        }
        Ok(counts)
    }

    /// Makes the store hold the image and nothing else.
    async fn reset(&self) -> Result<()> {
        for entry in self.store.list("").await? {
            if !self.image.contains_key(&entry.path) {
                self.store.delete(&entry.path).await?;
            }
        }
        for (path, bytes) in &self.image {
            let held = self.store.get(path).await?;
            if held.as_deref() != Some(bytes.as_slice()) {
                self.store.put(path, vec![bytes.clone().into()]).await?;
            }
        }
        Ok(())
    }
}

/// The manifests and the files that they name.
fn needed(manifests: &BTreeMap<String, Arc<Manifest>>) -> Vec<String> {
    let files = manifests.values().flat_map(|manifest| manifest.files()).map(|file| file.path.clone());
    let all: BTreeSet<_> = manifests.keys().cloned().chain(files).collect();
    all.into_iter().collect()
}

//! What completed checkpoints may still have pending at their sinks: for whoever refuses, gives up or names it.

use std::{collections::BTreeMap, sync::Arc};

use env::{Env, Store};
use types::{CheckpointId, ErrorKind, Lineage, Result, Uid, count};

use super::standing::Standing;
use crate::manifest::{self, Manifest};

/// A completed checkpoint whose sinks are not known to have committed.
#[derive(Clone, Debug)]
pub struct Unconfirmed {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The line of history in which it was taken.
    pub lineage: Lineage,
    /// Its manifest, which lists the prepared transactions, but for those that are committed for sure; `None` if it cannot
    /// be read.
    pub manifest: Option<Arc<Manifest>>,
}

impl Unconfirmed {
    /// Reads those of `checkpoints` that `standing` retains.
    ///
    /// # Errors
    /// As the store says; a damaged manifest is none.
    pub async fn read(
        env: &Env,
        store: &dyn Store,
        standing: &Standing,
        checkpoints: &[CheckpointId],
    ) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for completed in checkpoints.iter().filter_map(|&it| standing.checkpoint(it)) {
            let manifest = match manifest::read(env, store, &completed.manifest).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => None,
                result => Some(Arc::new(open(standing, result?))),
            };
            all.push(Self { checkpoint: completed.checkpoint, lineage: completed.lineage, manifest });
        }
        Ok(all)
    }

    /// How many transactions each sink had prepared, by the name that it had; `None` if nobody can tell.
    #[must_use]
    pub fn prepared(&self) -> Option<BTreeMap<&Uid, usize>> {
        let operators = &self.manifest.as_ref()?.operators;
        let count =
            |subtasks: &[manifest::SubtaskSnapshot]| subtasks.iter().map(|it| it.prepared.len()).sum();
        let all = operators.iter().map(|operator| (&operator.uid, count(&operator.subtasks)));
        Some(all.filter(|(_, transactions)| *transactions > 0).collect())
    }

    /// What all of these have pending, by sink, for people: "2 transactions of sink out".
    #[must_use]
    pub fn total(all: &[Self]) -> String {
        let mut sums: BTreeMap<&Uid, usize> = BTreeMap::new();
        for (sink, transactions) in all.iter().filter_map(Self::prepared).flatten() {
            *sums.entry(sink).or_default() += transactions;
        }
        let text = |(sink, transactions)| format!("{} of sink {sink}", count(transactions, "transaction"));
        let mut texts: Vec<_> = sums.into_iter().map(text).collect();
        if let Some(it) = all.iter().find(|it| it.prepared().is_none()) {
            texts.push(format!(
                "whatever the manifest of checkpoint {} lists, which cannot be read",
                it.checkpoint
            ));
        }
        texts.join(", ")
    }

    /// Whether nothing is pending for sure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prepared().is_some_and(|prepared| prepared.is_empty())
    }
}

/// A manifest without the transactions that are committed.
fn open(standing: &Standing, mut manifest: Manifest) -> Manifest {
    for subtask in manifest.operators.iter_mut().flat_map(|operator| &mut operator.subtasks) {
        subtask.prepared.retain(|it| !standing.has_committed(it.lineage, it.checkpoint));
    }
    manifest
}

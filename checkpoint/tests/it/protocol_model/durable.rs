//! What outlives every process: the history, manifests, runs, and the system behind the sink.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_checkpoint::{
    history::{EndKind, Kind},
    manifest::{Manifest, PreparedTransaction},
    storage::paths::{self, PathKind},
};
use types::{AttemptId, CheckpointId};

use super::log::Log;
use crate::mixer::Shared;

/// What went wrong, for people.
pub(super) type Broken<T = ()> = Result<T, String>;

/// A record of the input: its source and its place there, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Input {
    pub(super) source: u8,
    pub(super) place: u8,
}

/// What the counting task writes for a record: the count with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Line {
    pub(super) input: Input,
    pub(super) count: u8,
}

/// How often each record was counted, by source and place.
pub(super) type Counts = BTreeMap<Input, u8>;

/// The name of a transaction: attempt and checkpoint; there is one writer.
pub(super) type TransactionId = (AttemptId, CheckpointId);

pub(super) fn transaction_id(prepared: &PreparedTransaction) -> TransactionId {
    (prepared.attempt, prepared.checkpoint)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Prepared,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, Hash)]
struct Transaction {
    lines: Vec<Line>,
    fate: Fate,
}

/// Everything durable.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Durable {
    pub(super) log: Log,
    pub(super) manifests: BTreeMap<(AttemptId, CheckpointId), Shared<Manifest>>,
    pub(super) runs: BTreeMap<String, Counts>,
    transactions: BTreeMap<TransactionId, Transaction>,
    visible: Vec<Line>,
}

impl Durable {
    pub(super) fn manifest(&self, checkpoint: CheckpointId) -> Broken<&Shared<Manifest>> {
        let newest = self.log.newest().ok_or("a manifest without a history")?;
        let completed = newest.standing.checkpoint(checkpoint);
        let completed = completed.ok_or_else(|| format!("checkpoint {checkpoint} is not retained"))?;
        let manifest = self.manifests.get(&(completed.attempt, checkpoint));
        manifest
            .ok_or_else(|| format!("checkpoint {checkpoint} is in the history and its manifest is not there"))
    }

    /// Whether readers see anything.
    pub(super) fn has_committed(&self) -> bool {
        !self.visible.is_empty()
    }

    pub(super) fn prepare(&mut self, id: TransactionId, lines: Vec<Line>) {
        self.transactions.entry(id).or_insert(Transaction { lines, fate: Fate::Prepared });
    }

    pub(super) fn commit(&mut self, id: TransactionId) -> Broken {
        let lost = || format!("transaction {id:?} is lost");
        let transaction = self.transactions.get_mut(&id).ok_or_else(lost)?;
        match transaction.fate {
            Fate::Committed => return Ok(()),
            Fate::Aborted => return Err(lost()),
            Fate::Prepared => transaction.fate = Fate::Committed,
        }
        self.visible.extend(&transaction.lines);
        Ok(())
    }

    /// Aborts everything that attempts before `attempt` prepared and that is not in `keep`.
    pub(super) fn sweep(&mut self, attempt: AttemptId, keep: &BTreeSet<TransactionId>) {
        for (id, transaction) in &mut self.transactions {
            if transaction.fate == Fate::Prepared && id.0 < attempt && !keep.contains(id) {
                transaction.fate = Fate::Aborted;
            }
        }
    }

    /// Forgets what attempts before the newest have left and no checkpoint in the history lists, as early as the collector
    /// may delete it and the next sweep may abort it: if somebody still needed it, it would be missed.
    pub(super) fn forget_orphans(&mut self) {
        let Some(newest) = self.log.newest() else { return };
        let attempt = newest.standing.attempt.id;
        let held: BTreeSet<_> =
            newest.standing.held().iter().map(|held| (held.attempt, held.checkpoint)).collect();
        let of_newest = |path: &str| paths::kind(path) == PathKind::Attempt(attempt);
        self.manifests.retain(|id, _| id.0 == attempt || held.contains(id));
        let listed = || self.manifests.values().map(|manifest| &**manifest);
        let files: BTreeSet<&str> =
            listed().flat_map(|it| it.files()).map(|file| file.path.as_str()).collect();
        let transactions: BTreeSet<_> = listed().flat_map(prepared).map(transaction_id).collect();
        self.runs.retain(|path, _| of_newest(path) || files.contains(path.as_str()));
        self.transactions.retain(|id, transaction| {
            id.0 == attempt || transaction.fate == Fate::Committed || transactions.contains(id)
        });
    }

    /// Whether the history says that nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.end().is_some()
    }

    fn end(&self) -> Option<&EndKind> {
        Some(&self.log.newest()?.standing.end.as_ref()?.kind)
    }

    /// What must be true in every state.
    pub(super) fn check(&self, records: u8) -> Broken {
        self.check_visible()?;
        if let Some(newest) = self.log.newest()
            && let Kind::CheckpointCompleted(completion) = &newest.kind
        {
            self.check_completed(completion.checkpoint)?;
        }
        match self.end() {
            Some(EndKind::Finished) if self.visible.len() != usize::from(records) => {
                Err(format!("the job finished with {:?}", self.visible))
            }
            Some(EndKind::Stopped) => {
                let newest = self.log.newest().and_then(|newest| newest.standing.completed.last());
                let stopped_at = newest.ok_or("a stop without a checkpoint")?.checkpoint;
                let counted: u8 = self.counts(self.manifest(stopped_at)?)?.values().sum();
                let visible = self.visible.len();
                if usize::from(counted) == visible {
                    Ok(())
                } else {
                    Err(format!("stopped with {visible} lines"))
                }
            }
            _ => Ok(()),
        }
    }

    /// The lines that readers see are those of a run without failures over a part of the input.
    fn check_visible(&self) -> Broken {
        let counts: BTreeSet<_> = self.visible.iter().map(|line| line.count).collect();
        let inputs: BTreeSet<_> = self.visible.iter().map(|line| line.input).collect();
        let lines = self.visible.len();
        let is_prefix =
            |input: &Input| input.place == 1 || inputs.contains(&Input { place: input.place - 1, ..*input });
        let right = inputs.len() == lines
            && counts.iter().copied().eq(1..=lines as u8)
            && inputs.iter().all(is_prefix);
        if right { Ok(()) } else { Err(format!("readers see {:?}", self.visible)) }
    }

    /// A checkpoint in the history holds exactly the effect of the records before its cut.
    fn check_completed(&self, checkpoint: CheckpointId) -> Broken {
        let manifest = self.manifest(checkpoint)?;
        let counts = self.counts(manifest)?;
        let mut before = Counts::new();
        for (source, place) in positions(manifest).into_iter().enumerate() {
            before.extend((1..=place).map(|place| (Input { source: source as u8, place }, 1)));
        }
        if counts != before {
            return Err(format!("checkpoint {checkpoint} holds {counts:?} and was cut after {before:?}"));
        }
        let mut lines = self.visible.len();
        for prepared in prepared(manifest) {
            match self.transactions.get(&transaction_id(prepared)) {
                Some(Transaction { lines: more, fate: Fate::Prepared }) => lines += more.len(),
                Some(Transaction { fate: Fate::Committed, .. }) => {}
                lost => return Err(format!("checkpoint {checkpoint} lists a transaction that is {lost:?}")),
            }
        }
        if lines == before.len() {
            Ok(())
        } else {
            Err(format!("checkpoint {checkpoint} leads to {lines} lines"))
        }
    }

    /// The counts in the runs that a manifest lists.
    pub(super) fn counts(&self, manifest: &Manifest) -> Broken<Counts> {
        let mut counts = Counts::new();
        for file in manifest.files() {
            let run = self.runs.get(&file.path).ok_or_else(|| format!("run {} is missing", file.path))?;
            for (input, count) in run {
                *counts.entry(*input).or_default() += count;
            }
        }
        Ok(counts)
    }
}

/// How far each source had read at the cut.
pub(super) fn positions(manifest: &Manifest) -> Vec<u8> {
    let sources = manifest.operators.iter().filter(|operator| operator.kind == "source");
    let subtasks = sources.flat_map(|operator| &operator.subtasks);
    subtasks.map(|subtask| subtask.lists[0].elements.iter().next().unwrap()[0]).collect()
}

/// The transactions to commit, oldest first.
pub(super) fn prepared(manifest: &Manifest) -> impl Iterator<Item = &PreparedTransaction> {
    manifest.operators.iter().flat_map(|operator| &operator.subtasks).flat_map(|subtask| &subtask.prepared)
}

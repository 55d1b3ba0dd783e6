//! Step 4: from the acknowledgements of a complete checkpoint to its manifest. Called by the coordinator once, before
//! the manifest is written. Invariant: every operator that owns something durable is in the manifest with each of its
//! subtasks exactly once.

use std::collections::{BTreeMap, BTreeSet};

use types::{AttemptId, CheckpointId, Error, JobId, Lineage, MaxParallelism, Result, Timestamp, Uid};

use super::{Barrier, BarrierKind, CheckpointMode};
use crate::manifest::{
    ListElements, ListPart, Manifest, OperatorSnapshot, SnapshotKind, StateDescription, SubtaskSnapshot,
    TaskId, TaskSnapshot,
};

/// An operator that owns something durable, as the plan describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorPlan {
    /// Its uid.
    pub uid: Uid,
    /// Its kind, for people: `source`, `fold`, `sink`, ...
    pub kind: String,
    /// Its parallelism.
    pub parallelism: u32,
    /// The canonical bytes of its key's shape; empty if it is not keyed.
    pub key_shape: Vec<u8>,
    /// Its keyed states.
    pub states: Vec<StateDescription>,
    /// Whether it has a split enumerator, whose state every checkpoint must hold.
    pub enumerator: bool,
    /// Where it reads or writes, if it has a place.
    pub place: Option<String>,
}

/// What does not change during an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttemptPlan {
    /// The job's name.
    pub job_name: String,
    /// The job.
    pub job: JobId,
    /// The line of history that the attempt continues.
    pub lineage: Lineage,
    /// The attempt.
    pub attempt: AttemptId,
    /// The job's max parallelism.
    pub max_parallelism: MaxParallelism,
    /// All tasks; each acknowledges every checkpoint, also those without any state.
    pub tasks: BTreeSet<TaskId>,
    /// Those among them that read from outside and into which barriers are injected.
    pub sources: BTreeSet<TaskId>,
    /// The operators that own something durable, in any order.
    pub operators: Vec<OperatorPlan>,
}

/// What was taken at the moment a checkpoint was triggered, before any source was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capture {
    /// The wall-clock time.
    pub triggered_at: Timestamp,
    /// The state of every split enumerator.
    pub enumerators: BTreeMap<Uid, Vec<u8>>,
}

/// The manifest of a complete checkpoint.
///
/// # Errors
/// `User` if subtasks of an operator do not have its broadcast state alike; `Internal` if a subtask or an enumerator is missing,
/// comes twice, or is not in the plan.
pub fn manifest<'a>(
    plan: &AttemptPlan,
    mode: CheckpointMode,
    barrier: Barrier,
    capture: &Capture,
    snapshots: impl IntoIterator<Item = &'a TaskSnapshot>,
) -> Result<Manifest> {
    let mut parts: BTreeMap<&Uid, Vec<&SubtaskSnapshot>> = BTreeMap::new();
    for (uid, subtask) in snapshots.into_iter().flat_map(|snapshot| &snapshot.operators) {
        parts.entry(uid).or_default().push(subtask);
    }
    let broken = |what: String| Error::internal(format!("checkpoint {}: {what}", barrier.checkpoint));
    let mut operators = Vec::with_capacity(plan.operators.len());
    for operator in &plan.operators {
        let subtasks = parts.remove(&operator.uid).unwrap_or_default();
        let mut operator = self::operator(operator, subtasks, capture).map_err(broken)?;
        // Without alignment some have worked on records behind the barrier already, others have not. Each copy will do:
        // those records come again.
        if mode == CheckpointMode::ExactlyOnce {
            agree(&operator, barrier.checkpoint)?;
        }
        keep_first_copies(&mut operator);
        operators.push(operator);
    }
    if let Some(uid) = parts.keys().next() {
        return Err(broken(format!("operator {uid} acknowledged state and is not in the plan")));
    }
    operators.sort_by(|a, b| a.uid.cmp(&b.uid));
    let drained = matches!(barrier.kind, BarrierKind::Last | BarrierKind::Stop { drain: true });
    Ok(Manifest {
        kind: SnapshotKind::Checkpoint,
        job_name: plan.job_name.clone(),
        job: plan.job,
        lineage: plan.lineage,
        attempt: plan.attempt,
        checkpoint: barrier.checkpoint,
        max_parallelism: plan.max_parallelism,
        drained,
        ended: barrier.kind == BarrierKind::Last,
        triggered_at: capture.triggered_at,
        operators,
    })
}

/// Whether all subtasks have the broadcast states of their operator alike: after a restore each has what the first one had.
///
/// # Errors
/// `User` with the first difference.
fn agree(operator: &OperatorSnapshot, checkpoint: CheckpointId) -> Result<()> {
    let Some((first, others)) = operator.subtasks.split_first() else { return Ok(()) };
    for other in others {
        for one in first.lists.iter().filter(|part| part.is_broadcast()) {
            let same = other.lists.iter().find(|part| part.name == one.name);
            let none = ListElements::new();
            let elements = same.map_or(&none, |part| &part.elements);
            let Some(at) = difference(&one.elements, elements) else { continue };
            return Err(Error::user(format!(
                "checkpoint {checkpoint}: operator {}: its subtasks {} and {} do not have broadcast state {:?} alike, from \
                 entry {at} of {} and {} on",
                operator.uid,
                first.subtask,
                other.subtask,
                one.name,
                one.elements.len(),
                elements.len(),
            ))
            .with_advice(
                "change it by records alone that every subtask gets, so that the order of those from several subtasks does \
                 not matter, and keep no HashMap or HashSet in its values, whose order is another in each copy: use \
                 BTreeMap and BTreeSet",
            ));
        }
    }
    Ok(())
}

/// The first place, from 1 on, where two lists differ.
fn difference(one: &ListElements, other: &ListElements) -> Option<usize> {
    let differs = one.iter().zip(other.iter()).position(|(one, other)| one != other);
    let shorter = one.len().min(other.len());
    differs.or((one.len() != other.len()).then_some(shorter)).map(|at| at + 1)
}

/// One copy is enough, that of the first subtask.
fn keep_first_copies(operator: &mut OperatorSnapshot) {
    for other in operator.subtasks.iter_mut().skip(1) {
        other.lists.retain(|part| !part.is_broadcast());
    }
}

fn operator(
    plan: &OperatorPlan,
    mut subtasks: Vec<&SubtaskSnapshot>,
    capture: &Capture,
) -> Result<OperatorSnapshot, String> {
    let uid = &plan.uid;
    subtasks.sort_by_key(|part| part.subtask);
    if !subtasks.iter().map(|part| part.subtask.0).eq(0..plan.parallelism) {
        let got: Vec<_> = subtasks.iter().map(|part| part.subtask.0).collect();
        return Err(format!("operator {uid} has {} subtasks, acknowledged were {got:?}", plan.parallelism));
    }
    let enumerator = capture.enumerators.get(uid).cloned();
    if enumerator.is_some() != plan.enumerator {
        let which = if plan.enumerator { "misses" } else { "has" };
        return Err(format!("operator {uid} {which} the state of a split enumerator"));
    }
    let mut subtasks: Vec<SubtaskSnapshot> = subtasks.into_iter().cloned().collect();
    if let (Some(place), Some(first)) = (&plan.place, subtasks.first_mut()) {
        first.lists.push(ListPart::of_place(place).map_err(|error| error.to_string())?);
    }
    for subtask in &mut subtasks {
        // They come in the order in which the user declared them.
        subtask.lists.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut states = plan.states.clone();
    states.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(OperatorSnapshot {
        uid: uid.clone(),
        kind: plan.kind.clone(),
        parallelism: plan.parallelism,
        key_shape: plan.key_shape.clone(),
        states,
        subtasks,
        enumerator,
    })
}

#[cfg(test)]
mod tests;

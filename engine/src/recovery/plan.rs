//! Deals the state of a manifest out over the tasks of a plan. Keyed state goes by key group: a new subtask gets every
//! run of every old one, clipped to its own groups, so that rescaling reads only what the new owner needs. List
//! elements go round robin. A watermark is the least of those that meet. A fresh start has no manifest: nothing is dealt out,
//! and the sources look for their splits.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint::manifest::{
    ListElements, ListPart, Manifest, OperatorSnapshot, Redistribution, SubtaskSnapshot, TaskId,
};
use statebackend::is_timers;
use types::{KeyGroupRange, Result, Run, SubtaskIndex, Timestamp, Uid};

use super::{compatible::stored, migrate};
use crate::{
    api::erased::SplitState,
    cluster::enumerator::Enumerator,
    graph::{
        logical::{Vertex, VertexKind},
        physical::Plan,
    },
    task::restore::OperatorRestore,
};

/// What all tasks get back, and the splits that no reader had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) tasks: BTreeMap<TaskId, Vec<OperatorRestore>>,
    pub(crate) splits: BTreeMap<Uid, Vec<SplitState>>,
}

/// Deals `manifest` out, which fits `plan`, at this time.
///
/// # Errors
/// `Corrupt` if the state of a split enumerator cannot be read.
pub(crate) fn deal(plan: &Plan, manifest: &Manifest, now: Timestamp) -> Result<Restored> {
    let mut restored = Restored::default();
    for (chain_index, chain) in plan.chains.iter().enumerate() {
        let silent = stored(plan.vertex(chain.vertices[0]), manifest).map(silent).unwrap_or_default();
        for (position, &id) in chain.vertices.iter().enumerate() {
            let vertex = plan.vertex(id);
            let Some(uid) = &vertex.uid else { continue };
            let Some(operator) = stored(vertex, manifest) else { continue };
            let dropped = dropped(vertex, operator);
            let migrates = migrate::times(vertex, operator, now)?;
            if let Some(enumerator) = &operator.enumerator {
                restored.splits.insert(uid.clone(), Enumerator::restore(enumerator)?);
            }
            for index in 0..chain.parallelism {
                let subtask = SubtaskIndex(index);
                let groups = plan.groups(chain_index, subtask);
                let restore = OperatorRestore {
                    position,
                    runs: runs(operator, groups, &dropped),
                    migrates,
                    lists: lists(operator, subtask, chain.parallelism)
                        .into_iter()
                        .filter(|part| is_kept(vertex, part) && !operator.is_place(part))
                        .collect(),
                    watermark: watermark(operator, groups, &silent),
                };
                let task = TaskId { chain: u32::try_from(chain_index).unwrap_or(u32::MAX), subtask };
                restored.tasks.entry(task).or_default().push(restore);
            }
        }
    }
    Ok(restored)
}

/// Keyed states that the operator does not declare any more: the user has said that they may be dropped. Their entries
/// do not count in any run that there is, even if a state of that name is declared again.
fn dropped(vertex: &Vertex, operator: &OperatorSnapshot) -> BTreeSet<String> {
    let is_declared = |name: &str| vertex.states.iter().any(|state| state.name == name);
    let names = operator.states.iter().map(|state| &state.name);
    names.filter(|name| !is_declared(name) && !is_timers(name)).cloned().collect()
}

/// The runs that hold keys of `groups`: old subtasks never share a group, so their lists follow one another.
fn runs(operator: &OperatorSnapshot, groups: KeyGroupRange, dropped: &BTreeSet<String>) -> Vec<Run> {
    let all = operator.subtasks.iter().flat_map(|subtask| &subtask.runs);
    all.filter_map(|run| {
        let both = run.groups.intersect(groups)?;
        let without = dropped.iter().chain(&run.without).cloned().collect::<BTreeSet<_>>();
        Some(Run { groups: both, without: without.into_iter().collect(), ..run.clone() })
    })
    .collect()
}

/// The watermark with which a new subtask goes on: the least of the old subtasks whose keys it takes over; of all where
/// there are no keys. So no record that would have been late comes in time.
///
/// The last watermark of all is not given back. It says that the input had ended, or was drained, and both are told again
/// where they are still so: a source that has nothing left ends again. Where records do come, event time begins anew, or
/// each of them would be late.
fn watermark(
    operator: &OperatorSnapshot,
    groups: KeyGroupRange,
    silent: &BTreeSet<SubtaskIndex>,
) -> Option<Timestamp> {
    let is_keyed = operator.subtasks.iter().any(|old| !old.groups.is_empty());
    let meets = |old: &&SubtaskSnapshot| match is_keyed {
        true => old.groups.intersect(groups).is_some(),
        false => !silent.contains(&old.subtask),
    };
    let least = operator.subtasks.iter().filter(meets).map(|old| old.watermark).min()?;
    (Timestamp::MIN < least && least < Timestamp::MAX).then_some(least)
}

/// The old subtasks of a source that had no split: nothing came through their chains, and their watermarks say nothing.
fn silent(source: &OperatorSnapshot) -> BTreeSet<SubtaskIndex> {
    let has_split =
        |old: &SubtaskSnapshot| old.lists.iter().any(|it| !source.is_place(it) && !it.elements.is_empty());
    let is_source = source.enumerator.is_some();
    source.subtasks.iter().filter(|old| is_source && !has_split(old)).map(|old| old.subtask).collect()
}

/// Whether a list state is still declared. Where it is not, the user has said that it may be dropped.
fn is_kept(vertex: &Vertex, part: &ListPart) -> bool {
    !matches!(vertex.kind, VertexKind::Operator(_))
        || part.is_expiry_clocks()
        || vertex.lists.iter().any(|list| list.name == part.name)
}

/// The list states of one new subtask. Of a broadcast state there is one copy, which each gets like a union list.
fn lists(operator: &OperatorSnapshot, subtask: SubtaskIndex, parallelism: u32) -> Vec<ListPart> {
    let mut merged: BTreeMap<&str, ListPart> = BTreeMap::new();
    for old in &operator.subtasks {
        for part in &old.lists {
            let into = merged
                .entry(&part.name)
                .or_insert_with(|| ListPart { elements: ListElements::new(), ..part.clone() });
            into.elements.extend(part.elements.iter());
        }
    }
    for part in merged.values_mut() {
        if part.redistribution == Redistribution::Split {
            let all = part.elements.iter().enumerate();
            let mine = all.filter(|(index, _)| *index % parallelism as usize == subtask.0 as usize);
            part.elements = mine.map(|(_, element)| element).collect();
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests;

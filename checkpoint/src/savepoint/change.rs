//! What the command line changes in a copy of a snapshot: the uid of an operator, or what of its state comes along.
//! Pure: the manifest as it shall be, whose runs are still those of the source, and by which a copy is compared with
//! them.

use std::{collections::BTreeSet, sync::Arc};

use types::{Error, Result, Run, SubtaskIndex, Uid};

use crate::manifest::{Manifest, OperatorSnapshot, StateDescription};

/// A snapshot that is about to be made out of another one.
#[derive(Clone, Debug)]
pub struct Changed {
    source: Arc<Manifest>,
    manifest: Manifest,
    /// Old and new uid of an operator.
    renamed: Option<(Uid, Uid)>,
    /// The keyed states that an operator loses.
    dropped: Option<(Uid, BTreeSet<String>)>,
}

impl Changed {
    /// All of it, as it is.
    #[must_use]
    pub fn nothing(source: Arc<Manifest>) -> Self {
        Self { manifest: Manifest::clone(&source), source, renamed: None, dropped: None }
    }

    /// Operator `old` becomes `new`, with all that it has.
    ///
    /// # Errors
    /// `InvalidJob` if there is no operator `old`, one that is called `new` already, or `new` can be no uid.
    pub fn rename_uid(source: Arc<Manifest>, old: &str, new: &str) -> Result<Self> {
        let mut changed = Self::nothing(source);
        let old = changed.manifest.operator(old)?.uid.clone();
        let new = Uid::new(new)?;
        let operators = &mut changed.manifest.operators;
        if operators.iter().any(|operator| operator.uid == new) {
            return Err(Error::invalid_job(format!(
                "the snapshot has an operator {new} already: choose another uid"
            )));
        }
        for operator in operators.iter_mut().filter(|operator| operator.uid == old) {
            operator.uid = new.clone();
        }
        operators.sort_by(|a, b| a.uid.cmp(&b.uid));
        changed.renamed = Some((old, new));
        Ok(changed)
    }

    /// Operator `uid` loses its state of this name, keyed or a list; without one all that it has, and is then no part
    /// of the snapshot any more.
    ///
    /// # Errors
    /// `InvalidJob` if there is no such operator or state, or it is one that means nothing without the rest.
    pub fn drop_state(source: Arc<Manifest>, uid: &str, state: Option<&str>) -> Result<Self> {
        let mut changed = Self::nothing(source);
        let operator = changed.manifest.operator(uid)?;
        let uid = operator.uid.clone();
        let Some(state) = state else {
            changed.manifest.operators.retain(|operator| operator.uid != uid);
            return Ok(changed);
        };
        let states = states(operator);
        if !states.contains(state) {
            return Err(Error::invalid_job(match states.len() {
                0 => format!("operator {uid} has no state by a name: leave out --state to drop the operator"),
                _ => format!("operator {uid} has no state {state:?}; it has {}", join(&states)),
            }));
        }
        if operator.enumerator.is_some() {
            return Err(Error::invalid_job(format!(
                "{state:?} of source {uid} is a part of its positions, and input would be lost without it: leave out \
                 --state to drop all of them, and the source begins anew"
            )));
        }
        let name = state.to_owned();
        for operator in changed.manifest.operators.iter_mut().filter(|operator| operator.uid == uid) {
            operator.states.retain(|state| state.name != name);
            let expires = operator.states.iter().any(StateDescription::expires);
            for subtask in &mut operator.subtasks {
                // With the last state that expires goes until when it had.
                subtask.lists.retain(|list| list.name != name && (expires || !list.is_expiry_clocks()));
                for run in &mut subtask.runs {
                    run.without.push(name.clone());
                    run.without.sort();
                    run.without.dedup();
                }
            }
        }
        changed.dropped = Some((uid, BTreeSet::from([name])));
        Ok(changed)
    }

    /// The snapshot as it shall be; its runs are those of the source.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The runs in the source of what `operator` shall be, of one subtask, with all that they hold there.
    #[must_use]
    pub fn runs_before(&self, operator: &Uid, subtask: SubtaskIndex) -> &[Run] {
        let uid = match &self.renamed {
            Some((old, new)) if new == operator => old,
            _ => operator,
        };
        let found = self.source.operators.iter().find(|operator| operator.uid == *uid);
        let subtask = found.and_then(|it| it.subtasks.iter().find(|it| it.subtask == subtask));
        subtask.map_or(&[], |subtask| &subtask.runs)
    }

    /// The keyed states that `operator` loses.
    #[must_use]
    pub fn dropped(&self, operator: &Uid) -> BTreeSet<String> {
        let own = self.dropped.iter().filter(|(uid, _)| uid == operator);
        own.flat_map(|(_, states)| states.iter().cloned()).collect()
    }
}

/// The states that an operator has by a name: keyed ones and lists, but for the place that a source or sink remembers.
fn states(operator: &OperatorSnapshot) -> BTreeSet<&str> {
    let keyed = operator.states.iter().map(|state| state.name.as_str());
    let lists = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
    keyed.chain(lists.filter(|list| operator.is_list_state(list)).map(|list| list.name.as_str())).collect()
}

fn join(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

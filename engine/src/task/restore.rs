//! How a task gets its state back before it reads anything: operators are opened, list states given, runs loaded.
//! A fresh start is a restore of nothing: one path.

use std::sync::Arc;

use checkpoint::{
    local_recovery::{LocalStore, ReadBytes},
    manifest::ListPart,
};
use env::FaultPoint;
use serde::{Deserialize, Serialize};
use statebackend::plan_migration;
use types::{Error, ExpiryClocks, ExpiryTimes, Result, Run, Timestamp};

use super::{
    guard,
    message::RestoredBytes,
    run::{Head, Role, Task},
    snapshot::Snapshots,
};
use crate::operators::operator::Operator;

/// What one operator of a task gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRestore {
    /// The operator's place among the chain's vertices.
    pub position: usize,
    /// The runs of its keyed state, oldest first, clipped to its key groups.
    pub runs: Vec<Run>,
    /// There if keyed states must be written anew before they are restored: what time it is for values that get deadlines.
    pub migrates: Option<ExpiryTimes>,
    /// Its list states, dealt out.
    pub lists: Vec<ListPart>,
    /// The watermark with which it goes on; without one event time begins anew.
    pub watermark: Option<Timestamp>,
}

/// The watermarks with which a chain begins: of what comes into it, and of each of its operators.
///
/// `stored` is what each operator gets back, `sink` what the sink behind them does. A strategy keeps nothing itself; it
/// had said what those behind it had heard. Where nothing was kept, event time begins anew.
pub(crate) fn watermarks(
    operators: &[(Option<Timestamp>, &dyn Operator)],
    sink: Option<Timestamp>,
) -> (Timestamp, Vec<Timestamp>) {
    let mut heard = sink.unwrap_or(Timestamp::MIN);
    let mut begin = vec![Timestamp::MIN; operators.len()];
    for (begin, (stored, operator)) in begin.iter_mut().zip(operators).rev() {
        if let Some(stored) = *stored {
            (*begin, heard) = (stored, stored);
        }
        if operator.replaces_watermarks() {
            // What comes in from further up does not go on.
            *begin = std::mem::replace(&mut heard, Timestamp::MIN);
        }
    }
    (heard, begin)
}

/// Opens the operators and gives them their state. Returns what was read for it.
///
/// # Errors
/// `User` if an `open` fails, `IncompatibleState` and `Corrupt` if the state cannot be used; all name the operator.
pub(crate) async fn open_and_restore(
    task: &mut Task,
    mut restore: Vec<OperatorRestore>,
    snapshots: &mut Snapshots,
) -> Result<RestoredBytes> {
    for operator in &mut task.chain.operators {
        let context = operator.context.clone();
        guard::catch(|| operator.operator.open(&context))
            .map_err(|error| error.context(format!("operator {}, open", context.operator)))?;
    }
    let mut stored = vec![None; task.chain.operators.len()];
    let (mut of_source, mut of_sink) = (None, None);
    let read = Arc::new(ReadBytes::default());
    for vertex in &task.durable {
        let found = restore.iter().position(|it| it.position == vertex.position);
        let given = found.map(|at| restore.swap_remove(at)).unwrap_or_default();
        let in_place = |error: Error| error.context(format!("operator {}", vertex.uid));
        match vertex.role {
            Role::Source => {
                let Head::Source(source) = &mut task.head else { continue };
                source.restore(given.lists).map_err(in_place)?;
                of_source = given.watermark;
            }
            Role::Operator(at) => {
                stored[at] = given.watermark;
                let clocks = expiry_clocks(&given.lists).map_err(in_place)?;
                let operator = &mut *task.chain.operators[at].operator;
                operator.restore_lists(given.lists).map_err(in_place)?;
                if let Some(keyed) = operator.keyed() {
                    task.env.fault(FaultPoint::RestoreBefore)?;
                    keyed.set_full_from(task.uploads.policy.replace_from);
                    if let Some(working) = task.working.clone() {
                        let (attempt, operator, subtask) =
                            (task.attempt, vertex.uid.clone(), task.id.subtask);
                        let open = move || working.open(attempt, &operator, subtask);
                        let opened = task.env.blocking("open a state store", open).await;
                        let (store, share) = opened.and_then(|opened| opened).map_err(in_place)?;
                        keyed.use_store(store, share);
                    }
                    let mut runs = given.runs;
                    if let Some(now) = given.migrates {
                        let (declared, groups) = (keyed.declared().clone(), keyed.groups());
                        let store = LocalStore::new(Arc::clone(&task.store), task.local.clone(), &runs)
                            .restoring(&read);
                        let plan = plan_migration(&store, &runs, &declared, groups).await;
                        if let Some(plan) = plan.map_err(in_place)? {
                            let identity = snapshots.migrated(vertex.uid.clone());
                            let migrated = task.uploads.migrate(&store, plan, &clocks, now, identity).await;
                            runs = migrated.map_err(in_place)?;
                        }
                    }
                    let store = LocalStore::new(Arc::clone(&task.store), task.local.clone(), &runs);
                    statebackend::restore(&task.env, &store.restoring(&read), &runs, keyed)
                        .await
                        .map_err(in_place)?;
                    snapshots.add_keyed(vertex.position, vertex.uid.clone(), runs);
                }
            }
            Role::Sink => of_sink = given.watermark,
        }
    }
    restore_watermarks(task, stored, of_source, of_sink);
    task.env.fault(FaultPoint::RestoreAfter)?;
    Ok(RestoredBytes { local: task.local.is_some().then(|| read.local()), store: read.store() })
}

/// Until when state had expired at the snapshot, whether or not the operator still has any that does.
fn expiry_clocks(lists: &[ListPart]) -> Result<ExpiryClocks> {
    let part = lists.iter().find(|part| part.is_expiry_clocks());
    part.map_or_else(|| Ok(ExpiryClocks::default()), ListPart::expiry_clocks)
}

fn restore_watermarks(
    task: &mut Task,
    stored: Vec<Option<Timestamp>>,
    of_source: Option<Timestamp>,
    of_sink: Option<Timestamp>,
) {
    let operators = &mut task.chain.operators;
    let read: Vec<_> = stored.into_iter().zip(operators.iter().map(|it| &*it.operator)).collect();
    let (input, mut begin) = watermarks(&read, of_sink);
    if let Head::Input(gate) = &mut task.head {
        gate.restore_watermark(input);
    }
    // A source's watermark is that of the strategy behind it.
    let strategy = operators.iter().position(|it| it.operator.replaces_watermarks());
    if let (Some(watermark), Some(strategy)) = (of_source, strategy) {
        begin[strategy] = begin[strategy].max(watermark);
    }
    for (operator, watermark) in operators.iter_mut().zip(begin) {
        operator.restore_watermark(watermark);
    }
    task.chain.repeat_watermarks();
}

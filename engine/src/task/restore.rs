//! How a task gets its state back before it reads anything: operators are opened, list states given, runs loaded.
//! A fresh start is a restore of nothing: one path.

use checkpoint::manifest::ListPart;
use serde::{Deserialize, Serialize};
use types::{Error, Result, Run};

use super::{
    guard,
    run::{Head, Role, Task},
    snapshot::Snapshots,
};

/// What one operator of a task gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRestore {
    /// The operator's place among the chain's vertices.
    pub position: usize,
    /// The runs of its keyed state, oldest first, clipped to its key groups.
    pub runs: Vec<Run>,
    /// Its list states, dealt out.
    pub lists: Vec<ListPart>,
}

/// Opens the operators and gives them their state.
///
/// # Errors
/// `User` if an `open` fails, `IncompatibleState` and `Corrupt` if the state cannot be used; all name the operator.
pub(crate) async fn open_and_restore(
    task: &mut Task,
    mut restore: Vec<OperatorRestore>,
    snapshots: &mut Snapshots,
) -> Result<()> {
    for operator in &mut task.chain.operators {
        let context = operator.context.clone();
        guard::catch(|| operator.operator.open(&context))
            .map_err(|error| error.context(format!("operator {}, open", context.operator)))?;
    }
    for vertex in &task.durable {
        let found = restore.iter().position(|it| it.position == vertex.position);
        let given = found.map(|at| restore.swap_remove(at)).unwrap_or_default();
        let in_place = |error: Error| error.context(format!("operator {}", vertex.uid));
        match vertex.role {
            Role::Source => {
                let Head::Source(source) = &mut task.head else { continue };
                source.restore(given.lists).map_err(in_place)?;
            }
            Role::Operator(at) => {
                let operator = &mut *task.chain.operators[at].operator;
                operator.restore_lists(given.lists).map_err(in_place)?;
                if let Some(keyed) = operator.keyed() {
                    statebackend::restore(&task.env, &*task.store, &given.runs, keyed)
                        .await
                        .map_err(in_place)?;
                    snapshots.add_keyed(vertex.position, vertex.uid.clone(), given.runs);
                }
            }
            Role::Sink => {}
        }
    }
    Ok(())
}

//! Restored values whose cells are not made yet (`statebackend::KeyedState`): the task makes them while it has nothing else to
//! do, so many at a time as a slice of snapshot work has cells. Operators make those that they ask for, and some with each batch.

use checkpoint::manifest::TaskId;
use types::{Error, Result};

use super::{
    guard,
    run::{Role, Running, Task},
};
use crate::metrics::{Gauge, Metrics};

/// How many watermark intervals a task waits for its first input before it makes cells: a job may be idle for long.
const PATIENCE: u32 = 10;

/// How many cells of a task wait, and where that is shown.
pub(crate) struct WaitingCells {
    cells: usize,
    /// For how many more watermark intervals the task waits for its first input: until that comes, others of the job still
    /// restore, and need the processor more.
    patience: u32,
    gauge: Gauge,
}

impl WaitingCells {
    pub(crate) fn new(metrics: &Metrics, job: &str, task: TaskId) -> Self {
        let (chain, subtask) = (task.chain.to_string(), task.subtask.to_string());
        let labels = [("job", job), ("chain", &chain), ("subtask", &subtask)];
        let help = "Restored values whose cells are not made yet";
        Self { cells: 0, patience: PATIENCE, gauge: metrics.gauge("task_waiting_cells", help, &labels) }
    }

    /// Something has come in.
    pub(super) fn begin(&mut self) {
        self.patience = 0;
    }

    /// A watermark interval is over.
    pub(super) fn count_interval(&mut self) {
        self.patience = self.patience.saturating_sub(1);
    }

    /// Whether some are to be made when there is nothing else to do.
    pub(super) fn are_due(&self) -> bool {
        self.patience == 0 && self.cells > 0
    }

    fn set(&mut self, cells: usize) {
        if self.cells != cells {
            self.cells = cells;
            self.gauge.set(i64::try_from(cells).unwrap_or(i64::MAX));
        }
    }
}

/// A task that is gone has none.
impl Drop for WaitingCells {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Running {
    /// Counts the cells that wait.
    pub(super) fn count_waiting(&mut self) {
        let Task { chain, waiting, .. } = &mut self.task;
        waiting.set(chain.keyed().map(|(_, keyed)| keyed.waiting_cells()).sum());
    }

    /// Makes some of the cells that wait.
    pub(super) fn make_waiting(&mut self) -> Result<()> {
        let Task { chain, durable, id, options, .. } = &mut self.task;
        if let Some((at, keyed)) = chain.keyed().find(|(_, keyed)| keyed.waiting_cells() > 0) {
            // Decoding is the user's code.
            let made = guard::catch(|| keyed.make_waiting(options.slice_cells));
            made.map_err(|error: Error| {
                let vertex = durable.iter().find(|vertex| vertex.role == Role::Operator(at));
                let operator = vertex.map_or("", |vertex| vertex.uid.as_str());
                error.context(format!("operator {operator}, subtask {}", id.subtask))
            })?;
        }
        self.count_waiting();
        Ok(())
    }
}

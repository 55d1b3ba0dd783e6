//! The job of the model: its names and its plan.

use std::{collections::BTreeSet, sync::Arc};

use tidegate_checkpoint::{
    barrier::complete::{AttemptPlan, OperatorPlan},
    manifest::TaskId,
};
use types::{AttemptId, JobId, Lineage, MaxParallelism, SubtaskIndex, Uid};

pub(super) const JOB: JobId = JobId(1);
pub(super) const LINEAGE: Lineage = Lineage(1);

pub(super) fn sink_task() -> TaskId {
    TaskId { chain: 1, subtask: SubtaskIndex(0) }
}

pub(super) fn source_task(source: usize) -> TaskId {
    TaskId { chain: 0, subtask: SubtaskIndex(source as u32) }
}

pub(super) fn sink_uid() -> Uid {
    Uid::new("counts").unwrap()
}

pub(super) fn source_uid() -> Uid {
    Uid::new("lines").unwrap()
}

fn operator(uid: Uid, kind: &str, parallelism: u32) -> OperatorPlan {
    OperatorPlan {
        uid,
        kind: kind.into(),
        parallelism,
        key_shape: Vec::new(),
        states: Vec::new(),
        enumerator: false,
        place: None,
    }
}

pub(super) fn plan(attempt: AttemptId) -> Arc<AttemptPlan> {
    let sources: BTreeSet<_> = (0..2).map(source_task).collect();
    Arc::new(AttemptPlan {
        job_name: "model".into(),
        job: JOB,
        lineage: LINEAGE,
        attempt,
        max_parallelism: MaxParallelism(1),
        tasks: sources.iter().copied().chain([sink_task()]).collect(),
        sources,
        operators: vec![operator(source_uid(), "source", 2), operator(sink_uid(), "sink", 1)],
    })
}

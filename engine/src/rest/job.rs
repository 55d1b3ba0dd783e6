//! The job: what it shows (a picture of the [`JobView`] as it is now) and what it can be asked for.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use checkpoint::{
    barrier::BarrierKind,
    coordinator::{Answer, CheckpointOutcome, CheckpointStatistics, End, Statistics},
    manifest::TaskId,
};
use env::Monotonic;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use types::{
    Error,
    rest::{
        CheckpointCounts, CheckpointDetails, CheckpointTaken, FailureDetails, GarbageCollected, JobDetails,
        JobEnded, JobList, JobSummary, NoOptions, RestoredState, SavepointRequest, SavepointTaken,
        SnapshotCost, StopRequest, TaskDetails,
    },
};

use super::{Served, error::Refusal};
use crate::{
    cluster::{
        attempt::Ask,
        view::{JobView, TaskView},
    },
    graph::physical::Plan,
};

type Answered<T> = Result<Json<T>, Refusal>;
type Name = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

pub(super) async fn list(State(served): State<Served>) -> Json<JobList> {
    let JobDetails { name, state, attempt, uptime_ms, restarts, checkpoints, .. } = served.picture();
    let checkpoints = checkpoints.completed;
    Json(JobList { jobs: vec![JobSummary { name, state, attempt, uptime_ms, restarts, checkpoints }] })
}

pub(super) async fn details(State(served): State<Served>, name: Name) -> Answered<JobDetails> {
    served.check(name)?;
    Ok(Json(served.picture()))
}

pub(super) async fn plan(State(served): State<Served>, name: Name) -> Answered<Value> {
    served.check(name)?;
    Ok(Json(served.control.plan().explain_json()))
}

pub(super) async fn checkpoint(
    State(served): State<Served>,
    name: Name,
    body: Body,
) -> Answered<CheckpointTaken> {
    served.check(name)?;
    let NoOptions {} = parse(body, "{}")?;
    match served.control.ask(Ask::Checkpoint).await? {
        Answer::Checkpoint(checkpoint) => Ok(Json(CheckpointTaken { checkpoint: checkpoint.0 })),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn savepoint(
    State(served): State<Served>,
    name: Name,
    body: Body,
) -> Answered<SavepointTaken> {
    served.check(name)?;
    let request: SavepointRequest = parse(body, r#"{"dir": "DIRECTORY"}"#)?;
    let dir = match request.dir {
        Some(dir) => dir,
        None => served.savepoint_dir()?,
    };
    match served.control.ask(Ask::Savepoint(dir)).await? {
        Answer::Savepoint { checkpoint, dir } => Ok(Json(SavepointTaken { checkpoint: checkpoint.0, dir })),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn stop(State(served): State<Served>, name: Name, body: Body) -> Answered<JobEnded> {
    served.check(name)?;
    let request = parse(body, r#"{"drain": false, "savepoint": "DIRECTORY"}"#)?;
    let StopRequest { drain, savepoint } = request;
    ended(served.control.ask(Ask::Stop { drain, savepoint }).await?)
}

pub(super) async fn cancel(State(served): State<Served>, name: Name, body: Body) -> Answered<JobEnded> {
    served.check(name)?;
    let NoOptions {} = parse(body, "{}")?;
    ended(served.control.ask(Ask::Cancel).await?)
}

pub(super) async fn gc(State(served): State<Served>, name: Name, body: Body) -> Answered<GarbageCollected> {
    served.check(name)?;
    let NoOptions {} = parse(body, "{}")?;
    match served.control.ask(Ask::Collect).await? {
        Answer::Collected { files, more } => Ok(Json(GarbageCollected { files, more })),
        other => Err(unexpected(&other)),
    }
}

fn ended(answer: Answer) -> Answered<JobEnded> {
    let Answer::Ended { end, checkpoint, savepoint } = answer else { return Err(unexpected(&answer)) };
    let how = match end {
        End::Finished => "finished",
        End::Stopped => "stopped",
        End::Cancelled => "cancelled",
    };
    let (savepoint, savepoint_failure) = match savepoint {
        None => (None, None),
        Some(Ok(dir)) => (Some(dir), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let checkpoint = checkpoint.map(|checkpoint| checkpoint.0);
    Ok(Json(JobEnded { how: how.to_owned(), checkpoint, savepoint, savepoint_failure }))
}

fn unexpected(answer: &Answer) -> Refusal {
    Error::internal(format!("the job answered something else: {answer:?}")).into()
}

/// Reads a body: nothing is as good as an empty object.
fn parse<T: DeserializeOwned + Default>(body: Body, expected: &str) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| {
        Refusal::garbage(rejection.status(), format!("the body cannot be read: {}", rejection.body_text()))
    })?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Error::invalid_job(format!("the body is not {expected}: {error}")).into())
}

impl Served {
    /// Whether the caller means this job.
    fn check(&self, name: Name) -> Result<(), Refusal> {
        let ours = &self.control.plan().job_name;
        let refuse = |what: String| Refusal::not_found(format!("{what}: this process runs {ours:?}"));
        match name {
            Ok(Path(name)) if name == *ours => Ok(()),
            Ok(Path(name)) => Err(refuse(format!("there is no job {name:?} here"))),
            Err(rejection) => Err(refuse(format!("the job's name cannot be read ({rejection})"))),
        }
    }

    /// A directory for a savepoint beside the checkpoint directory, by the time of day.
    fn savepoint_dir(&self) -> Result<String, Refusal> {
        match self.control.checkpoint_url() {
            Some(url) if !env::is_volatile(url) => {
                Ok(format!("{}-savepoints/{}", url.trim_end_matches('/'), self.env.wall().0))
            }
            _ => Err(Error::invalid_job(
                "the job has no checkpoint directory to put a savepoint beside: give a directory",
            )
            .into()),
        }
    }

    /// The job as it is now.
    pub(super) fn picture(&self) -> JobDetails {
        let view = self.control.view();
        let now = self.env.now();
        let plan = self.control.plan();
        JobDetails {
            name: plan.job_name.clone(),
            state: word(view.status),
            attempt: view.attempt.map(|(attempt, _)| attempt.0),
            lineage: view.attempt.map(|(_, lineage)| lineage.to_string()),
            started_from: view.started_from.clone(),
            restored: RestoredState { local_bytes: view.restored.local, store_bytes: view.restored.store },
            checkpoint_url: self.control.checkpoint_url().map(str::to_owned),
            uptime_ms: millis(now.since(view.since)),
            restarts: view.restarts,
            tasks: view.tasks.iter().map(|(id, task)| task_details(plan, *id, task)).collect(),
            checkpoints: checkpoint_counts(&view, now),
            failures: failures(&view, now),
        }
    }
}

fn task_details(plan: &Plan, id: TaskId, task: &TaskView) -> TaskDetails {
    let vertices = plan.chains.get(id.chain as usize).map(|chain| chain.vertices.as_slice());
    let operators = vertices.unwrap_or_default().iter().map(|&id| plan.vertex(id).display_name().to_owned());
    let cost = task.last_snapshot;
    TaskDetails {
        chain: id.chain,
        subtask: id.subtask.0,
        operators: operators.collect(),
        state: word(task.status),
        last_snapshot: SnapshotCost {
            cells: cost.cells,
            bytes_added: cost.bytes_added,
            alignment_us: cost.alignment_us,
            longest_pause_us: cost.longest_pause_us,
        },
    }
}

fn checkpoint_counts(view: &JobView, now: Monotonic) -> CheckpointCounts {
    let Statistics { completed, failed, history, .. } = &view.checkpoints;
    let in_progress = history.iter().filter(|one| one.outcome == CheckpointOutcome::InProgress).count();
    CheckpointCounts {
        completed: view.completed_before + completed,
        failed: *failed,
        in_progress: in_progress as u64,
        newest: view.last_checkpoint.map(|checkpoint| checkpoint.0),
        longest_pause_us: view.snapshots.longest_pause_us,
        history: history.iter().map(|one| checkpoint_details(one, now)).collect(),
    }
}

fn checkpoint_details(one: &CheckpointStatistics, now: Monotonic) -> CheckpointDetails {
    let kind = match one.kind {
        BarrierKind::Checkpoint => "checkpoint",
        BarrierKind::Savepoint => "savepoint",
        BarrierKind::Stop { .. } => "stop",
        BarrierKind::Last => "last",
    };
    let (state, reason) = match &one.outcome {
        CheckpointOutcome::InProgress => ("in-progress", None),
        CheckpointOutcome::Completed => ("completed", None),
        CheckpointOutcome::Failed { reason } => ("failed", Some(reason.clone())),
    };
    CheckpointDetails {
        checkpoint: one.checkpoint.0,
        kind: kind.to_owned(),
        state: state.to_owned(),
        reason,
        triggered_ms_ago: millis(now.since(one.triggered)),
        duration_ms: one.duration.map(millis),
        acknowledged: one.acked as u64,
        tasks: one.tasks as u64,
        bytes: one.bytes,
    }
}

fn failures(view: &JobView, now: Monotonic) -> Vec<FailureDetails> {
    let details = |(at, message): &(Monotonic, String)| FailureDetails {
        ms_ago: millis(now.since(*at)),
        message: message.clone(),
    };
    view.failures.iter().map(details).collect()
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The one word under which serde knows a state.
pub(super) fn word(state: impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

//! The page for Prometheus: the numbers of the process as they are counted, and those of the job as they are now.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use env::StoreRequests;
use statebackend::store::MemoryUse;
use types::rest::{CheckpointCounts, JobDetails, RestoredState, TaskDetails};

use super::{Served, job::word};
use crate::{
    cluster::status::job::{JobStatus, TRANSITIONS},
    metrics::Metrics,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The last line of an OpenMetrics page.
const END: &str = "# EOF\n";

pub(super) async fn page(State(served): State<Served>) -> Response {
    let control = &served.control;
    let of_job = of_job(&served.picture(), control.memory_use(), &control.store_requests()).encode();
    let of_job = of_job.strip_suffix(END).unwrap_or(&of_job).to_owned();
    ([(CONTENT_TYPE, OPEN_METRICS)], of_job + &served.control.metrics().encode()).into_response()
}

/// A registry made for one page: what is gone (tasks of an older attempt) does not stay in it.
fn of_job(job: &JobDetails, memory: Option<MemoryUse>, requests: &[StoreRequests]) -> Metrics {
    let page = Page { metrics: Metrics::default(), job: &job.name };
    for state in states() {
        let is_it = u64::from(state == job.state);
        page.set("job_state", "1 for the state that the job is in", &[("state", &state)], is_it);
    }
    page.set("job_uptime_ms", "Since the process began with the job", &[], job.uptime_ms);
    page.set("job_restarts", "Attempts started after failures", &[], job.restarts.into());
    let RestoredState { local_bytes, store_bytes } = job.restored;
    let help = "Bytes of run files that the attempt has read to restore its state";
    for (from, bytes) in [("store", Some(store_bytes)), ("local", local_bytes)] {
        if let Some(bytes) = bytes {
            page.set("restored_bytes", help, &[("from", from)], bytes);
        }
    }
    page.checkpoints(&job.checkpoints);
    job.tasks.iter().for_each(|task| page.task(task));
    if let Some(MemoryUse { tables, blocks, write_buffers, evicted_cells }) = memory {
        page.set("state_tables_bytes", "Cells in front of the stores, roughly", &[], tables as u64);
        page.set("state_evicted_cells", "Cells that have left for the stores", &[], evicted_cells);
        page.set("state_blocks_bytes", "Blocks of the stores in memory", &[], blocks as u64);
        page.set("state_write_buffers_bytes", "What the stores have not written", &[], write_buffers as u64);
    }
    for StoreRequests { kind, sent, unanswered } in requests {
        let (kind, help) =
            ([("kind", *kind)], "Requests to the checkpoint directory, repeated ones included");
        page.set("store_requests", help, &kind, *sent);
        page.set("store_requests_unanswered", "Those that got no yes or no", &kind, *unanswered);
    }
    page.metrics
}

/// All states of a job, each once, in a fixed order.
fn states() -> Vec<String> {
    let mut states: Vec<JobStatus> = Vec::new();
    for state in TRANSITIONS.iter().flat_map(|&(from, to)| [from, to]) {
        if !states.contains(&state) {
            states.push(state);
        }
    }
    states.into_iter().map(word).collect()
}

struct Page<'a> {
    metrics: Metrics,
    job: &'a str,
}

impl Page<'_> {
    fn set(&self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let labels = [&[("job", self.job)], labels].concat();
        self.metrics.gauge(name, help, &labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn checkpoints(&self, counts: &CheckpointCounts) {
        let set = |name: &str, help: &str, value| self.set(name, help, &[], value);
        set("checkpoints_completed", "Checkpoints completed by this process", counts.completed);
        set("checkpoints_failed", "Checkpoints given up by the running attempt", counts.failed);
        set("checkpoints_in_progress", "Checkpoints under way", counts.in_progress);
        set("checkpoint_longest_pause_us", "The longest step of snapshot work", counts.longest_pause_us);
        if let Some(newest) = counts.newest {
            set("checkpoint_newest", "The newest checkpoint in the job history", newest);
        }
        if let Some(last) = counts.history.iter().rev().find(|one| one.state == "completed") {
            let duration_ms = last.duration_ms.unwrap_or(0);
            set("checkpoint_last_duration_ms", "From the trigger to the history record", duration_ms);
            set("checkpoint_last_bytes", "Its files, shared ones included", last.bytes);
        }
    }

    fn task(&self, task: &TaskDetails) {
        let (chain, subtask) = (task.chain.to_string(), task.subtask.to_string());
        let labels = [("chain", chain.as_str()), ("subtask", subtask.as_str())];
        let cost = task.last_snapshot;
        for (name, help, value) in [
            ("task_snapshot_cells", "Cells that had changed before its last checkpoint", cost.cells),
            ("task_snapshot_bytes", "Bytes of new files for its last checkpoint", cost.bytes_added),
            ("task_alignment_us", "From the first barrier to the last", cost.alignment_us),
            ("task_longest_pause_us", "Its longest step of snapshot work", cost.longest_pause_us),
        ] {
            self.set(name, help, &labels, value);
        }
    }
}

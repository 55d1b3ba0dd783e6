//! `tidegate status`: a running job, its tasks, its checkpoints and its failures.

use env::Env;
use types::{
    Result, count,
    rest::{CheckpointDetails, JobDetails, RestoredState, TaskDetails},
};

use crate::{
    client::{Address, Client, path},
    format::{bytes, or_dash, span, table},
    output::{Output, Report},
};

/// The newest checkpoints that are shown to people; JSON has all.
const CHECKPOINTS_SHOWN: usize = 10;

/// What the numbers are, as `--help` shows it.
pub(super) const NUMBERS: &str = "\
An attempt has the number of the record that began it in the job's history, so numbers in between were not attempts.
Of a task: what its last checkpoint cost. Of a checkpoint: BYTES OF RUNS is all state that it refers to; SIZE of
`tidegate snapshots` counts its manifest, too.";

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = NUMBERS)]
pub(crate) struct Args {
    /// The job's name; not needed where there is one job.
    job: Option<String>,
    #[command(flatten)]
    address: Address,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let client = Client::new(env, args.address)?;
    let job = client.job(args.job).await?;
    let details: JobDetails = client.get(&path(&job, "")).await?;
    output.show(&details)
}

impl Report for JobDetails {
    fn text(&self) -> String {
        let attempt = match (&self.attempt, &self.lineage) {
            (Some(attempt), Some(lineage)) => format!("attempt {attempt} of lineage {lineage}"),
            _ => "no attempt yet".to_owned(),
        };
        let restarts = count(self.restarts, "restart");
        let mut text = format!(
            "job {}: {}, up {}, {attempt}, {restarts}\n",
            self.name,
            self.state,
            span(self.uptime_ms)
        );
        if !self.started_from.is_empty() {
            text += &format!("{}\n", self.started_from);
        }
        if let RestoredState { local_bytes: Some(local), store_bytes } = self.restored
            && local + store_bytes > 0
        {
            let (local, store) = (bytes(local), bytes(store_bytes));
            text += &format!(
                "state read from copies on this machine: {local}, from the checkpoint store: {store}\n"
            );
        }
        text += &tasks(&self.tasks);
        let counts = &self.checkpoints;
        text += &format!(
            "\ncheckpoints{}: {} completed, {} failed, {} in progress; newest {}; longest pause {} us\n",
            self.checkpoint_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default(),
            counts.completed,
            counts.failed,
            counts.in_progress,
            or_dash(counts.newest),
            counts.longest_pause_us
        );
        if !counts.history.is_empty() {
            text += &checkpoints(&counts.history);
        }
        for failure in &self.failures {
            text += &format!("failure {} ago: {}\n", span(failure.ms_ago), failure.message);
        }
        text
    }
}

fn tasks(tasks: &[TaskDetails]) -> String {
    // Of the last checkpoint that the task has acknowledged.
    let head = [
        "TASK",
        "OPERATORS",
        "STATE",
        ">CHANGED CELLS",
        ">ADDED BYTES",
        ">ALIGNMENT us",
        ">LONGEST PAUSE us",
    ];
    let rows = tasks.iter().map(|task| {
        let cost = task.last_snapshot;
        vec![
            format!("{}/{}", task.chain, task.subtask),
            task.operators.join(" -> "),
            task.state.clone(),
            cost.cells.to_string(),
            bytes(cost.bytes_added),
            cost.alignment_us.to_string(),
            cost.longest_pause_us.to_string(),
        ]
    });
    format!("\n{}", table(&head, rows))
}

fn checkpoints(history: &[CheckpointDetails]) -> String {
    let head =
        [">CHECKPOINT", "KIND", "STATE", "TRIGGERED", ">TOOK", ">ACKNOWLEDGED", ">BYTES OF RUNS", "REASON"];
    let newest = history.iter().rev().take(CHECKPOINTS_SHOWN).rev();
    let rows = newest.map(|one| {
        vec![
            one.checkpoint.to_string(),
            one.kind.clone(),
            one.state.clone(),
            format!("{} ago", span(one.triggered_ms_ago)),
            or_dash(one.duration_ms.map(span)),
            format!("{}/{}", one.acknowledged, one.tasks),
            bytes(one.bytes),
            one.reason.clone().unwrap_or_default(),
        ]
    });
    table(&head, rows)
}

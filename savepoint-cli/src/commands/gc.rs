//! `tidegate gc`: what a job has left in its checkpoint directory and nothing refers to. A dead job's is deleted here; one that
//! runs is asked to do it.

use std::collections::BTreeMap;

use checkpoint::collect::{Garbage, Why, collect_offline, find};
use env::Env;
use serde::Serialize;
use types::{
    Error, Result, count,
    rest::{GarbageCollected, NoOptions},
};

use crate::{
    client::{Client, path},
    format::{bytes, table},
    offline,
    output::{Output, Report},
    progress::waiting,
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The checkpoint directory of a job that does not run.
    #[arg(required_unless_present = "job")]
    dir: Option<String>,
    /// Ask the job that runs and whose REST listens there, instead of giving its directory.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["dir", "dry_run", "job_is_dead"])]
    job: Option<String>,
    /// List the files and change nothing; the job may run.
    #[arg(long)]
    dry_run: bool,
    /// Nothing runs the job, on this machine or another: needed where its end is not recorded. What runs it all the same is
    /// fenced.
    #[arg(long)]
    job_is_dead: bool,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let dir = match args {
        Args { job: Some(address), .. } => return ask(address, env, output).await,
        Args { ref dir, .. } => dir.clone().unwrap_or_default(),
    };
    let store = offline::directory(env, &dir).await?;
    let found = if args.dry_run {
        waiting(env, "looking for files", find(env, &store)).await?
    } else {
        waiting(env, "deleting files", collect_offline(env, &store, args.job_is_dead)).await?
    };
    let standing = &found.newest.standing;
    output.show(&Collected {
        deleted: !args.dry_run,
        ended: standing.end.is_some(),
        last_attempt: standing.attempt.id.0,
        run_by: found.run_by,
        bytes: found.garbage.iter().map(|garbage| garbage.len).sum(),
        files: found.garbage.iter().map(File::new).collect(),
        retained: standing.completed.iter().map(|it| it.checkpoint.0).collect(),
    })
}

/// Has the job delete, until there is nothing more.
async fn ask(address: String, env: &Env, output: &mut Output) -> Result<()> {
    let client = Client::of_flag(env, address, "--job")?;
    let job = client.job(None).await?;
    let mut files = 0;
    loop {
        let posted = client.post(&path(&job, "/gc"), NoOptions {}, "the job is deleting files").await;
        let GarbageCollected { files: deleted, more } = posted?;
        files += deleted;
        if !more {
            return output.show(&CollectedByJob { job, files });
        }
        if deleted == 0 {
            return Err(Error::retryable(format!(
                "job {job} knows of more files than it deletes at a time, and has deleted none: see what it says, and ask again"
            )));
        }
    }
}

/// What is shown of a job that runs.
#[derive(Serialize)]
struct CollectedByJob {
    job: String,
    /// How many it has deleted.
    files: u64,
}

impl Report for CollectedByJob {
    fn text(&self) -> String {
        let Self { job, files } = self;
        match files {
            0 => format!("nothing to delete: job {job} collects by itself, after its checkpoints\n"),
            _ => format!("job {job} has deleted {}\n", count(*files, "file")),
        }
    }
}

/// What is shown.
#[derive(Serialize)]
struct Collected {
    /// Whether they are deleted, or may be.
    deleted: bool,
    /// Whether the end of the last attempt is recorded: otherwise the job may run.
    ended: bool,
    last_attempt: u64,
    /// The process that runs the job: what the last attempt has written is left out then.
    run_by: Option<String>,
    bytes: u64,
    files: Vec<File>,
    /// The checkpoints that stay.
    retained: Vec<u64>,
}

/// Why a file may go that a job which runs may need.
const IF_DEAD: &str = "orphan if the job is dead";

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
    why: &'static str,
    /// The history record that marks it as garbage.
    marked_by: Option<u64>,
}

impl File {
    fn new(garbage: &Garbage) -> Self {
        let (why, marked_by) = match garbage.why {
            Why::Marked(record) => ("marked", Some(record.0)),
            Why::Orphan => ("orphan", None),
            Why::OrphanIfDead => (IF_DEAD, None),
            Why::OldRecord => ("old history record", None),
        };
        Self { path: garbage.path.clone(), bytes: garbage.len, why, marked_by }
    }
}

impl Report for Collected {
    fn text(&self) -> String {
        let kept = match &self.retained[..] {
            [] => "no checkpoint is retained".to_owned(),
            retained => {
                let numbers: Vec<_> = retained.iter().map(ToString::to_string).collect();
                format!("retained checkpoints stay: {}", numbers.join(", "))
            }
        };
        let doubt = match (&self.run_by, self.files.iter().any(|file| file.why == IF_DEAD)) {
            (Some(process), _) if !self.ended => {
                format!("left out is what attempt {} has written, which {process} runs\n", self.last_attempt)
            }
            (_, true) => format!(
                "the end of attempt {} is not recorded: if it runs, it may need what is an orphan only if the job is dead\n",
                self.last_attempt
            ),
            _ => String::new(),
        };
        if self.files.is_empty() {
            return format!("nothing to delete; {kept}\n{doubt}");
        }
        let mut text = String::new();
        if !self.deleted {
            let row = |file: &File| vec![file.path.clone(), bytes(file.bytes), file.why.to_owned()];
            text += &table(&["FILE", ">SIZE", "WHY"], self.files.iter().map(row));
            text += "\n";
        }
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for file in &self.files {
            *kinds.entry(file.why).or_default() += 1;
        }
        let kinds: Vec<_> = kinds.into_iter().map(|(why, files)| format!("{files} {why}")).collect();
        let did = if self.deleted { "deleted" } else { "may be deleted:" };
        let files = count(self.files.len(), "file");
        text + &format!("{did} {files} of {} ({}); {kept}\n{doubt}", bytes(self.bytes), kinds.join(", "))
    }
}

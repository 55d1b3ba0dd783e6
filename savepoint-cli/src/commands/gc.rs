//! `tidegate gc`: what a dead job has left in its checkpoint directory and nothing refers to.

use std::collections::BTreeMap;

use checkpoint::collect::{Garbage, Why, collect_offline, find};
use env::Env;
use serde::Serialize;
use types::{Result, count};

use crate::{
    format::{bytes, table},
    offline,
    output::{Output, Report},
    progress::waiting,
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The checkpoint directory of a job that does not run.
    dir: String,
    /// List the files and change nothing; the job may run.
    #[arg(long)]
    dry_run: bool,
    /// Nothing runs the job, on this machine or another: needed where its end is not recorded. What runs it all the same is
    /// fenced.
    #[arg(long)]
    job_is_dead: bool,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let store = offline::directory(env, &args.dir).await?;
    let found = if args.dry_run {
        waiting(env, "looking for files", find(env, &store)).await?
    } else {
        waiting(env, "deleting files", collect_offline(env, &store, args.job_is_dead)).await?
    };
    output.show(&Collected {
        deleted: !args.dry_run,
        bytes: found.garbage.iter().map(|garbage| garbage.len).sum(),
        files: found.garbage.iter().map(File::new).collect(),
        retained: found.newest.standing.completed.iter().map(|it| it.checkpoint.0).collect(),
    })
}

/// What is shown.
#[derive(Serialize)]
struct Collected {
    /// Whether they are deleted, or may be.
    deleted: bool,
    bytes: u64,
    files: Vec<File>,
    /// The checkpoints that stay.
    retained: Vec<u64>,
}

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
        if self.files.is_empty() {
            return format!("nothing to delete; {kept}\n");
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
        text + &format!("{did} {files} of {} ({}); {kept}\n", bytes(self.bytes), kinds.join(", "))
    }
}

//! `tidegate delete`: removes a savepoint. What belongs to nobody but the user stays, and so does what belongs to a
//! job.

use checkpoint::{
    history::{self, Restores},
    savepoint::{self, SnapshotLocation},
};
use env::Env;
use serde::Serialize;
use types::{Digest, Error, Result, count};

use crate::{
    format::bytes,
    offline::{self, Named, named},
    output::{Output, Report},
    progress::waiting,
};

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A savepoint directory.
    savepoint: String,
    /// A checkpoint directory whose job may have begun from the savepoint: nothing is deleted if it still needs it. May
    /// be given several times.
    #[arg(long, value_name = "DIR")]
    unless_needed_by: Vec<String>,
}

pub(crate) async fn execute(args: Args, env: &Env, output: &mut Output) -> Result<()> {
    let store = match named(env, &args.savepoint).await? {
        Named::Directory(store) => store,
        Named::Other => {
            let location = SnapshotLocation::resolve(env, &args.savepoint).await?;
            return Err(Error::conflict(format!(
                "{} is checkpoint {} of job {:?}: checkpoints are removed by the job itself (checkpoints.retained), and what a \
                 dead job has left by tidegate gc {}",
                args.savepoint,
                location.manifest.checkpoint,
                location.manifest.job_name,
                location.url()
            )));
        }
    };
    let may_go = async |manifest: Digest| -> Result<()> {
        for dir in &args.unless_needed_by {
            check_needed(env, dir, manifest).await?;
        }
        Ok(())
    };
    let deleted = waiting(env, "deleting files", savepoint::delete(env, &store, may_go)).await?;
    output.show(&Gone {
        checkpoint: deleted.checkpoint.0,
        dir: store.url().to_owned(),
        files: deleted.files as u64,
        bytes: deleted.bytes,
        resumed: deleted.resumed,
        left: deleted.left,
    })
}

/// Until its first checkpoint a job needs what it began from.
async fn check_needed(env: &Env, dir: &str, manifest: Digest) -> Result<()> {
    let store = offline::directory(env, dir).await?;
    let newest = history::open(env, store).await?;
    let newest = newest.ok_or_else(|| {
        Error::invalid_job(format!(
            "--unless-needed-by {dir}: it holds no job history: give a checkpoint directory"
        ))
    })?;
    match newest.standing.restore_point() {
        Restores::Foreign(foreign) if foreign.manifest.digest == manifest => Err(Error::conflict(format!(
            "job {:?} in {dir} has begun from this savepoint and has no checkpoint of its own yet: nothing was deleted; delete \
             it once the job has one",
            newest.standing.job_name
        ))),
        _ => Ok(()),
    }
}

/// What is shown.
#[derive(Serialize)]
struct Gone {
    /// The checkpoint that it was a copy of.
    checkpoint: u64,
    dir: String,
    files: u64,
    bytes: u64,
    /// An earlier try had begun.
    resumed: bool,
    /// Files in the directory that are none of the savepoint's.
    left: Vec<String>,
}

impl Report for Gone {
    fn text(&self) -> String {
        let Self { checkpoint, dir, files, resumed, left, .. } = self;
        let mut text = format!(
            "deleted the savepoint of checkpoint {checkpoint} in {dir}: {} of {}{}\n",
            count(*files, "file"),
            bytes(self.bytes),
            if *resumed { ", some of them before" } else { "" }
        );
        if !left.is_empty() {
            text += &format!("kept, since no savepoint has such files: {}\n", left.join(", "));
        }
        text
    }
}

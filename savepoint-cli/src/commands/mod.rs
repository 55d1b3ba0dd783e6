//! The commands, one file each: its arguments, what it does, what it shows.

mod cancel;
mod checkpoint;
mod convert;
mod delete;
mod diff;
mod drop_state;
mod gc;
mod inspect;
mod list;
mod query;
mod rename_uid;
mod run;
mod savepoint;
mod snapshots;
mod status;
mod stop;
mod verify;

use clap::Subcommand;
use env::Env;
use types::Result;

use crate::output::Output;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a program with a job, from a snapshot if one is given.
    Run(run::Args),
    /// List the running jobs.
    List(list::Args),
    /// Show a running job: tasks, checkpoints, failures.
    Status(status::Args),
    /// Take a checkpoint of a running job.
    Checkpoint(checkpoint::Args),
    /// Copy a checkpoint of a running job into a directory of yours.
    Savepoint(savepoint::Args),
    /// End a running job with a last checkpoint, from which it can go on.
    Stop(stop::Args),
    /// End a running job now; what it did since its last checkpoint is done again by the next start.
    Cancel(cancel::Args),
    /// List the checkpoints and savepoints of a directory.
    Snapshots(snapshots::Args),
    /// Show what a snapshot holds.
    Inspect(inspect::Args),
    /// Check every byte of a directory or a snapshot.
    Verify(verify::Args),
    /// Print what one state of a snapshot holds, without the program.
    Query(query::Args),
    /// Compare the state of two snapshots, whatever their parallelism and backend.
    Diff(diff::Args),
    /// Make a savepoint out of a completed checkpoint, without the job.
    Convert(convert::Args),
    /// Make a savepoint in which an operator has another uid.
    RenameUid(rename_uid::Args),
    /// Make a savepoint without a state, or without an operator.
    DropState(drop_state::Args),
    /// Delete a savepoint.
    Delete(delete::Args),
    /// Delete what a job has left in its checkpoint directory, but for its checkpoints; one that runs is asked to.
    Gc(gc::Args),
}

impl Command {
    /// Carries it out.
    pub(crate) async fn execute(self, env: &Env, output: &mut Output) -> Result<()> {
        match self {
            Self::Run(args) => Err(args.exec()),
            Self::List(args) => list::execute(args, env, output).await,
            Self::Status(args) => status::execute(args, env, output).await,
            Self::Checkpoint(args) => checkpoint::execute(args, env, output).await,
            Self::Savepoint(args) => savepoint::execute(args, env, output).await,
            Self::Stop(args) => stop::execute(args, env, output).await,
            Self::Cancel(args) => cancel::execute(args, env, output).await,
            Self::Snapshots(args) => snapshots::execute(args, env, output).await,
            Self::Inspect(args) => inspect::execute(args, env, output).await,
            Self::Verify(args) => verify::execute(args, env, output).await,
            Self::Query(args) => query::execute(args, env, output).await,
            Self::Diff(args) => diff::execute(args, env, output).await,
            Self::Convert(args) => convert::execute(args, env, output).await,
            Self::RenameUid(args) => rename_uid::execute(args, env, output).await,
            Self::DropState(args) => drop_state::execute(args, env, output).await,
            Self::Delete(args) => delete::execute(args, env, output).await,
            Self::Gc(args) => gc::execute(args, env, output).await,
        }
    }
}

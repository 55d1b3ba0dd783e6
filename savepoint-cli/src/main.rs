//! The tidegate command: steers a running job over REST; reads checkpoints and savepoints, makes and removes savepoints, and
//! collects what dead jobs have left, without the job.
//!
//! Called by people, scripts and supervisors, so: what a command finds goes to standard output, as tables or with
//! `--json` as one JSON value; everything else goes to standard error; an error is one line, and the exit code is that
//! of its [`ErrorKind`](types::ErrorKind). It never imports the engine: a broken engine leaves readable snapshots.

mod client;
mod commands;
mod compare;
mod format;
mod key;
mod making;
mod offline;
mod output;
mod progress;
mod rows;
mod size;
mod state;

use std::process::ExitCode;

use clap::Parser;
use env::Env;
use types::{Error, Result};

use self::{commands::Command, output::Output};

/// Decoding a large snapshot allocates a lot.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
   0  done; for verify: every byte that is needed was checked and is right
   1  the output could not be written
   2  a flag, an argument or a setting is wrong, or there is no such job or snapshot
   3  a broken invariant of Tidegate itself
   4  a passing fault: try again
   5  the machine refuses: no job at that address, no permission, no space
   6  input data is not what the job expects
   7  a user function failed
   8  a snapshot does not fit the job, or the one that it is compared with
   9  damage: a file is not what was written, or is missing
  10  a directory or an output belongs to another job or lineage
  11  promised output can no longer be committed
  12  cancelled, or the job ended first
  13  fenced: another attempt owns the job; do not start it again
  14  diff --exit-code: the snapshots differ
`run` ends with the exit code of the program.

SNAPSHOT is DIR (a savepoint, or the last checkpoint of a checkpoint directory), DIR@N (checkpoint N), or
DIR/history/N (the last checkpoint when record N was written).";

/// Tidegate: lists, inspects, verifies, queries, compares, makes and removes snapshots; shows and steers running jobs.
#[derive(Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    /// Print one JSON value instead of tables; errors, too, on standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    output::one_line_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let mut output = Output::new(cli.json);
    let done = execute(cli.command, &mut output);
    output.end(done)
}

fn execute(command: Command, output: &mut Output) -> Result<()> {
    // The program takes this process over: nothing may run in it.
    if let Command::Run(args) = command {
        return Err(args.exec());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("cannot start the runtime", error))?;
    let done = runtime.block_on(async { command.execute(&Env::real(), output).await });
    // A request that nobody waits for any more does not hold the command.
    runtime.shutdown_background();
    done
}

//! A word count whose state has changed its type. With `--yesterday` it is the program of yesterday, which kept a `u32` of each
//! word. Today's keeps more, says how the old becomes the new, and goes on from what yesterday's has left: stop the one, look with
//! `--check-restore DIR`, start the other, kill either with `kill -9` at any moment.

use std::process::ExitCode;

use clap::Parser;
use serde::{Deserialize, Serialize};
use tidegate::prelude::*;

/// What yesterday's program kept. It stays here as long as a snapshot may hold it; its name may be another one.
#[derive(Clone, Serialize, Deserialize)]
struct CountV1 {
    times: u32,
}

/// What today's keeps.
#[derive(Clone, Serialize, Deserialize)]
struct Count {
    times: u64,
    /// How many of them yesterday's program has seen.
    yesterday: u64,
}

#[derive(Clone)]
struct Yesterday;

impl ProcessFunction for Yesterday {
    type Key = String;
    type In = String;
    type Out = String;
    type State = ValueState<CountV1>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.value("count")
    }

    fn process(&mut self, word: String, count: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let times = count.get(ctx)?.map_or(0, |count| count.times) + 1;
        count.set(ctx, CountV1 { times })?;
        ctx.emit(format!("{word}\t{times}"));
        Ok(())
    }
}

#[derive(Clone)]
struct Today;

impl ProcessFunction for Today {
    type Key = String;
    type In = String;
    type Out = String;
    type State = ValueState<Count>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.migrating(|old: CountV1| Ok(migrated(&old))).value("count")
    }

    fn process(&mut self, word: String, count: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let mut now = count.get(ctx)?.unwrap_or(Count { times: 0, yesterday: 0 });
        now.times += 1;
        ctx.emit(format!("{word}\t{}", now.times));
        count.set(ctx, now)
    }
}

/// Called once with each value that lives; again if the start dies before its first checkpoint.
fn migrated(old: &CountV1) -> Count {
    let times = old.times.into();
    Count { times, yesterday: times }
}

/// Counts the words of text files, today or as of yesterday.
#[derive(Parser)]
struct Args {
    /// A text file, or a directory of text files.
    #[arg(long, value_name = "FILE_OR_DIR")]
    input: String,
    /// The directory for the counts.
    #[arg(long, value_name = "DIR")]
    output: String,
    /// Be the program of yesterday.
    #[arg(long)]
    yesterday: bool,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let args: Args = parse_args();
    let job = Job::new("changed-type").args(args.job);
    let lines = FileSource::lines_with(args.input, |line, out| {
        let words = line.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        words.for_each(|word| out.emit(word.to_ascii_lowercase()));
        Ok(())
    });
    let words = job.source("lines", lines).key_by(String::clone);
    let counts = match args.yesterday {
        true => words.process("count", Yesterday),
        false => words.process("count", Today),
    };
    counts.sink("counts", FileSink::lines(args.output));
    job.main()
}

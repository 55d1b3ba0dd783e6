//! Counts words, exactly once: kill it with `kill -9` at any moment, start it again with the same command, and every
//! occurrence of every word stands in the output once, as `word<TAB>k` where it was the k-th.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use compact_str::CompactString;
use tidegate::prelude::*;

/// Small words come and go by the million.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the words of text files.
#[derive(Parser)]
struct Args {
    /// A text file, or a directory of text files.
    #[arg(long, value_name = "FILE_OR_DIR")]
    input: String,
    /// The directory for the counts.
    #[arg(long, value_name = "DIR")]
    output: String,
    /// Reads what is not UTF-8 as replacement characters, instead of refusing it.
    #[arg(long)]
    lossy: bool,
    /// The longest line that is read.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_line_bytes: usize,
    #[command(flatten)]
    job: JobArgs,
}

fn main() -> ExitCode {
    let args: Args = parse_args();
    let job = Job::new("word-count").args(args.job);

    let lines = FileSource::lines_with(args.input, |line, out| {
        words(line).for_each(|word| out.emit(word));
        Ok(())
    });
    let lines = lines.max_line_bytes(args.max_line_bytes);
    let lines = if args.lossy { lines.lossy() } else { lines };
    let counts = FileSink::new(args.output, |(word, count), line| {
        writeln!(line, "{word}\t{count}").expect("memory takes every write");
    });
    job.source("lines", lines).key_by(CompactString::clone).count("count").sink("counts", counts);

    job.main()
}

/// Maximal runs of ASCII letters, lower-cased.
fn words(line: &str) -> impl Iterator<Item = CompactString> {
    let runs = line.split(|c: char| !c.is_ascii_alphabetic()).filter(|run| !run.is_empty());
    runs.map(|run| {
        let mut word = CompactString::new(run);
        word.make_ascii_lowercase();
        word
    })
}

//! Runs the benchmarks in turn, five times each unless told otherwise, and prints the table of `README.md`:
//! `measure [--runs N] [--text FILE] [QUESTION ...]`. The other binaries and `word_count` must lie beside it.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it drives real processes and reads no input but their figures"
)]

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use tidegate_benches::{
    figures::{Figures, median},
    turns::Turns,
};

/// Measures.
#[derive(Parser)]
struct Args {
    /// Runs of each kind
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A text for the word count; it is read in as many copies as make 50 MB
    #[arg(long)]
    text: Option<PathBuf>,
    /// The program that runs the peer's jobs and prints a line of JSON with `records_per_s` for each run: called as
    /// `PEER wordcount --repeat 3` and `PEER updates --keys N --records N --repeat 3`
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// What to measure: all that needs no state backend on disk, unless named
    questions: Vec<Question>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    /// What checkpoints every second cost keyed updates
    Cost,
    /// The gaps between records at a third of full load
    Gaps,
    /// A large state of which 1 % changes
    Delta,
    /// The word count against one written by hand
    Words,
    /// Word count and keyed updates against the best of three runs of the peer, in turn
    Peer,
    /// Keyed updates in RocksDB behind a small table against RocksDB alone, in turn
    Store,
    /// Word count and keyed updates in RocksDB against the peer's, in turn
    StorePeer,
    /// 300 checkpoints, 1 % changed before each: what they write, and what the directory holds
    Files,
    /// The restore of 1 GB, against reading, checking and decompressing it
    Restore,
    /// `tidegate verify` and `tidegate diff` of 1 GB, against a pass that only makes digests
    Verify,
}

/// The state backends that keep what they hold across checkpoints in files.
const STATES: [&str; 3] = ["filesystem", "rocksdb", "sled"];

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> io::Result<()> {
    let bench = Bench::new()?;
    let asked = |question| args.questions.is_empty() || args.questions.contains(&question);
    println!("| question | median | least | greatest |\n|---|---|---|---|");
    if asked(Question::Cost) {
        cost(&bench, args.runs)?;
    }
    if asked(Question::Gaps) {
        gaps(&bench, args.runs)?;
    }
    if asked(Question::Delta) {
        delta(&bench, args.runs)?;
    }
    if asked(Question::Words) {
        match &args.text {
            Some(text) => words(&bench, args.runs, text)?,
            None => eprintln!("no word count: name a text with --text"),
        }
    }
    if asked(Question::Peer) {
        match (&args.text, &args.peer) {
            (Some(text), Some(peer)) => against(&bench, args.runs, text, peer)?,
            _ => eprintln!("no comparison: name a text with --text, and a peer with --peer"),
        }
    }
    if args.questions.contains(&Question::Store) {
        store(&bench, args.runs)?;
    }
    if args.questions.contains(&Question::StorePeer) {
        match (&args.text, &args.peer) {
            (Some(text), Some(peer)) => store_against(&bench, args.runs, text, peer)?,
            _ => eprintln!("no comparison: name a text with --text, and a peer with --peer"),
        }
    }
    if args.questions.contains(&Question::Files) {
        files(&bench, args.runs)?;
    }
    if args.questions.contains(&Question::Restore) {
        restore(&bench, args.runs)?;
    }
    if args.questions.contains(&Question::Verify) {
        verify(&bench, args.runs)?;
    }
    Ok(())
}

fn row(question: &str, values: &[f64]) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!("| {question} | {:.3} | {least:.3} | {greatest:.3} |", median(values.iter().copied()));
}

/// Seconds with a checkpoint each and seconds without any, in turn within each run.
fn cost(bench: &Bench, runs: usize) -> io::Result<()> {
    let jobs: [(&str, &[&str]); 4] = [
        ("500 k cells of 16 bytes", &["--keys", "500000"]),
        ("5 M cells of 16 bytes", &["--keys", "5000000"]),
        ("500 k cells of 100 bytes", &["--payload", "--keys", "500000"]),
        ("5 M cells of 100 bytes", &["--payload", "--keys", "5000000"]),
    ];
    for (name, job) in jobs {
        let runs = (0..runs)
            .map(|_| bench.figures("keyed_updates", &[job, &["--turns", "5"]].concat(), Some("off")));
        let runs = runs.collect::<io::Result<Vec<_>>>()?;
        let of = |question: &str, figure: fn(&Figures, &Turns) -> f64| {
            let values = runs.iter().map(|run| figure(run, &run.turns.unwrap_or_default()));
            row(&format!("updates, {name}: {question}"), &values.collect::<Vec<_>>());
        };
        of("million records/s with checkpoints", |_, turns| turns.rate / 1e6);
        of("rate with to rate without checkpoints", |_, turns| turns.ratio);
        // How fast the machine's memory is in this hour: both rows wait for it most of their time.
        of("ns of processor time per record without checkpoints", |_, turns| turns.record_ns);
        of("ns of processor time per changed cell", |_, turns| turns.cell_ns);
        of("longest step on a task, ms of processor time", |run, _| run.longest_step_ms);
        of("steps over 0.3 ms, of 1,000", |run, _| run.long_steps as f64 * 1000.0 / run.steps as f64);
    }
    Ok(())
}

fn gaps(bench: &Bench, runs: usize) -> io::Result<()> {
    let job = ["--rate", "8000000", "--records", "120000000"];
    let (mut without, mut with) = (vec![], vec![]);
    for _ in 0..runs {
        without.push(bench.figures("keyed_updates", &job, None)?.gap_ms);
        with.push(bench.figures("keyed_updates", &job, Some("1s"))?.gap_ms);
    }
    row("gap between batches at a third of the load, 99.9 %, without checkpoints, ms", &without);
    row("the same with checkpoints, ms", &with);
    Ok(())
}

fn delta(bench: &Bench, runs: usize) -> io::Result<()> {
    let (mut middle, mut greatest, mut bytes, mut mean) = (vec![], vec![], vec![], vec![]);
    for _ in 0..runs {
        let figures = bench.figures("small_delta", &[], None)?;
        let (median, most) = figures.checkpoint_ms.unwrap_or_default();
        middle.push(median);
        greatest.push(most);
        // A changed cell: a key of 8 bytes and a value of 100.
        bytes.push(figures.bytes as f64 / (figures.cells as f64 * 108.0));
        mean.push((figures.bytes + figures.merged_bytes) as f64 / 1e6 / figures.checkpoints as f64);
    }
    row("small delta: from trigger to durable checkpoint, median of 100, ms", &middle);
    row("small delta: the longest of 100, ms", &greatest);
    row("small delta: bytes of the runs to changed bytes", &bytes);
    row("small delta: MB per checkpoint with merges", &mean);
    Ok(())
}

fn words(bench: &Bench, runs: usize, text: &Path) -> io::Result<()> {
    let folder = bench.copies(text)?;
    let (mut hand, mut ours, mut ratio) = (vec![], vec![], vec![]);
    for _ in 0..runs {
        let out = bench.fresh("out")?.display().to_string();
        let by_hand = rate_in(&bench.run("hand_word_count", &[&folder, &out])?)?;
        let engine = bench.word_count(&folder)?;
        hand.push(by_hand / 1e6);
        ours.push(engine / 1e6);
        ratio.push(engine / by_hand);
    }
    row("word count by hand, million words/s", &hand);
    row("word count with checkpoints, million words/s", &ours);
    row("word count: ours to the one by hand", &ratio);
    Ok(())
}

/// 5 M keys of 100 bytes in 128 MiB of memory, one thread each: ours with checkpoints every second.
fn store(bench: &Bench, runs: usize) -> io::Result<()> {
    let job = ["--keys", "5000000", "--records", "5000000", "--payload", "--fill"];
    let state = ["--state", "rocksdb", "--set", "state.memory=128MiB", "--parallelism", "1"];
    for (name, skew) in
        [("all keys alike", &[][..]), ("a tenth of the keys in nine of ten records", &["--skew"][..])]
    {
        let (mut ours, mut raw, mut ratio) = (vec![], vec![], vec![]);
        for _ in 0..runs {
            let line = bench.run("raw_updates", &[&job[..], skew].concat())?;
            let alone: Figures = serde_json::from_str(&line)?;
            let rate = bench.figures("keyed_updates", &[&job[..], skew, &state].concat(), Some("1s"))?.rate();
            ours.push(rate / 1e6);
            raw.push(alone.rate() / 1e6);
            ratio.push(rate / alone.rate());
        }
        row(&format!("updates in RocksDB, {name}: million records/s"), &ours);
        row("... RocksDB alone, a get and a put each", &raw);
        row("... ours to RocksDB alone", &ratio);
    }
    Ok(())
}

/// As [`against`], with RocksDB on both sides: with a table that holds all cells, and one that holds a tenth, of which nine
/// of ten records find none.
fn store_against(bench: &Bench, runs: usize, text: &Path, peer: &Path) -> io::Result<()> {
    let (folder, peer) = (bench.copies(text)?, &std::path::absolute(peer)?);
    let backend = ["--backend", "rocksdb"];
    let state = |memory: &'static str| ["--state", "rocksdb", "--set", memory];
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..runs {
        ours.push(bench.word_count_with(&folder, &state("state.memory=1GiB"))? / 1e6);
        theirs.push(bench.peer(peer, "wordcount", &backend)? / 1e6);
    }
    compared("word count in RocksDB", &[("", ours)], &theirs);
    let jobs = [
        (
            "updates in RocksDB, 500 k cells of 16 bytes",
            "500000",
            "60000000",
            "4000000",
            ["state.memory=1GiB", "state.memory=8MiB"],
        ),
        (
            "updates in RocksDB, 5 M cells of 16 bytes",
            "5000000",
            "20000000",
            "4000000",
            ["state.memory=4GiB", "state.memory=80MiB"],
        ),
    ];
    for (name, keys, records, of_peer, memory) in jobs {
        let (mut all, mut tenth, mut theirs) = (vec![], vec![], vec![]);
        for _ in 0..runs {
            for (rates, memory) in [&mut all, &mut tenth].into_iter().zip(memory) {
                let job = [&["--keys", keys, "--records", records][..], &state(memory)].concat();
                rates.push(bench.figures("keyed_updates", &job, Some("1s"))?.rate() / 1e6);
            }
            let job = [&["--keys", keys, "--records", of_peer][..], &backend].concat();
            theirs.push(bench.peer(peer, "updates", &job)? / 1e6);
        }
        compared(name, &[("", all), (", a table for a tenth", tenth)], &theirs);
    }
    Ok(())
}

/// 2 M keys of 100 bytes: checkpoints one right after the other, with 128 MiB of memory where it is limited.
fn files(bench: &Bench, runs: usize) -> io::Result<()> {
    for state in STATES {
        let found = (0..runs).map(|_| {
            let folder = bench.fresh("checkpoints")?.display().to_string();
            // Where the copy goes.
            bench.fresh("checkpoints.savepoint")?;
            let job = ["--checkpoints", &folder, "--interval", "1h", "--rest", "off", "--state", state];
            bench.values("many_checkpoints", &[&job[..], &["--set", "state.memory=128MiB"]].concat())
        });
        let found = found.collect::<io::Result<Vec<_>>>()?;
        let of = |question: &str, figure: &str| {
            let values = found.iter().map(|found| found.pointer(figure).and_then(serde_json::Value::as_f64));
            row(&format!("300 checkpoints, {state}: {question}"), &values.flatten().collect::<Vec<_>>());
        };
        of("what a checkpoint needs, the greatest, to a full copy", "/needed");
        of("all files, after most checkpoints, to a full copy", "/usual");
        of("all files at the end, to a full copy", "/end");
        of("all files at the peak, to a full copy", "/peak");
        of("runs of a subtask, the greatest", "/runs");
        of("all that was written to the deltas", "/written");
        of("the greatest delta to a full copy", "/delta");
        of("from trigger to durable checkpoint, median, ms", "/checkpoint_ms/0");
        of("the longest, ms", "/checkpoint_ms/1");
        of("checkpoints of five times the median or longer", "/slow");
        of("longest step on a task, ms of processor time", "/longest_step_ms");
    }
    Ok(())
}

/// 9.6 M keys of 100 bytes, which two subtasks have written, into two and into four. Memory is made ready before each.
fn restore(bench: &Bench, runs: usize) -> io::Result<()> {
    for (name, values) in [("digits", &["--digits"][..]), ("noise", &[][..])] {
        let state = bench.large_state(values)?;
        for backend in STATES {
            for subtasks in ["2", "4"] {
                let (mut found, mut first_use) = (vec![], vec![]);
                for _ in 0..runs {
                    bench.values("large_state", &["touch"])?;
                    let again = bench.values("large_state", &["touch"])?;
                    let of = |figure: &str| again[figure].as_f64().unwrap_or_default();
                    first_use.push(of("cpu_seconds") / of("gib"));
                    let from =
                        ["restore", "--subtasks", subtasks, "--snapshot", &state, "--checkpoints", &state];
                    let job = ["--from", "latest", "--interval", "1h", "--state", backend];
                    let memory = ["--set", "state.memory=1GiB", "--touch", "5"];
                    found.push(bench.values("large_state", &[&from[..], values, &job, &memory].concat())?);
                }
                let what = format!("restore of 1 GB of {name}, 2 to {subtasks} subtasks, {backend}");
                let of = |question: &str, figure: &str| {
                    let figures = found.iter().filter_map(|found| found[figure].as_f64());
                    row(&format!("{what}: {question}"), &figures.collect::<Vec<_>>());
                };
                of("the runs to what they hold", "compressed_to");
                of("seconds", "restore_s");
                of("to read, check and decompress", "ratio");
                of("the same in processor time", "cpu_ratio");
                of("the same without that of the operating system", "program_ratio");
                row(&format!("{what}: first use of a GiB of memory, s"), &first_use);
            }
        }
    }
    Ok(())
}

/// Each beside a pass that makes the digests of the same files on one thread.
fn verify(bench: &Bench, runs: usize) -> io::Result<()> {
    let state = bench.large_state(&[])?;
    let (before, after) = (format!("{state}-before"), format!("{state}-after"));
    let (mut quick, mut deep, mut speed) = (vec![], vec![], vec![]);
    let (mut memory, mut seconds) = (vec![], vec![]);
    for _ in 0..runs {
        let pass = bench.values("large_state", &["checksum", &state])?;
        let (bytes, pass) = (pass["bytes"].as_f64(), pass["seconds"].as_f64().unwrap_or_default());
        speed.push(bytes.unwrap_or_default() / 1e9 / pass);
        quick.push(pass / bench.watched("tidegate", &["verify", &state])?.0);
        deep.push(pass / bench.watched("tidegate", &["verify", "--deep", &state])?.0);
        let (took, peak) = bench.watched("tidegate", &["diff", &before, &after])?;
        memory.push(peak as f64 / f64::from(1 << 20));
        seconds.push(took);
    }
    row("a pass that makes digests, GB/s", &speed);
    row("verify: its speed to that of the pass", &quick);
    row("verify --deep: the same", &deep);
    row("diff of two snapshots of 1 GB: seconds", &seconds);
    row("... MiB of memory at the most", &memory);
    Ok(())
}

/// Rows of rates and of what they are to the peer's.
fn compared(name: &str, ours: &[(&str, Vec<f64>)], theirs: &[f64]) {
    row(&format!("{name}: the peer's best of three, million records/s"), theirs);
    for (what, rates) in ours {
        row(&format!("{name}{what}: million records/s"), rates);
        let ratios: Vec<_> = rates.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        row(&format!("{name}{what}: ours to the peer's"), &ratios);
    }
}

/// Each of our runs stands beside the best of three of the peer's: its first ones warm it up.
fn against(bench: &Bench, runs: usize, text: &Path, peer: &Path) -> io::Result<()> {
    let (folder, peer) = (bench.copies(text)?, &std::path::absolute(peer)?);
    let updates = |keys, records| ["--keys", keys, "--records", records];
    // The peer's number of records keeps it busy for about ten seconds.
    let jobs = [
        ("updates, 500 k cells of 16 bytes", updates("500000", "150000000"), updates("500000", "20000000")),
        ("updates, 5 M cells of 16 bytes", updates("5000000", "60000000"), updates("5000000", "20000000")),
    ];
    let mut rates = vec![(vec![], vec![]); jobs.len() + 1];
    for _ in 0..runs {
        rates[0].0.push(bench.word_count(&folder)?);
        rates[0].1.push(bench.peer(peer, "wordcount", &[])?);
        for ((_, ours, theirs), rates) in jobs.iter().zip(&mut rates[1..]) {
            rates.0.push(bench.figures("keyed_updates", ours, Some("1s"))?.rate());
            rates.1.push(bench.peer(peer, "updates", theirs)?);
        }
    }
    for (name, (ours, theirs)) in ["word count"].into_iter().chain(jobs.map(|job| job.0)).zip(&rates) {
        let millions = |rates: &[f64]| rates.iter().map(|rate| rate / 1e6).collect::<Vec<_>>();
        row(&format!("{name}: million records/s"), &millions(ours));
        row(&format!("{name}: the peer's best of three"), &millions(theirs));
        let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        row(&format!("{name}: ours to the peer's"), &ratios);
    }
    Ok(())
}

/// The rate in a line `... 123 records/s ...`.
fn rate_in(line: &str) -> io::Result<f64> {
    let rate = line.split(" records/s").next().and_then(|head| head.rsplit(' ').next());
    rate.and_then(|rate| rate.parse().ok()).ok_or_else(|| io::Error::other(format!("no rate in: {line}")))
}

/// Where the binaries lie, and where they may write.
struct Bench {
    binaries: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    fn new() -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let binaries = own.parent().ok_or_else(|| io::Error::other("no folder"))?.to_owned();
        let scratch = std::env::temp_dir().join(format!("tidegate-measure-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        Ok(Self { binaries, scratch })
    }

    /// An empty folder.
    fn fresh(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.scratch.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A folder with as many copies of a text as make 50 MB.
    fn copies(&self, text: &Path) -> io::Result<String> {
        let folder = self.fresh("text")?;
        let copies = 50_000_000_u64.div_ceil(std::fs::metadata(text)?.len());
        for copy in 0..copies {
            std::fs::copy(text, folder.join(format!("{copy}.txt")))?;
        }
        Ok(folder.display().to_string())
    }

    /// The words per second of the example.
    fn word_count(&self, input: &str) -> io::Result<f64> {
        self.word_count_with(input, &[])
    }

    /// The same with other flags.
    fn word_count_with(&self, input: &str, others: &[&str]) -> io::Result<f64> {
        let out = self.fresh("out")?.display().to_string();
        let checkpoints = self.fresh("checkpoints")?.display().to_string();
        let job = ["--input", input, "--output", &out, "--checkpoints", &checkpoints];
        let flags = ["--interval", "1s", "--parallelism", "2", "--rest", "off"];
        rate_in(&self.run("examples/word_count", &[&job[..], &flags[..], others].concat())?)
    }

    /// The best of three runs of the peer, in records per second.
    fn peer(&self, peer: &Path, job: &str, args: &[&str]) -> io::Result<f64> {
        let lines = self.run(peer, &[&[job][..], args, &["--repeat", "3"]].concat())?;
        let rates = lines.lines().map(|line| {
            let figures: serde_json::Value = serde_json::from_str(line)?;
            figures["records_per_s"].as_f64().ok_or_else(|| io::Error::other(format!("no rate in: {line}")))
        });
        Ok(rates.collect::<io::Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max))
    }

    /// What a program prints: one of ours by its name, or any by its whole path.
    fn run(&self, name: impl AsRef<Path>, args: &[&str]) -> io::Result<String> {
        let name = name.as_ref();
        let mut command = Command::new(self.binaries.join(name));
        let output = command.args(args).stderr(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!(
                "{} {} ended with {}",
                name.display(),
                args.join(" "),
                output.status
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The values that a program prints as JSON.
    fn values(&self, name: &str, args: &[&str]) -> io::Result<serde_json::Value> {
        let line = self.run(name, args)?;
        serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{error} in: {line}")))
    }

    /// The checkpoint directory of a job with 1 GB of state, with savepoints beside it.
    fn large_state(&self, values: &[&str]) -> io::Result<String> {
        for beside in ["state-before", "state-after"] {
            self.fresh(beside)?;
        }
        let folder = self.fresh("state")?.display().to_string();
        let job = ["load", "--checkpoints", &folder, "--interval", "1h"];
        self.values("large_state", &[&job[..], values].concat())?;
        Ok(folder)
    }

    /// How long a program runs, in seconds, and the greatest memory that it takes, in bytes, as often as one can look.
    fn watched(&self, name: &str, args: &[&str]) -> io::Result<(f64, u64)> {
        let mut command = Command::new(self.binaries.join(name));
        let began = Instant::now();
        let mut program = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let (mut peak, status) = (0, format!("/proc/{}/status", program.id()));
        let ended = loop {
            if let Some(ended) = program.try_wait()? {
                break ended;
            }
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let greatest = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = greatest.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or_default() << 10);
            std::thread::sleep(Duration::from_millis(1));
        };
        if !ended.success() {
            return Err(io::Error::other(format!("{name} {} ended with {ended}", args.join(" "))));
        }
        Ok((began.elapsed().as_secs_f64(), peak))
    }

    /// The figures of a job, at parallelism 2 unless it says otherwise.
    fn figures(&self, name: &str, job: &[&str], interval: Option<&str>) -> io::Result<Figures> {
        let folder = self.fresh("checkpoints")?.display().to_string();
        let mut args = job.to_vec();
        if name == "small_delta" {
            args.extend(["--checkpoints", &folder]);
        } else {
            args.extend(["--rest", "off"]);
            if !job.contains(&"--parallelism") {
                args.extend(["--parallelism", "2"]);
            }
        }
        if let Some(interval) = interval {
            args.extend(["--checkpoints", &folder, "--interval", interval]);
        }
        let line = self.run(name, &args)?;
        serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{error} in: {line}")))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A folder under the temporary one that stays behind harms nobody.
        let _left = std::fs::remove_dir_all(&self.scratch);
    }
}

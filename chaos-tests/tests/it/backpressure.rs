//! Backpressure in a real process: a sink that takes few records behind a source that offers whatever is taken. Little
//! is under way, checkpoints complete, memory stays, and the job can be cancelled at once.
//!
//! Memory is watched after the first checkpoints, for 20 seconds at 900 records a second. Three jobs run beside
//! one another, one for each size of batch. `TIDEGATE_BACKPRESSURE_SECONDS=180 make kills ONLY=backpressure` is the long
//! form, at 100 records a second: the same number of records in all.

use std::{
    env,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_chaos_tests::{Life, await_answer, rest};
use types::rest::{CheckpointDetails, JobDetails};

use crate::tidegate;

/// How long memory is watched, in seconds.
const VARIABLE: &str = "TIDEGATE_BACKPRESSURE_SECONDS";
const SECONDS: u64 = 20;
/// Records that pass the sink in that time.
const RECORDS: u64 = 18_000;
const BATCHES: [usize; 3] = [1, 100, 1_024];
/// Records between source and sink at the most, whatever the size of batches.
const UNDER_WAY_MAX: u64 = 6_144;
/// Each job takes as many checkpoints before its memory is watched: by then all kinds of background work have been done, the
/// merge of merged runs among them, and each thread has what it needs.
const CHECKPOINTS: usize = 12;
/// What a checkpoint may take beside the time in which the sink takes what is ahead of its barrier.
const CHECKPOINT_SLACK: Duration = Duration::from_secs(2);
const CANCEL_MAX: Duration = Duration::from_secs(1);
/// Resident memory, in hundredths of its least: within 5 %.
const MEMORY_MAX_PERCENT: u64 = 105;
const POLL: Duration = Duration::from_millis(100);

#[test]
fn backpressure_holds_the_source() {
    let watched = env::var(VARIABLE).map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let rate = RECORDS / watched;
    let mut jobs = BATCHES.map(|batch| SlowJob::start(batch, rate));
    jobs.iter().for_each(SlowJob::await_checkpoints);
    let end = Instant::now() + Duration::from_secs(watched);
    while Instant::now() < end {
        jobs.iter_mut().for_each(SlowJob::look_at_memory);
        thread::sleep(POLL);
    }
    println!(
        "{:>6}{:>8}{:>12}{:>13}{:>12}{:>18}{:>10}",
        "batch", "rate", "under way", "checkpoints", "longest", "memory KiB", "cancel"
    );
    jobs.into_iter().for_each(SlowJob::judge);
}

/// A running job and what was seen of its memory.
struct SlowJob {
    /// Holds checkpoints and logs; gone with the job.
    folder: TempDir,
    life: Life,
    address: String,
    batch: usize,
    rate: u64,
    memory: Option<(u64, u64)>,
}

impl SlowJob {
    fn start(batch: usize, rate: u64) -> Self {
        // In memory, where the machine has such a place: a disk that is busy with something else takes seconds to sync, and
        // what is measured here is the way of a barrier.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let address = rest::free_address().unwrap().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_slow_sink"));
        command.args(["--parallelism", "1", "--interval", "1s", "--rest", &address]);
        command.args(["--rate", &rate.to_string(), "--set", &format!("batch.records={batch}")]);
        command.arg("--checkpoints").arg(folder.path().join("checkpoints"));
        // Memory in pages as they are used: huge ones would make each step one of 2 MiB.
        command.env("MIMALLOC_ALLOW_THP", "0");
        let life = Life::start(&mut command, &folder.path().join("life")).unwrap();
        Self { folder, life, address, batch, rate, memory: None }
    }

    fn look_at_memory(&mut self) {
        assert!(self.life.is_running().unwrap(), "it ended: {}", self.life.errors().unwrap());
        let now = self.life.resident_kib();
        let (least, most) = self.memory.unwrap_or((now, now));
        self.memory = Some((least.min(now), most.max(now)));
    }

    /// Waits until the job has completed its first checkpoints.
    fn await_checkpoints(&self) {
        let limit = self.allowed(UNDER_WAY_MAX) * (CHECKPOINTS as u32 + 1);
        let enough = await_answer(limit, || {
            thread::sleep(POLL);
            // REST may not listen at first.
            let completed = self.status().map_or(0, |job| completed(&job).len());
            Ok::<_, std::io::Error>((completed >= CHECKPOINTS).then_some(()))
        });
        let job = self.status().expect("the job answers");
        assert!(enough.unwrap().is_some(), "batches of {}: {:?}", self.batch, job.checkpoints);
    }

    /// What a checkpoint may take while `records` are ahead of its barrier.
    fn allowed(&self, records: u64) -> Duration {
        Duration::from_millis(records * 1_000 / self.rate) + CHECKPOINT_SLACK
    }

    /// Cancels the job, and holds what was seen of it to what is promised.
    fn judge(self) {
        let Self { batch, rate, .. } = self;
        let job = self.status().expect("the job answers");
        assert_eq!((job.checkpoints.failed, job.restarts), (0, 0), "{job:?}");
        let completed = completed(&job);
        let longest = completed.iter().filter_map(|one| one.duration_ms).max().unwrap();
        let cancelled_within = self.cancel();
        let under_way = most_under_way(&self.life);
        let (least, most) = self.memory.expect("it was looked at");
        println!(
            "{batch:>6}{rate:>8}{under_way:>12}{:>13}{longest:>9} ms{:>18}{:>7} ms",
            completed.len(),
            format!("{least}..{most}"),
            cancelled_within.as_millis()
        );
        assert!(under_way <= UNDER_WAY_MAX, "batches of {batch}: {under_way} records are under way");
        let allowed = self.allowed(under_way);
        assert!(
            Duration::from_millis(longest) <= allowed,
            "batches of {batch}: a checkpoint took {longest} ms, allowed are {allowed:?}"
        );
        assert!(
            most * 100 <= least * MEMORY_MAX_PERCENT,
            "batches of {batch}: resident memory was {least} to {most} KiB"
        );
        assert!(cancelled_within <= CANCEL_MAX, "batches of {batch}: cancelling took {cancelled_within:?}");
        let ended = self.life.wait(CANCEL_MAX).unwrap().expect("it is cancelled and goes on");
        assert!(ended.status.success(), "{}: {}", ended.status, ended.errors);
        self.folder.close().unwrap();
    }

    /// What `tidegate status` says; nothing if it fails.
    fn status(&self) -> Option<JobDetails> {
        let ran = self.tidegate(&["--json", "status"]);
        ran.status.success().then(|| serde_json::from_slice(&ran.stdout).unwrap())
    }

    /// Cancels the job as people do; how long that took.
    fn cancel(&self) -> Duration {
        let began = Instant::now();
        let ran = self.tidegate(&["cancel"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        began.elapsed()
    }

    fn tidegate(&self, args: &[&str]) -> Output {
        Command::new(tidegate()).args(args).args(["--address", &self.address]).output().unwrap()
    }
}

fn completed(job: &JobDetails) -> Vec<&CheckpointDetails> {
    job.checkpoints.history.iter().filter(|one| one.state == "completed").collect()
}

/// The number behind the last `most=` that the job printed.
fn most_under_way(life: &Life) -> u64 {
    let output = life.output().unwrap();
    let number = output.rsplit_once("most=").expect("the sink says what is under way").1;
    number.lines().next().unwrap().parse().unwrap()
}

//! One kill at each named point, by the process itself; one more at the same point during the recovery from it; and one
//! at any other point during the recovery from both. The test fails if a point did not kill, or not in the
//! recovery from the first kill.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, thread, time::Duration};

use env::FaultPoint;
use tidegate_chaos_tests::{Life, Scene, Seeded, died_of_sigkill, rest};

/// Within this time an armed life dies or ends.
const LIFE_LIMIT: Duration = Duration::from_secs(60);
const TEXT_BYTES: u64 = 4 << 20;
/// A million words last for checkpoints to be taken, merged and collected, however fast the machine is.
const WORDS_PER_SECOND: u64 = 250_000;
const PARALLELISMS: [u64; 3] = [1, 2, 4];
/// A job may end before it has passed a point often enough; one of so many does not.
const JOBS_MAX: u64 = 4;

/// Which hits of a point are lethal, one job for each: the first ever, and where the point is passed again and again one
/// amid the flow.
fn lethal_hits(point: FaultPoint) -> &'static [u64] {
    match point {
        // Passed in every checkpoint.
        FaultPoint::RunUploadBefore
        | FaultPoint::RunUploadAfter
        | FaultPoint::PrepareBefore
        | FaultPoint::PrepareAfter
        | FaultPoint::ManifestBefore
        | FaultPoint::ManifestAfter
        | FaultPoint::CompletedRecordBefore
        | FaultPoint::CompletedRecordAfter
        | FaultPoint::PublishBefore
        | FaultPoint::PublishAfter
        | FaultPoint::ConfirmBefore
        | FaultPoint::ConfirmAfter => &[1, 4],
        // Passed once there are several checkpoints.
        FaultPoint::MergeAfter
        | FaultPoint::GarbageRecordBefore
        | FaultPoint::GarbageRecordAfter
        | FaultPoint::DeleteBefore
        | FaultPoint::DeleteAfter => &[1, 2],
        // Passed once in a life.
        FaultPoint::LastCheckpointBefore
        | FaultPoint::LastCheckpointAfter
        | FaultPoint::FinishedRecordBefore
        | FaultPoint::FinishedRecordAfter
        | FaultPoint::StartRecordBefore
        | FaultPoint::StartRecordAfter => &[1],
        // Passed when a savepoint is asked for.
        FaultPoint::SavepointCopyBefore | FaultPoint::SavepointCopyAfter => &[1],
    }
}

/// Whether a life passes the point only where the job ends: to get there, it reads as fast as it can.
fn is_at_the_end(point: FaultPoint) -> bool {
    matches!(
        point,
        FaultPoint::LastCheckpointBefore
            | FaultPoint::LastCheckpointAfter
            | FaultPoint::FinishedRecordBefore
            | FaultPoint::FinishedRecordAfter
    )
}

/// Where a job dies first that is to die at the point in the recovery: at the point itself. But one that was shot behind
/// its "finished" record has nothing more to do.
fn dies_before(point: FaultPoint) -> FaultPoint {
    if point == FaultPoint::FinishedRecordAfter { FaultPoint::FinishedRecordBefore } else { point }
}

/// How often a point was passed, and how often it killed.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: u64,
    /// The first life of a job.
    killed: u64,
    /// The life that recovered from the kill at this point.
    killed_in_recovery: u64,
    /// The life after that, where any point may be armed.
    killed_third: u64,
}

type Tallies = BTreeMap<FaultPoint, Tally>;

#[test]
fn kills_at_each_point() {
    let mut seeded = Seeded::announced("kills_at_each_point", 7);
    let mut tallies: Tallies = FaultPoint::ALL.iter().map(|point| (*point, Tally::default())).collect();
    for &point in FaultPoint::ALL {
        for &hit in lethal_hits(point) {
            let dies = |_| die_again_and_again([point, point], hit, &mut seeded, &mut tallies);
            assert!((0..JOBS_MAX).any(dies), "{}#{hit} was not passed by {JOBS_MAX} jobs", point.name());
        }
        // A recovery may come to the end of the job before it has passed the point.
        let mut jobs = 0;
        while tally(&mut tallies, point).killed_in_recovery == 0 {
            jobs += 1;
            assert!(jobs <= JOBS_MAX, "{} was not passed in {JOBS_MAX} recoveries", point.name());
            die_again_and_again([dies_before(point), point], 1, &mut seeded, &mut tallies);
        }
    }
    println!(
        "{:<26}{:>10}{:>10}{:>24}{:>14}",
        "point", "passed", "killed", "killed in recovery", "third kill"
    );
    for (point, tally) in &tallies {
        println!(
            "{:<26}{:>10}{:>10}{:>24}{:>14}",
            point.name(),
            tally.passed,
            tally.killed,
            tally.killed_in_recovery,
            tally.killed_third
        );
    }
    for (point, tally) in &tallies {
        assert!(tally.killed > 0 && tally.killed_in_recovery > 0, "{} did not kill twice", point.name());
    }
}

/// A job that dies at the first point, in the recovery from it at the second one, then at any, and then ends. `false` if
/// it ended before it died.
fn die_again_and_again(
    [first, second]: [FaultPoint; 2],
    hit: u64,
    seeded: &mut Seeded,
    tallies: &mut Tallies,
) -> bool {
    let mut job = ArmedJob::new(seeded);
    let died = job.live(first, hit, seeded);
    tally(tallies, first).killed += u64::from(died);
    if died {
        let died_again = job.live(second, 1, seeded);
        tally(tallies, second).killed_in_recovery += u64::from(died_again);
        let third = seeded.one_of(FaultPoint::ALL);
        let died_third = job.live(third, 1, seeded);
        tally(tallies, third).killed_third += u64::from(died_third);
    }
    job.scene.finish(seeded.one_of(&PARALLELISMS));
    let passed = fs::read_to_string(&job.log).unwrap();
    for line in passed.lines() {
        let point = FaultPoint::ALL.iter().find(|point| point.name() == line);
        tally(tallies, *point.expect("the log holds names of points")).passed += 1;
    }
    died
}

fn tally(tallies: &mut Tallies, point: FaultPoint) -> &mut Tally {
    tallies.get_mut(&point).expect("there is a tally for each point")
}

/// A job whose lives are armed: told where to kill themselves.
struct ArmedJob {
    scene: Scene,
    log: PathBuf,
    savepoints: u32,
}

impl ArmedJob {
    fn new(seeded: &mut Seeded) -> Self {
        let scene = Scene::new(super::word_count(), 3, TEXT_BYTES, seeded);
        let log = scene.path("hits");
        Self { scene, log, savepoints: 0 }
    }

    /// Lives once with the point armed, then looks at what was published. Whether it died.
    fn live(&mut self, point: FaultPoint, hit: u64, seeded: &mut Seeded) -> bool {
        let armed = format!("{}#{hit}", point.name());
        let rest = rest::free_address().unwrap();
        let mut command = self.scene.command_at(seeded.one_of(&PARALLELISMS), &rest.to_string());
        if !is_at_the_end(point) {
            command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
        }
        command.env("TIDEGATE_FAULT", &armed).env("TIDEGATE_FAULT_LOG", &self.log);
        let mut life = self.scene.start(&mut command);
        if matches!(point, FaultPoint::SavepointCopyBefore | FaultPoint::SavepointCopyAfter) {
            self.ask_for_savepoints(&mut life, rest);
        }
        let died = match life.wait(LIFE_LIMIT).unwrap() {
            Some(ended) if died_of_sigkill(ended.status) => true,
            Some(ended) if ended.status.success() => false,
            Some(ended) => {
                self.scene.fail(&format!("the life armed with {armed} ended with {}", ended.status))
            }
            None => self.scene.fail(&format!("the life armed with {armed} neither died nor ended")),
        };
        self.scene.look();
        died
    }

    /// Asks for one savepoint after the other as long as the process lives.
    fn ask_for_savepoints(&mut self, life: &mut Life, rest: SocketAddr) {
        while life.is_running().unwrap() {
            self.savepoints += 1;
            let dir = self.scene.path(&format!("savepoint-{}", self.savepoints));
            let body = format!("{{\"dir\": \"{}\"}}", dir.display());
            // Nobody may listen yet, or no longer.
            let _ = rest::post(rest, "/jobs/word-count/savepoint", &body);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

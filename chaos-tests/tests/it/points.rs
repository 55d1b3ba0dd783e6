//! One kill at each named point with each backend, by the process itself, and more at the same point during the recovery
//! from it; then one at any other point during the recovery from all of these. The test fails if a point did not kill
//! with one of the backends that pass it, or not in the recovery from a kill at it.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, thread, time::Duration};

use env::FaultPoint;
use tidegate_chaos_tests::{Life, Scene, Seeded, died_of_sigkill, rest, stage::BACKENDS};

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
        // Passed all the time.
        FaultPoint::ReadAfter
        | FaultPoint::DrainBefore
        | FaultPoint::StoreReadBefore
        | FaultPoint::StoreWriteBefore
        | FaultPoint::StoreWriteAfter => &[1, 60],
        // Passed in every checkpoint.
        FaultPoint::CutAfter
        | FaultPoint::RunUploadBefore
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
        FaultPoint::MergeBefore
        | FaultPoint::MergeAfter
        | FaultPoint::GarbageRecordBefore
        | FaultPoint::GarbageRecordAfter
        | FaultPoint::DeleteBefore
        | FaultPoint::DeleteAfter => &[1, 2],
        // Passed once in a life, or once for each task.
        FaultPoint::LastCheckpointBefore
        | FaultPoint::LastCheckpointAfter
        | FaultPoint::FinishedRecordBefore
        | FaultPoint::FinishedRecordAfter
        | FaultPoint::StartRecordBefore
        | FaultPoint::StartRecordAfter
        | FaultPoint::DeadStateBefore
        | FaultPoint::DeadStateAfter
        | FaultPoint::RestoreBefore
        | FaultPoint::RestoreAmid
        | FaultPoint::RestoreAfter
        | FaultPoint::StoreOpenBefore
        | FaultPoint::StoreOpenAfter
        | FaultPoint::StoreLoadBefore
        | FaultPoint::StoreLoadAfter => &[1],
        // Passed when a savepoint is asked for.
        FaultPoint::SavepointCopyBefore | FaultPoint::SavepointCopyAmid | FaultPoint::SavepointCopyAfter => {
            &[1]
        }
    }
}

/// The backends with which a life passes the point.
fn backends(point: FaultPoint) -> Vec<&'static str> {
    let needs_store = matches!(
        point,
        FaultPoint::DeadStateBefore
            | FaultPoint::DeadStateAfter
            | FaultPoint::StoreOpenBefore
            | FaultPoint::StoreOpenAfter
            | FaultPoint::StoreLoadBefore
            | FaultPoint::StoreLoadAfter
            | FaultPoint::StoreReadBefore
            | FaultPoint::StoreWriteBefore
            | FaultPoint::StoreWriteAfter
    );
    BACKENDS.iter().copied().filter(|backend| !needs_store || *backend != "filesystem").collect()
}

/// Where a job must have died before, and at which hit, so that a life passes the point at all.
fn dies_before(point: FaultPoint) -> Option<(FaultPoint, u64)> {
    match point {
        // Behind its "finished" record a job has nothing more to do.
        FaultPoint::FinishedRecordAfter => Some((FaultPoint::FinishedRecordBefore, 1)),
        // Only who died leaves something, and there is something to restore.
        FaultPoint::DeadStateBefore
        | FaultPoint::DeadStateAfter
        | FaultPoint::RestoreAmid
        | FaultPoint::StoreLoadBefore
        | FaultPoint::StoreLoadAfter => Some((FaultPoint::CompletedRecordAfter, 2)),
        _ => None,
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

/// How often a point was passed, and how often it killed.
#[derive(Clone, Default)]
struct Tally {
    passed: u64,
    /// The first life that was armed with it, by backend.
    killed: BTreeMap<&'static str, u64>,
    /// A life that recovered from a kill at this point, or from the one that must come before, by backend.
    killed_in_recovery: BTreeMap<&'static str, u64>,
    /// The life after that, where any point may be armed.
    killed_last: u64,
}

impl Tally {
    /// How often a life died with this backend.
    fn with(&self, backend: &str) -> u64 {
        [&self.killed, &self.killed_in_recovery].iter().filter_map(|by| by.get(backend)).sum()
    }
}

type Tallies = BTreeMap<FaultPoint, Tally>;

#[test]
fn kills_at_each_point() {
    let mut seeded = Seeded::announced("kills_at_each_point", 7);
    let mut tallies: Tallies = FaultPoint::ALL.iter().map(|point| (*point, Tally::default())).collect();
    // Each point begins with the backend behind that of the one before.
    let mut turn = 0;
    for &point in FaultPoint::ALL {
        let mut backends = backends(point);
        if backends.is_empty() {
            continue;
        }
        for &hit in lethal_hits(point) {
            let begin = turn % backends.len();
            backends.rotate_left(begin);
            turn += 1;
            let dies = |_| die_again_and_again(point, hit, &backends, &mut seeded, &mut tallies);
            assert!((0..JOBS_MAX).any(dies), "{}#{hit} was not passed by {JOBS_MAX} jobs", point.name());
        }
        // A recovery may come to the end of the job before it has passed the point.
        let mut jobs = 0;
        while let Some(missed) = missed(&tallies[&point], &backends) {
            jobs += 1;
            assert!(jobs <= JOBS_MAX, "{} did not kill {missed} in {JOBS_MAX} jobs", point.name());
            let place = backends.iter().position(|backend| *backend == missed).unwrap_or(0);
            backends.rotate_left(place);
            die_again_and_again(point, 1, &backends, &mut seeded, &mut tallies);
        }
    }
    show(&tallies);
    for (point, tally) in &tallies {
        let all = backends(*point).iter().all(|backend| tally.with(backend) > 0);
        assert!(all, "{} did not kill with each backend: {:?}", point.name(), tally.killed);
    }
}

/// A backend with which the point has not killed yet, or has not in a recovery with any.
fn missed(tally: &Tally, backends: &[&'static str]) -> Option<&'static str> {
    let alive = backends.iter().find(|backend| tally.with(backend) == 0);
    alive.or_else(|| backends.first().filter(|_| tally.killed_in_recovery.is_empty())).copied()
}

fn show(tallies: &Tallies) {
    println!(
        "{:<26}{:>10}{:>10}{:>24}{:>14}",
        "point", "passed", "killed", "killed in recovery", "last kill"
    );
    for (point, tally) in tallies {
        println!(
            "{:<26}{:>10}{:>10}{:>24}{:>14}  {}",
            point.name(),
            tally.passed,
            tally.killed.values().sum::<u64>(),
            tally.killed_in_recovery.values().sum::<u64>(),
            tally.killed_last,
            BACKENDS.iter().map(|it| format!("{it} {}", tally.with(it))).collect::<Vec<_>>().join(", "),
        );
    }
}

/// A job that dies at the point, at this hit first, with one backend after the other, then at any point, and then ends.
/// `false` if it ended before it died at the point.
fn die_again_and_again(
    point: FaultPoint,
    hit: u64,
    backends: &[&'static str],
    seeded: &mut Seeded,
    tallies: &mut Tallies,
) -> bool {
    let mut job = ArmedJob::new(seeded);
    let mut died = true;
    let mut is_recovery = false;
    if let Some((before, at)) = dies_before(point) {
        died = job.live(before, at, backends[backends.len() - 1], seeded);
        is_recovery = true;
    }
    let mut killed = false;
    for (backend, hit) in backends.iter().zip([hit].into_iter().chain(std::iter::repeat(1))) {
        died = died && job.live(point, hit, backend, seeded);
        if died {
            let tally = tally(tallies, point);
            let by = if is_recovery { &mut tally.killed_in_recovery } else { &mut tally.killed };
            *by.entry(backend).or_default() += 1;
            (killed, is_recovery) = (true, true);
        }
    }
    if died {
        let last = seeded.one_of(FaultPoint::ALL);
        let died = job.live(last, 1, seeded.one_of(BACKENDS), seeded);
        tally(tallies, last).killed_last += u64::from(died);
    }
    job.scene.finish(seeded.one_of(&PARALLELISMS));
    let passed = fs::read_to_string(&job.log).unwrap();
    for line in passed.lines() {
        let point = FaultPoint::ALL.iter().find(|point| point.name() == line);
        tally(tallies, *point.expect("the log holds names of points")).passed += 1;
    }
    killed
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
    fn live(&mut self, point: FaultPoint, hit: u64, backend: &str, seeded: &mut Seeded) -> bool {
        let armed = format!("{}#{hit}", point.name());
        let rest = rest::free_address().unwrap();
        let mut command = self.scene.command_on(backend, seeded.one_of(&PARALLELISMS), &rest.to_string());
        if !is_at_the_end(point) {
            command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
        }
        command.env("TIDEGATE_FAULT", &armed).env("TIDEGATE_FAULT_LOG", &self.log);
        let mut life = self.scene.start(&mut command);
        if matches!(
            point,
            FaultPoint::SavepointCopyBefore | FaultPoint::SavepointCopyAmid | FaultPoint::SavepointCopyAfter
        ) {
            self.ask_for_savepoints(&mut life, rest);
        }
        let died = match life.wait(LIFE_LIMIT).unwrap() {
            Some(ended) if died_of_sigkill(ended.status) => true,
            Some(ended) if ended.status.success() => false,
            Some(ended) => self
                .scene
                .fail(&format!("the life of {backend} armed with {armed} ended with {}", ended.status)),
            None => {
                self.scene.fail(&format!("the life of {backend} armed with {armed} neither died nor ended"))
            }
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

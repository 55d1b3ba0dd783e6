//! One kill at each named point, by the process itself, and one more at the same point during the recovery from it.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use env::FaultPoint;
use tidegate_chaos_tests::{Life, Scene, Seeded, died_of_sigkill};

/// Within this time an armed life dies or ends.
const LIFE_LIMIT: Duration = Duration::from_secs(60);
/// Enough text for checkpoints to be taken, merged and collected.
const TEXT_BYTES: u64 = 4 << 20;
const PARALLELISMS: [u64; 3] = [1, 2, 4];

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

/// How often a point was passed, and how often it killed.
#[derive(Default)]
struct Tally {
    passed: u64,
    killed: u64,
    killed_in_recovery: u64,
}

#[test]
fn kills_at_each_point() {
    let mut seeded = Seeded::announced("kills_at_each_point", 7);
    let mut tallies = BTreeMap::<FaultPoint, Tally>::new();
    for &point in FaultPoint::ALL {
        for &hit in lethal_hits(point) {
            die_twice_at(point, hit, &mut seeded, &mut tallies);
        }
    }
    println!("{:<26}{:>10}{:>10}{:>24}", "point", "passed", "killed", "killed in recovery");
    for (point, tally) in &tallies {
        println!(
            "{:<26}{:>10}{:>10}{:>24}",
            point.name(),
            tally.passed,
            tally.killed,
            tally.killed_in_recovery
        );
    }
    for &point in FaultPoint::ALL {
        let killed = tallies.get(&point).map_or(0, |tally| tally.killed);
        assert_eq!(killed, lethal_hits(point).len() as u64, "not every kill at {} came", point.name());
    }
}

fn die_twice_at(point: FaultPoint, hit: u64, seeded: &mut Seeded, tallies: &mut BTreeMap<FaultPoint, Tally>) {
    let mut scene = Scene::new(super::word_count(), 3, TEXT_BYTES, seeded);
    let log = scene.path("hits");
    let first = armed_life(&mut scene, point, hit, &log, seeded);
    if !first {
        scene.fail(&format!("{}#{hit} was never passed", point.name()));
    }
    scene.look();
    let second = armed_life(&mut scene, point, 1, &log, seeded);
    scene.look();
    scene.finish(seeded.one_of(&PARALLELISMS));

    let passed = fs::read_to_string(&log).unwrap();
    for passed_point in FaultPoint::ALL {
        let times = passed.lines().filter(|line| *line == passed_point.name()).count() as u64;
        tallies.entry(*passed_point).or_default().passed += times;
    }
    let tally = tallies.entry(point).or_default();
    tally.killed += u64::from(first);
    tally.killed_in_recovery += u64::from(second);
}

/// Lives once with the point armed; whether it killed.
fn armed_life(scene: &mut Scene, point: FaultPoint, hit: u64, log: &Path, seeded: &mut Seeded) -> bool {
    let mut command = scene.command(seeded.one_of(&PARALLELISMS));
    command.env("TIDEGATE_FAULT", format!("{}#{hit}", point.name())).env("TIDEGATE_FAULT_LOG", log);
    let life = begin(scene, &mut command);
    match life.wait(LIFE_LIMIT).unwrap() {
        Some(ended) if died_of_sigkill(ended.status) => true,
        Some(ended) if ended.status.success() => false,
        Some(ended) => {
            scene.fail(&format!("the life armed with {}#{hit} ended with {}", point.name(), ended.status))
        }
        None => scene.fail(&format!("the life armed with {}#{hit} neither died nor ended", point.name())),
    }
}

fn begin(scene: &mut Scene, command: &mut Command) -> Life {
    scene.start(command)
}

//! Yesterday's program is killed, and today's, whose state has another type, while it migrates, once it has, and before its first
//! checkpoint counts; with each backend. In the end every word was counted once.

use std::{path::Path, time::Duration};

use env::FaultPoint;
use tidegate_chaos_tests::{Scene, Seeded, died_of_sigkill, stage::BACKENDS};

const LIFE_LIMIT: Duration = Duration::from_secs(60);
const TEXT_BYTES: u64 = 1 << 20;
/// Slow enough that yesterday's program dies before it has read all.
const WORDS_PER_SECOND: &str = "source.records-per-second=50000";

/// Where a life dies, at which hit.
type Death = (FaultPoint, u64);

/// All of them before today's program has a checkpoint. A subtask migrates its words in one step and reads them back in another.
const DEATHS: [Death; 4] = [
    (FaultPoint::RestoreAmid, 1),
    (FaultPoint::RestoreAmid, 2),
    (FaultPoint::RestoreAfter, 1),
    (FaultPoint::CompletedRecordBefore, 1),
];

fn live(scene: &mut Scene, backend: &str, parallelism: u64, yesterday: bool, (point, hit): Death) {
    let mut command = scene.command_on(backend, parallelism, "off");
    command.args(["--set", WORDS_PER_SECOND]).args(yesterday.then_some("--yesterday"));
    command.env("TIDEGATE_FAULT", format!("{}#{hit}", point.name()));
    match scene.start(&mut command).wait(LIFE_LIMIT).unwrap() {
        Some(ended) if died_of_sigkill(ended.status) => scene.look(),
        Some(ended) => scene.fail(&format!("{backend} did not die at {}: {}", point.name(), ended.status)),
        None => scene.fail(&format!("{backend} neither died at {} nor ended", point.name())),
    }
}

#[test]
fn kills_amid_a_migration() {
    let mut seeded = Seeded::announced("kills_amid_a_migration", 5);
    let program = Path::new(env!("CARGO_BIN_EXE_changed_type_with_faults"));
    for backend in BACKENDS {
        let mut scene = Scene::new(program, 3, TEXT_BYTES, &mut seeded);
        live(&mut scene, seeded.one_of(BACKENDS), 2, true, (FaultPoint::CompletedRecordAfter, 5));
        for (death, parallelism) in DEATHS.into_iter().zip([3, 1, 4, 2]) {
            live(&mut scene, backend, parallelism, false, death);
        }
        // Yesterday's could still go on: nothing that it needs has changed.
        live(&mut scene, seeded.one_of(BACKENDS), 3, true, (FaultPoint::CompletedRecordAfter, 3));
        live(&mut scene, backend, 2, false, (FaultPoint::CompletedRecordAfter, 2));
        scene.finish(seeded.one_of(&[1, 2, 4]));
    }
}

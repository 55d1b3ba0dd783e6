//! The `tidegate` process itself, killed amid what it changes without the job: `convert`, `delete`, `gc`. The same call again
//! ends what was begun, and nothing that another snapshot needs is lost.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use env::FaultPoint;
use serde_json::Value;
use tidegate_chaos_tests::{Scene, Seeded, damage::Image, died_of_sigkill};

const TEXT_BYTES: u64 = 6 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// How often three kills are tried to leave what a test needs.
const UNTIDY_TRIES: u32 = 3;

/// Runs the command, to be killed at this hit of a point if one is given.
fn tidegate(args: &[&str], fault: Option<(FaultPoint, u64)>) -> Output {
    let mut command = Command::new(super::tidegate());
    if let Some((point, hit)) = fault {
        command.env("TIDEGATE_FAULT", format!("{}#{hit}", point.name()));
    }
    command.args(args).output().unwrap()
}

/// Runs the command, which must succeed. What it says.
fn says(args: &[&str]) -> String {
    let ran = tidegate(args, None);
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&says(&[args, &["--json"]].concat())).unwrap()
}

/// Kills the command at this hit.
fn kill(args: &[&str], point: FaultPoint, hit: u64) {
    let ran = tidegate(args, Some((point, hit)));
    assert!(died_of_sigkill(ran.status), "{args:?} did not pass {}#{hit}: {}", point.name(), ran.status);
}

/// A job whose lives ended where files are left behind: garbage that is marked and not deleted, and some that is not marked.
/// Each life also collects what those before it have left, as far as it comes: so not every one of them leaves both.
fn untidy_job(seeded: &mut Seeded) -> Scene {
    let mut scene = Scene::new(super::word_count(), 3, TEXT_BYTES, seeded);
    for _ in 0..UNTIDY_TRIES {
        for (point, hit) in
            [(FaultPoint::RunUploadAfter, 9), (FaultPoint::MergeAfter, 2), (FaultPoint::DeleteBefore, 5)]
        {
            let mut command = scene.paced_command(2, 400_000);
            command.env("TIDEGATE_FAULT", format!("{}#{hit}", point.name()));
            let ended = scene.start(&mut command).wait(LIMIT).unwrap().expect("it dies or ends");
            assert!(died_of_sigkill(ended.status), "{} was not passed: {}", point.name(), ended.errors);
        }
        let found = json(&["gc", text(&scene.path("checkpoints")), "--dry-run"]);
        let files = found["files"].as_array().unwrap();
        let marked = files.iter().filter(|it| it["why"] == "marked").count();
        if marked > 1 && files.len() > marked {
            return scene;
        }
    }
    panic!("after {UNTIDY_TRIES} times three kills there is not garbage of both kinds");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain")
}

/// The directory without the lock, which names the process that looked last.
fn image(scene: &Scene, name: &str) -> Image {
    let mut image = scene.image(name);
    image.remove("job.lock");
    image
}

#[test]
fn gc_that_is_killed_loses_nothing_and_ends_when_called_again() {
    let mut seeded = Seeded::announced("gc_that_is_killed_loses_nothing_and_ends_when_called_again", 31);
    let mut scene = untidy_job(&mut seeded);
    let checkpoints = scene.path("checkpoints");
    let gc = ["gc", text(&checkpoints), "--job-is-dead"];
    let output = scene.image("output");
    let before = scene.image("checkpoints");
    let digest = |dir: &Path| json(&["inspect", text(dir), "--exact"])["digest"].clone();
    let right = digest(&checkpoints);
    for (point, hit) in [
        (FaultPoint::StartRecordBefore, 1),
        (FaultPoint::StartRecordAfter, 1),
        (FaultPoint::GarbageRecordBefore, 1),
        (FaultPoint::GarbageRecordAfter, 1),
        (FaultPoint::DeleteBefore, 1),
        (FaultPoint::DeleteAfter, 1),
        (FaultPoint::DeleteAfter, 2),
    ] {
        scene.put_image("checkpoints", &before);
        scene.put_image("output", &output);
        kill(&gc, point, hit);
        says(&["verify", text(&checkpoints), "--deep"]);
        says(&gc);
        says(&["verify", text(&checkpoints), "--deep"]);
        let left = json(&["gc", text(&checkpoints), "--dry-run"]);
        assert_eq!(left["files"].as_array().map(Vec::len), Some(0), "{}#{hit}: {left}", point.name());
        assert_eq!(digest(&checkpoints), right, "{}#{hit}", point.name());
        scene.finish(2);
    }
}

#[test]
fn convert_and_delete_that_are_killed_end_when_called_again() {
    let mut seeded = Seeded::announced("convert_and_delete_that_are_killed_end_when_called_again", 32);
    let mut scene = Scene::new(super::word_count(), 3, TEXT_BYTES, &mut seeded);
    scene.finish(3);
    let (checkpoints, savepoint) = (scene.path("checkpoints"), scene.path("savepoint"));
    let before = image(&scene, "checkpoints");
    let convert = ["convert", text(&checkpoints), text(&savepoint)];
    let digest = |dir: &Path| json(&["inspect", text(dir), "--exact"])["digest"].clone();
    let right = digest(&checkpoints);
    let mut whole = None;
    for (point, hit) in [
        (FaultPoint::SavepointCopyBefore, 1),
        (FaultPoint::SavepointCopyAmid, 1),
        (FaultPoint::SavepointCopyAmid, 4),
        (FaultPoint::SavepointCopyAfter, 1),
    ] {
        kill(&convert, point, hit);
        says(&convert);
        says(&["verify", text(&savepoint), "--deep"]);
        assert_eq!(digest(&savepoint), right, "{}#{hit}", point.name());
        assert!(before == image(&scene, "checkpoints"), "{}#{hit}: the snapshot has changed", point.name());
        whole = Some(scene.image("savepoint"));
        std::fs::remove_dir_all(&savepoint).unwrap();
    }
    let whole = whole.expect("it was made");
    let delete = ["delete", text(&savepoint)];
    // The manifest, a run of each of three subtasks, the mark of a copy that is not whole, the lock of whoever copied, the
    // tombstone.
    for hit in 1..=7 {
        for point in [FaultPoint::DeleteBefore, FaultPoint::DeleteAfter] {
            tidegate_chaos_tests::damage::write_image(&savepoint, &whole).unwrap();
            kill(&delete, point, hit);
            let again = tidegate(&delete, None);
            let gone = point == FaultPoint::DeleteAfter && hit == 7;
            // Behind the last deletion nothing is left to delete, and that is what is said.
            let said = String::from_utf8_lossy(&again.stderr).into_owned();
            assert!(again.status.success() != gone, "{}#{hit}: {said}", point.name());
            assert!(!gone || said.contains("nothing was deleted"), "{said}");
            let left = if savepoint.exists() { scene.image("savepoint") } else { Image::new() };
            assert!(left.is_empty(), "{}#{hit}: {:?}", point.name(), left.keys());
            assert!(before == image(&scene, "checkpoints"), "{}#{hit}: a snapshot has changed", point.name());
        }
    }
    says(&["verify", text(&checkpoints), "--deep"]);
}

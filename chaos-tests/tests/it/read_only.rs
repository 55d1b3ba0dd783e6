//! A checkpoint directory that a real process may read and not write: one line with the directory and the remedy, exit
//! code 5, and nothing is changed. Since nothing is forbidden to root, root runs the process as nobody.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::Duration,
};

use tidegate_chaos_tests::{Scene, Seeded};

const LIFE_LIMIT: Duration = Duration::from_secs(60);
/// The exit code of the error `unavailable`.
const UNAVAILABLE: i32 = 5;
/// A user who owns nothing.
const NOBODY: u32 = 65_534;
const READ_ONLY: u32 = 0o555;
const USUAL: u32 = 0o755;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Gives all directories below this one these permissions, and files those to be read.
fn set_mode(path: &Path, mode: u32) {
    if path.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(USUAL)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            set_mode(&entry.unwrap().path(), mode);
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    } else {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o644)).unwrap();
    }
}

/// The command as a user whom permissions bind, of a program that he can reach.
fn bound(scene: &Scene, checkpoints: &Path) -> Command {
    let program = scene.path("word_count");
    if !program.exists() {
        fs::copy(super::word_count(), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.arg("--input").arg(scene.path("input")).arg("--output").arg(scene.path("output"));
    command.arg("--checkpoints").arg(checkpoints).args(["--interval", "50ms", "--rest", "off"]);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[test]
fn a_directory_that_cannot_be_written_gets_one_line() {
    let mut seeded = Seeded::announced("a_directory_that_cannot_be_written_gets_one_line", 13);
    let mut scene = super::damage::killed_job(&mut seeded);
    set_mode(&scene.path(""), USUAL);
    let old = scene.path("checkpoints");
    let empty = scene.path("empty");
    fs::create_dir(&empty).unwrap();
    let file = scene.path("file");
    fs::write(&file, "no directory").unwrap();
    for (checkpoints, locked) in [
        (old.clone(), &old),
        (empty.clone(), &empty),
        // It would have to be made where nothing can be made.
        (empty.join("new"), &empty),
        (file.join("below"), &file),
    ] {
        set_mode(locked, READ_ONLY);
        let before = (scene.image("checkpoints"), scene.image("output"), scene.image("empty"));
        let ended = scene.start(&mut bound(&scene, &checkpoints)).wait(LIFE_LIMIT).unwrap();
        let ended = ended.unwrap_or_else(|| scene.fail("the process did not end"));
        assert_eq!(ended.status.code(), Some(UNAVAILABLE), "{}: {}", checkpoints.display(), ended.errors);
        assert_eq!((&*ended.output, ended.errors.lines().count()), ("", 1), "{}", ended.errors);
        let named = checkpoints.display().to_string();
        let says = ["writable", "permission"].iter().any(|remedy| ended.errors.contains(remedy));
        assert!(
            ended.errors.starts_with("error: ") && ended.errors.contains(&named) && says,
            "{}",
            ended.errors
        );
        let after = (scene.image("checkpoints"), scene.image("output"), scene.image("empty"));
        assert!(before == after, "{}: something has changed", checkpoints.display());
        set_mode(locked, USUAL);
    }
    // Writable again, the job comes to its end.
    scene.finish(2);
}

//! The local disk under the stores that are on one: full while the job runs, read-only when it starts, or given options that are none.
//! The job says so in one line with the directory and the remedy; it goes on when there is room again, and where it does not
//! start nothing has changed.
//!
//! A small disk is a tmpfs that the process alone sees, where the test may mount one; elsewhere the directories of the
//! running process become read-only.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tidegate_chaos_tests::{
    Ended, Life, Scene, Seeded, await_answer,
    stage::{BACKENDS, SMALL_BUFFERS},
};

const TEXT_BYTES: u64 = 12 << 20;
/// The text lasts longer than the disk is full.
const WORDS_PER_SECOND: u64 = 150_000;
const LIMIT: Duration = Duration::from_secs(60);
/// Room for two attempts.
const ROOM: &str = "32m";
/// Exit codes by the kind of error.
const INVALID_JOB: i32 = 2;
const UNAVAILABLE: i32 = 5;
/// Backends that write again where they have written, so that they may never notice a full disk with so little state.
const IN_PLACE: &[&str] = &[];
/// What the job says to do.
const REMEDY: &str = "state.directory";
/// How `unshare` makes a place where one may mount: as root, or as somebody who may be root there.
const WAYS: [&str; 2] = ["-m", "-Urm"];
const USUAL: u32 = 0o755;
const READ_ONLY: u32 = 0o555;

/// How the directory of the working state becomes useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// A tmpfs in a mount namespace of the process.
    Mounted(&'static str),
    /// No file can be made.
    Permissions,
}

impl Disk {
    /// What this machine allows.
    fn find() -> Option<Self> {
        let may = |way: &&&str| {
            let tried = mounting(way, Path::new("/tmp"), "size=1m").arg("true").output();
            tried.is_ok_and(|tried| tried.status.success())
        };
        let permissions = || {
            let root =
                fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
            (!root).then_some(Self::Permissions)
        };
        WAYS.iter().find(may).map(|&way| Self::Mounted(way)).or_else(permissions)
    }

    /// `command` with its state on such a disk.
    fn around(self, command: &Command, dir: &Path, options: &str) -> Command {
        fs::create_dir_all(dir).unwrap();
        let Self::Mounted(way) = self else {
            let mut same = Command::new(command.get_program());
            same.args(command.get_args());
            return same;
        };
        let mut wrapped = mounting(way, dir, options);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    /// From now on nothing more can be written, until it is freed.
    fn fill(self, life: &Life, dir: &Path) -> Filled {
        match self {
            Self::Mounted(_) => {
                let filler = seen_by(life, dir).join("filler");
                let mut file = fs::File::create(&filler).unwrap();
                let block = vec![1; 64 << 10];
                while file.write_all(&block).is_ok() {}
                while file.write_all(&[1; 64]).is_ok() {}
                Filled::By(filler)
            }
            Self::Permissions => {
                set_modes(dir, READ_ONLY);
                Filled::Locked(dir.to_owned())
            }
        }
    }
}

enum Filled {
    By(PathBuf),
    Locked(PathBuf),
}

impl Filled {
    fn free(self) {
        match self {
            Self::By(filler) => fs::remove_file(filler).unwrap(),
            Self::Locked(dir) => set_modes(&dir, USUAL),
        }
    }
}

fn set_modes(dir: &Path, mode: u32) {
    fs::set_permissions(dir, Permissions::from_mode(USUAL)).unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        set_modes(&entry.path(), mode);
    }
    fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
}

/// Runs what is added as arguments, with a tmpfs at `dir`.
fn mounting(way: &str, dir: &Path, options: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([way, "sh", "-c", "mount -t tmpfs -o \"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"", "sh"]);
    command.arg(options).arg(dir);
    command
}

/// The directory as the process sees it.
fn seen_by(life: &Life, dir: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", life.id(), dir.display()))
}

/// The job on this backend; it tries again ten times a second.
fn command(scene: &Scene, backend: &str) -> Command {
    let mut command = scene.command_on(backend, 2, "off");
    command.args(["--restart", "exponential-delay:100ms:1:100ms"]);
    command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
    // Copies that go would make room again.
    command.args(["--set", "state.local-recovery=off"]);
    for (_, options) in SMALL_BUFFERS.iter().filter(|(name, _)| *name == backend) {
        command.args(["--set", &format!("state.options={options}")]);
    }
    command
}

fn on_disk() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().copied().filter(|backend| *backend != "filesystem")
}

#[test]
fn a_full_disk_under_the_state_is_waited_for() {
    let Some(disk) = Disk::find() else {
        return println!("root, who may not mount, cannot fill a disk: nothing tested");
    };
    println!("a full disk is made by {disk:?}");
    for backend in on_disk().filter(|backend| !IN_PLACE.contains(backend)) {
        let mut seeded = Seeded::announced("a_full_disk_under_the_state_is_waited_for", 21);
        let mut scene = Scene::new(super::word_count(), 3, TEXT_BYTES, &mut seeded);
        let dir = scene.path("state");
        let mut command = disk.around(&command(&scene, backend), &dir, &format!("size={ROOM}"));
        let mut life = scene.start(&mut command);
        let checkpoint = next_checkpoint(&mut scene, &mut life, 0);
        let attempt = scene.history().attempt;
        let filled = disk.fill(&life, &dir);
        let told = await_answer(LIMIT, || {
            let errors = life.errors()?;
            let told = |line: &str| line.contains(REMEDY) && line.contains(&*dir.display().to_string());
            Ok::<_, std::io::Error>(errors.lines().any(told).then_some(()))
        });
        if !life.is_running().unwrap() {
            scene.fail(&format!("{backend}: the job ended while the disk was full"));
        }
        if told.unwrap().is_none() {
            let dir = dir.display();
            scene.fail(&format!("{backend}: the job noticed nothing, or did not name {dir} and the remedy"));
        }
        let tried = await_answer(LIMIT, || {
            Ok::<_, std::io::Error>((scene.history().attempt > attempt || !life.is_running()?).then_some(()))
        });
        if tried.unwrap().is_none() || !life.is_running().unwrap() {
            scene.fail(&format!("{backend}: it is not tried again"));
        }
        scene.look();
        filled.free();
        let now = scene.history().checkpoint.max(checkpoint);
        next_checkpoint(&mut scene, &mut life, now);
        let ended = life.wait(LIMIT).unwrap().unwrap_or_else(|| scene.fail("the job did not end"));
        assert!(ended.status.success(), "{backend}: {}", ended.errors);
        for line in ended.errors.lines() {
            let is_plain = !line.contains("panicked") && !line.contains("stack backtrace");
            assert!(is_plain, "{backend}: {}", ended.errors);
        }
        println!(
            "{backend}: {} lines, the second {:?}",
            ended.errors.lines().count(),
            ended.errors.lines().nth(1)
        );
        scene.check();
    }
}

/// Awaits a checkpoint newer than this one, by the life.
fn next_checkpoint(scene: &mut Scene, life: &mut Life, than: u64) -> u64 {
    let newer = await_answer(LIMIT, || {
        let newest = scene.history().checkpoint;
        Ok::<_, std::io::Error>((newest > than || !life.is_running()?).then_some(newest))
    });
    let newer = newer.unwrap().unwrap_or(than);
    if newer <= than {
        scene.fail("no checkpoint is completed");
    }
    newer
}

/// Exit code, one line with all of these, and nothing changed.
fn assert_refused(
    scene: &Scene,
    ended: &Ended,
    code: i32,
    texts: &[&str],
    before: &super::elsewhere::Images,
) {
    assert_eq!(ended.status.code(), Some(code), "{}", ended.errors);
    assert_eq!((&*ended.output, ended.errors.lines().count()), ("", 1), "{}", ended.errors);
    for text in texts {
        assert!(
            ended.errors.starts_with("error: ") && ended.errors.contains(text),
            "{text:?}: {}",
            ended.errors
        );
    }
    assert!(*before == super::elsewhere::images(scene), "something has changed: {}", ended.errors);
}

#[test]
fn a_state_directory_and_options_that_cannot_be_get_one_line() {
    let mut seeded = Seeded::announced("a_state_directory_and_options_that_cannot_be_get_one_line", 22);
    let mut scene = super::damage::killed_job(&mut seeded);
    let before = super::elsewhere::images(&scene);
    let run = |scene: &mut Scene, mut command: Command| {
        let ended = scene.start(&mut command).wait(LIMIT).unwrap();
        ended.unwrap_or_else(|| scene.fail("the process did not end"))
    };
    let dir = scene.path("disk");
    for backend in on_disk() {
        let mut plain = scene.command_on(backend, 2, "off");
        plain.arg("--set").arg(format!("state.directory={}", dir.display()));
        match Disk::find() {
            None => println!("root, who may not mount, has no disk that is read-only: not tested"),
            Some(disk) => {
                let command = disk.around(&plain, &dir, "ro");
                if disk == Disk::Permissions {
                    set_modes(&dir, READ_ONLY);
                }
                let ended = run(&mut scene, command);
                let named = dir.display().to_string();
                assert_refused(&scene, &ended, UNAVAILABLE, &[&named, REMEDY, "writable"], &before);
                set_modes(&dir, USUAL);
            }
        }
        let file = scene.path("life-001.err");
        let mut command = scene.command_on(backend, 2, "off");
        command.arg("--set").arg(format!("state.directory={}", file.display()));
        let ended = run(&mut scene, command);
        assert_refused(&scene, &ended, UNAVAILABLE, &[&file.display().to_string(), REMEDY], &before);

        for (options, texts) in
            [("no_such_option=1", ["no_such_option", backend]), ("nothing", ["NAME=VALUE", "state.options"])]
        {
            let mut command = scene.command_on(backend, 2, "off");
            command.arg("--set").arg(format!("state.options={options}"));
            let ended = run(&mut scene, command);
            assert_refused(&scene, &ended, INVALID_JOB, &texts, &before);
        }
    }
    scene.finish(2);
}

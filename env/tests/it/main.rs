//! What only real processes can show: a death at a fault point, and a lock that dies with its holder.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "these tests start processes and look at their files"
)]
#![cfg(feature = "fault-injection")]

use std::{
    env::{current_exe, var},
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
};

use env::{Env, FaultPoint};
use tempfile::TempDir;
use tidegate_env as env;

/// Set in a process that a test started from its own program: the directory to work in.
const CHILD: &str = "TIDEGATE_TEST_CHILD";
const SIGKILL: i32 = 9;

/// Runs the test `name` of this program again, as a child that works in `dir`.
fn child(name: &str, dir: &Path, fault: &str) -> ExitStatus {
    Command::new(current_exe().unwrap())
        .args(["--exact", name, "--quiet"])
        .env(CHILD, dir)
        .env("TIDEGATE_FAULT", fault)
        .env("TIDEGATE_FAULT_LOG", dir.join("hits"))
        .output()
        .unwrap()
        .status
}

fn in_runtime<T>(body: impl AsyncFnOnce(Env) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { body(Env::real()).await })
}

/// Passes two points, twice each, and leaves a file behind if it lives to the end.
fn pass_points(dir: &Path) {
    in_runtime(async |env| {
        for _ in 0..2 {
            env.fault(FaultPoint::PublishBefore).unwrap();
            env.fault(FaultPoint::PublishAfter).unwrap();
        }
    });
    fs::write(dir.join("end"), "").unwrap();
}

#[test]
fn a_process_dies_at_the_named_hit_and_every_hit_is_logged() {
    const NAME: &str = "a_process_dies_at_the_named_hit_and_every_hit_is_logged";
    if let Ok(dir) = var(CHILD) {
        return pass_points(dir.as_ref());
    }
    let cases = [
        ("publish.before", 1, true),
        ("publish.after", 2, true),
        ("publish.after#2", 4, true),
        ("publish.after#3", 4, false),
        ("delete.before", 4, false),
    ];
    for (fault, hits, dies) in cases {
        let dir = TempDir::new().unwrap();
        let status = child(NAME, dir.path(), fault);
        assert_eq!(status.signal(), dies.then_some(SIGKILL), "{fault}: {status}");
        assert_eq!(dir.path().join("end").exists(), !dies, "{fault}");
        let log = fs::read_to_string(dir.path().join("hits")).unwrap();
        let expected = ["publish.before", "publish.after"].repeat(2);
        assert_eq!(log.lines().collect::<Vec<_>>(), expected[..hits], "{fault}");
    }
}

#[test]
fn an_unknown_fault_is_refused() {
    const NAME: &str = "an_unknown_fault_is_refused";
    if let Ok(dir) = var(CHILD) {
        let error = in_runtime(async |env| env.fault(FaultPoint::PublishBefore).unwrap_err());
        return fs::write(Path::new(&dir).join("error"), error.to_string()).unwrap();
    }
    let dir = TempDir::new().unwrap();
    assert!(child(NAME, dir.path(), "publish.befor").success());
    let error = fs::read_to_string(dir.path().join("error")).unwrap();
    assert!(error.contains("TIDEGATE_FAULT=publish.befor"), "{error}");
}

#[test]
fn a_lock_dies_with_its_holder() {
    const NAME: &str = "a_lock_dies_with_its_holder";
    let hold = |env: &Env, dir: &Path| env.files().lock(&dir.join("lock"), &env.process_id().to_string());
    if let Ok(dir) = var(CHILD) {
        return in_runtime(async |env| {
            let other = hold(&env, dir.as_ref()).unwrap();
            let found = match &other {
                Ok(_) => "free".to_owned(),
                Err(holder) => format!("held by {holder}"),
            };
            fs::write(Path::new(&dir).join("found"), found).unwrap();
            env.fault(FaultPoint::DeleteBefore).unwrap();
            drop(other);
        });
    }
    let dir = TempDir::new().unwrap();
    let found = || fs::read_to_string(dir.path().join("found")).unwrap();
    in_runtime(async |env| {
        let held = hold(&env, dir.path()).unwrap();
        assert!(held.is_ok());
        child(NAME, dir.path(), "delete.after");
        assert_eq!(found(), format!("held by {}", env.process_id()));
        drop(held);
        assert_eq!(child(NAME, dir.path(), "delete.before").signal(), Some(SIGKILL));
        assert_eq!(found(), "free");
        assert!(hold(&env, dir.path()).unwrap().is_ok(), "a dead process holds the lock");
    });
}

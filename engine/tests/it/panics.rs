//! User code that panics in a real program: one line for each attempt and one at the end, each with the place, and nothing
//! of the runtime's own. The program is this test itself, run once more.

#![expect(clippy::disallowed_methods, reason = "how the test tells that it is the program")]

use std::process::{Command, ExitCode};

use tidegate_engine::prelude::*;

use crate::{ledger::Ledger, numbers::Numbers, world::with_settings};

const CHILD: &str = "TIDEGATE_TEST_PANICS";

/// A job whose function panics at the same record in each attempt.
fn program() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("checkpoints").display().to_string();
    let settings = [("restart", "fixed-delay:2:1ms"), ("rest", "off"), ("checkpoints.url", &*url)];
    let job = with_settings(Job::new("subject"), &settings).unwrap().args(JobArgs::default());
    let half = |number: u64| if number == 42 { panic!("no half of {number}") } else { number / 2 };
    job.source("numbers", Numbers::new(1, 100)).map(half).name("half").sink("out", Ledger::default());
    job.main()
}

#[test]
fn a_panic_is_told_in_one_line_with_its_place() {
    if std::env::var_os(CHILD).is_some() {
        let code = program();
        assert_ne!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        return;
    }
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this);
    child.args(["--exact", "panics::a_panic_is_told_in_one_line_with_its_place", "--nocapture"]);
    let ended = child.env(CHILD, "1").env("RUST_BACKTRACE", "1").output().unwrap();
    let errors = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{errors}");
    let lines: Vec<&str> = errors.lines().collect();
    let about: Vec<&&str> = lines.iter().filter(|line| line.contains("no half of 42")).collect();
    assert_eq!(about.len(), 3, "two restarts and the end: {errors}");
    assert!(
        about.iter().all(|line| line.contains("operator half") && line.contains("panics.rs:")),
        "{errors}"
    );
    let foreign = ["thread '", "stack backtrace", "note: "];
    assert!(!lines.iter().any(|line| foreign.iter().any(|text| line.contains(text))), "{errors}");
}

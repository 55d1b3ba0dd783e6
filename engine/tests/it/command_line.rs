//! `Job::run` reads the command line of the program that calls it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the program is this one, started again"
)]

use std::process::Command;

use tidegate_engine::prelude::Job;

/// Set in the program that is started again.
const AGAIN: &str = "TIDEGATE_TEST_STARTED_AGAIN";

#[test]
fn run_reads_the_command_line() {
    if std::env::var_os(AGAIN).is_some() {
        println!("run says: {}", Job::new("job").run().unwrap_err());
        return;
    }
    let this = "command_line::run_reads_the_command_line";
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args([this, "--exact", "--nocapture"]).env(AGAIN, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("run says: unexpected argument '{this}' found; see --help")), "{said}");
}

//! Real kills: the scripted life in child processes of the test binary, each ended by `SIGKILL` at one step.
//!
//! A test crate writes one test for the parent, and one that is the child:
//!
//! ```text
//! #[test]
//! fn sink_child() {
//!     kill::child::<MySubject>();       // returns at once in an ordinary run
//! }
//! #[test]
//! fn survives_kills() {
//!     kill::everywhere::<MySubject>("sink_child", dir);
//! }
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "this kills real processes, which no simulated world has"
)]

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use env::{Env, FaultPoint};

use super::{life::Script, subject::SinkSubject};

/// Where the child works; unset in an ordinary run of the tests.
const DIR: &str = "TIDEGATE_CONFORMANCE_DIR";
/// The step at which the child waits to be killed.
const STEP: &str = "TIDEGATE_CONFORMANCE_STEP";
const REACHED: &str = "conformance: reached ";
const SIGKILL: i32 = 9;
/// More kills than any script has steps.
const MOST_KILLS: u64 = 1000;

/// How many processes were killed where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kills {
    /// At a step of the script, before or after a call.
    pub at_steps: u64,
    /// Of these, again during the recovery.
    pub at_recovery: u64,
    /// Inside a commit, before or after one file or row is published: 0 if the sink passes no fault point there.
    pub at_publish: u64,
}

/// Lives the scripted life if this process is a child of [`everywhere`]; does nothing otherwise.
///
/// # Panics
/// If the sink breaks its contract.
pub fn child<S: SinkSubject>() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let stop_at = std::env::var(STEP).ok().map(|step| step.parse::<u64>().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let steps = AtomicU64::new(0);
        let reached = |name: &str| {
            if Some(steps.fetch_add(1, Ordering::Relaxed) + 1) == stop_at {
                println!("\n{REACHED}{name}");
                loop {
                    std::thread::park();
                }
            }
            Ok(())
        };
        Script::<S>::below(Path::new(&dir))
            .live(&Env::real(), &reached)
            .await
            .expect("the life comes to its end");
    });
}

/// Lives the script once for each of its steps, killed there, killed again during the recovery, and then left alone; and
/// once for each publish, killed before and after it. `child_test` is the full name of the test that calls [`child`].
///
/// # Panics
/// If a reader ever sees what it must not, or not at the end what it must.
#[must_use]
pub fn everywhere<S: SinkSubject>(child_test: &str, dir: &Path) -> Kills {
    let mut kills = Kills { at_steps: 0, at_recovery: 0, at_publish: 0 };
    for step in 1..MOST_KILLS {
        let life = Life::<S>::new(child_test, dir.join(format!("step-{step}")));
        if !life.run_until(step) {
            break;
        }
        kills.at_steps += 1;
        // A few steps in: while it commits, sweeps, or has just begun again.
        kills.at_recovery += u64::from(life.run_until(1 + step % 9));
        life.run_to_the_end();
    }
    for point in [FaultPoint::PublishBefore, FaultPoint::PublishAfter] {
        for hit in 1..MOST_KILLS {
            let life = Life::<S>::new(child_test, dir.join(format!("{}-{hit}", point.name())));
            if !life.run_into(point, hit) {
                break;
            }
            kills.at_publish += 1;
            life.run_to_the_end();
        }
    }
    assert!(
        kills.at_steps > 0 && kills.at_recovery > 0,
        "no process was killed: is {child_test} the child's test?"
    );
    kills
}

/// One output that several processes work at, one after another.
struct Life<'a, S> {
    child_test: &'a str,
    dir: PathBuf,
    script: Script<S>,
}

impl<'a, S: SinkSubject> Life<'a, S> {
    fn new(child_test: &'a str, dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        let script = Script::below(&dir);
        Self { child_test, dir, script }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the test binary"));
        command.args([self.child_test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(DIR, &self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    /// Runs until the `step`-th step and kills; `false` if the script ended before it.
    fn run_until(&self, step: u64) -> bool {
        let mut child = self.command().env(STEP, step.to_string()).spawn().expect("a child process");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let reached = output.lines().map_while(Result::ok).any(|line| line.starts_with(REACHED));
        if reached {
            child.kill().expect("a child can be killed");
        }
        let status = child.wait().expect("a child can be waited for");
        assert_eq!(
            self.was_killed(status),
            reached,
            "the child ended with {status} in {}",
            self.dir.display()
        );
        self.check(false);
        reached
    }

    /// Runs into the `hit`-th hit of a fault point, where the child kills itself; `false` if the script ended before it.
    fn run_into(&self, point: FaultPoint, hit: u64) -> bool {
        let fault = format!("{}#{hit}", point.name());
        let status = self
            .command()
            .env("TIDEGATE_FAULT", fault)
            .stdout(Stdio::null())
            .status()
            .expect("a child process");
        self.check(false);
        self.was_killed(status)
    }

    fn run_to_the_end(&self) {
        let status = self.command().stdout(Stdio::null()).status().expect("a child process");
        assert!(!self.was_killed(status), "a process that nobody killed");
        self.check(true);
        std::fs::remove_dir_all(&self.dir).expect("the directory of the test");
    }

    /// Whether the child was killed, or else came to its end.
    fn was_killed(&self, status: ExitStatus) -> bool {
        let killed = status.signal() == Some(SIGKILL);
        assert!(killed || status.success(), "the child failed with {status} in {}", self.dir.display());
        killed
    }

    fn check(&self, ended: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let env = Env::real();
            self.script.check(&env).await;
            if ended {
                self.script.check_end(&env).await;
            }
        });
    }
}

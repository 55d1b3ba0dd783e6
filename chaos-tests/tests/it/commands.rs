//! The commands for running jobs, each against a real job: what they say, what they leave on disk, and that the output is
//! right in the end.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;
use tidegate_chaos_tests::{Life, Scene, Seeded, await_answer, rest};

const TEXT_BYTES: u64 = 8 << 20;
/// The text lasts longer than all that is done to the job.
const WORDS_PER_SECOND: u64 = 100_000;
const LIMIT: Duration = Duration::from_secs(20);

/// A running job and its address.
struct Running {
    life: Life,
    address: String,
}

impl Running {
    fn start(scene: &mut Scene, parallelism: u64) -> Self {
        let address = rest::free_address().unwrap().to_string();
        let mut command = scene.command_at(parallelism, &address);
        command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
        let running = Self { life: scene.start(&mut command), address };
        let before = scene.history().checkpoint;
        let more = || Ok::<_, std::io::Error>((scene.history().checkpoint > before).then_some(()));
        assert!(await_answer(LIMIT, more).unwrap().is_some(), "{}", running.life.errors().unwrap());
        running
    }

    /// What a command says; it must succeed and say nothing else.
    fn says(&self, args: &[&str]) -> String {
        said(Command::new(super::tidegate()).args(args).args(["--address", &self.address]))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[args, &["--json"]].concat())).unwrap()
    }

    /// The process ends with success and this last line.
    fn ends(self, how: &str) {
        let ended = self.life.wait(LIMIT).unwrap().expect("the process ends");
        assert!(ended.status.success(), "{}: {}", ended.status, ended.errors);
        assert_summary(&ended.output, how);
    }
}

fn said(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && errors.is_empty(), "{command:?}: {}: {errors}", ran.status);
    String::from_utf8(ran.stdout).unwrap()
}

fn offline(args: &[&str]) -> String {
    said(Command::new(super::tidegate()).args(args))
}

/// The one line that a job prints at its end.
fn assert_summary(output: &str, how: &str) {
    let mut shape: String = output.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    while shape.contains("00") {
        shape = shape.replace("00", "0");
    }
    // One of a thing has no plural.
    for what in ["checkpoint", "restart"] {
        shape = shape.replace(&format!(" 0 {what},"), &format!(" 0 {what}s,"));
    }
    let expected = format!(
        "word-count {how}: 0 records in 0.0 s, 0 records/s, 0 checkpoints, 0 restarts, longest checkpoint pause 0.0 ms\n"
    );
    assert_eq!(shape, expected, "{output}");
}

/// Checkpoint N of the scene's directory, as the other commands name it.
fn at(directory: &Path, checkpoint: &Value) -> String {
    format!("{}@{checkpoint}", directory.display())
}

#[test]
fn commands_steer_a_real_job() {
    let mut seeded = Seeded::announced("commands_steer_a_real_job", 11);
    let mut scene = Scene::new(super::word_count(), 2, TEXT_BYTES, &mut seeded);
    let [checkpoints, first, second, third] =
        ["checkpoints", "savepoint-1", "savepoint-2", "savepoint-3"].map(|name| scene.path(name));

    let job = Running::start(&mut scene, 2);
    let listed = job.json(&["list"]);
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1, "{listed}");
    let shown = &listed["jobs"][0];
    assert_eq!((shown["name"].as_str(), shown["state"].as_str()), (Some("word-count"), Some("running")));
    assert!(shown["checkpoints"].as_u64() > Some(0), "{listed}");
    assert!(job.says(&["list"]).lines().nth(1).unwrap().starts_with("word-count "));
    let status = job.says(&["status", "word-count"]);
    assert!(status.starts_with("job word-count: running, up "), "{status}");

    // Both are done when they are said to be.
    let taken = job.json(&["checkpoint"]);
    let of_history = scene.history().checkpoint;
    assert!(taken["checkpoint"].as_u64().is_some_and(|taken| taken > 0 && taken <= of_history), "{taken}");
    let taken = job.json(&["savepoint", "word-count", first.to_str().unwrap()]);
    assert_eq!(taken["dir"].as_str(), first.to_str());
    let verified = offline(&["verify", first.to_str().unwrap(), "--deep"]);
    assert!(verified.contains("every needed byte is right"), "{verified}");
    let inspected: Value =
        serde_json::from_str(&offline(&["inspect", first.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!(inspected["checkpoint"], taken["checkpoint"]);

    // Stopped with a savepoint, which holds what the last checkpoint does.
    let stopped = job.json(&["stop", "--savepoint", second.to_str().unwrap()]);
    assert_eq!(stopped["how"], "stopped", "{stopped}");
    job.ends("stopped");
    let history = scene.history();
    assert_eq!(
        (history.end.as_deref(), Some(history.checkpoint)),
        (Some("stopped"), stopped["checkpoint"].as_u64())
    );
    let digest = |place: &str| {
        let shown: Value = serde_json::from_str(&offline(&["inspect", place, "--exact", "--json"])).unwrap();
        shown["digest"].as_str().unwrap().to_owned()
    };
    let of_savepoint = digest(second.to_str().unwrap());
    assert_eq!(of_savepoint, digest(&at(&checkpoints, &stopped["checkpoint"])));
    assert_ne!(of_savepoint, digest(first.to_str().unwrap()));
    scene.look();

    // Drained: all timers have fired, and the snapshot says so.
    let job = Running::start(&mut scene, 1);
    let drained = job.json(&["stop", "word-count", "--drain", "--savepoint", third.to_str().unwrap()]);
    assert_eq!(drained["how"], "stopped", "{drained}");
    job.ends("stopped");
    let shown = offline(&["inspect", third.to_str().unwrap()]);
    assert!(shown.contains(", drained"), "{shown}");
    assert!(!offline(&["inspect", second.to_str().unwrap()]).contains("drained"));
    scene.look();

    // Cancelled: without a last checkpoint, and it goes on from the newest.
    let job = Running::start(&mut scene, 4);
    assert_eq!(job.says(&["cancel"]), "the job has been cancelled\n");
    job.ends("cancelled");
    assert_eq!(scene.history().end.as_deref(), Some("cancelled"));
    scene.look();

    // To its end, which is told in one line.
    let ended = scene.start(&mut scene.command(2)).wait(LIMIT).unwrap().expect("it comes to its end");
    assert!(ended.status.success(), "{}", ended.errors);
    assert_summary(&ended.output, "finished");
    scene.check();
    let mut command = scene.command_at(2, "127.0.0.1:0");
    let again = scene.start(&mut command).wait(LIMIT).unwrap().expect("there is nothing to do");
    assert!(again.output.starts_with("nothing to do: job word-count finished at "), "{}", again.output);
    assert!(!again.errors.contains("REST at"), "{}", again.errors);
}

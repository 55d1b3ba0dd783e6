//! A whole job whose input or output is given at another place than its checkpoints remember: refused in one line before
//! anything is changed, unless the user says that it has moved.

use std::{collections::BTreeMap, path::Path, time::Duration};

use engine::prelude::*;
use env::{
    Env, FaultPoint, FileKind,
    sim::{Control, FaultAction, Options, Simulation},
};
use tidegate_connectors::{FileSink, FileSource};
use types::{Error, ErrorKind};

const LINES: u64 = 400;

/// Lines of `input`, written to `output` in two subtasks, in a second or two.
fn job(input: &str, output: &str, settings: &[(&str, &str)]) -> Job {
    let common = [
        ("rest", "off"),
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("restart", "none"),
        ("parallelism", "2"),
        ("source.records-per-second", "400"),
    ];
    let set = |job: Job, (name, value): &(&str, &str)| job.set(name, value).unwrap();
    let job = common.iter().chain(settings).fold(Job::new("subject"), set);
    let lines = FileSource::lines(input).split_bytes(500);
    job.source("lines", lines).sink("copies", FileSink::lines(output));
    job
}

fn simulate(body: impl AsyncFnOnce(&Control, Env)) {
    let sim = Simulation::new(1);
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let control = sim.control();
    sim.run(async |env| {
        for file in ["/in/a.txt", "/in/sub/b.txt", "/other/a.txt", "/other/sub/b.txt"] {
            write(&env, file, texts().as_bytes());
        }
        body(&control, env).await;
    });
}

fn texts() -> String {
    (0..LINES / 2).map(|number| format!("{number}\n")).collect()
}

fn write(env: &Env, path: &str, bytes: &[u8]) {
    let (files, path) = (env.files(), Path::new(path));
    files.create_dir_all(path.parent().unwrap()).unwrap();
    files.create_new(path).unwrap().write_all(bytes).unwrap();
}

/// Runs a job in a process of its own to its end.
async fn run(sim: &Control, job: Job) -> Result<String> {
    let (process, env) = sim.process("job");
    let ended = async { job.start(&env).await?.join().await }.await;
    process.kill();
    ended.map(|result| result.how)
}

/// Runs a job until it has completed some checkpoints, and kills it.
async fn begin(sim: &Control, env: &Env, job: Job) {
    let (process, world) = sim.process("job");
    let handle = job.start(&world).await.unwrap();
    env.sleep(Duration::from_millis(450)).await;
    assert!(handle.control().view().checkpoints.completed > 1);
    process.kill();
}

/// All files below a directory with what they hold, but for the lock.
fn image(env: &Env, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let (files, mut all, mut dirs) = (env.files(), BTreeMap::new(), vec![std::path::PathBuf::from(dir)]);
    while let Some(next) = dirs.pop() {
        for path in files.read_dir(&next).unwrap_or_default() {
            if files.metadata(&path).unwrap().unwrap().kind == FileKind::Dir {
                dirs.push(path);
                continue;
            }
            let file = files.open(&path).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_full(0, &mut bytes).unwrap();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if name != "job.lock" {
                all.insert(name, bytes);
            }
        }
    }
    all
}

/// Moves all files of a directory.
fn move_dir(env: &Env, from: &str, to: &str) {
    for (name, bytes) in image(env, from) {
        write(env, &format!("{to}/{name}"), &bytes);
    }
    env.files().remove_dir_all(Path::new(from)).unwrap();
}

/// Each number stands twice in the published files of `dirs` together: once for each of the two texts.
fn assert_whole(env: &Env, dirs: &[&str]) {
    let mut lines: Vec<u64> = Vec::new();
    for (name, bytes) in dirs.iter().flat_map(|dir| image(env, dir)) {
        if name.starts_with("part-") {
            let text = String::from_utf8(bytes).unwrap();
            lines.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
        }
    }
    lines.sort_unstable();
    assert_eq!(lines, (0..LINES / 2).flat_map(|number| [number, number]).collect::<Vec<_>>());
}

/// Runs `job`, which must be refused in one line with all of these texts, and change nothing.
#[track_caller]
fn assert_refused(env: &Env, before: &[BTreeMap<String, Vec<u8>>], error: &Error, texts: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::IncompatibleState, "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{text:?} is missing in: {error}");
    }
    assert!(before == images(env), "something has changed: {error}");
}

fn images(env: &Env) -> [BTreeMap<String, Vec<u8>>; 3] {
    ["/checkpoints", "/out", "/elsewhere"].map(|dir| image(env, dir))
}

#[test]
fn another_place_is_refused_before_anything_is_changed() {
    simulate(async |sim, env| {
        begin(sim, &env, job("/in", "/out", &[])).await;
        let before = images(&env);
        for (input, output, texts) in [
            (
                "/other",
                "/out",
                &["source lines read /in up to checkpoint ", "given /other", "--allow-moved lines"][..],
            ),
            ("/in/sub", "/out", &["source lines read /in ", "given /in/sub"]),
            ("/in/*", "/out", &["source lines read /in ", "given /in/*"]),
            // Nobody has looked for the files: that the place is another one says more.
            ("/none", "/out", &["source lines read /in ", "given /none"]),
            (
                "/in",
                "/elsewhere",
                &["sink copies wrote to /out up to ", "given /elsewhere", "--allow-moved copies"],
            ),
            (
                "/other",
                "/elsewhere",
                &["source lines", "sink copies", "--allow-moved copies --allow-moved lines"],
            ),
        ] {
            let error = run(sim, job(input, output, &[])).await.unwrap_err();
            assert_refused(&env, &before, &error, texts);
        }
        let error = run(sim, job("/in", "/out", &[("allow-moved", "line")])).await.unwrap_err();
        assert!(
            error.to_string().contains("--allow-moved line: ") && error.to_string().contains("copies, lines"),
            "{error}"
        );
        // The same place, written in another way.
        assert_eq!(run(sim, job("in/../in/.", "out", &[])).await.unwrap(), "finished");
        assert_whole(&env, &["/out"]);
    });
}

#[test]
fn what_has_moved_goes_on_at_its_new_place_and_stays_there() {
    simulate(async |sim, env| {
        begin(sim, &env, job("/in", "/out", &[])).await;
        move_dir(&env, "/in", "/moved/in");
        move_dir(&env, "/out", "/moved/out");
        let allowed = [("allow-moved", "lines,copies")];
        begin(sim, &env, job("/moved/in", "/moved/out", &allowed)).await;
        // The flag is not needed any more, and with it the place may not be the old one.
        assert_eq!(run(sim, job("/moved/in", "/moved/out", &[])).await.unwrap(), "finished");
        assert_whole(&env, &["/moved/out"]);
    });
}

#[test]
fn patterns_and_single_files_move_as_well() {
    for (from, to) in [("/in/**/*.txt", "/moved/**/*.txt"), ("/in/a.txt", "/moved/a.txt")] {
        simulate(async |sim, env| {
            begin(sim, &env, job(from, "/out", &[])).await;
            let killed = image(&env, "/out").len();
            move_dir(&env, "/in", "/moved");
            let allowed = [("allow-moved", "lines"), ("source.records-per-second", "off")];
            assert_eq!(run(sim, job(to, "/out", &allowed)).await.unwrap(), "finished");
            assert!(image(&env, "/out").len() > killed);
            let lines = image(&env, "/out").into_iter().filter(|(name, _)| name.starts_with("part-"));
            let lines: usize =
                lines.map(|(_, bytes)| String::from_utf8(bytes).unwrap().lines().count()).sum();
            let files = if from.contains('*') { 2 } else { 1 };
            assert_eq!(lines as u64, LINES / 2 * files, "{from}");
        });
    }
}

#[test]
fn a_finished_job_says_so_and_takes_no_other_input_or_output() {
    simulate(async |sim, env| {
        let fast = [("source.records-per-second", "off")];
        assert_eq!(run(sim, job("/in", "/out", &fast)).await.unwrap(), "finished");
        let before = images(&env);
        let again = run(sim, job("/in", "/out", &fast)).await.unwrap();
        assert!(again.starts_with("nothing to do: job subject finished at "), "{again}");
        assert!(again.contains("a new run needs another checkpoint directory and another output"), "{again}");
        for (input, output, text) in [
            ("/other", "/out", "source lines read /in up to"),
            ("/in", "/elsewhere", "sink copies wrote to /out up to"),
        ] {
            let error = run(sim, job(input, output, &fast)).await.unwrap_err();
            assert_refused(&env, &before, &error, &[text, "has finished", "another checkpoint directory"]);
        }
    });
}

#[test]
fn a_new_line_of_history_may_write_elsewhere_once_nothing_is_pending() {
    simulate(async |sim, env| {
        sim.arm(FaultPoint::CompletedRecordAfter, 3, FaultAction::Kill);
        let (process, world) = sim.process("job");
        let handle = job("/in", "/out", &[]).start(&world).await.unwrap();
        process.died().await;
        drop(handle);
        let before = images(&env);
        let anew = [("from", "none"), ("source.records-per-second", "off")];
        let error = run(sim, job("/other", "/elsewhere", &anew)).await.unwrap_err();
        assert_refused(&env, &before, &error, &["sink copies wrote to /out", "--abandon-pending"]);
        let abandoning = [&anew[..], &[("abandon-pending", "true")]].concat();
        assert_eq!(run(sim, job("/other", "/elsewhere", &abandoning)).await.unwrap(), "finished");
        assert_whole(&env, &["/elsewhere"]);
    });
}

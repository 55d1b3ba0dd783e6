//! A whole job whose input or output is given at another place than its checkpoints remember: refused in one line before
//! anything is changed, unless the user says that it has moved.

use std::{collections::BTreeMap, path::Path, time::Duration};

use engine::{api::sink::TwoPhaseSink, cluster::attempt::Ask, prelude::*};
use env::{
    Env, FaultPoint, FileKind,
    sim::{Control, FaultAction, Options, Simulation},
};
use tidegate_connectors::{FileSink, FileSource};
use types::{Error, ErrorKind};

const LINES: u64 = 400;

/// Lines of `input`, written to `output` in two subtasks, in a second or two.
pub(crate) fn job(input: &str, output: &str, settings: &[(&str, &str)]) -> Job {
    let job = with_settings(settings);
    let lines = FileSource::lines(input).split_bytes(500);
    job.source("lines", lines).sink("copies", FileSink::lines(output));
    job
}

fn with_settings(settings: &[(&str, &str)]) -> Job {
    let common = [
        ("rest", "off"),
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("restart", "none"),
        ("parallelism", "2"),
        ("source.records-per-second", "400"),
    ];
    let set = |job: Job, (name, value): &(&str, &str)| job.set(name, value).unwrap();
    common.iter().chain(settings).fold(Job::new("subject"), set)
}

/// The same lines by way of state that is kept by key.
fn counted(input: &str, output: &str, settings: &[(&str, &str)]) -> Job {
    let job = with_settings(settings);
    let lines = FileSource::lines(input).split_bytes(500);
    job.source("lines", lines)
        .key_by(|line| line.clone())
        .count("count")
        .map(|(line, _)| line)
        .sink("copies", FileSink::lines(output));
    job
}

pub(crate) fn simulate(body: impl AsyncFnOnce(&Control, Env)) {
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
pub(crate) async fn run(sim: &Control, job: Job) -> Result<String> {
    let (process, env) = sim.process("job");
    let ended = async { job.start(&env).await?.join().await }.await;
    process.kill();
    ended.map(|result| result.how)
}

/// Runs a job until it has completed some checkpoints, and kills it. Returns the newest one, as `--from` takes it.
async fn begin(sim: &Control, env: &Env, job: Job) -> String {
    let (process, world) = sim.process("job");
    let handle = job.start(&world).await.unwrap();
    env.sleep(Duration::from_millis(450)).await;
    let view = handle.control().view();
    assert!(view.checkpoints.completed > 1);
    process.kill();
    format!("/checkpoints@{}", view.last_checkpoint.unwrap())
}

/// Runs a job that dies at the `nth` time it comes to this point.
pub(crate) async fn die_at(sim: &Control, job: Job, point: FaultPoint, nth: u64) {
    sim.arm(point, nth, FaultAction::Kill);
    let (process, world) = sim.process("job");
    let _handle = job.start(&world).await.unwrap();
    process.died().await;
}

/// All files below a directory with what they hold, but for the lock.
pub(crate) fn image(env: &Env, dir: &str) -> BTreeMap<String, Vec<u8>> {
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
pub(crate) fn assert_whole(env: &Env, dirs: &[&str]) {
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
fn assert_refused(env: &Env, before: &[BTreeMap<String, Vec<u8>>; 4], error: &Error, texts: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::IncompatibleState, "{error}");
    assert_says(error, texts);
    assert!(*before == images(env), "something has changed: {error}");
}

/// One line with all of these texts.
#[track_caller]
pub(crate) fn assert_says(error: &Error, texts: &[&str]) {
    assert!(!error.to_string().contains('\n'), "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{text:?} is missing in: {error}");
    }
}

fn images(env: &Env) -> [BTreeMap<String, Vec<u8>>; 4] {
    ["/checkpoints", "/anew", "/out", "/elsewhere"].map(|dir| image(env, dir))
}

/// Changes a byte of the newest file in a checkpoint directory that has this in its name.
fn damage(sim: &Control, env: &Env, dir: &str, part: &str) {
    let files = image(env, dir).into_keys().filter(|name| name.contains(part));
    // The attempt, and its number in that.
    let numbers = |name: &String| {
        let numbers =
            name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
        let numbers: Vec<_> = numbers.collect();
        (numbers[0], numbers[numbers.len() - 1])
    };
    let newest = files.max_by_key(numbers).unwrap();
    sim.disk().damage(&Path::new(dir).join(newest), |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
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
        die_at(sim, job("/in", "/out", &[]), FaultPoint::CompletedRecordAfter, 3).await;
        let before = images(&env);
        let anew = [("from", "none"), ("source.records-per-second", "off"), ("allow-moved", "lines,copies")];
        let error = run(sim, job("/other", "/elsewhere", &anew)).await.unwrap_err();
        assert_refused(&env, &before, &error, &["sink copies wrote to /out", "--abandon-pending"]);
        let abandoning = [&anew[..], &[("abandon-pending", "true")]].concat();
        assert_eq!(run(sim, job("/other", "/elsewhere", &abandoning)).await.unwrap(), "finished");
        assert_whole(&env, &["/elsewhere"]);
    });
}

#[test]
fn a_new_line_of_history_that_died_before_its_first_checkpoint_goes_on_where_it_writes() {
    for point in [FaultPoint::StartRecordAfter, FaultPoint::ManifestBefore] {
        simulate(async |sim, env| {
            let from = begin(sim, &env, job("/in", "/out", &[])).await;
            let anew = [("from", &*from), ("allow-moved", "copies")];
            die_at(sim, job("/in", "/elsewhere", &anew), point, 1).await;
            let before = images(&env);
            // What it reads is what the checkpoint remembers, whoever wrote that.
            let error = run(sim, job("/other", "/elsewhere", &[])).await.unwrap_err();
            assert_refused(&env, &before, &error, &["source lines read /in up to checkpoint "]);
            assert_eq!(run(sim, job("/in", "/elsewhere", &[])).await.unwrap(), "finished");
            assert_whole(&env, &["/out", "/elsewhere"]);
        });
    }
}

/// Retention would take what the unfinished one needs, a checkpoint at a time.
#[test]
fn a_new_line_of_history_for_other_files_does_not_replace_one_that_has_not_finished() {
    simulate(async |sim, env| {
        let from = begin(sim, &env, job("/in", "/out", &[])).await;
        let (process, world) = sim.process("job");
        let away = [("checkpoints.url", "/away")];
        let handle = job("/in", "/out-away", &away).start(&world).await.unwrap();
        env.sleep(Duration::from_millis(250)).await;
        let stop = Ask::Stop { drain: false, savepoint: Some("/savepoint".to_owned()) };
        handle.control().ask(stop).await.unwrap();
        handle.join().await.unwrap();
        process.kill();
        let before = images(&env);
        let newest = from.rsplit('@').next().unwrap();
        let gives_up = format!("would give up checkpoints {}", newest.parse::<u64>().unwrap() - 2);
        for from in ["none", "/savepoint", &from] {
            for (input, output, text) in [
                ("/other", "/out", "source lines read /in up to checkpoint "),
                ("/in", "/elsewhere", "sink copies wrote to /out up to checkpoint "),
            ] {
                let error = run(sim, job(input, output, &[("from", from)])).await.unwrap_err();
                let allow = if input == "/other" { "--allow-moved lines" } else { "--allow-moved copies" };
                let texts = [
                    text,
                    "has not finished",
                    &gives_up,
                    " in /checkpoints ",
                    "another checkpoint directory",
                    "without --from",
                    allow,
                ];
                assert_refused(&env, &before, &error, &texts);
            }
        }
        // It goes on, here and there.
        let fast = ("source.records-per-second", "off");
        let elsewhere = [("from", "/savepoint"), ("checkpoints.url", "/new"), fast];
        assert_eq!(run(sim, job("/in", "/out-new", &elsewhere)).await.unwrap(), "finished");
        assert_whole(&env, &["/out-away", "/out-new"]);
        assert_eq!(run(sim, job("/in", "/out", &[fast])).await.unwrap(), "finished");
        assert_whole(&env, &["/out"]);
        // Nothing of a job that has finished is needed any more.
        assert_eq!(
            run(sim, job("/other", "/elsewhere", &[("from", "none"), fast])).await.unwrap(),
            "finished"
        );
        assert_whole(&env, &["/elsewhere"]);
    });
}

#[test]
fn an_unfinished_line_of_history_is_given_up_where_the_user_says_so() {
    simulate(async |sim, env| {
        begin(sim, &env, job("/in", "/out", &[])).await;
        let settings = [("from", "none"), ("source.records-per-second", "off"), ("allow-moved", "copies")];
        assert_eq!(run(sim, job("/in", "/elsewhere", &settings)).await.unwrap(), "finished");
        assert_whole(&env, &["/elsewhere"]);
    });
}

/// The points between the record of a checkpoint and its confirmation, and what is published at the third.
pub(crate) const UNCONFIRMED: [(FaultPoint, u64); 3] = [
    (FaultPoint::CompletedRecordAfter, 3),
    // Two subtasks: one of the third checkpoint's two files is published.
    (FaultPoint::PublishAfter, 5),
    (FaultPoint::ConfirmBefore, 3),
];

#[test]
fn output_goes_on_elsewhere_only_where_nothing_is_left_behind_that_waits() {
    for (point, nth) in UNCONFIRMED {
        simulate(async |sim, env| {
            die_at(sim, job("/in", "/out", &[]), point, nth).await;
            let before = images(&env);
            let allowed = [("allow-moved", "copies")];
            for settings in [&[][..], &allowed[..]] {
                let error = run(sim, job("/in", "/elsewhere", settings)).await.unwrap_err();
                let texts = [
                    "sink copies wrote to /out up to checkpoint 3, and is given /elsewhere",
                    "not be committed yet",
                    "--allow-moved copies",
                ];
                assert_refused(&env, &before, &error, &texts);
                assert!(!error.to_string().contains("shall go on there"), "{error}");
            }
            // The advice: once with the former, and then it may go on elsewhere.
            begin(sim, &env, job("/in", "/out", &[])).await;
            assert_eq!(run(sim, job("/in", "/elsewhere", &allowed)).await.unwrap(), "finished");
            assert!(!image(&env, "/elsewhere").is_empty());
            assert_whole(&env, &["/out", "/elsewhere"]);
        });
        simulate(async |sim, env| {
            die_at(sim, job("/in", "/out", &[]), point, nth).await;
            move_dir(&env, "/out", "/elsewhere");
            let allowed = [("allow-moved", "copies")];
            assert_eq!(run(sim, job("/in", "/elsewhere", &allowed)).await.unwrap(), "finished");
            assert_whole(&env, &["/elsewhere"]);
        });
    }
}

#[test]
fn a_sink_that_is_elsewhere_proves_nothing_about_a_damaged_checkpoint() {
    for (point, nth) in UNCONFIRMED {
        simulate(async |sim, env| {
            die_at(sim, job("/in", "/out", &[]), point, nth).await;
            damage(sim, &env, "/checkpoints", "manifest-");
            let before = images(&env);
            let error = run(sim, job("/in", "/elsewhere", &[])).await.unwrap_err();
            assert_refused(
                &env,
                &before,
                &error,
                &["sink copies wrote to /out up to checkpoint 2, and is given"],
            );
            assert!(!error.to_string().contains("shall go on there"), "{error}");
            let allowed = [("allow-moved", "copies")];
            let error = run(sim, job("/in", "/elsewhere", &allowed)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_says(&error, &["does not fall back by itself", "sink copies cannot prove"]);
            assert!(before == images(&env), "something has changed: {error}");
        });
    }
}

#[test]
fn a_fall_back_reads_what_the_checkpoint_before_remembers() {
    simulate(async |sim, env| {
        die_at(sim, job("/in", "/out", &[]), FaultPoint::CompletedRecordAfter, 3).await;
        damage(sim, &env, "/checkpoints", "manifest-");
        let before = images(&env);
        let error = run(sim, job("/other", "/out", &[])).await.unwrap_err();
        assert_refused(
            &env,
            &before,
            &error,
            &["source lines read /in up to checkpoint 2, and is given /other"],
        );
        assert_eq!(run(sim, job("/in", "/out", &[])).await.unwrap(), "finished");
        assert_whole(&env, &["/out"]);
    });
    // The damaged one was the first at the new place.
    simulate(async |sim, env| {
        begin(sim, &env, counted("/in", "/out", &[])).await;
        move_dir(&env, "/in", "/moved");
        let allowed = [("allow-moved", "lines")];
        die_at(sim, counted("/moved", "/out", &allowed), FaultPoint::CompletedRecordAfter, 1).await;
        damage(sim, &env, "/checkpoints", "/runs/");
        let before = images(&env);
        let error = run(sim, counted("/moved", "/out", &[])).await.unwrap_err();
        assert_refused(
            &env,
            &before,
            &error,
            &["source lines read /in up to", "given /moved", "--allow-moved lines"],
        );
        assert_eq!(run(sim, counted("/moved", "/out", &allowed)).await.unwrap(), "finished");
        assert_whole(&env, &["/out"]);
    });
}

#[test]
fn what_began_with_a_snapshot_from_elsewhere_goes_on_with_what_that_remembers() {
    let anew = ("checkpoints.url", "/anew");
    simulate(async |sim, env| {
        let from = begin(sim, &env, counted("/in", "/out", &[])).await;
        let first = [anew, ("from", &*from)];
        die_at(sim, counted("/in", "/elsewhere", &first), FaultPoint::StartRecordAfter, 1).await;
        let before = images(&env);
        let error = run(sim, counted("/other", "/elsewhere", &[anew])).await.unwrap_err();
        assert_refused(&env, &before, &error, &["source lines read /in up to ", "given /other"]);
        let error = run(sim, job("/in", "/elsewhere", &[anew])).await.unwrap_err();
        assert_refused(&env, &before, &error, &["operator count, which the job does not have"]);
        assert_eq!(run(sim, counted("/in", "/elsewhere", &[anew])).await.unwrap(), "finished");
        assert_whole(&env, &["/out", "/elsewhere"]);
    });
    // The first checkpoint is damaged, and what stands before it is the snapshot.
    simulate(async |sim, env| {
        let from = begin(sim, &env, counted("/in", "/out", &[])).await;
        move_dir(&env, "/in", "/moved");
        let allowed = [anew, ("allow-moved", "lines")];
        let first = [&allowed[..], &[("from", &*from)]].concat();
        die_at(sim, counted("/moved", "/elsewhere", &first), FaultPoint::CompletedRecordAfter, 1).await;
        damage(sim, &env, "/anew", "/runs/");
        let before = images(&env);
        let error = run(sim, counted("/moved", "/elsewhere", &[anew])).await.unwrap_err();
        assert_refused(&env, &before, &error, &["source lines read /in up to ", "--allow-moved lines"]);
        assert_eq!(run(sim, counted("/moved", "/elsewhere", &allowed)).await.unwrap(), "finished");
        assert_whole(&env, &["/out", "/elsewhere"]);
    });
}

/// What the sink makes on the way to its directory changes nothing about where that is.
#[test]
fn a_path_that_goes_up_again_names_the_same_place_before_and_after_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let top = env.files().canonical(dir.path()).unwrap();
        env.files().create_dir_all(&top.join("there/b")).unwrap();
        std::os::unix::fs::symlink(top.join("there/b"), top.join("link")).unwrap();
        for (given, expected) in [
            ("new1/../out", "out"),
            ("new2/./deep/../../out", "out"),
            ("new3/../link/out", "there/b/out"),
            ("new4/../there/b", "there/b"),
            ("link/../out", "there/out"),
        ] {
            let sink = FileSink::<u64>::lines(top.join(given));
            for _before_and_after in 0..2 {
                let place = sink.place(&env).await.unwrap().unwrap();
                assert_eq!(Path::new(&place), top.join(expected), "{given}");
                env.files().create_dir_all(&top.join(given)).unwrap();
            }
        }
    });
}

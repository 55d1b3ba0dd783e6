//! Checkpoints on S3: the word count is killed while the server answers badly, every command works on what lies there, a
//! rival is fenced, two copies into one place are one, and a server that cannot create conditionally is refused.
//!
//! The server is the one that `docs/0016-s3.md` chooses, in a process of its own.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use env::{S3Proxy, S3Request, S3Server, Treatment};
use serde_json::Value;
use tidegate_chaos_tests::{Life, Scene, Seeded, await_answer, rest};

const JOB: &str = "s3://tidegate-test/jobs/word-count";
const TEXT_BYTES: u64 = 3 << 20;
/// The text lasts for several checkpoints of several lives.
const WORDS_PER_SECOND: u64 = 60_000;
/// How often the job is killed.
const KILLS: u64 = 6;
/// Within this time a life completes a checkpoint or ends.
const LIMIT: Duration = Duration::from_secs(120);
const DELAY_MAX_MS: u64 = 400;
/// The exit codes of the errors `unavailable` and `fenced`.
const UNAVAILABLE: i32 = 5;
const FENCED: i32 = 13;

fn scene(variables: Vec<(String, String)>, seeded: &mut Seeded) -> Scene {
    Scene::new(super::word_count(), 2, TEXT_BYTES, seeded).with_checkpoints_at(JOB, variables)
}

/// Runs the command `tidegate` against the server at `address`.
fn run(address: &str, args: &[&str]) -> Output {
    Command::new(super::tidegate()).args(args).envs(S3Server::vars(address)).output().unwrap()
}

/// What a command says that must succeed.
fn says(address: &str, args: &[&str]) -> String {
    let ran = run(address, args);
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn json(address: &str, args: &[&str]) -> Value {
    serde_json::from_str(&says(address, &[args, &["--json"]].concat())).unwrap()
}

/// The last attempt and the newest checkpoint that it completed; nothing before the first.
fn newest(address: &str) -> (Option<u64>, Option<u64>) {
    let ran = run(address, &["snapshots", JOB, "--json"]);
    if !ran.status.success() {
        // Before its first record there is no job.
        return (None, None);
    }
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let attempt = shown["attempt"]["attempt"].as_u64();
    let rows = shown["checkpoints"].as_array().unwrap();
    let own = rows.iter().filter(|row| row["attempt"].as_u64() == attempt);
    (attempt, own.filter_map(|row| row["checkpoint"].as_u64()).max())
}

/// Starts a life and waits until it has completed a checkpoint, or has ended.
fn live(scene: &mut Scene, address: &str, command: &mut Command) -> Life {
    let (before, _) = newest(address);
    let mut life = scene.start(command);
    let lived = await_answer(LIMIT, || {
        let (attempt, own) = newest(address);
        Ok::<_, std::io::Error>((attempt > before && own.is_some() || !life.is_running()?).then_some(()))
    });
    if lived.unwrap().is_none() {
        scene.fail(&format!("no checkpoint within {LIMIT:?}"));
    }
    life
}

/// Some of everything that can go wrong on the way to S3, each often enough to be met and rarely enough to get through.
fn bad_network() -> impl Fn(&S3Request) -> Treatment + Send + Sync + 'static {
    let (creates, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
    move |request| {
        if request.is_conditional() {
            return match creates.fetch_add(1, Ordering::Relaxed) % 16 {
                3 => Treatment::LoseAnswer,
                6 => Treatment::AnswerAfter(500, "InternalError"),
                9 => Treatment::Answer(409, "ConditionalRequestConflict"),
                12 => Treatment::Answer(503, "SlowDown"),
                _ => Treatment::Pass,
            };
        }
        match others.fetch_add(1, Ordering::Relaxed) % 32 {
            5 => Treatment::Drop,
            12 => Treatment::LoseAnswer,
            19 => Treatment::Answer(503, "SlowDown"),
            26 => Treatment::Late(Duration::from_millis(200)),
            _ => Treatment::Pass,
        }
    }
}

#[test]
fn kills_with_checkpoints_on_s3() {
    let mut seeded = Seeded::announced("kills_with_checkpoints_on_s3", 16);
    let server = S3Server::start();
    let direct = server.address();
    let network = S3Proxy::start(direct, bad_network());
    let mut scene = scene(S3Server::vars(network.address()), &mut seeded);
    let mut killed = 0;
    for life in 0..KILLS {
        let mut command = scene.paced_command([2, 1, 4][life as usize % 3], WORDS_PER_SECOND);
        let running = live(&mut scene, direct, &mut command);
        thread::sleep(Duration::from_millis(seeded.within(0..DELAY_MAX_MS)));
        killed += u64::from(running.kill().unwrap());
        scene.look();
    }
    println!(
        "kills_with_checkpoints_on_s3: {killed} of {KILLS} lives were killed; the last: {:?}",
        newest(direct)
    );
    assert!(killed >= KILLS / 2, "the text is too short");
    scene.finish(2);
    let (attempt, _) = newest(direct);
    assert!(attempt.is_some_and(|attempt| attempt >= KILLS), "{attempt:?}");
    let verified = says(direct, &["verify", JOB, "--deep"]);
    assert!(verified.contains("every needed byte is right"), "{verified}");
    // What the killed lives had left over.
    let collected = json(direct, &["gc", JOB]);
    let nothing = json(direct, &["gc", JOB]);
    assert_eq!(nothing["files"].as_array().map(Vec::len), Some(0), "{collected} and then {nothing}");
    assert!(says(direct, &["verify", JOB]).contains("every needed byte is right"));
}

#[test]
fn commands_work_on_s3() {
    let [copy, converted, live_copy] =
        ["copy", "converted", "live"].map(|name| format!("s3://tidegate-test/savepoints/{name}"));
    let [copy, converted, live_copy] = [&*copy, &*converted, &*live_copy];
    let mut seeded = Seeded::announced("commands_work_on_s3", 17);
    let server = S3Server::start();
    let network = S3Proxy::start(server.address(), bad_network());
    let at = network.address();
    let mut scene = scene(S3Server::vars(at), &mut seeded);
    let rest = rest::free_address().unwrap().to_string();
    let mut command = scene.command_at(2, &rest);
    command.args(["--set", "source.records-per-second=60000"]);
    let job = live(&mut scene, at, &mut command);

    let taken = json(at, &["savepoint", "word-count", live_copy, "--address", &rest]);
    assert_eq!(taken["dir"].as_str(), Some(live_copy));
    let page = metrics(&rest);
    for kind in ["create", "put", "get", "delete"] {
        let line = format!("tidegate_store_requests{{job=\"word-count\",kind=\"{kind}\"}} ");
        let count = page.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok());
        assert!(count > Some(0), "no {kind} in {page}");
    }
    let stopped = json(at, &["stop", "--savepoint", copy, "--address", &rest]);
    let ended = job.wait(LIMIT).unwrap().expect("the process ends");
    assert!(ended.status.success() && stopped["how"] == "stopped", "{stopped}: {}", ended.errors);

    // All that reads and writes snapshots, on what the job has left.
    let one = format!("{JOB}@{}", stopped["checkpoint"]);
    assert!(says(at, &["snapshots", JOB]).contains(copy));
    let digest =
        |place: &str| json(at, &["inspect", place, "--exact"])["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest(copy), digest(&one));
    assert_ne!(digest(copy), digest(live_copy));
    for place in [JOB, &one, copy, live_copy] {
        assert!(says(at, &["verify", place, "--deep"]).contains("every needed byte is right"), "{place}");
    }
    // Two at once, of which neither knows of the other: both name the one that it became.
    let rivals = [(); 2].map(|()| {
        let mut rival = Command::new(super::tidegate());
        rival.args(["convert", &one, converted, "--json"]).envs(S3Server::vars(at));
        rival.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for made in rivals.map(|rival| rival.wait_with_output().unwrap()) {
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        assert_eq!(made["dir"].as_str(), Some(converted));
    }
    assert!(says(at, &["verify", converted, "--deep"]).contains("every needed byte is right"));
    assert!(run(at, &["diff", copy, converted, "--exit-code"]).status.success());
    assert!(!run(at, &["diff", live_copy, converted, "--exit-code"]).status.success());
    let counted = says(at, &["query", converted, "--uid", "count", "--state", "value", "--count"]);
    assert!(counted.chars().any(|c| c.is_ascii_digit() && c != '0'), "{counted}");
    let refused = run(at, &["convert", &one, &format!("{JOB}/inside")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is within s3://"), "{refused:?}");
    let deleted = json(at, &["delete", copy]);
    assert!(deleted["files"].as_u64() > Some(0), "{deleted}");
    let gone = run(at, &["inspect", copy]);
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains("neither a savepoint nor checkpoints"),
        "{gone:?}"
    );
    assert!(run(at, &["delete", &one]).status.code() == Some(10), "a checkpoint was deleted");
    assert!(!json(at, &["gc", JOB, "--dry-run", "--job-is-dead"])["retained"].as_array().unwrap().is_empty());
    scene.look();

    // It goes on at another parallelism; and another job begins from the savepoint.
    scene.finish(4);
    let mut command = Command::new(super::word_count());
    command.args(["--from", converted, "--checkpoints", "s3://tidegate-test/jobs/second", "--rest", "off"]);
    command.arg("--input").arg(scene.path("input")).arg("--output").arg(scene.path("second"));
    command.args(["--interval", "50ms"]).envs(S3Server::vars(at));
    let second = scene.start(&mut command).wait(LIMIT).unwrap().expect("it comes to its end");
    assert!(second.status.success(), "{}", second.errors);
    assert!(lines(&scene.path("second")) > 0, "the second job wrote nothing");
    assert!(lines(&scene.path("second")) < lines(&scene.path("output")), "it began from nothing");
}

/// The lines of all files of a directory.
fn lines(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let parts = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("part-"));
    parts.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum()
}

/// The page for Prometheus.
fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn a_rival_on_s3_fences_the_first() {
    let mut seeded = Seeded::announced("a_rival_on_s3_fences_the_first", 18);
    let server = S3Server::start();
    let mut scene = scene(S3Server::vars(server.address()), &mut seeded);
    let mut command = scene.paced_command(2, WORDS_PER_SECOND);
    let first = live(&mut scene, server.address(), &mut command);
    // No lock file stands beside objects: whoever starts takes over.
    let mut command = scene.paced_command(1, WORDS_PER_SECOND);
    let mut second = live(&mut scene, server.address(), &mut command);
    let first = first.wait(LIMIT).unwrap();
    let first = first.unwrap_or_else(|| scene.fail("the first process goes on beside the second"));
    assert_eq!(first.status.code(), Some(FENCED), "{}", first.errors);
    assert!(second.is_running().unwrap(), "neither goes on: {}", second.errors().unwrap());
    scene.look();
    assert!(second.kill().unwrap());
    scene.finish(2);
}

#[test]
fn a_server_that_creates_twice_is_refused() {
    let mut seeded = Seeded::announced("a_server_that_creates_twice_is_refused", 19);
    let server = S3Server::start();
    for (treatment, what) in [
        (Treatment::Without("if-none-match"), "creates an object that exists already"),
        (Treatment::LookFirst, "lets several win who create one object at the same moment"),
    ] {
        let unfit = S3Proxy::start(server.address(), move |request| {
            if request.is_conditional() { treatment.clone() } else { Treatment::Pass }
        });
        let mut scene = scene(S3Server::vars(unfit.address()), &mut seeded);
        let mut command = scene.command(2);
        let ended = scene.start(&mut command).wait(LIMIT).unwrap().expect("it is refused");
        assert_eq!(ended.status.code(), Some(UNAVAILABLE), "{}", ended.errors);
        let line = ended.errors.lines().last().unwrap();
        for expected in [JOB, what, "use another store"] {
            assert!(line.contains(expected), "{line}");
        }
        assert!(!scene.path("output").exists() || lines(&scene.path("output")) == 0);
        // Neither a history nor the probe is left behind.
        let left = run(server.address(), &["snapshots", JOB]);
        assert!(
            String::from_utf8_lossy(&left.stderr).contains("neither checkpoints nor a savepoint"),
            "{left:?}"
        );
    }
    let refused = run(server.address(), &["snapshots", "s3://tidegate-none/x"]);
    assert_eq!(refused.status.code(), Some(UNAVAILABLE));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("make the bucket") && errors.lines().count() == 1, "{errors}");
}

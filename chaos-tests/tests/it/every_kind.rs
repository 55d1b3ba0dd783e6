//! One behaviour, whatever holds the state: the word count and a job with every kind of state write the same and end in
//! the same state, to the byte, on all backends, killed or not. The killed ones change backend and parallelism at every
//! restore; `memory`, whose checkpoints die with its process, has its tasks fail instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use env::FaultPoint;
use serde_json::Value;
use tidegate_chaos_tests::{
    Expected, Life, Lines, Scene, Seeded, Stage, await_answer, expected, rest, stage::BACKENDS,
};

/// In this order parallelisms change. With three backends, twelve lives see each with each.
const PARALLELISMS: [u64; 4] = [1, 2, 4, 3];
const KILLS: usize = 12;
const EVENTS: u64 = 30_000;
/// All events last longer than all lives but the last one, unless the machine is very slow.
const EVENTS_PER_SECOND: u64 = 1_000;
/// So many kills at the least come while events flow.
const KILLS_IN_FLOW: usize = 8;
/// A life completes so many checkpoints before it is killed.
const CHECKPOINTS: u64 = 3;
const TEXT_BYTES: u64 = 12 << 20;
const WORDS_PER_SECOND: u64 = 100_000;
/// A kill comes up to this long after a checkpoint was seen: three checkpoint intervals.
const DELAY_MAX_MS: u64 = 150;
/// A stop fails where a task fails meanwhile; one of so many does not.
const STOPS_MAX: usize = 30;
/// Within this time a life completes a checkpoint, or has written all.
const LIFE_LIMIT: Duration = Duration::from_secs(300);
/// Each so many cuts at barriers fail their task, where tasks fail instead of processes: several checkpoints complete between
/// two failures, and dozens are taken.
const CUTS_BETWEEN_FAILURES: u64 = 41;
/// So often that a slow machine sees several failures, too.
const RESTARTS_LEAST: u64 = 3;
const EVENTS_WITH_FAILURES: u64 = 4_000;
const WORDS_WITH_FAILURES: u64 = 300_000;
/// Restarted at once, and for ever.
const RESTART: &str = "fixed-delay:1000000:10ms";

/// The job with every kind of state, and what it must write.
struct Kinds {
    stage: Stage,
    lines: Lines,
    counts: Lines,
}

impl Kinds {
    fn new(expected: &Expected) -> Self {
        let stage = Stage::new(Path::new(env!("CARGO_BIN_EXE_all_kinds")));
        let counts = expected.counts.iter();
        let counts: BTreeSet<_> =
            counts.flat_map(|(key, count)| (1..=*count).map(move |nth| format!("{key} {nth}"))).collect();
        Self {
            lines: Lines::over(&stage.path("output/lines"), expected.lines.clone()),
            counts: Lines::over(&stage.path("output/counts"), counts),
            stage,
        }
    }

    fn command(&self, backend: &str, parallelism: u64, rest: &str) -> Command {
        let mut command = self.stage.command(backend, parallelism, rest);
        command.arg("--events").arg(EVENTS.to_string());
        command.arg("--output").arg(self.stage.path("output"));
        command.env("TIDEGATE_FAULT_LOG", self.stage.path("hits"));
        // Cells are handled a few at a time; a few more stay in memory than where there is one state.
        command.args(["--set", "snapshot.slice-cells=64", "--set", "state.memory=1MiB"]);
        // What changes is most of what there is: runs are merged all the same, and not replaced.
        command.args(["--set", "snapshot.replace-from=64MiB"]);
        command
    }

    /// Holds what was published to what is expected.
    fn look(&mut self) {
        if let Err(broken) = self.lines.look().and_then(|()| self.counts.look()) {
            self.stage.fail(&broken);
        }
    }

    fn missing(&self) -> usize {
        self.lines.missing() + self.counts.missing()
    }

    /// Lets a life write all that is missing, and stops it. The digests of what it leaves, and its last line.
    fn finish(&mut self, mut command: Command, address: &str) -> (String, String) {
        let mut life = self.stage.start(&mut command);
        let written = await_answer(LIFE_LIMIT, || {
            self.look();
            thread::sleep(Duration::from_millis(20));
            Ok::<_, std::io::Error>((self.missing() == 0 || !life.is_running()?).then_some(()))
        });
        if written.unwrap().is_none() || self.missing() > 0 {
            let first = self.lines.first_missing().or_else(|| self.counts.first_missing());
            let why = format!("{} lines did not come, among them {first:?}", self.missing());
            self.stage.fail(&why);
        }
        let savepoint = self.stop(address);
        let ended = life.wait(LIFE_LIMIT).unwrap().expect("it has been stopped");
        assert!(ended.status.success(), "{}", ended.errors);
        self.look();
        (digests(&savepoint), ended.output)
    }

    /// Stops the job, with a savepoint. Where tasks fail, so may the last checkpoint, and then the job goes on.
    fn stop(&mut self, address: &str) -> PathBuf {
        let mut why = String::new();
        for tried in 0..STOPS_MAX {
            let savepoint = self.stage.path(&format!("savepoint-{tried}"));
            let stop = ["stop", "all-kinds", "--address", address, "--savepoint"];
            let stopped = Command::new(super::tidegate()).args(stop).arg(&savepoint).output().unwrap();
            if stopped.status.success() {
                return savepoint;
            }
            why = String::from_utf8_lossy(&stopped.stderr).into_owned();
            // There is none to stop between two attempts.
            thread::sleep(Duration::from_millis(20));
        }
        self.stage.fail(&format!("it cannot be stopped: {why}"))
    }

    /// How often each point was passed.
    fn passed(&self) -> BTreeMap<String, u64> {
        hits(&self.stage.path("hits"))
    }
}

fn hits(log: &Path) -> BTreeMap<String, u64> {
    let mut passed = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        *passed.entry(line.to_owned()).or_default() += 1;
    }
    passed
}

/// What lives in each state of a snapshot, and the digest of all, as `inspect --exact` says it; of lists that belong to
/// operators, how many elements there are.
fn digests(place: &Path) -> String {
    let shown =
        Command::new(super::tidegate()).arg("inspect").arg(place).args(["--exact", "--json"]).output();
    let shown = shown.unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut text = format!("all {}\n", shown["digest"].as_str().unwrap());
    for operator in shown["operators"].as_array().unwrap() {
        // A copy of the broadcast state is in each subtask, and how splits are cut is the source's affair.
        for state in operator["states"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|state| state["name"] == "held" || !state["live"].is_null())
        {
            text +=
                &format!("{} {} {} {}\n", operator["uid"], state["name"], state["elements"], state["live"]);
        }
    }
    text
}

/// Awaits some checkpoints of this life, waits a little longer, and kills it.
fn kill(stage: &mut Stage, mut life: Life, seeded: &mut Seeded) {
    let before = stage.history().checkpoint;
    let completed = await_answer(LIFE_LIMIT, || {
        let enough = stage.history().checkpoint >= before + CHECKPOINTS;
        Ok::<_, std::io::Error>((enough || !life.is_running()?).then_some(enough))
    });
    if completed.unwrap() != Some(true) {
        stage.fail("a life ended, or took no checkpoints");
    }
    thread::sleep(Duration::from_millis(seeded.within(0..DELAY_MAX_MS)));
    if !life.kill().unwrap() {
        stage.fail("a life ended before it was killed");
    }
}

/// The backends and parallelisms of lives, one after the other: each backend at each parallelism, however many there are.
fn cycle() -> impl Iterator<Item = (&'static str, u64)> {
    let (backends, parallelisms) = (BACKENDS.len(), PARALLELISMS.len());
    let pairs_again =
        (1..).map(|times| times * backends).find(|lives| lives % parallelisms == 0).unwrap_or(1);
    (0..).map(move |life: usize| {
        (BACKENDS[life % backends], PARALLELISMS[(life + life / pairs_again) % parallelisms])
    })
}

/// At least so often each of these was passed.
fn assert_passed(passed: &BTreeMap<String, u64>, least: u64, points: &[FaultPoint]) {
    for point in points {
        let times = passed.get(point.name()).copied().unwrap_or_default();
        assert!(times >= least, "{} was passed {times} times only: {passed:?}", point.name());
    }
}

#[test]
fn every_kind_of_state_is_the_same_on_all_backends_through_kills() {
    let mut seeded = Seeded::announced("every_kind_of_state_is_the_same_on_all_backends_through_kills", 4);
    let expected = expected(EVENTS);
    assert!(
        expected.expired > EVENTS / 2 && expected.alarms > EVENTS / 10,
        "nothing expires, or nobody is quiet"
    );
    let mut killed = Kinds::new(&expected);
    let mut in_flow = 0;
    for (backend, parallelism) in cycle().take(KILLS) {
        let mut command = killed.command(backend, parallelism, "off");
        command.args(["--set", &format!("source.records-per-second={EVENTS_PER_SECOND}")]);
        let life = killed.stage.start(&mut command);
        kill(&mut killed.stage, life, &mut seeded);
        killed.look();
        in_flow += usize::from(killed.missing() > 1_000);
    }
    assert!(in_flow >= KILLS_IN_FLOW, "only {in_flow} kills came before all events were read");
    let address = rest::free_address().unwrap().to_string();
    let (backend, parallelism) = cycle().nth(KILLS).unwrap();
    let (digests, _) = killed.finish(killed.command(backend, parallelism, &address), &address);
    assert!(digests.contains(&format!(" \"held\" {} ", expected.held)), "{digests}");
    let passed = killed.passed();
    println!("passed through {KILLS} kills: {passed:?}");
    let often =
        [FaultPoint::MergeAfter, FaultPoint::DeleteAfter, FaultPoint::RestoreAmid, FaultPoint::DrainBefore];
    assert_passed(&passed, KILLS as u64, &often);
    if BACKENDS.len() > 1 {
        assert_passed(&passed, 5, &[FaultPoint::StoreLoadAfter, FaultPoint::DeadStateAfter]);
        assert_passed(&passed, 1_000, &[FaultPoint::StoreReadBefore, FaultPoint::StoreWriteAfter]);
    }
    for (backend, parallelism) in BACKENDS.iter().zip(PARALLELISMS.into_iter().rev().cycle()) {
        let mut whole = Kinds::new(&expected);
        let address = rest::free_address().unwrap().to_string();
        let found = whole.finish(whole.command(backend, parallelism, &address), &address).0;
        assert_eq!(found, digests, "{backend} without kills");
    }
    for (backend, parallelism) in PARALLELISMS
        .into_iter()
        .map(|it| ("memory", it))
        .chain(BACKENDS.iter().copied().skip(1).zip([3, 2].into_iter().cycle()))
    {
        let mut failing = Kinds::new(&expected);
        let address = rest::free_address().unwrap().to_string();
        let mut command = failing.command(backend, parallelism, &address);
        fail_tasks(&mut command, EVENTS_WITH_FAILURES);
        let (found, said) = failing.finish(command, &address);
        assert_eq!(found, digests, "{backend} with failing tasks");
        assert_restarts(&said, backend);
        assert_passed(&failing.passed(), 10, &[FaultPoint::MergeAfter, FaultPoint::DeleteAfter]);
    }
}

/// Tasks fail again and again, and are restarted at once.
fn fail_tasks(command: &mut Command, records_per_second: u64) {
    command.env("TIDEGATE_FAULT", format!("{}%{CUTS_BETWEEN_FAILURES}", FaultPoint::CutAfter.name()));
    command.args(["--restart", RESTART]);
    command.args(["--set", &format!("source.records-per-second={records_per_second}")]);
}

/// The last line of a job says that it was restarted often.
fn assert_restarts(said: &str, what: &str) {
    let restarts = said.split(", ").find_map(|part| part.strip_suffix(" restarts")?.parse::<u64>().ok());
    println!("{what}: {}", said.trim_end());
    assert!(restarts >= Some(RESTARTS_LEAST), "{what} was restarted too seldom: {said}");
}

#[test]
fn the_word_count_is_the_same_on_all_backends_through_kills() {
    let mut seeded = Seeded::announced("the_word_count_is_the_same_on_all_backends_through_kills", 5);
    let text = seeded.clone();
    let scene = || Scene::new(super::word_count(), 4, TEXT_BYTES, &mut text.clone());
    let mut killed = scene();
    for (backend, parallelism) in cycle().take(KILLS) {
        let mut command = killed.command_on(backend, parallelism, "off");
        command.args(["--set", &format!("source.records-per-second={WORDS_PER_SECOND}")]);
        command.env("TIDEGATE_FAULT_LOG", killed.path("hits"));
        let life = killed.start(&mut command);
        kill(killed.stage_mut(), life, &mut seeded);
        killed.look();
    }
    let (backend, parallelism) = cycle().nth(KILLS).unwrap();
    killed.finish_by(&mut killed.command_on(backend, parallelism, "off"));
    let passed = hits(&killed.path("hits"));
    let often = [FaultPoint::MergeAfter, FaultPoint::DeleteAfter, FaultPoint::RestoreAmid];
    assert_passed(&passed, KILLS as u64 / 2, &often);
    let right = digests(&killed.path("checkpoints"));
    for (backend, parallelism) in BACKENDS.iter().zip(PARALLELISMS.into_iter().rev().cycle()) {
        let mut whole = scene();
        whole.finish_by(&mut whole.command_on(backend, parallelism, "off"));
        assert_eq!(digests(&whole.path("checkpoints")), right, "{backend} without kills");
    }
    // A job that is finished leaves no state in memory: what it writes is compared, the digest of its counts above.
    for parallelism in PARALLELISMS {
        let mut failing = scene();
        let mut command = failing.command_on("memory", parallelism, "off");
        fail_tasks(&mut command, WORDS_WITH_FAILURES);
        let said = failing.finish_by(&mut command);
        assert_restarts(&said, "memory");
    }
}

//! A damaged newest checkpoint: the job falls back to the one before it where every sink proves that nothing of the
//! damaged one was committed, and refuses with the choices where one has. Whatever dies on the way, the output is right.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use checkpoint::{
    history::{self, CompletedCheckpoint, Standing},
    manifest,
};
use env::{
    Env, FaultPoint,
    sim::{Control, FaultAction, Options},
};
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    cluster::attempt::Ask,
    prelude::*,
    record::Batch,
};

use crate::{
    counting::{KEYS, assert_gapless, counting},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Death, Kind, Row, assert_says, live, run, simulate, start, with_settings},
};

const SETTINGS: [(&str, &str); 4] = [
    ("checkpoints.url", "/checkpoints"),
    ("checkpoints.interval", "200ms"),
    ("parallelism", "2"),
    ("restart", "fixed-delay:3:100ms"),
];

fn numbers() -> Numbers {
    Numbers::new(2, 600).paced(3, Duration::from_millis(10))
}

fn job(ledger: &Ledger<Row>) -> Job {
    counting(&numbers(), &SETTINGS, ledger)
}

/// The row of each number, as a run without failures writes it.
fn rows() -> Vec<Row> {
    let row = |(number, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
    numbers().all().map(row).collect()
}

fn assert_exact(ledger: &Ledger<Row>) {
    assert_eq!(ledger.committed(), counted(rows()));
    assert_gapless(ledger, 1_200);
}

async fn standing(env: &Env) -> Standing {
    let newest = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap().unwrap();
    newest.standing.clone()
}

/// The files of a checkpoint, its manifest apart.
async fn files(env: &Env, completed: &CompletedCheckpoint) -> BTreeSet<String> {
    let store = env.open_store("/checkpoints").unwrap();
    let manifest = manifest::read(env, &*store, &completed.manifest).await.unwrap();
    manifest.files().into_iter().map(|file| file.path.clone()).collect()
}

/// What is damaged of the newest checkpoint.
#[derive(Clone, Copy, Debug)]
enum Part {
    Manifest,
    /// A file that the checkpoint before it does not have.
    Run,
}

/// Changes one byte of the newest checkpoint; returns the file and what stood before it.
async fn damage(sim: &Control, env: &Env, part: Part) -> (String, CompletedCheckpoint) {
    let standing = standing(env).await;
    let [.., before, newest] = standing.completed.as_slice() else { panic!("{:?}", standing.completed) };
    let file = match part {
        Part::Manifest => newest.manifest.path.clone(),
        Part::Run => {
            let shared = files(env, before).await;
            files(env, newest).await.into_iter().find(|file| !shared.contains(file)).unwrap()
        }
    };
    let path = Path::new("/checkpoints").join(&file);
    sim.disk()
        .damage(&path, |bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1
        })
        .unwrap();
    (file, before.clone())
}

/// Changes one byte of one of these checkpoints: of a file that the ones before it do not have.
async fn damage_of(
    sim: &Control,
    env: &Env,
    completed: &[CompletedCheckpoint],
    of: &CompletedCheckpoint,
    part: Part,
) {
    let file = match part {
        Part::Manifest => of.manifest.path.clone(),
        Part::Run => {
            let mut own = files(env, of).await;
            for before in completed.iter().filter(|it| it.checkpoint < of.checkpoint) {
                let shared = files(env, before).await;
                own.retain(|file| !shared.contains(file));
            }
            own.into_iter().next().unwrap()
        }
    };
    mend(sim, &file);
}

/// A job that dies when its last checkpoints are in the history and nothing of them is committed.
async fn leave_uncommitted(sim: &Control, env: &Env, ledger: &Ledger<Row>) {
    let (process, _handle) = start(sim, job(ledger)).await.unwrap();
    env.sleep(Duration::from_millis(500)).await;
    ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
    env.sleep(Duration::from_millis(500)).await;
    process.kill();
    ledger.set_moods(Moods::default());
    assert_eq!(standing(env).await.unconfirmed.len(), 1);
}

#[test]
fn what_no_sink_has_committed_is_fallen_back_past() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (_file, before) = damage(sim, &env, part).await;
            let (_process, handle) = start(sim, job(&ledger)).await.unwrap();
            env.sleep(Duration::from_millis(100)).await;
            let from = handle.control().view().started_from;
            assert!(from.contains(&format!("continues from checkpoint {} ", before.checkpoint)), "{from}");
            assert_eq!(handle.join().await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

#[test]
fn what_a_sink_has_committed_is_not() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
            env.sleep(Duration::from_millis(950)).await;
            process.kill();
            assert!(standing(&env).await.unconfirmed.is_empty());
            let committed = ledger.committed();
            let (file, before) = damage(sim, &env, part).await;
            let error = run(sim, job(&ledger)).await.unwrap_err();
            let older = format!("--from /checkpoints@{}", before.checkpoint);
            let texts =
                [&*file, "does not fall back by itself", "sink out has committed", "put the file back"];
            let fresh = "start fresh with another checkpoint directory and another output";
            assert_says(&error, ErrorKind::Corrupt, &[&texts[..], &[&*older, fresh]].concat());
            assert_eq!(ledger.committed(), committed);
            assert_eq!(standing(&env).await.revoked, []);
        });
    }
}

/// The flags that an error recommends, as settings: `--from X --flag`.
fn recommended(error: &Error) -> Vec<(String, String)> {
    let text = error.to_string();
    let (_, flags) = text.split_once(" with --from ").unwrap_or_else(|| panic!("{text}"));
    let (flags, _) = flags.split_once(" (").unwrap();
    let mut words = flags.split(' ');
    let from = ("from".to_owned(), words.next().unwrap().to_owned());
    let flag = |word: &str| (word.strip_prefix("--").unwrap().to_owned(), "true".to_owned());
    std::iter::once(from).chain(words.map(flag)).collect()
}

/// Whatever of the newest checkpoints is damaged, what the error says a start can be made from is whole, and the start
/// needs no other flag.
#[test]
fn the_checkpoint_that_is_recommended_is_whole_and_comes_with_all_flags() {
    for (newest, second, is_pending) in [
        (Part::Manifest, None, false),
        (Part::Run, Some(Part::Run), false),
        (Part::Run, Some(Part::Manifest), false),
        (Part::Manifest, Some(Part::Manifest), true),
    ] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            if is_pending {
                leave_uncommitted(sim, &env, &ledger).await;
            } else {
                let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
                env.sleep(Duration::from_millis(950)).await;
                process.kill();
            }
            let completed = standing(&env).await.completed;
            let [.., third, before, last] = completed.as_slice() else { panic!("{completed:?}") };
            damage_of(sim, &env, &completed, last, newest).await;
            let mut expected = before;
            if let Some(part) = second {
                damage_of(sim, &env, &completed, expected, part).await;
                expected = third;
            }
            let error = run(sim, job(&ledger)).await.unwrap_err();
            let whole = format!("checkpoint {}, the newest before it that is whole", expected.checkpoint);
            assert_says(&error, ErrorKind::Corrupt, &[&whole]);
            let flags = recommended(&error);
            assert_eq!(flags.len(), if is_pending { 3 } else { 2 }, "{error}");
            let flags: Vec<_> = flags.iter().map(|(name, value)| (&**name, &**value)).collect();
            let choice = [&SETTINGS[..], &flags].concat();
            assert_eq!(run(sim, counting(&numbers(), &choice, &ledger)).await.unwrap().how, "finished");
            assert!(rows().iter().all(|row| ledger.committed().contains_key(row)), "nothing is missing");
        });
    }
}

#[test]
fn where_nothing_before_is_whole_nothing_is_recommended() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
        env.sleep(Duration::from_millis(950)).await;
        process.kill();
        let completed = standing(&env).await.completed;
        for each in &completed {
            damage_of(sim, &env, &completed, each, Part::Manifest).await;
        }
        let error = run(sim, job(&ledger)).await.unwrap_err();
        let texts = [
            "no checkpoint before it is whole",
            "tidegate verify /checkpoints",
            "so start fresh with another",
        ];
        assert_says(&error, ErrorKind::Corrupt, &texts);
        assert!(!error.to_string().contains("/checkpoints@"), "{error}");
    });
}

/// Undoes [`damage`], or does the same to another file.
fn mend(sim: &Control, file: &str) {
    let path = Path::new("/checkpoints").join(file);
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    sim.disk().damage(&path, flip).unwrap();
}

/// Sinks are asked before the start record and after it: what a process commits that this start fences only then.
#[test]
fn what_a_rival_commits_meanwhile_is_noticed_and_nothing_is_revoked() {
    for (questions, part) in [(1, Part::Manifest), (1, Part::Run), (2, Part::Manifest), (2, Part::Run)] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (file, before) = damage(sim, &env, part).await;
            let records = history::open(&env, env.open_store("/checkpoints").unwrap()).await.unwrap();
            ledger.commit_late(questions);
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let older = format!("--from /checkpoints@{}", before.checkpoint);
                let texts =
                    [&*file, "does not fall back", "sink out has committed", "put the file back", &older];
                assert_says(&error, ErrorKind::Corrupt, &texts);
            }
            let standing = standing(&env).await;
            assert_eq!((standing.revoked.len(), standing.unconfirmed.len()), (0, 1));
            // The second question comes after the start record, and only one start got so far.
            let starts = standing.attempt.id.0 - records.unwrap().standing.attempt.id.0;
            assert_eq!(starts > 0, questions == 2, "{starts}");
            mend(sim, &file);
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

/// After the second question nobody can help it any more: the user decides, and the job can be started.
#[test]
fn what_a_rival_commits_at_the_last_moment_is_told_with_choices_that_work() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (_file, before) = damage(sim, &env, part).await;
            ledger.commit_late(3);
            ledger.leave_behind();
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let choice = format!("--from /checkpoints@{} --accept-foreign-output", before.checkpoint);
                let texts =
                    ["sink out", "was revoked", &*choice, "start fresh with another checkpoint directory"];
                assert_says(&error, ErrorKind::Conflict, &texts);
                // Without its manifest nobody knows what is to be revoked: all that is not committed was thrown away.
                let left = usize::from(matches!(part, Part::Run));
                assert_eq!(ledger.pending(), left, "{part:?}: what is left is for the user to decide on");
            }
            let from = format!("/checkpoints@{}", before.checkpoint);
            let choice = [&SETTINGS[..], &[("from", &*from), ("accept-foreign-output", "true")]].concat();
            assert_eq!(run(sim, counting(&numbers(), &choice, &ledger)).await.unwrap().how, "finished");
            assert!(rows().iter().all(|row| ledger.committed().contains_key(row)), "nothing is missing");
        });
    }
}

/// A sink may answer a revocation by moving its marker: nothing older can be committed after that.
#[test]
fn what_is_pending_before_the_damaged_checkpoint_is_committed_before_that_is_revoked() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let two = [("checkpoints.interval", "100ms"), ("checkpoints.max-concurrent", "2")];
        let settings = [&SETTINGS[..], &two].concat();
        let (process, _handle) = start(sim, counting(&numbers(), &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        // The next one is prepared while the sinks still work at the one before it.
        ledger.set_moods(Moods { retry: 1.0, latency: Duration::from_millis(300), ..Moods::default() });
        env.sleep(Duration::from_millis(1_500)).await;
        process.kill();
        ledger.set_moods(Moods::default());
        assert!(standing(&env).await.unconfirmed.len() > 1);
        damage(sim, &env, Part::Run).await;
        assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
        assert_exact(&ledger);
    });
}

/// Another attempt may have been one of another program, with other sinks.
#[test]
fn a_checkpoint_of_another_attempt_does_not_tell_the_sinks_of_an_unreadable_one() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        process.kill();
        // Of the second attempt there is one checkpoint, of which nothing is committed.
        let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
        env.sleep(Duration::from_millis(100)).await;
        ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
        env.sleep(Duration::from_millis(500)).await;
        process.kill();
        ledger.set_moods(Moods::default());
        let standing = standing(&env).await;
        let [.., before, newest] = standing.completed.as_slice() else { panic!("{standing:?}") };
        assert!(before.attempt < newest.attempt && standing.unconfirmed == [newest.checkpoint]);
        let (file, _before) = damage(sim, &env, Part::Manifest).await;
        let error = run(sim, job(&ledger)).await.unwrap_err();
        let why = format!("no other checkpoint of attempt {} tells which sinks", newest.attempt);
        assert_says(&error, ErrorKind::Corrupt, &[&file, "does not fall back", &why]);
        mend(sim, &file);
        assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
        assert_exact(&ledger);
    });
}

/// A job with one more sink, or without it.
fn with_audit(ledger: &Ledger<Row>, audit: Option<&Ledger<Row>>) -> Job {
    let job = with_settings(Job::new("subject"), &SETTINGS).unwrap();
    let job = if audit.is_none() { job.set("allow-dropped-state", "audit").unwrap() } else { job };
    let counts = job
        .source("numbers", numbers())
        .key_by(|number| number % KEYS)
        .count("count")
        .map(|(key, count)| Row(Kind::Count, key, count));
    if let Some(audit) = audit {
        counts.clone().sink("audit", audit.clone());
    }
    counts.sink("out", ledger.clone());
    job
}

#[test]
fn a_sink_that_the_program_no_longer_has_proves_nothing() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let (ledger, audit) = (Ledger::default(), Ledger::default());
            let (process, _handle) = start(sim, with_audit(&ledger, Some(&audit))).await.unwrap();
            env.sleep(Duration::from_millis(500)).await;
            ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
            audit.set_moods(Moods { retry: 1.0, ..Moods::default() });
            env.sleep(Duration::from_millis(500)).await;
            process.kill();
            ledger.set_moods(Moods::default());
            audit.set_moods(Moods::default());
            let (file, _before) = damage(sim, &env, part).await;
            let error = run(sim, with_audit(&ledger, None)).await.unwrap_err();
            assert_says(&error, ErrorKind::Corrupt, &[&file, "sink audit cannot prove"]);
            assert_eq!(standing(&env).await.revoked, []);
            assert_eq!(run(sim, with_audit(&ledger, Some(&audit))).await.unwrap().how, "finished");
            for ledger in [&ledger, &audit] {
                assert_exact(ledger);
            }
        });
    }
}

#[test]
fn a_crash_anywhere_in_the_fall_back_changes_nothing() {
    let mut crashes = 0;
    for change in 1..=60 {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let part = if change % 2 == 0 { Part::Run } else { Part::Manifest };
            damage(sim, &env, part).await;
            let (process, own) = sim.process("job");
            sim.disk().crash_at(change);
            match live(job(&ledger), &own, &process).await {
                Death::Killed => crashes += 1,
                Death::Ended(ended) => drop(ended.unwrap()),
            }
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished", "change {change}");
            assert_exact(&ledger);
        });
    }
    assert_eq!(crashes, 60);
}

/// A sink that keeps no promise but to write everything.
#[derive(Clone, Default)]
pub(crate) struct Plain(Arc<Mutex<BTreeSet<Row>>>);

impl Sink for Plain {
    type In = Row;
    type Writer = Self;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl PlainWriter for Plain {
    type In = Row;

    async fn write(&mut self, mut batch: Batch<Row>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.0.lock().unwrap().insert(record.value);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn without_exactly_once_sinks_nothing_stands_in_the_way() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let sink = Plain::default();
            let job = || {
                let job = with_settings(Job::new("subject"), &SETTINGS).unwrap();
                job.source("numbers", numbers())
                    .key_by(|number| number % KEYS)
                    .count("count")
                    .map(|(key, count)| Row(Kind::Count, key, count))
                    .sink("out", sink.clone());
                job
            };
            let (process, _handle) = start(sim, job()).await.unwrap();
            env.sleep(Duration::from_millis(950)).await;
            process.kill();
            let (_file, before) = damage(sim, &env, part).await;
            if let Part::Run = part {
                // No restart is left, and none is made; the user is told what can be done.
                let error = run(sim, job().set("restart", "none").unwrap()).await.unwrap_err();
                assert_says(&error, ErrorKind::Corrupt, &["restart strategy is none"]);
            }
            let (_process, handle) = start(sim, job()).await.unwrap();
            let control = handle.control().clone();
            assert_eq!(handle.join().await.unwrap().how, "finished");
            let from = control.view().started_from;
            assert!(from.contains(&format!("continues from checkpoint {} ", before.checkpoint)), "{from}");
            // A damaged manifest is found by the start itself, a damaged run by the attempt that restores it.
            assert_eq!(control.view().restarts, u32::from(matches!(part, Part::Run)), "{part:?}");
            assert_eq!(control.view().failures.len(), control.view().restarts as usize);
            assert_eq!(*sink.0.lock().unwrap(), rows().into_iter().collect());
        });
    }
}

/// What a start reads of the newest checkpoint before it may fence anybody: of a checkpoint whose sinks have yet to
/// commit, what would be fallen back past; of any other, the manifest.
#[test]
fn a_start_reads_no_more_than_what_it_could_fall_back_past() {
    for unconfirmed in [false, true] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            if unconfirmed {
                leave_uncommitted(sim, &env, &ledger).await;
            } else {
                let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
                env.sleep(Duration::from_millis(950)).await;
                process.kill();
            }
            let standing = standing(&env).await;
            assert_eq!(standing.unconfirmed.len(), usize::from(unconfirmed));
            let [.., before, newest] = standing.completed.as_slice() else { panic!("{standing:?}") };
            let (older, all) = (files(&env, before).await, files(&env, newest).await);
            let read = |file: &str| {
                let path = Path::new("/checkpoints").join(file);
                (sim.disk().bytes_read(&path).unwrap(), env.files().metadata(&path).unwrap().unwrap().len)
            };
            let earlier: Vec<_> = all.iter().map(|file| read(file).0).collect();
            sim.arm(FaultPoint::StartRecordBefore, 1, FaultAction::Kill);
            let (process, own) = sim.process("job");
            assert!(matches!(live(job(&ledger), &own, &process).await, Death::Killed));
            let (mut once, mut never) = (0, 0);
            for (file, earlier) in all.iter().zip(earlier) {
                let (now, len) = read(file);
                let new = !older.contains(file);
                let expected = if unconfirmed && new { len } else { 0 };
                assert_eq!(now - earlier, expected, "{file}");
                *(if expected > 0 { &mut once } else { &mut never }) += 1;
            }
            assert!(never > 0 && (once > 0) == unconfirmed, "{once} read, {never} not");
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

/// Damage that the checkpoint before shares cannot be fallen back past: it is found by the restore.
#[test]
fn damage_that_the_checkpoint_before_shares_is_found_all_the_same() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        leave_uncommitted(sim, &env, &ledger).await;
        let standing = standing(&env).await;
        let [.., before, newest] = standing.completed.as_slice() else { panic!("{standing:?}") };
        let shared: Vec<_> =
            files(&env, newest).await.intersection(&files(&env, before).await).cloned().collect();
        let file = shared.first().expect("a run that both have");
        mend(sim, file);
        let error = run(sim, job(&ledger)).await.unwrap_err();
        assert_says(&error, ErrorKind::Corrupt, &[file, "put the file back"]);
        mend(sim, file);
        assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
        assert_exact(&ledger);
    });
}

/// What would be restored instead is read whole before anything is revoked.
#[test]
fn a_checkpoint_that_is_damaged_as_well_is_not_fallen_back_to() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (newest, before) = damage(sim, &env, part).await;
            let older = files(&env, &before).await.pop_first().unwrap();
            mend(sim, &older);
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let worse = format!("checkpoint {} is damaged as well: {older}", before.checkpoint);
                assert_says(&error, ErrorKind::Corrupt, &[&newest, &worse, "does not fall back"]);
            }
            assert_eq!(standing(&env).await.revoked, []);
            mend(sim, &newest);
            mend(sim, &older);
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

/// To tell the choices of a job that has failed, a whole checkpoint is read: nobody who cancels waits for that.
#[test]
fn a_cancellation_is_heard_while_a_failed_job_examines_its_checkpoint() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
        env.sleep(Duration::from_millis(950)).await;
        process.kill();
        let (file, _before) = damage(sim, &env, Part::Run).await;
        let last_try = || job(&ledger).set("restart", "none").unwrap();
        for cancel in [false, true] {
            sim.set_options(Options { blocking_delay: Duration::from_secs(60), ..sim.options() });
            let (process, handle) = start(sim, last_try()).await.unwrap();
            while handle.control().view().failures.is_empty() {
                env.sleep(Duration::from_millis(1)).await;
            }
            let since = env.now();
            let cancelled = if cancel { Some(handle.control().ask(Ask::Cancel).await) } else { None };
            let error = handle.join().await.unwrap_err();
            process.kill();
            sim.set_options(Options { blocking_delay: Duration::ZERO, ..sim.options() });
            assert_says(&error, ErrorKind::Corrupt, &[&file]);
            assert_eq!(error.to_string().contains("put the file back"), !cancel, "{error}");
            assert_eq!(env.now().since(since) < Duration::from_millis(10), cancel);
            let answer = cancelled.map(|answer| answer.unwrap_err().to_string());
            assert_eq!(answer, cancel.then(|| error.to_string()));
        }
    });
}

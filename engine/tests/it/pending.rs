//! What a completed checkpoint has pending at its sinks when the job dies: committed once by a start that goes on, and
//! neither written twice, nor given up without a word, nor left to a sink that the job no longer has.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use checkpoint::{history, manifest};
use env::{
    Env, FaultPoint,
    sim::{Control, FaultAction},
};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    counting::KEYS,
    falling_back::Plain,
    full_disk::image,
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const ABANDON: (&str, &str) = ("abandon-pending", "true");
const ACCEPT: (&str, &str) = ("accept-foreign-output", "true");

fn numbers() -> Numbers {
    Numbers::new(2, 300).paced(3, Duration::from_millis(10))
}

/// What has the name `audit`.
enum Audit {
    TwoPhase(Ledger<Row>),
    Plain,
    Absent,
}

fn job(out: &Ledger<Row>, audit: &Audit, more: &[(&str, &str)]) -> Job {
    let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "off")];
    let job = with_settings(Job::new("subject"), &[&settings, more].concat()).unwrap();
    let rows = job.source("numbers", numbers());
    let rows = rows.key_by(|number| number % KEYS).count("count");
    let rows = rows.map(|(key, count)| Row(Kind::Count, key, count));
    match audit {
        Audit::TwoPhase(ledger) => drop(rows.clone().sink("audit", ledger.clone())),
        Audit::Plain => drop(rows.clone().sink("audit", Plain::default())),
        Audit::Absent => {}
    }
    rows.sink("out", out.clone());
    job
}

fn whole() -> BTreeMap<Row, u64> {
    counted(numbers().all().map(|(number, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1)))
}

fn busy(ledger: &Ledger<Row>, is_busy: bool) {
    ledger.set_moods(Moods { retry: f64::from(u8::from(is_busy)), ..Moods::default() });
}

/// The job dies with checkpoint 1 in its history, while the sinks that are busy have not committed it.
async fn die(sim: &Control, env: &Env, job: Job) {
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_millis(500)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    env.sleep(Duration::from_millis(100)).await;
    process.kill();
    let newest = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap().unwrap();
    assert_eq!(newest.standing.unconfirmed.len(), 1);
}

/// Runs `job`, which must be refused with all of these texts, and change nothing.
async fn refused(sim: &Control, env: &Env, job: Job, kind: ErrorKind, texts: &[&str]) {
    let before: BTreeMap<PathBuf, Vec<u8>> = image(env, "/checkpoints");
    let error = run(sim, job).await.unwrap_err();
    assert_says(&error, kind, texts);
    assert!(image(env, "/checkpoints") == before, "something has changed: {error}");
}

fn said(sim: &Control, text: &str) -> usize {
    sim.printed().iter().filter(|(_, line)| line.contains(text)).count()
}

#[test]
fn a_new_line_of_history_does_not_commit_what_the_old_one_left_beside_its_own() {
    let ways: [&[(&str, &str)]; 3] = [&[], &[("from", "none"), ABANDON], &[("from", "none"), ACCEPT]];
    for way in ways {
        simulate(async |sim, env| {
            let out = Ledger::default();
            busy(&out, true);
            die(sim, &env, job(&out, &Audit::Absent, &[])).await;
            busy(&out, false);
            for from in ["none", "/checkpoints@1", "/checkpoints"] {
                let texts = [
                    "checkpoint 1 of another line of history",
                    "not committed yet (1 transaction of sink out)",
                    "--from latest",
                    "--abandon-pending",
                    "--accept-foreign-output",
                ];
                let job = job(&out, &Audit::Absent, &[("from", from)]);
                refused(sim, &env, job, ErrorKind::Conflict, &texts).await;
                assert!(out.committed().is_empty() && out.pending() > 0);
            }
            run(sim, job(&out, &Audit::Absent, way)).await.unwrap();
            let committed = out.committed();
            let twice = committed.values().filter(|times| **times == 2).count();
            if way.contains(&ACCEPT) {
                assert!(twice > 50 && committed.keys().eq(whole().keys()), "{twice}");
            } else {
                assert_eq!(committed, whole());
            }
            let gives_up =
                said(sim, "checkpoint 1: --abandon-pending gives up 1 transaction of sink out, unless");
            assert_eq!(gives_up, usize::from(way.contains(&ABANDON)));
            assert_eq!(out.pending(), 0);
        });
    }
}

#[test]
fn what_a_sink_has_pending_that_is_gone_is_told_before_anything_is_changed() {
    for without in [Audit::Absent, Audit::Plain] {
        simulate(async |sim, env| {
            let (out, audit) = (Ledger::default(), Ledger::default());
            busy(&audit, true);
            die(sim, &env, job(&out, &Audit::TwoPhase(audit.clone()), &[])).await;
            busy(&audit, false);
            let advice = "with --from /checkpoints@1 --abandon-pending --accept-foreign-output";
            let texts = [
                "checkpoint 1 has output of sink audit that is not committed yet",
                "no exactly-once sink of that name: start once with it, or give up",
                "(1 transaction of sink audit, 1 transaction of sink out)",
            ];
            for more in [&[][..], &[ABANDON]] {
                let job = job(&out, &without, more);
                refused(sim, &env, job, ErrorKind::IncompatibleState, &[&texts[..], &[advice]].concat())
                    .await;
            }
            let from = ("from", "/checkpoints@1");
            let job_from = job(&out, &without, &[from, ACCEPT]);
            let texts = [&texts[..], &["with --abandon-pending"]].concat();
            refused(sim, &env, job_from, ErrorKind::IncompatibleState, &texts).await;
            // The advice does what it says.
            run(sim, job(&out, &without, &[from, ABANDON, ACCEPT])).await.unwrap();
            let told =
                "gives up 1 transaction of sink audit, 1 transaction of sink out, unless already committed";
            assert_eq!(said(sim, told), 1);
            assert_eq!(out.committed(), whole());
        });
    }
    simulate(async |sim, env| {
        let (out, audit) = (Ledger::default(), Ledger::default());
        busy(&audit, true);
        let both = Audit::TwoPhase(audit.clone());
        die(sim, &env, job(&out, &both, &[])).await;
        busy(&audit, false);
        // With the sink, a continuation commits it, and gives nothing up.
        let texts = ["a continuation commits what is pending", "--abandon-pending", "--from SNAPSHOT"];
        refused(sim, &env, job(&out, &both, &[ABANDON]), ErrorKind::InvalidJob, &texts).await;
        run(sim, job(&out, &both, &[])).await.unwrap();
        assert_eq!((out.committed(), audit.committed()), (whole(), whole()));
    });
}

/// A checkpoint that completes while the one before it is still being committed lists that one's transactions as well.
/// Once they are confirmed, readers may take them away, and no start looks for them any more.
#[test]
fn what_is_confirmed_is_not_committed_again_by_a_later_checkpoint_that_lists_it() {
    simulate(async |sim, env| {
        let out = Ledger::default();
        // After a second some numbers come at once, and then none for another second.
        let job = || {
            let settings = [
                ("checkpoints.url", "/checkpoints"),
                ("checkpoints.interval", "off"),
                ("checkpoints.retained", "1"),
            ];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let numbers = Numbers::endless(2).paced(30, Duration::from_secs(1));
            job.source("numbers", numbers).map(|number| Row(Kind::Count, number, 0)).sink("out", out.clone());
            job
        };
        let (process, handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(1_100)).await;
        busy(&out, true);
        for _checkpoint in 0..2 {
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(200)).await;
        }
        sim.arm(FaultPoint::ConfirmAfter, 1, FaultAction::Kill);
        busy(&out, false);
        process.died().await;
        let store = env.open_store("/checkpoints").unwrap();
        let standing = &history::open(&env, store.clone()).await.unwrap().unwrap().standing;
        let [confirmed, newest] = standing.completed.as_slice() else { panic!("{:?}", standing.completed) };
        assert_eq!(standing.unconfirmed, [newest.checkpoint]);
        let listed = manifest::read(&env, &*store, &newest.manifest).await.unwrap();
        let mut listed = listed.operators.iter().flat_map(|it| &it.subtasks).flat_map(|it| &it.prepared);
        assert!(listed.any(|it| it.checkpoint == confirmed.checkpoint));
        assert!(!out.committed().is_empty());
        out.take_away();
        let (_process, handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        handle.join().await.unwrap();
        assert_eq!(out.breaches(), [""; 0]);
    });
}

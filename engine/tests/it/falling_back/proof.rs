//! Whether every sink proves that nothing of the damaged checkpoint was committed.

use std::time::Duration;

use tidegate_engine::prelude::*;

use super::{
    Part, Plain, SETTINGS, assert_exact, damage, flip, job, leave_uncommitted, numbers, rows, standing,
};
use crate::counting::{KEYS, counting};
use crate::ledger::{Ledger, Moods};
use crate::world::{Death, Kind, Row, assert_says, live, run, simulate, start, with_settings};

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
        flip(sim, &file);
        assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished");
        assert_exact(&ledger);
    });
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

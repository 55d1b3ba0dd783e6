//! What a start examines before it falls back, how far it goes, and what it recommends where it does not.

use std::path::Path;
use std::time::Duration;

use env::FaultPoint;
use env::sim::FaultAction;
use env::sim::Options;
use tidegate_engine::cluster::attempt::Ask;
use tidegate_engine::prelude::*;

use super::{
    Part, SETTINGS, assert_exact, damage, damage_of, files, flip, job, leave_uncommitted, numbers, rows,
    standing,
};
use crate::counting::counting;
use crate::ledger::Ledger;
use crate::world::{Death, assert_says, live, run, simulate, start};

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
        flip(sim, file);
        let error = run(sim, job(&ledger)).await.unwrap_err();
        assert_says(&error, ErrorKind::Corrupt, &[file, "put the file back"]);
        flip(sim, file);
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
            flip(sim, &older);
            for _ in 0..2 {
                let error = run(sim, job(&ledger)).await.unwrap_err();
                let worse = format!("checkpoint {} is damaged as well: {older}", before.checkpoint);
                assert_says(&error, ErrorKind::Corrupt, &[&newest, &worse, "does not fall back"]);
            }
            assert_eq!(standing(&env).await.revoked, []);
            flip(sim, &newest);
            flip(sim, &older);
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

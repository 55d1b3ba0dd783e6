//! `--from` a checkpoint, not a savepoint, of another checkpoint directory: the last one, one by its number, one by its
//! record. The new job begins where that checkpoint stands, owns all that it needs, and leaves the other directory as it
//! is.

use std::{collections::BTreeMap, path::Path, time::Duration};

use checkpoint::{coordinator::Answer, history, snapshots};
use env::{Env, sim::Control};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    counting::{KEYS, counting, endless},
    full_disk::image,
    ledger::{Ledger, Moods},
    world::{Kind, Row, assert_says, run, simulate, start},
};

type Committed = BTreeMap<Row, u64>;

/// A checkpoint of the first job: its number, the newest record when it was committed, and all output up to it.
struct Taken {
    checkpoint: u64,
    record: u64,
    committed: Committed,
}

/// A job in `/first` that has died after three checkpoints.
async fn first_job(sim: &Control, env: &Env) -> Vec<Taken> {
    let ledger = Ledger::default();
    let settings =
        [("checkpoints.url", "/first"), ("checkpoints.interval", "off"), ("checkpoints.retained", "3")];
    let (process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..3 {
        env.sleep(Duration::from_secs(1)).await;
        let answer = handle.control().ask(Ask::Checkpoint).await.unwrap();
        let Answer::Checkpoint(checkpoint) = answer else { panic!("{answer:?}") };
        // Until its sinks have committed.
        env.sleep(Duration::from_millis(100)).await;
        let store = env.open_store("/first").unwrap();
        let newest = history::open(env, store).await.unwrap().unwrap();
        let (checkpoint, record) = (checkpoint.0, newest.number.0);
        taken.push(Taken { checkpoint, record, committed: ledger.committed() });
    }
    process.kill();
    taken
}

#[test]
fn a_job_starts_from_any_checkpoint_of_another_directory() {
    simulate(async |sim, env| {
        let taken = first_job(sim, &env).await;
        let before = image(&env, "/first");
        let last = taken.last().unwrap();
        let mut froms = vec![("/first".to_owned(), last)];
        for one in &taken {
            froms.push((format!("/first@{}", one.checkpoint), one));
            froms.push((format!("/first/history/{}", one.record), one));
        }
        for (nth, (from, one)) in froms.iter().enumerate() {
            let (own, ledger) = (format!("/second-{nth}"), Ledger::default());
            let settings = [("checkpoints.url", &*own), ("checkpoints.interval", "off"), ("from", from)];
            let (process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            let from_what = format!("starts from checkpoint {} of attempt 0 in /first", one.checkpoint);
            let told = handle.control().view().started_from;
            assert!(told.ends_with(&from_what), "{from}: {told}");
            let store = env.open_store(&own).unwrap();
            let report = snapshots::verify(&env, store, &mut |_| {}).await.unwrap();
            assert!(report.is_whole() && report.files > 0, "{from}: {:?}", report.problems);
            // Where the other directory is gone, it goes on from its own.
            if nth + 1 == froms.len() {
                assert!(image(&env, "/first") == before, "the directory was changed");
                env.files().remove_dir_all(Path::new("/first")).unwrap();
            }
            handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
            handle.join().await.unwrap();
            process.kill();
            let settings = [("checkpoints.url", &*own), ("checkpoints.interval", "off")];
            let (process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
            handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
            process.kill();
            assert_continues(from, &one.committed, &ledger.committed());
            assert_eq!(ledger.breaches(), [""; 0], "{from}");
        }
    });
}

/// What a checkpoint has pending is committed by a start in its own directory only: one from a copy would lose it.
#[test]
fn what_another_directory_has_pending_is_not_left_behind_without_a_word() {
    simulate(async |sim, env| {
        let first = Ledger::default();
        let settings = [("checkpoints.url", "/first"), ("checkpoints.interval", "off")];
        let (process, handle) = start(sim, counting(&endless(), &settings, &first)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        first.set_moods(Moods { retry: 1.0, ..Moods::default() });
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        let record = history::open(&env, env.open_store("/first").unwrap()).await.unwrap().unwrap().number;
        process.kill();
        first.set_moods(Moods::default());
        let (before, pending) = (image(&env, "/first"), first.pending());

        let second = |from: &str, more: &[(&str, &str)]| {
            let settings = [("checkpoints.url", "/second"), ("checkpoints.interval", "off"), ("from", from)];
            let ledger = Ledger::default();
            (counting(&endless(), &[&settings[..], more].concat(), &ledger), ledger)
        };
        for from in ["/first", "/first@2", &format!("/first/history/{record}")] {
            let error = run(sim, second(from, &[]).0).await.unwrap_err();
            let texts = [
                "checkpoint 2 in /first has output that its sinks have not committed yet",
                "(1 transaction of sink out)",
                "go on with the job in /first until they have",
                "--abandon-pending",
            ];
            assert_says(&error, ErrorKind::Conflict, &texts);
        }
        assert!(image(&env, "/second").keys().all(|path| !path.starts_with("/second/history")));
        assert!(image(&env, "/first") == before && first.pending() == pending);

        // Given up, in so many words.
        let (job, _ledger) = second("/first", &[("abandon-pending", "true")]);
        let (process, _handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        process.kill();
        let told = "checkpoint 2 in /first: --abandon-pending gives up 1 transaction of sink out, unless";
        assert_eq!(sim.printed().iter().filter(|(_, line)| line.contains(told)).count(), 1);
        env.files().remove_dir_all(Path::new("/second")).unwrap();

        // Once the job there has gone on, it can be had from there.
        let (process, handle) = start(sim, counting(&endless(), &settings, &first)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        handle.join().await.unwrap();
        process.kill();
        let (job, ledger) = second("/first", &[]);
        let (process, handle) = start(sim, job).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        process.kill();
        assert_continues("/first", &first.committed(), &ledger.committed());
        assert!(first.pending() == 0 && first.breaches().is_empty());
    });
}

/// Per key, `second` begins one above the last count of `first`, and has neither gaps nor counts that came twice.
#[track_caller]
fn assert_continues(from: &str, first: &Committed, second: &Committed) {
    let of = |all: &Committed, key: u64| -> Vec<(u64, u64)> {
        let rows = all.iter().filter(|(row, _)| row.1 == key);
        rows.map(|(Row(kind, _, count), times)| {
            assert_eq!(*kind, Kind::Count);
            (*count, *times)
        })
        .collect()
    };
    for key in 0..KEYS {
        let (first, second) = (of(first, key), of(second, key));
        assert!(first.len() > 50 && second.len() > 50, "{from}: {} and {}", first.len(), second.len());
        let expected: Vec<_> = (1..).map(|count| (count, 1)).take(first.len() + second.len()).collect();
        assert_eq!([first, second].concat(), expected, "{from}, key {key}");
    }
}

#[test]
fn what_is_no_snapshot_is_refused_and_nothing_is_made() {
    simulate(async |sim, env| {
        let taken = first_job(sim, &env).await;
        let before = image(&env, "/first");
        let newest = taken.last().unwrap().checkpoint;
        for (from, text) in [
            (format!("/first@{}", newest + 7), "no such checkpoint; retained are ".to_owned()),
            ("/first/history/999".to_owned(), "there is no history record 999".to_owned()),
            ("/nowhere".to_owned(), "there is no such directory".to_owned()),
        ] {
            let settings = [("checkpoints.url", "/second"), ("from", &*from)];
            let job = counting(&endless(), &settings, &Ledger::default());
            let error = run(sim, job).await.unwrap_err();
            assert_says(&error, ErrorKind::InvalidJob, &[&from, &text]);
            assert!(env.files().metadata(Path::new("/second")).unwrap().is_none(), "{from}");
        }
        // Damage is found before anything is begun.
        let manifest = before.keys().find(|path| path.to_string_lossy().ends_with("manifest-3")).unwrap();
        sim.disk().damage(manifest, |bytes| bytes[20] ^= 1).unwrap();
        let settings = [("checkpoints.url", "/second"), ("from", "/first")];
        let error = run(sim, counting(&endless(), &settings, &Ledger::default())).await.unwrap_err();
        let instead = "put the file back, or take /first@2, the newest before it that is whole";
        assert_says(&error, ErrorKind::Corrupt, &["manifest-3 in /first", instead]);
        assert!(env.files().metadata(Path::new("/second")).unwrap().is_none());
    });
}

/// What is damaged of a snapshot is found while it is copied. Mended, it is what the job goes on from.
#[test]
fn a_damaged_file_of_a_snapshot_is_told_with_what_to_do() {
    simulate(async |sim, env| {
        let taken = first_job(sim, &env).await;
        let is_run = |path: &&std::path::PathBuf| path.extension().is_some_and(|it| it == "run");
        let run_file = image(&env, "/first").keys().rfind(is_run).unwrap().clone();
        let flip = || sim.disk().damage(&run_file, |bytes| bytes[100] ^= 1).unwrap();
        flip();
        let settings = [
            ("checkpoints.url", "/second"),
            ("checkpoints.interval", "off"),
            ("from", "/first"),
            ("restart", "none"),
        ];
        let ledger = Ledger::default();
        let error = run(sim, counting(&endless(), &settings, &ledger)).await.unwrap_err();
        let texts = [" in /first is damaged: ", "put the file back", "another snapshot", "verify /first"];
        assert_says(&error, ErrorKind::Corrupt, &texts);
        flip();
        let (process, handle) = start(sim, counting(&endless(), &settings, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
        process.kill();
        assert_continues("/first", &taken.last().unwrap().committed, &ledger.committed());
    });
}

/// What was mistyped is not made a checkpoint directory of.
#[test]
fn a_savepoint_is_no_place_for_checkpoints() {
    simulate(async |sim, env| {
        let settings = [("checkpoints.url", "/first"), ("checkpoints.interval", "off")];
        let (process, handle) =
            start(sim, counting(&endless(), &settings, &Ledger::default())).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        let stop = Ask::Stop { drain: false, savepoint: Some("/savepoint".to_owned()) };
        handle.control().ask(stop).await.unwrap();
        process.kill();
        let files = env.files();
        files.create_dir_all(Path::new("/half")).unwrap();
        files.create_new(Path::new("/half/partial")).unwrap();
        for (url, text) in [("/savepoint", "is a savepoint"), ("/half", "a savepoint that is not whole")] {
            let before = (image(&env, url), files.read_dir(Path::new(url)).unwrap());
            let settings = [("checkpoints.url", url), ("from", "none")];
            let error = run(sim, counting(&endless(), &settings, &Ledger::default())).await.unwrap_err();
            let texts = [&format!("--checkpoints {url}: "), text, &format!("--from {url}")];
            assert_says(&error, ErrorKind::InvalidJob, &texts);
            assert!((image(&env, url), files.read_dir(Path::new(url)).unwrap()) == before, "{url}");
        }
    });
}

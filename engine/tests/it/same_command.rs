//! A job that was started with `--from SNAPSHOT`, and is started again by somebody who knows nothing but its command line: it
//! goes on with the line of history that began from there, and is not asked again for what was accepted then.

use std::{collections::BTreeMap, path::Path, time::Duration};

use checkpoint::history::{self, Standing};
use env::{
    Env, FaultPoint,
    sim::{Control, FaultAction},
};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    counting::{KEYS, assert_gapless, counting, endless},
    full_disk::image,
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const ACCEPT: (&str, &str) = ("accept-foreign-output", "true");
const AGAIN: (&str, &str) = ("begin-again", "true");
const GOES_ON: &str = "in the line of history that began from checkpoint 1 in ";

/// Runs a job in `/first` until its output is committed, and stops it with a savepoint in `/savepoint`.
async fn leave_savepoint(sim: &Control, env: &Env, job: Job) {
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_secs(1)).await;
    let stop = Ask::Stop { drain: false, savepoint: Some("/savepoint".to_owned()) };
    handle.control().ask(stop).await.unwrap();
    handle.join().await.unwrap();
    process.kill();
}

/// The job of `ledger` with its checkpoints in `url`, every 100 ms.
fn job(numbers: &Numbers, url: &str, from: &str, more: &[(&str, &str)], ledger: &Ledger<Row>) -> Job {
    let settings = [("checkpoints.url", url), ("checkpoints.interval", "100ms"), ("from", from)];
    counting(numbers, &[&settings, more].concat(), ledger)
}

/// Runs `job` for a second, and kills it. Returns what it said of its start.
async fn killed(sim: &Control, env: &Env, job: Job) -> String {
    let (process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_secs(1)).await;
    let view = handle.control().view();
    process.kill();
    assert!(!view.started_from.is_empty(), "it was refused: {:?}", view.failures);
    view.started_from
}

async fn standing(env: &Env, url: &str) -> Standing {
    let newest = history::open(env, env.open_store(url).unwrap()).await.unwrap().unwrap();
    newest.standing.clone()
}

/// Copies all files of a directory.
fn copy(env: &Env, from: &str, to: &str) {
    for (path, bytes) in image(env, from) {
        let path = Path::new(to).join(path.strip_prefix(from).unwrap());
        env.files().create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = env.files().create_new(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
    }
}

/// The counts of `first` and, where those end, of `second`: each once.
#[track_caller]
fn assert_exact(first: &Ledger<Row>, second: &Ledger<Row>, all: u64) {
    let times = counted(
        first
            .committed()
            .into_iter()
            .chain(second.committed())
            .flat_map(|(row, times)| std::iter::repeat_n(row, usize::try_from(times).unwrap())),
    );
    let expected = counted((0..all).map(|number| Row(Kind::Count, number % KEYS, number / KEYS + 1)));
    assert_eq!(times, expected);
    assert_eq!((second.pending(), second.breaches()), (0, Vec::new()));
}

#[test]
fn it_goes_on_until_it_has_finished() {
    simulate(async |sim, env| {
        let numbers = Numbers::new(2, 1_500).paced(3, Duration::from_millis(10));
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&numbers, "/first", "auto", &[], &first)).await;
        copy(&env, "/savepoint", "/moved");
        let again = |from: &str| job(&numbers, "/second", from, &[], &second);
        let begins = killed(sim, &env, again("/savepoint")).await;
        assert!(begins.ends_with(" in /savepoint"), "{begins}");
        let line = standing(&env, "/second").await.attempt.lineage;
        for from in ["/savepoint", "file:///savepoint", "/moved"] {
            let told = killed(sim, &env, again(from)).await;
            assert!(told.contains(": continues from checkpoint "), "{told}");
            let began = format!("{}{from} (", GOES_ON.replace('1', &checkpoint_of(&begins)));
            assert!(told.contains(&began) && told.ends_with("with --begin-again)"), "{told}");
        }
        while run(sim, again("/savepoint")).await.unwrap().how != "finished" {}
        let earlier = run(sim, again("/savepoint")).await.unwrap();
        assert!(earlier.how.starts_with("nothing to do: job subject finished at "), "{}", earlier.how);
        assert_eq!(standing(&env, "/second").await.attempt.lineage, line);
        assert_exact(&first, &second, 3_000);
    });
}

/// The number of the checkpoint that a start says it began from.
fn checkpoint_of(begins: &str) -> String {
    let (_, rest) = begins.split_once("starts from checkpoint ").unwrap_or_else(|| panic!("{begins}"));
    rest.split(' ').next().unwrap().to_owned()
}

#[test]
fn it_goes_on_from_a_checkpoint_of_another_job_and_from_one_of_its_own() {
    simulate(async |sim, env| {
        let first = Ledger::default();
        let manual = |url, from, ledger: &Ledger<Row>| {
            let settings = [("checkpoints.url", url), ("checkpoints.interval", "off"), ("from", from)];
            counting(&endless(), &settings, ledger)
        };
        let (process, handle) = start(sim, manual("/first", "auto", &first)).await.unwrap();
        for _checkpoint in 0..2 {
            env.sleep(Duration::from_millis(300)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(300)).await;
        }
        process.kill();
        for (url, from) in [("/second", "/first@1"), ("/third", "/first"), ("/first", "/first@1")] {
            let ledger = Ledger::default();
            let mut lines = Vec::new();
            for _start in 0..3 {
                let (process, handle) = start(sim, manual(url, from, &ledger)).await.unwrap();
                env.sleep(Duration::from_millis(300)).await;
                handle.control().ask(Ask::Checkpoint).await.unwrap();
                env.sleep(Duration::from_millis(300)).await;
                process.kill();
                lines.push(standing(&env, url).await.attempt.lineage);
            }
            assert_eq!(lines, [lines[0]; 3], "{url} from {from}");
            assert!(ledger.committed().values().all(|times| *times == 1), "{url} from {from}");
            assert!(ledger.breaches().is_empty() && ledger.committed().len() > 300, "{url} from {from}");
        }
    });
}

/// Before its first checkpoint the job still needs the snapshot, wherever the user has it now.
#[test]
fn it_begins_from_the_snapshot_once_more_while_it_has_no_checkpoint_of_its_own() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        copy(&env, "/savepoint", "/moved");
        let rare = [("checkpoints.interval", "10m")];
        killed(sim, &env, job(&endless(), "/second", "/savepoint", &rare, &second)).await;
        let line = standing(&env, "/second").await.attempt.lineage;
        env.files().remove_dir_all(Path::new("/savepoint")).unwrap();
        let told = killed(sim, &env, job(&endless(), "/second", "/moved", &rare, &second)).await;
        assert!(
            told.contains(": starts from checkpoint ") && told.contains(" in /moved, in the line "),
            "{told}"
        );
        assert_eq!(standing(&env, "/second").await.attempt.lineage, line);
    });
}

/// Its owner may delete a savepoint at any time, and retention takes checkpoints.
#[test]
fn it_goes_on_where_the_snapshot_is_there_no_more() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        let again = |from: &str, more: &[(&str, &str)]| job(&endless(), "/second", from, more, &second);
        killed(sim, &env, again("/savepoint", &[])).await;
        let line = standing(&env, "/second").await.attempt.lineage;
        env.files().remove_dir_all(Path::new("/savepoint")).unwrap();
        for _start in 0..2 {
            let told = killed(sim, &env, again("/savepoint", &[])).await;
            assert!(told.contains(": continues from checkpoint "), "{told}");
            assert!(told.ends_with("that began from /savepoint, which is there no more"), "{told}");
        }
        // Nobody knows what another name, or another start, means.
        for (from, more) in [("/other", &[][..]), ("/savepoint", &[AGAIN])] {
            let error = run(sim, again(from, more)).await.unwrap_err();
            assert_says(&error, ErrorKind::InvalidJob, &[&format!("{from}: there is no such directory")]);
        }
        assert_eq!(standing(&env, "/second").await.attempt.lineage, line);

        let oldest = standing(&env, "/second").await.completed[0].checkpoint;
        let own = format!("/second@{oldest}");
        killed(sim, &env, again(&own, &[ACCEPT])).await;
        let anew = standing(&env, "/second").await;
        assert!(anew.completed.iter().all(|it| it.checkpoint != oldest));
        let told = killed(sim, &env, again(&own, &[])).await;
        assert!(told.ends_with(&format!("that began from {own}, which is there no more")), "{told}");
        assert_eq!(standing(&env, "/second").await.attempt.lineage, anew.attempt.lineage);
    });
}

#[test]
fn it_begins_once_more_where_the_user_says_so() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        let again = |more: &[(&str, &str)]| job(&endless(), "/second", "/savepoint", more, &second);
        killed(sim, &env, again(&[])).await;
        let line = standing(&env, "/second").await.attempt.lineage;
        let refused = run(sim, again(&[AGAIN])).await.unwrap_err();
        assert_says(
            &refused,
            ErrorKind::Conflict,
            &["sink out", "another line of history", "--accept-foreign-output"],
        );
        let told = killed(sim, &env, again(&[AGAIN, ACCEPT])).await;
        assert!(told.ends_with(" in /savepoint"), "{told}");
        let anew = standing(&env, "/second").await.attempt.lineage;
        assert_ne!(anew, line);
        // What was accepted is not asked for again, with or without the snapshot.
        killed(sim, &env, again(&[])).await;
        killed(sim, &env, job(&endless(), "/second", "auto", &[], &second)).await;
        let after = standing(&env, "/second").await.attempt;
        assert_eq!((after.lineage, after.origin.accepts_foreign_output), (anew, true));
        // Only for that line.
        let refused = run(sim, again(&[AGAIN])).await.unwrap_err();
        assert_says(&refused, ErrorKind::Conflict, &["sink out", "another line of history"]);
        for from in ["auto", "latest"] {
            let error = run(sim, job(&endless(), "/second", from, &[AGAIN], &second)).await.unwrap_err();
            assert_says(&error, ErrorKind::InvalidJob, &["--begin-again", "--from SNAPSHOT"]);
        }
    });
}

/// What a snapshot had pending was given up when the line began; what the line has pending itself is committed.
#[test]
fn what_it_gives_up_it_gives_up_once() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        let busy = |ledger: &Ledger<Row>, retry| ledger.set_moods(Moods { retry, ..Moods::default() });
        killed(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        busy(&first, 1.0);
        killed(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        assert_eq!(standing(&env, "/first").await.unconfirmed.len(), 1);
        let abandon = [("abandon-pending", "true")];
        let again = || job(&endless(), "/second", "/first", &abandon, &second);
        killed(sim, &env, again()).await;
        busy(&second, 1.0);
        killed(sim, &env, again()).await;
        assert!(!standing(&env, "/second").await.unconfirmed.is_empty());
        busy(&second, 0.0);
        killed(sim, &env, again()).await;
        assert!(second.committed().values().all(|times| *times == 1));
        // Nothing between is missing.
        for key in 0..KEYS {
            let counts: Vec<_> =
                second.committed().into_keys().filter(|row| row.1 == key).map(|row| row.2).collect();
            assert!(counts.windows(2).all(|two| two[0] + 1 == two[1]), "key {key}: {counts:?}");
        }
        let told =
            sim.printed().iter().filter(|(_, line)| line.contains("--abandon-pending gives up")).count();
        assert_eq!(told, 1);
    });
}

/// The state that is dropped is in no checkpoint that the job has taken since: neither after a death nor after a failure is
/// that a mistake.
#[test]
fn state_is_dropped_once() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        for from in ["/savepoint", "/savepoint", "auto"] {
            let (process, handle) = start(sim, renamed("/second", from, &DROP, &second)).await.unwrap();
            env.sleep(Duration::from_millis(500)).await;
            sim.arm(FaultPoint::CompletedRecordBefore, 1, FaultAction::Fail(ErrorKind::Retryable));
            env.sleep(Duration::from_millis(500)).await;
            assert!(handle.control().view().checkpoints.completed > 1, "{from}");
            process.kill();
        }
        assert_gapless(&second, 500);
        let error = run(sim, with_unknown(&second)).await.unwrap_err();
        assert_says(&error, ErrorKind::InvalidJob, &["--allow-dropped-state cuont"]);
    });
}

const DROP: [(&str, &str); 1] = [("allow-dropped-state", "count")];

/// A job that counts under another name than [`job`].
fn renamed(url: &str, from: &str, more: &[(&str, &str)], ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", url),
        ("checkpoints.interval", "100ms"),
        ("restart", "fixed-delay:1:10ms"),
        ("from", from),
    ];
    let job = with_settings(Job::new("subject"), &[&settings, more].concat()).unwrap();
    job.source("numbers", endless())
        .key_by(|number| number % KEYS)
        .count("total")
        .map(|(key, count)| Row(Kind::Count, key, count))
        .sink("out", ledger.clone());
    job
}

/// The older checkpoint that a job falls back to holds none of it either.
#[test]
fn state_that_was_dropped_does_not_keep_a_job_from_falling_back() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        let (process, _handle) = start(sim, renamed("/second", "/savepoint", &DROP, &second)).await.unwrap();
        env.sleep(Duration::from_millis(500)).await;
        second.set_moods(Moods { retry: 1.0, ..Moods::default() });
        env.sleep(Duration::from_millis(300)).await;
        process.kill();
        second.set_moods(Moods::default());
        let left = standing(&env, "/second").await;
        let [.., before, newest] = left.completed.as_slice() else { panic!("{:?}", left.completed) };
        assert_eq!(left.unconfirmed.len(), 1);
        damage_all(sim, "/second", [newest.manifest.path.as_str()]);
        let told = killed(sim, &env, renamed("/second", "/savepoint", &DROP, &second)).await;
        assert!(told.contains(&format!("continues from checkpoint {} ", before.checkpoint)), "{told}");
        assert_gapless(&second, 300);
    });
}

/// Before the first checkpoint the snapshot is restored once more, and what it holds dropped once more.
#[test]
fn what_was_accepted_is_not_asked_for_again_before_the_first_checkpoint() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        let refused = run(sim, renamed("/second", "/savepoint", &[], &second)).await.unwrap_err();
        assert_says(&refused, ErrorKind::IncompatibleState, &["count", "--allow-dropped-state"]);
        let (process, handle) = start(sim, renamed("/second", "/savepoint", &DROP, &second)).await.unwrap();
        env.sleep(Duration::from_millis(50)).await;
        assert_eq!(handle.control().view().checkpoints.completed, 0);
        process.kill();
        for from in ["auto", "/savepoint"] {
            let (process, handle) = start(sim, renamed("/second", from, &[], &second)).await.unwrap();
            env.sleep(Duration::from_millis(50)).await;
            let view = handle.control().view();
            assert_eq!(
                (view.failures.len(), view.checkpoints.completed),
                (0, 0),
                "{from}: {:?}",
                view.failures
            );
            process.kill();
        }
        killed(sim, &env, renamed("/second", "auto", &[], &second)).await;
        assert_gapless(&second, 300);
    });
}

/// Changes one byte in the middle of each file.
fn damage_all<'a>(sim: &Control, directory: &str, files: impl IntoIterator<Item = &'a str>) {
    for file in files {
        let flip = |bytes: &mut Vec<u8>| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        };
        sim.disk().damage(&Path::new(directory).join(file), flip).unwrap();
    }
}

/// What the line began from is not needed any more; what is wrong with the job's own directory is told as what it is.
#[test]
fn it_goes_on_though_what_it_began_from_is_damaged() {
    simulate(async |sim, env| {
        let (first, second) = (Ledger::default(), Ledger::default());
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &first)).await;
        let again = || job(&endless(), "/second", "/savepoint", &[], &second);
        let (process, _handle) = start(sim, again()).await.unwrap();
        env.sleep(Duration::from_millis(50)).await;
        process.kill();
        let names = |directory: &str| -> Vec<String> {
            image(&env, directory).into_keys().map(|path| path.to_str().unwrap().to_owned()).collect()
        };
        let savepoint = names("/savepoint");
        let flip = || damage_all(sim, "/", savepoint.iter().map(String::as_str));
        flip();
        let needed = run(sim, again()).await.unwrap_err();
        assert_says(&needed, ErrorKind::Corrupt, &["/savepoint"]);
        flip();
        killed(sim, &env, again()).await;
        flip();
        let told = killed(sim, &env, again()).await;
        assert!(told.contains(": continues from checkpoint "), "{told}");
        for file in &savepoint {
            env.files().remove_file(Path::new(file)).unwrap();
        }
        let told = killed(sim, &env, again()).await;
        assert!(told.contains(": continues from checkpoint "), "{told}");
        let newest = names("/second").into_iter().filter(|name| name.contains("/history/")).max().unwrap();
        damage_all(sim, "/", [&*newest]);
        let own = run(sim, again()).await.unwrap_err();
        let file = newest.rsplit('/').next().unwrap();
        assert_says(&own, ErrorKind::Corrupt, &[file]);
    });
}

/// A name that the line has never dropped.
fn with_unknown(ledger: &Ledger<Row>) -> Job {
    let settings = [("allow-dropped-state", "cuont")];
    job(&endless(), "/second", "/savepoint", &settings, ledger)
}

#[test]
fn another_snapshot_begins_another_line() {
    simulate(async |sim, env| {
        let ledgers: BTreeMap<&str, Ledger<Row>> =
            ["/first", "/second"].map(|url| (url, Ledger::default())).into();
        leave_savepoint(sim, &env, job(&endless(), "/first", "auto", &[], &ledgers["/first"])).await;
        killed(sim, &env, job(&endless(), "/second", "/savepoint", &[], &ledgers["/second"])).await;
        // The job there has gone on.
        killed(sim, &env, job(&endless(), "/first", "auto", &[], &ledgers["/first"])).await;
        let error =
            run(sim, job(&endless(), "/second", "/first", &[], &ledgers["/second"])).await.unwrap_err();
        assert_says(&error, ErrorKind::Conflict, &["another line of history", "without --from"]);
        let none = run(sim, job(&endless(), "/second", "none", &[], &ledgers["/second"])).await.unwrap_err();
        assert_says(&none, ErrorKind::Conflict, &["another line of history"]);
    });
}

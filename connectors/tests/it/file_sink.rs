//! The file sink: the conformance kit, and what is its own (names, rolling, damage, ownership).

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use engine::{
    api::sink::{CommitOutcome, Committer, SinkContext, TransactionId, TwoPhaseSink, TwoPhaseWriter},
    record::Batch,
};
use env::{Env, sim::Simulation};
use tidegate_connectors::{
    FileSink,
    conformance::{SinkSubject, crash, kill, sink},
    file_sink::{FileCommitter, FileWriter, PreparedFiles},
};
use types::{AttemptId, CheckpointId, Error, ErrorKind, JobId, Lineage, Result, SubtaskIndex, Uid};

/// Lines in files that roll at `ROLL` bytes.
struct Lines<const ROLL: u64> {
    dir: PathBuf,
}

/// Files of a few lines, so that a transaction has several.
type Few = Lines<7>;
/// Files of more than a buffer.
type Many = Lines<1_200_000>;

impl<const ROLL: u64> SinkSubject for Lines<ROLL> {
    type Sink = FileSink<u64>;

    fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn sink(&self) -> FileSink<u64> {
        FileSink::lines(&self.dir).roll_at(ROLL)
    }

    fn record(&self, number: u64) -> u64 {
        number
    }

    async fn visible(&self, env: &Env) -> Result<Vec<u64>> {
        let (dir, files) = (self.dir.clone(), env.files());
        let read = move || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for path in published(&*files, &dir)? {
                let text = read(&*files, &path)?;
                numbers.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
            }
            Ok(numbers)
        };
        env.blocking("reader", read).await?.map_err(|error| Error::io("the output", error))
    }
}

/// The published files; none if there is no directory.
fn published(files: &dyn env::Files, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = match files.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"));
    Ok(paths)
}

fn read(files: &dyn env::Files, path: &Path) -> io::Result<String> {
    let file = files.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_full(0, &mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn survives_power_failures_and_failed_syncs_everywhere() {
    for seed in 0..3 {
        let crashes = crash::everywhere::<Few>(seed);
        assert!(
            crashes.crashes > 200 && crashes.failed_syncs > 80,
            "fewer than there should be: {crashes:?}"
        );
    }
}

#[test]
fn keeps_the_contract_on_a_simulated_disk() {
    for seed in 0..20 {
        Simulation::new(seed).run(async |env| sink::contract::<Many>(&env, Path::new("/out")).await);
    }
}

#[test]
fn child() {
    kill::child::<Few>();
}

#[test]
fn survives_kills_everywhere() {
    // A killed process loses nothing that it has written: memory will do for a disk, and syncs cost nothing there.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let kills = kill::everywhere::<Few>("file_sink::child", dir.path());
    assert!(
        kills.at_steps > 100 && kills.at_recovery > 100 && kills.at_publish > 30,
        "fewer than there should be: {kills:?}"
    );
}

#[test]
fn keeps_the_contract_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { sink::contract::<Many>(&Env::real(), dir.path()).await });
}

fn context(env: &Env, uid: &str, attempt: u64) -> SinkContext {
    SinkContext {
        uid: Uid::new(uid).unwrap(),
        names: vec![Uid::new(uid).unwrap()],
        env: env.clone(),
        job: JobId(1),
        lineage: Lineage(1),
        attempt: AttemptId(attempt),
        subtask: SubtaskIndex(0),
        parallelism: 1,
        checkpoints: "/checkpoints of 1".to_owned(),
    }
}

/// A sink with a writer and a committer.
struct Open {
    id: TransactionId,
    writer: FileWriter<u64, fn(&u64, &mut Vec<u8>)>,
    committer: FileCommitter,
}

impl Open {
    async fn new(env: &Env, sink: &FileSink<u64>) -> Result<Self> {
        Self::of_attempt(env, sink, 1).await
    }

    async fn of_attempt(env: &Env, sink: &FileSink<u64>, attempt: u64) -> Result<Self> {
        sink.validate()?;
        let context = context(env, "sink", attempt);
        let mut committer = sink.committer(&context).await?;
        committer.sweep(&[]).await?;
        let writer = sink.writer(&context).await?;
        let id = TransactionId {
            job: context.job,
            sink: context.uid,
            lineage: context.lineage,
            writer: context.subtask,
            attempt: context.attempt,
            checkpoint: CheckpointId(1),
        };
        Ok(Self { id, writer, committer })
    }

    async fn prepare(&mut self) -> Result<PreparedFiles> {
        let sealed = self.writer.seal(&self.id)?.unwrap();
        self.committer.prepare(&self.id, sealed).await
    }

    async fn write(&mut self, records: impl IntoIterator<Item = u64>) -> Result<()> {
        self.writer.write(Batch::from(records.into_iter().collect::<Vec<_>>())).await
    }
}

/// Names in a directory.
fn names(env: &Env, dir: &str) -> Vec<String> {
    let paths = env.files().read_dir(Path::new(dir)).unwrap();
    paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn put(env: &Env, path: &str, text: &str) {
    let path = Path::new(path);
    env.files().create_dir_all(path.parent().unwrap()).unwrap();
    env.files().create_new(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn files_roll_by_size_and_by_time_and_are_named_in_order() {
    Simulation::new(1).run(async |env| {
        let sink = FileSink::lines("/out").roll_at(6).roll_after(Duration::from_secs(5));
        let mut open = Open::new(&env, &sink).await.unwrap();
        open.write([10, 11, 12, 13]).await.unwrap();
        env.sleep(Duration::from_secs(4)).await;
        open.write([14]).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        open.write([15]).await.unwrap();
        open.write([16]).await.unwrap();
        let prepared = open.prepare().await.unwrap();
        let lengths: Vec<u64> = prepared.files.iter().map(|file| file.len).collect();
        assert_eq!(lengths, [6, 6, 6, 3], "two by size, one by size after time, the rest at the barrier");
        assert_eq!(open.committer.commit(&open.id, &prepared).await.unwrap(), CommitOutcome::Committed);
        let expected = |place: usize| format!("part-{:032x}-00000-000001-0000000001-{place:04}", 1);
        assert_eq!(
            names(&env, "/out"),
            [
                ".pending".to_owned(),
                ".tidegate".to_owned(),
                expected(0),
                expected(1),
                expected(2),
                expected(3)
            ]
        );
        assert_eq!(names(&env, "/out/.pending"), [""; 0]);
        assert_eq!(read(&*env.files(), &Path::new("/out").join(expected(1))).unwrap(), "12\n13\n");
    });
}

#[test]
fn a_file_rolls_at_the_first_batch_after_its_time() {
    Simulation::new(2).run(async |env| {
        let sink = FileSink::lines("/out").roll_after(Duration::from_secs(5));
        let mut open = Open::new(&env, &sink).await.unwrap();
        for number in 0..4 {
            open.write([number]).await.unwrap();
            env.sleep(Duration::from_secs(3)).await;
        }
        let prepared = open.prepare().await.unwrap();
        let lengths: Vec<u64> = prepared.files.iter().map(|file| file.len).collect();
        assert_eq!(lengths, [6, 2], "begun at 0 s, rolled with the record at 6 s");
    });
}

#[test]
fn damage_between_prepare_and_commit_is_lost_and_publishes_nothing() {
    let damages: [fn(&Simulation, &Path); 4] = [
        |sim, path| sim.disk().damage(path, |bytes| bytes[0] ^= 1).unwrap(),
        |sim, path| sim.disk().damage(path, |bytes| bytes.truncate(1)).unwrap(),
        |sim, path| sim.disk().damage(path, |bytes| bytes.push(b'x')).unwrap(),
        |sim, path| sim.env().files().remove_file(path).unwrap(),
    ];
    for damage in damages {
        for place in 0..3 {
            let sim = Simulation::new(3);
            sim.run(async |env| {
                let mut open = Open::new(&env, &FileSink::lines("/out").roll_at(6)).await.unwrap();
                open.write(10..16).await.unwrap();
                let prepared = open.prepare().await.unwrap();
                let name = &names(&env, "/out/.pending")[place];
                damage(&sim, &Path::new("/out/.pending").join(name));
                let mut later =
                    FileSink::<u64>::lines("/out").committer(&context(&env, "sink", 2)).await.unwrap();
                match later.commit(&open.id, &prepared).await.unwrap() {
                    CommitOutcome::Lost(text) => assert!(text.contains(name), "{text}"),
                    other => panic!("{other:?}"),
                }
                assert!(published(&*env.files(), Path::new("/out")).unwrap().is_empty());
            });
        }
    }
}

#[test]
fn a_published_file_that_changed_is_noticed() {
    let sim = Simulation::new(4);
    sim.run(async |env| {
        let mut open = Open::new(&env, &FileSink::lines("/out")).await.unwrap();
        open.write(10..16).await.unwrap();
        let prepared = open.prepare().await.unwrap();
        open.committer.commit(&open.id, &prepared).await.unwrap();
        let path = &published(&*env.files(), Path::new("/out")).unwrap()[0];
        sim.disk().damage(path, |bytes| bytes[3] ^= 1).unwrap();
        let outcome = open.committer.commit(&open.id, &prepared).await.unwrap();
        assert!(matches!(&outcome, CommitOutcome::Lost(text) if text.contains("is not what was committed")));
    });
}

/// A copy of the output may leave empty directories out.
#[test]
fn a_commit_made_again_needs_no_directory_of_pending_files() {
    let sim = Simulation::new(11);
    sim.run(async |env| {
        let mut open = Open::new(&env, &FileSink::lines("/out")).await.unwrap();
        open.write(10..16).await.unwrap();
        let prepared = open.prepare().await.unwrap();
        open.committer.commit(&open.id, &prepared).await.unwrap();
        env.files().rename_new(Path::new("/out/.pending"), Path::new("/elsewhere")).unwrap();
        let mut later = FileSink::<u64>::lines("/out").committer(&context(&env, "sink", 2)).await.unwrap();
        assert_eq!(later.commit(&open.id, &prepared).await.unwrap(), CommitOutcome::Committed);
    });
}

#[test]
fn publishing_replaces_nothing() {
    Simulation::new(10).run(async |env| {
        let mut open = Open::new(&env, &FileSink::lines("/out")).await.unwrap();
        open.write(10..16).await.unwrap();
        let prepared = open.prepare().await.unwrap();
        let name = &names(&env, "/out/.pending")[0];
        put(&env, &format!("/out/{name}"), "somebody else's\n");
        let outcome = open.committer.commit(&open.id, &prepared).await.unwrap();
        assert!(matches!(&outcome, CommitOutcome::Lost(text) if text.contains(name)), "{outcome:?}");
        assert_eq!(read(&*env.files(), &Path::new("/out").join(name)).unwrap(), "somebody else's\n");
        assert_eq!(names(&env, "/out/.pending"), [name.as_str()], "what was prepared is still there");
    });
}

#[test]
fn a_directory_belongs_to_one_sink_of_one_job() {
    Simulation::new(5).run(async |env| {
        let sink = FileSink::<u64>::lines("/out");
        Open::new(&env, &sink).await.unwrap();
        let mut other = sink.committer(&context(&env, "other", 1)).await.unwrap();
        for error in [other.held().await.err().unwrap(), other.sweep(&[]).await.err().unwrap()] {
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.message().contains("belongs to sink sink of this job"), "{error}");
            assert!(error.message().contains(".formerly(\"sink\")"), "{error}");
        }
        assert!(sink.writer(&context(&env, "other", 1)).await.is_err());
        let another_job = SinkContext { job: JobId(2), ..context(&env, "sink", 1) };
        let error = sink.committer(&another_job).await.unwrap().held().await.unwrap_err();
        let texts = [
            "belongs to sink sink of the job whose checkpoints are in /checkpoints of 1 (job 0",
            "--checkpoints /checkpoints of 1, without --from",
        ];
        assert!(texts.iter().all(|text| error.message().contains(text)), "{error}");
    });
}

#[test]
fn a_directory_tells_where_the_checkpoints_of_its_job_are_now() {
    Simulation::new(13).run(async |env| {
        let sink = FileSink::<u64>::lines("/out");
        Open::new(&env, &sink).await.unwrap();
        let moved = SinkContext { checkpoints: "/moved".to_owned(), ..context(&env, "sink", 2) };
        let mut committer = sink.committer(&moved).await.unwrap();
        assert_eq!(committer.held().await.unwrap(), []);
        let owner = || read(&*env.files(), Path::new("/out/.tidegate")).unwrap();
        assert!(owner().contains("checkpoints /checkpoints of 1\n"));
        committer.sweep(&[]).await.unwrap();
        assert!(owner().contains("sink sink\ncheckpoints /moved\n"));
        let stranger = SinkContext { job: JobId(2), ..context(&env, "sink", 3) };
        let error = sink.committer(&stranger).await.unwrap().held().await.unwrap_err();
        assert!(error.message().contains("--checkpoints /moved"), "{error}");
    });
}

#[test]
fn a_renamed_sink_takes_over_its_own_directory_and_no_other() {
    Simulation::new(12).run(async |env| {
        let sink = FileSink::<u64>::lines("/out");
        Open::new(&env, &sink).await.unwrap();
        let named = |names: &[&str], uid: &str| SinkContext {
            names: names.iter().map(|name| Uid::new(name).unwrap()).collect(),
            ..context(&env, uid, 2)
        };
        let other_job = SinkContext { job: JobId(2), ..named(&["new", "sink"], "new") };
        for stranger in [named(&["new"], "new"), named(&["new", "older"], "older"), other_job] {
            let mut committer = sink.committer(&stranger).await.unwrap();
            assert_eq!(committer.held().await.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(committer.sweep(&[]).await.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(sink.writer(&stranger).await.err().unwrap().kind(), ErrorKind::Conflict);
        }
        // To ask changes nothing; the first sweep takes the directory over, whichever name it is made under.
        let mut new = sink.committer(&named(&["new", "sink"], "new")).await.unwrap();
        let mut old = sink.committer(&named(&["new", "sink"], "sink")).await.unwrap();
        assert_eq!((new.held().await.unwrap(), old.held().await.unwrap()), (vec![], vec![]));
        let owner = || read(&*env.files(), Path::new("/out/.tidegate")).unwrap();
        assert!(owner().contains("sink sink\n"));
        old.sweep(&[]).await.unwrap();
        assert!(owner().contains("sink new\n"));
        new.sweep(&[]).await.unwrap();
        assert_eq!((new.held().await.unwrap(), old.held().await.unwrap()), (vec![], vec![]));
        let mut left = sink.committer(&context(&env, "sink", 3)).await.unwrap();
        assert!(left.held().await.unwrap_err().message().contains(".formerly(\"new\")"));
    });
}

#[test]
fn files_that_readers_would_take_for_ours_are_a_conflict() {
    Simulation::new(6).run(async |env| {
        put(&env, "/out/part-0-7", "somebody else's\n");
        let before = names(&env, "/out");
        let mut committer =
            FileSink::<u64>::lines("/out").committer(&context(&env, "sink", 1)).await.unwrap();
        let error = committer.held().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains("/out/part-0-7"), "{error}");
        assert_eq!(names(&env, "/out"), before, "asking changes nothing");
        // Other files may be there, and what users make of published files too once the directory is ours.
        env.files().remove_file(Path::new("/out/part-0-7")).unwrap();
        put(&env, "/out/README", "mine\n");
        committer.sweep(&[]).await.unwrap();
        put(&env, "/out/part-0-7.gz", "packed\n");
        assert_eq!(committer.held().await.unwrap(), []);
    });
}

#[test]
fn a_sweep_removes_what_dead_writers_left_and_nothing_else() {
    Simulation::new(7).run(async |env| {
        let mut open = Open::new(&env, &FileSink::lines("/out").roll_at(6)).await.unwrap();
        put(&env, "/out/.pending/notes", "mine\n");
        put(&env, "/out/.pending/.tidegate-0-0", "torn");
        open.write(10..15).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&env, "/out/.pending").len(), 4);
        drop(open);
        let mut later = FileSink::<u64>::lines("/out").committer(&context(&env, "sink", 2)).await.unwrap();
        later.sweep(&[]).await.unwrap();
        assert_eq!(names(&env, "/out/.pending"), ["notes"]);
    });
}

#[test]
fn a_sweep_leaves_what_a_later_attempt_has_prepared() {
    Simulation::new(11).run(async |env| {
        let sink = FileSink::lines("/out");
        let mut paused = sink.committer(&context(&env, "sink", 1)).await.unwrap();
        let mut rival = Open::of_attempt(&env, &sink, 2).await.unwrap();
        rival.write(10..15).await.unwrap();
        let prepared = rival.prepare().await.unwrap();
        paused.sweep(&[]).await.unwrap();
        assert_eq!(rival.committer.commit(&rival.id, &prepared).await.unwrap(), CommitOutcome::Committed);
    });
}

#[test]
fn a_full_disk_says_so_and_the_next_attempt_goes_on() {
    let sim = Simulation::new(8);
    sim.run(async |env| {
        let mut open = Open::new(&env, &FileSink::lines("/out")).await.unwrap();
        sim.disk().limit_space(Some(10));
        open.write(10..20).await.unwrap();
        let error = open.prepare().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("check space"), "{error}");
        sim.disk().limit_space(None);
        let mut open = Open::of_attempt(&env, &FileSink::lines("/out"), 2).await.unwrap();
        open.write(10..20).await.unwrap();
        let prepared = open.prepare().await.unwrap();
        assert_eq!(open.committer.commit(&open.id, &prepared).await.unwrap(), CommitOutcome::Committed);
    });
}

#[test]
fn a_directory_that_cannot_be_made_says_what_to_do() {
    Simulation::new(9).run(async |env| {
        put(&env, "/file", "in the way\n");
        let error = Open::new(&env, &FileSink::lines("/file/out")).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.message().contains("/file/out") && error.message().contains("choose another"),
            "{error}"
        );
    });
}

#[test]
fn wrong_settings_are_refused() {
    let sink = |dir: &str| FileSink::<u64>::lines(dir);
    for (sink, part) in [
        (sink(""), "empty name"),
        (sink("/out").roll_at(0), "roll_at"),
        (sink("/out").roll_after(Duration::ZERO), "roll_after"),
    ] {
        let error = sink.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        assert!(error.message().contains(part), "{error}");
    }
}

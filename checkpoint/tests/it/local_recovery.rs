//! Local recovery without an engine: which copies stay (against every order of events), and a store with copies in front of
//! it, which gives the bytes of the store whatever becomes of the copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use env::{
    Env, Files, Store,
    sim::{Options, Simulation},
};
use futures::future::{Either, join_all, select};
use proptest::prelude::*;
use tidegate_checkpoint::{
    local_recovery::{
        LocalRecovery, LocalStore, ReadBytes,
        plan::{Copies, Purpose},
    },
    storage::paths,
};
use types::{
    AttemptId, CheckpointId, Digest, JobId, KeyGroupRange, Run, RunIdentity, SnapshotFile, SubtaskIndex, Uid,
};

const PIECE: usize = 256 << 10;
const FETCHED_AT_ONCE: usize = 4 << 20;
/// How long a disk that hangs takes for a call, at the most.
const HANGS: Duration = Duration::from_secs(50_000);

fn run_path(attempt: u64, number: u64) -> String {
    paths::run(AttemptId(attempt), &Uid::new("it").unwrap(), SubtaskIndex(0), number)
}

/// What happens next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// So many bytes of a new file, in so many writes; it is given up at the end or not.
    Write { bytes: u64, writes: u64, gives_up: bool },
    /// One of the older files is fetched, if there is no copy.
    Fetch { which: usize },
    /// A checkpoint lists some files: those whose bit is set.
    List { bits: u32 },
    /// The newest listed checkpoint is completed.
    Complete,
    /// A new attempt begins with the last completed checkpoint.
    Begin,
    /// A copy turns out to be damaged.
    Damage { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..60_u64, 1..4_u64, prop::bool::weighted(0.1))
            .prop_map(|(bytes, writes, gives_up)| Step::Write { bytes, writes, gives_up }),
        2 => any::<usize>().prop_map(|which| Step::Fetch { which }),
        3 => any::<u32>().prop_map(|bits| Step::List { bits }),
        3 => Just(Step::Complete),
        1 => Just(Step::Begin),
        1 => any::<usize>().prop_map(|which| Step::Damage { which }),
    ]
}

/// The disk, and what the job knows.
#[derive(Default)]
struct Model {
    disk: BTreeMap<String, u64>,
    lens: BTreeMap<String, u64>,
    listed: BTreeMap<CheckpointId, BTreeSet<String>>,
    completed: CheckpointId,
    attempt: u64,
    /// Nothing was listed since the attempt began: it restores.
    is_restoring: bool,
}

impl Model {
    fn remove(&mut self, gone: Vec<String>) {
        for path in gone {
            assert!(self.disk.remove(&path).is_some(), "{path} is not there");
        }
    }

    /// What the last completed checkpoint lists.
    fn needed(&self) -> BTreeSet<String> {
        self.listed.get(&self.completed).cloned().unwrap_or_default()
    }

    fn nth(&self, which: usize) -> Option<String> {
        let at = which.checked_rem(self.lens.len())?;
        self.lens.keys().nth(at).cloned()
    }

    fn copy(&mut self, copies: &mut Copies, path: &str, writes: u64, purpose: Purpose) -> Option<()> {
        let len = self.lens[path];
        for write in 1..=writes {
            let part = if write == writes { len - len / writes * (writes - 1) } else { len / writes };
            let Some(gone) = copies.reserve(path, part, purpose) else {
                copies.forget(path);
                return None;
            };
            assert!(purpose == Purpose::Written || gone.is_empty(), "a restore needs them all");
            self.remove(gone);
        }
        copies.written(path);
        self.disk.insert(path.to_owned(), len);
        Some(())
    }
}

proptest! {
    #[test]
    fn copies_stay_within_their_limit_and_only_those_go_that_must(
        limit in 20..200_u64,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (mut copies, mut model) = (Copies::new(limit), Model::default());
        let mut next = CheckpointId(1);
        for step in steps {
            match step {
                Step::Write { bytes, writes, gives_up } => {
                    let path = run_path(model.attempt, model.lens.len() as u64);
                    prop_assert!(copies.wants(&path));
                    prop_assert!(!copies.wants(&run_path(model.attempt + 1, 1)));
                    model.lens.insert(path.clone(), bytes);
                    let fits = model.copy(&mut copies, &path, writes, Purpose::Written).is_some();
                    prop_assert_eq!(fits, bytes <= limit);
                    if gives_up && fits {
                        copies.forget(&path);
                        model.disk.remove(&path);
                    }
                }
                Step::Fetch { which } => {
                    let needed = model.needed();
                    let is_wanted = |path: &String| needed.contains(path) && !copies.has(path);
                    if model.is_restoring && let Some(path) = model.nth(which).filter(is_wanted) {
                        let fits = copies.bytes() + model.lens[&path] <= limit;
                        let made = model.copy(&mut copies, &path, 1, Purpose::Fetched).is_some();
                        prop_assert_eq!(made, fits);
                    }
                }
                Step::List { bits } => {
                    model.is_restoring = false;
                    let chosen = model.lens.keys().rev().take(32).enumerate();
                    let chosen: BTreeSet<String> =
                        chosen.filter(|(at, _)| bits >> at & 1 == 1).map(|(_, path)| path.clone()).collect();
                    chosen.iter().for_each(|path| copies.listed(next, path));
                    model.listed.insert(next, chosen);
                    next = CheckpointId(next.0 + 1);
                }
                Step::Complete => {
                    let Some((&newest, needed)) = model.listed.last_key_value() else { continue };
                    let ever: BTreeSet<String> = model.listed.values().flatten().cloned().collect();
                    let (needed, before) = (needed.clone(), model.disk.clone());
                    model.completed = newest;
                    let gone = copies.completed(newest);
                    for path in before.keys() {
                        let is_old = !path.starts_with(&format!("attempt-{}/", model.attempt));
                        let goes = !needed.contains(path) && (ever.contains(path) || is_old);
                        prop_assert_eq!(gone.contains(path), goes, "{}", path);
                    }
                    model.remove(gone);
                }
                Step::Begin => {
                    model.attempt += 1;
                    model.is_restoring = true;
                    // What tasks of the older attempt had acknowledged completes no more.
                    let completed = model.completed;
                    model.listed.retain(|checkpoint, _| *checkpoint <= completed);
                    let needed = model.needed();
                    let named = needed.iter().map(String::as_str);
                    let gone = copies.begin(AttemptId(model.attempt), model.completed, named);
                    let stays = |path: &&String| needed.contains(*path);
                    let expected: BTreeSet<_> = model.disk.keys().filter(stays).cloned().collect();
                    model.remove(gone);
                    prop_assert_eq!(model.disk.keys().cloned().collect::<BTreeSet<_>>(), expected);
                }
                Step::Damage { which } => {
                    if let Some(path) = model.nth(which) {
                        copies.forget(&path);
                        model.disk.remove(&path);
                    }
                }
            }
            prop_assert_eq!(copies.bytes(), model.disk.values().sum::<u64>());
            prop_assert!(copies.bytes() <= limit);
            for path in model.lens.keys() {
                prop_assert_eq!(copies.has(path), model.disk.contains_key(path), "{}", path);
            }
        }
    }
}

#[test]
fn what_only_old_checkpoints_need_goes_first() {
    let mut copies = Copies::new(30);
    let path = |number| run_path(0, number);
    for number in 1..=3 {
        assert_eq!(copies.reserve(&path(number), 10, Purpose::Written), Some(vec![]));
        copies.written(&path(number));
    }
    // The oldest is needed longest, and the newest is about to be.
    copies.listed(CheckpointId(2), &path(1));
    copies.listed(CheckpointId(1), &path(2));
    assert_eq!(copies.reserve(&path(4), 10, Purpose::Written), Some(vec![path(2)]));
    assert_eq!(copies.reserve(&path(4), 1, Purpose::Written), Some(vec![path(1)]));
    assert_eq!(copies.reserve(&path(4), 19, Purpose::Written), Some(vec![path(3)]));
    assert_eq!(copies.reserve(&path(4), 1, Purpose::Written), None, "what is being written does not go");
}

/// Bytes that are nowhere alike.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn run(path: &str, content: &[u8]) -> Run {
    let operator = Uid::new("it").unwrap();
    let identity =
        RunIdentity { job: JobId(1), attempt: AttemptId(0), operator, subtask: SubtaskIndex(0), number: 1 };
    let file = SnapshotFile { path: path.to_owned(), len: content.len() as u64, digest: Digest::of(content) };
    let groups = KeyGroupRange { start: 0, end: 1 };
    Run { file, identity, groups, without: Vec::new(), entries: 1, tombstones: 0, plain_bytes: 1 }
}

/// A job's copies, in an attempt that restores `runs`.
async fn begun(env: &Env, attempt: u64, runs: &[Run]) -> LocalRecovery {
    let local = LocalRecovery::new(env, "job", PathBuf::from("/local"), 64 << 20);
    let named = runs.iter().map(|run| &*run.file.path);
    local.begin(JobId(1), AttemptId(attempt), CheckpointId(1), named).await;
    local
}

/// Reads ranges all over a file, each as the store has it.
async fn assert_reads(store: &LocalStore, path: &str, content: &[u8]) {
    let len = content.len() as u64;
    let edges = [
        0,
        1,
        len / 2,
        len.saturating_sub(1),
        len,
        len + 1,
        PIECE as u64 - 1,
        PIECE as u64,
        PIECE as u64 + 1,
    ];
    for from in edges {
        for until in edges.into_iter().filter(|until| *until >= from) {
            let expected = &content[from.min(len) as usize..until.min(len) as usize];
            let found = store.get_range(path, from..until).await.unwrap().unwrap();
            assert!(found == expected, "{from}..{until} of {len}");
        }
    }
}

#[test]
fn a_copy_has_the_bytes_of_the_file_however_long_it_is() {
    let lens = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, FETCHED_AT_ONCE, FETCHED_AT_ONCE + 1];
    for len in lens {
        for fetched in [false, true] {
            Simulation::new(1).run(async |env| {
                let (content, path) = (content(len), run_path(0, 1));
                let store = env.open_store("sim:far").unwrap();
                let runs = [run(&path, &content)];
                let bytes = Bytes::from(content.clone());
                let local = begun(&env, 0, &[]).await;
                if fetched {
                    store.put(&path, vec![bytes]).await.unwrap();
                } else {
                    // As an upload writes, and as a merge does.
                    let through = LocalStore::new(Arc::clone(&store), Some(local.clone()), &[]);
                    if len % 2 == 0 {
                        let (one, two) = (bytes.slice(..len / 2), bytes.slice(len / 2..));
                        through.put(&path, vec![one, two]).await.unwrap();
                    } else {
                        let mut writer = through.writer(&path).await.unwrap();
                        writer.write(bytes).await.unwrap();
                        writer.finish().await.unwrap();
                    }
                }
                drop(local);
                let counts = Arc::new(ReadBytes::default());
                let local = begun(&env, 1, &runs).await;
                let through =
                    LocalStore::new(Arc::clone(&store), Some(local.clone()), &runs).restoring(&counts);
                assert_reads(&through, &path, &content).await;
                let read = (counts.local() > 0, counts.store());
                let from_store = if fetched { len as u64 } else { 0 };
                // An empty file is not worth a copy, and read from the store.
                assert_eq!(read, (!fetched && len > 0, from_store), "{len} bytes");
            });
        }
    }
}

#[test]
fn a_copy_that_changes_after_it_was_checked_is_noticed() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let (content, path) = (content(3 * PIECE), run_path(0, 1));
        let runs = [run(&path, &content)];
        let store = env.open_store("sim:far").unwrap();
        let through = LocalStore::new(Arc::clone(&store), Some(begun(&env, 0, &[]).await), &runs);
        through.put(&path, vec![content.clone().into()]).await.unwrap();
        let counts = Arc::new(ReadBytes::default());
        let through = through.restoring(&counts);
        assert_eq!(through.get_range(&path, 0..9).await.unwrap().unwrap(), &content[..9]);
        let copies = env.files().read_dir(Path::new("/local")).unwrap();
        let directory = copies.iter().find(|path| path.extension().is_none()).unwrap();
        let copy = directory.join("attempt-0+runs+it+0-1.run");
        control.disk().damage(&copy, |bytes| bytes[2 * PIECE] ^= 4).unwrap();
        // Where it has not changed it is good still.
        assert_eq!(through.get_range(&path, 9..19).await.unwrap().unwrap(), &content[9..19]);
        assert_eq!((counts.local(), counts.store()), (19, 0));
        let all = through.get_range(&path, 0..content.len() as u64).await.unwrap().unwrap();
        assert!(all == content);
        assert_eq!((counts.local(), counts.store()), (19, content.len() as u64));
        assert!(env.files().metadata(&copy).unwrap().is_none(), "it is dropped");
        let said: Vec<_> = control.printed().into_iter().map(|(_, line)| line).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("it has changed since it was checked"), "{said:?}");
    });
}

#[test]
fn what_the_store_has_of_a_file_is_copied_only_if_the_manifest_names_it() {
    for harm in ["shorter", "longer", "other bytes", "missing"] {
        let sim = Simulation::new(1);
        let control = sim.control();
        sim.run(async |env| {
            let (content, path) = (content(1000), run_path(0, 1));
            let runs = [run(&path, &content)];
            let mut stored = content.clone();
            match harm {
                "shorter" => drop(stored.pop()),
                "longer" => stored.push(7),
                _ => stored[500] ^= 1,
            }
            let store = env.open_store("sim:far").unwrap();
            if harm != "missing" {
                store.put(&path, vec![stored.clone().into()]).await.unwrap();
            }
            let counts = Arc::default();
            let through = LocalStore::new(store, Some(begun(&env, 1, &runs).await), &runs).restoring(&counts);
            let found = through.get_range(&path, 0..2000).await.unwrap();
            // Whoever reads it sees for himself.
            assert_eq!(found.as_deref(), (harm != "missing").then_some(&stored[..]), "{harm}");
            let left = env.files().read_dir(Path::new("/local")).unwrap();
            let directory = left.iter().find(|path| path.extension().is_none()).unwrap();
            assert_eq!(env.files().read_dir(directory).unwrap(), [""; 0].map(PathBuf::from), "{harm}");
            assert_eq!(control.printed(), [], "{harm}");
        });
    }
}

#[test]
fn a_process_that_dies_at_any_moment_leaves_no_copy_that_is_used_and_wrong() {
    let mut died = 0;
    for change in 1.. {
        let sim = Simulation::new(change);
        let control = sim.control();
        let ended = sim.run(async |env| {
            let store = env.open_store("sim:far").unwrap();
            let contents: Vec<_> =
                (1..=4_u64).map(|number| (number, content(number as usize * 300))).collect();
            let runs: Vec<_> =
                contents.iter().map(|(number, content)| run(&run_path(0, *number), content)).collect();
            let (process, in_it) = control.process("it");
            let local = begun(&in_it, 0, &[]).await;
            control.disk().crash_at(change);
            let far = in_it.open_store("sim:far").unwrap();
            let through = LocalStore::new(far, Some(local), &[]);
            for ((_, content), run) in contents.iter().zip(&runs) {
                let bytes = Bytes::from(content.clone());
                // The power fails, and what hears of it is gone.
                let put = through.put(&run.file.path, vec![bytes.slice(..100), bytes.slice(100..)]);
                if let Either::Left(_) = select(Box::pin(process.died()), put).await {
                    break;
                }
            }
            let has_died = !process.is_alive();
            for ((_, content), run) in contents.iter().zip(&runs) {
                store.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
            }
            let counts = Arc::new(ReadBytes::default());
            let through = LocalStore::new(store, Some(begun(&env, 1, &runs).await), &runs).restoring(&counts);
            for ((_, content), run) in contents.iter().zip(&runs) {
                assert_reads(&through, &run.file.path, content).await;
            }
            died += u64::from(has_died);
            !has_died
        });
        if ended {
            break;
        }
    }
    assert!(died > 10, "{died} died");
}

#[test]
fn a_process_that_is_killed_leaves_whole_copies_and_what_is_half_written_goes() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let contents: Vec<_> = (1..=3_usize).map(|number| content(number * PIECE)).collect();
        let number = |at: usize| at as u64 + 1;
        let runs: Vec<_> =
            contents.iter().enumerate().map(|(at, content)| run(&run_path(0, number(at)), content)).collect();
        let (process, in_it) = control.process("it");
        let local = begun(&in_it, 0, &[]).await;
        let through = LocalStore::new(in_it.open_store("sim:far").unwrap(), Some(local), &[]);
        for (content, run) in contents.iter().zip(&runs).take(2) {
            through.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
        }
        let mut writer = through.writer(&runs[2].file.path).await.unwrap();
        writer.write(Bytes::from(contents[2][..PIECE].to_vec())).await.unwrap();
        let files = env.files();
        let directory = files.read_dir(Path::new("/local")).unwrap();
        let directory = directory.into_iter().find(|path| path.extension().is_none()).unwrap();
        assert_eq!(files.read_dir(&directory).unwrap().len(), 3);
        process.kill();
        drop(writer);
        let names = |files: &dyn Files| -> Vec<String> {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            files.read_dir(&directory).unwrap().into_iter().map(name).collect()
        };
        assert_eq!(names(&*files)[2], "attempt-0+runs+it+0-3.run.partial", "the dead clean nothing up");

        let store = env.open_store("sim:far").unwrap();
        store.put(&runs[2].file.path, vec![contents[2].clone().into()]).await.unwrap();
        let counts = Arc::new(ReadBytes::default());
        let local = begun(&env, 1, &runs).await;
        assert_eq!(names(&*files), ["attempt-0+runs+it+0-1.run", "attempt-0+runs+it+0-2.run"]);
        let through = LocalStore::new(store, Some(local), &runs).restoring(&counts);
        for (content, run) in contents.iter().zip(&runs) {
            let found = through.get_range(&run.file.path, 0..run.file.len).await.unwrap().unwrap();
            assert!(found == *content);
        }
        let lens = runs.iter().map(|run| run.file.len).collect::<Vec<_>>();
        assert_eq!((counts.local(), counts.store()), (lens[0] + lens[1], lens[2]));
        assert_eq!(names(&*files).len(), 3, "it has a copy now");
    });
}

/// What the jobs of this root have as copies, by the names of their directories.
fn directories(files: &dyn Files) -> BTreeMap<PathBuf, usize> {
    let found = files.read_dir(Path::new("/local")).unwrap();
    let directories = found.into_iter().filter(|path| path.extension().is_none());
    directories.map(|path| (path.clone(), files.read_dir(&path).unwrap().len())).collect()
}

#[test]
fn what_dead_jobs_have_left_is_bounded_and_what_living_ones_have_stays() {
    let sim = Simulation::new(1);
    let control = sim.control();
    sim.run(async |env| {
        let begin = async |env: &Env, job: u64, limit: u64| {
            let local = LocalRecovery::new(env, &format!("job {job}"), PathBuf::from("/local"), limit);
            local.begin(JobId(job.into()), AttemptId(0), CheckpointId(0), [].into_iter()).await;
            LocalStore::new(env.open_store(&format!("sim:{job}")).unwrap(), Some(local), &[])
        };
        let mut alive = Vec::new();
        for job in 1..=4 {
            let (process, own) = control.process(&format!("it {job}"));
            let through = begin(&own, job, 10 * PIECE as u64).await;
            for number in 0..3 {
                through.put(&run_path(0, number), vec![content(PIECE).into()]).await.unwrap();
            }
            if job == 2 {
                alive.push((process, through));
            } else {
                process.kill();
            }
        }
        let files = env.files();
        assert_eq!(directories(&*files).values().copied().collect::<Vec<_>>(), [3; 4]);
        let holding = begin(&env, 5, 7 * PIECE as u64).await;
        let left = directories(&*files);
        assert_eq!(
            left.values().copied().collect::<Vec<_>>(),
            [3, 3, 3, 0],
            "two dead ones have room: {left:?}"
        );
        drop(holding);
        let _holding = begin(&env, 6, PIECE as u64).await;
        let left = directories(&*files);
        assert_eq!(left.values().copied().collect::<Vec<_>>(), [3, 0, 0], "only the living one: {left:?}");
    });
}

#[test]
fn what_others_have_and_nobody_may_touch_is_not_in_the_way() {
    Simulation::new(1).run(async |env| {
        let files = env.files();
        // Its lock cannot be taken, as where it belongs to another user.
        for dir in ["/local/tidegate-copies-another", "/local/tidegate-copies-another.lock"] {
            files.create_dir_all(Path::new(dir)).unwrap();
        }
        let local = LocalRecovery::new(&env, "job", PathBuf::from("/local"), PIECE as u64);
        local.begin(JobId(1), AttemptId(0), CheckpointId(0), [].into_iter()).await;
        let through = LocalStore::new(env.open_store("sim:far").unwrap(), Some(local), &[]);
        through.put(&run_path(0, 1), vec![content(PIECE).into()]).await.unwrap();
        assert_eq!(directories(&*files).values().copied().collect::<Vec<_>>(), [1, 0]);
    });
}

#[test]
fn a_disk_that_hangs_holds_nobody_up_and_is_not_asked_again() {
    for seed in 0..6 {
        let sim = Simulation::new(seed);
        let control = sim.control();
        sim.run(async |env| {
            let store = env.open_store("sim:far").unwrap();
            let local = begun(&env, 0, &[]).await;
            let content = content(4 * PIECE);
            let run = run(&run_path(0, 1), &content);
            let through =
                LocalStore::new(Arc::clone(&store), Some(local.clone()), std::slice::from_ref(&run));
            let write = async |number: u64| {
                let (path, since) = (run_path(0, number), env.now());
                let mut writer = through.writer(&path).await.unwrap();
                writer.write(content.clone().into()).await.unwrap();
                writer.finish().await.unwrap();
                through.put(&run_path(0, number + 1), vec![content.clone().into()]).await.unwrap();
                assert_eq!(store.get(&path).await.unwrap().unwrap(), content);
                env.now().since(since)
            };
            // A checkpoint lists what it is of and is completed; before, a restore of it reads what there are copies of.
            let complete = async |checkpoint: u64, number: u64| {
                let since = env.now();
                let read = through.get_range(&run.file.path, 0..content.len() as u64).await.unwrap().unwrap();
                assert!(read == content, "seed {seed}");
                let listed = [number, number + 1].map(|number| run_path(0, number));
                local.listed(CheckpointId(checkpoint), listed.iter().map(String::as_str));
                local.completed(CheckpointId(checkpoint)).await;
                env.now().since(since)
            };
            write(1).await;
            let copies = || directories(&*env.files()).values().sum::<usize>();
            assert_eq!(copies(), 2, "seed {seed}");

            let usual = control.options();
            control.set_options(Options { blocking_delay: HANGS, ..usual });
            let many = || join_all((10..50).step_by(2).map(write));
            let first = match seed % 3 {
                0 => many().await.into_iter().max().unwrap(),
                1 => write(10).await,
                // Of tasks that end meanwhile.
                _ => {
                    assert!(env.timeout(Duration::from_secs(1), many()).await.is_none(), "seed {seed}");
                    write(50).await
                }
            };
            assert!(first < Duration::from_secs(30), "seed {seed}: a checkpoint waited for {first:?}");
            for checkpoint in 2..20 {
                // Copies are given up while they cannot be removed.
                let number = if checkpoint < 10 { 1 } else { 7 };
                let next = complete(checkpoint, number).await + write(60 + 2 * checkpoint).await;
                assert!(
                    next < Duration::from_secs(1),
                    "seed {seed}: the disk is asked again at once: {next:?}"
                );
                env.sleep(Duration::from_secs(20)).await;
            }
            let calls = control.blocking_calls();
            assert!((1..=2).contains(&calls), "seed {seed}: {calls} calls wait for the disk");
            let told =
                control.printed().into_iter().filter(|(_, line)| line.contains("left out for now")).count();
            assert_eq!(told, 1, "seed {seed}: {:?}", control.printed());

            control.set_options(usual);
            env.sleep(HANGS).await;
            write(7).await;
            complete(20, 7).await;
            assert_eq!(copies(), 2, "seed {seed}: it is used again, and what was owed is gone");
        });
    }
}

/// A restore reads the store while the disk says nothing, and the copies when it does.
#[test]
fn a_disk_that_hangs_costs_no_copies() {
    for seed in 0..6 {
        let sim = Simulation::new(seed);
        let control = sim.control();
        sim.run(async |env| {
            let store = env.open_store("sim:far").unwrap();
            let local = begun(&env, 0, &[]).await;
            let content = content(4 * PIECE);
            let runs: Vec<Run> = (0..20).map(|number| run(&run_path(0, number), &content)).collect();
            let through = LocalStore::new(Arc::clone(&store), Some(local.clone()), &[]);
            for run in &runs {
                through.put(&run.file.path, vec![content.clone().into()]).await.unwrap();
            }
            let named = runs.iter().map(|run| &*run.file.path);
            local.begin(JobId(1), AttemptId(1), CheckpointId(1), named).await;
            let counts = Arc::new(ReadBytes::default());
            let restoring =
                LocalStore::new(Arc::clone(&store), Some(local.clone()), &runs).restoring(&counts);
            let read = async || {
                let since = env.now();
                let all = join_all(runs.iter().map(async |run| {
                    let whole = restoring.get_range(&run.file.path, 0..content.len() as u64).await;
                    assert!(whole.unwrap().unwrap() == content, "seed {seed}");
                }));
                all.await;
                env.now().since(since)
            };
            let usual = control.options();
            control.set_options(Options { blocking_delay: HANGS, ..usual });
            let took = read().await;
            assert!(took < Duration::from_secs(30), "seed {seed}: a restore waited for {took:?}");
            assert_eq!(counts.local(), 0, "seed {seed}");
            control.set_options(usual);
            env.sleep(HANGS).await;
            local.completed(CheckpointId(1)).await;
            assert_eq!(directories(&*env.files()).values().sum::<usize>(), runs.len(), "seed {seed}");
            read().await;
            assert_eq!(counts.local(), (runs.len() * content.len()) as u64, "seed {seed}");
        });
    }
}

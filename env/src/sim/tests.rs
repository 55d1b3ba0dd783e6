#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::ErrorKind;

use super::{shared::lock, *};
use crate::{Created, Files, Store, channel, store_conformance};

const SECOND: Duration = Duration::from_secs(1);

fn bytes(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

/// A run with tasks, channels, files, a store with faults, and a crash.
fn busy(seed: u64) -> (u64, Vec<String>) {
    let sim = Simulation::new(seed);
    sim.set_store_faults(StoreFaults::some(&mut sim.env().rng("faults")));
    sim.run(async |env| {
        let (process, own) = sim.process("worker");
        let (sender, mut receiver) = channel(&env, crate::Limits::items(2));
        for task in 0..3 {
            let (own, sender, control) = (own.clone(), sender.clone(), sim.control());
            own.clone().spawn_task("task", async move {
                let store = own.open_store("/store").unwrap();
                let mut rng = own.rng(&format!("task {task}"));
                for step in 0..10 {
                    own.sleep(Duration::from_millis(rng.random_range(0..20))).await;
                    let done = store.create(&format!("{task}/{step}"), bytes("x")).await;
                    control.trace(format_args!("{task} {step} {done:?}"));
                    if sender.send(crate::Message(step)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..20 {
            sim.trace(format_args!("got {:?}", receiver.recv().await));
        }
        process.crash();
        let (_, own) = sim.process("worker");
        let store = own.open_store("/store").unwrap();
        sim.trace(format_args!("left {:?}", store.list("").await));
    });
    (sim.trace_hash(), sim.last_events())
}

#[test]
fn one_seed_is_one_run() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let (first, second) = (busy(seed), busy(seed));
        for (one, two) in first.1.iter().zip(&second.1) {
            assert_eq!(one, two, "seed {seed} diverges");
        }
        assert_eq!(first.0, second.0, "seed {seed}");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 20, "different seeds gave the same run");
}

#[test]
fn the_stores_conform() {
    for seed in 0..10 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            for url in ["/some/dir", "memory:x", "sim:x"] {
                store_conformance(&env, env.open_store(url).unwrap()).await;
            }
        });
    }
}

#[test]
fn time_is_virtual_and_the_wall_may_jump() {
    let sim = Simulation::new(1);
    sim.run(async |env| {
        let (start, wall) = (env.now(), env.wall());
        env.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(env.now().since(start), Duration::from_secs(3_600));
        assert_eq!(env.wall() - Duration::from_secs(3_600), wall);
        sim.jump_wall(-7_200_000);
        assert_eq!(env.wall() + Duration::from_secs(3_600), wall);
        assert_eq!(env.now().since(start), Duration::from_secs(3_600));
    });
}

#[test]
#[should_panic(expected = "not done after")]
fn waiting_for_ever_is_a_failure() {
    Simulation::new(1).run(async |_| std::future::pending::<()>().await);
}

#[test]
fn randomness_belongs_to_a_name_and_a_life() {
    let numbers = |seed| {
        let sim = Simulation::new(seed);
        let (_, first) = sim.process("a");
        let (_, second) = sim.process("a");
        assert_eq!(first.seed("x"), first.seed("x"));
        [first.seed("x"), first.seed("y"), second.seed("x"), sim.env().seed("x")]
    };
    let all: BTreeSet<_> = [numbers(1), numbers(2)].concat().into_iter().collect();
    assert_eq!(all.len(), 8);
    assert_eq!(numbers(1), numbers(1));
}

fn write(files: &dyn Files, path: &str, text: &str, sync: bool) {
    let mut file = files.create_new(Path::new(path)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    if sync {
        file.sync_all().unwrap();
    }
}

fn read(files: &dyn Files, path: &str) -> Option<String> {
    let file = files.open(Path::new(path)).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(String::from_utf8(bytes).unwrap())
}

/// What is left of `/d/f` after `write` and a crash, over many seeds.
fn left(write: impl Fn(&dyn Files)) -> BTreeSet<Option<String>> {
    (0..64)
        .map(|seed| {
            let sim = Simulation::new(seed);
            let (process, own) = sim.process("writer");
            let files = own.files();
            files.create_dir_all(Path::new("/d")).unwrap();
            files.sync_dir(Path::new("/")).unwrap();
            write(&*files);
            process.crash();
            read(&*sim.env().files(), "/d/f")
        })
        .collect()
}

fn texts(all: &[Option<&str>]) -> BTreeSet<Option<String>> {
    all.iter().map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn a_crash_keeps_what_was_synced() {
    let found = left(|files| {
        write(files, "/d/f", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
    });
    assert_eq!(found, texts(&[Some("abc")]));
}

#[test]
fn a_crash_may_lose_or_tear_what_was_not() {
    let found = left(|files| {
        write(files, "/d/f", "abc", false);
        files.sync_dir(Path::new("/d")).unwrap();
    });
    assert_eq!(found, texts(&[Some(""), Some("a"), Some("ab"), Some("abc")]), "bytes without a sync");
    let found = left(|files| write(files, "/d/f", "abc", true));
    assert_eq!(found, texts(&[None, Some("abc")]), "a name without a sync of its directory");
    let found = left(|files| {
        write(files, "/d/f", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
        let mut file = files.append(Path::new("/d/f"), 1).unwrap();
        file.write_all(b"x").unwrap();
    });
    assert!(found.contains(&Some("abc".into())), "a cut without a sync: {found:?}");
}

#[test]
fn a_rename_is_lost_or_kept_but_never_loses_the_file() {
    let found = left(|files| {
        write(files, "/d/old", "abc", true);
        files.sync_dir(Path::new("/d")).unwrap();
        files.rename_new(Path::new("/d/old"), Path::new("/d/f")).unwrap();
    });
    assert_eq!(found, texts(&[None, Some("abc")]));
    for seed in 0..64 {
        let sim = Simulation::new(seed);
        let files = sim.env().files();
        write(&*files, "/old", "abc", true);
        files.sync_dir(Path::new("/")).unwrap();
        files.create_dir_all(Path::new("/d")).unwrap();
        files.rename_new(Path::new("/old"), Path::new("/d/new")).unwrap();
        sim.crash();
        let names = [read(&*files, "/old"), read(&*files, "/d/new")];
        let lost_with_directory = files.metadata(Path::new("/d")).unwrap().is_none();
        assert!(names.iter().flatten().count() >= 1 || lost_with_directory, "seed {seed}: the file is gone");
    }
}

#[test]
fn a_killed_process_leaves_the_page_cache_and_no_lock() {
    let sim = Simulation::new(3);
    let (process, own) = sim.process("writer");
    let (files, path) = (own.files(), Path::new("/lock"));
    write(&*files, "/f", "abc", false);
    let held = files.lock(path, "writer").unwrap().unwrap();
    let observer = sim.env().files();
    assert_eq!(observer.lock(path, "observer").unwrap().err().unwrap(), "writer");
    process.kill();
    assert!(observer.lock(path, "observer").unwrap().is_ok());
    drop(held);
    assert_eq!(read(&*observer, "/f").as_deref(), Some("abc"));
    assert!(files.create_new(Path::new("/g")).is_err(), "a dead process writes");
    assert!(files.open(Path::new("/f")).is_err(), "a dead process reads");
}

#[test]
fn a_crash_ends_all_tasks_of_the_machine_at_once() {
    for seed in 0..20 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            let (process, own) = sim.process("a");
            let (other, _) = sim.process("b");
            let (far, _) = sim.process_on("elsewhere", "c");
            let ticks = Arc::new(AtomicU64::new(0));
            let task = own.spawn_task("ticker", {
                let (own, ticks) = (own.clone(), Arc::clone(&ticks));
                async move {
                    loop {
                        own.sleep(SECOND).await;
                        ticks.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            env.sleep(SECOND * 5 / 2).await;
            process.crash();
            process.died().await;
            assert_eq!(task.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
            env.sleep(SECOND * 10).await;
            assert_eq!(ticks.load(Ordering::Relaxed), 2);
            assert!(!process.is_alive() && !other.is_alive() && far.is_alive());
            let late = own.spawn_task("late", async move { panic!("a dead process runs") });
            assert_eq!(late.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
            assert!(env.timeout(SECOND, own.sleep(Duration::ZERO)).await.is_none());
            assert!(env.timeout(SECOND, own.blocking("work", || 1)).await.is_none());
        });
    }
}

/// For each path whether the store has acknowledged that it is there, or that it is gone.
type Acknowledged = Arc<Mutex<BTreeMap<String, bool>>>;

#[test]
fn what_the_local_store_acknowledged_survives() {
    let mut unacknowledged = 0;
    for seed in 0..240 {
        let sim = Simulation::new(seed);
        sim.run(async |_| {
            let (process, own) = sim.process("writer");
            let acknowledged = Acknowledged::default();
            let task = own.spawn_task("writer", write_until_dead(own.clone(), Arc::clone(&acknowledged)));
            sim.disk().crash_at(seed + 1);
            process.died().await;
            drop(task.join().await);
            let store = sim.process("reader").1.open_store("/a/store").unwrap();
            let acknowledged = lock(&acknowledged).clone();
            for (path, &there) in &acknowledged {
                let found = store.get(path).await.unwrap();
                let expected = there.then(|| Bytes::from(path.clone()));
                assert_eq!(found, expected, "seed {seed}: {path} is lost, or back");
            }
            for entry in store.list("").await.unwrap() {
                assert_eq!(entry.len, entry.path.len() as u64, "seed {seed}: {} is torn", entry.path);
                unacknowledged += usize::from(!acknowledged.contains_key(&entry.path));
            }
        });
    }
    assert!(
        unacknowledged > 0,
        "no crash came between a deed and its acknowledgement: the test sees too little"
    );
}

async fn write_until_dead(own: Env, acknowledged: Acknowledged) {
    let Ok(store) = own.open_store("/a/store") else { return };
    for number in 0.. {
        let path = format!("{}/{number}", number % 3);
        match number % 4 {
            0 => store.put(&path, bytes(&path)).await.unwrap(),
            1 => {
                let mut writer = store.writer(&path).await.unwrap();
                writer.write(Bytes::from(path.clone())).await.unwrap();
                writer.finish().await.unwrap();
            }
            _ => assert_eq!(store.create(&path, bytes(&path)).await.unwrap(), Created::New),
        }
        if number % 4 == 3 {
            store.delete(&path).await.unwrap();
        }
        lock(&acknowledged).insert(path, number % 4 != 3);
        own.sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_exists_is_durable_when_a_create_says_so() {
    for seed in 0..20 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            let store = env.open_store("/store").unwrap();
            // A rival that has renamed its object into place and not yet synced the directory.
            write(&*env.files(), "/store/a", "rival", true);
            assert_eq!(store.create("a", bytes("own")).await.unwrap(), Created::Exists);
            sim.crash();
            let found = env.open_store("/store").unwrap().get("a").await.unwrap();
            assert_eq!(found.as_deref(), Some(&b"rival"[..]), "seed {seed}");
        });
    }
}

#[test]
fn a_failed_sync_of_a_file_fails_one_object() {
    let sim = Simulation::new(4);
    sim.run(async |env| {
        let store = env.open_store("/store").unwrap();
        store.put("warm", vec![]).await.unwrap();
        sim.disk().fail_sync(1);
        let error = store.create("a", bytes("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(store.get("a").await.unwrap(), None);
        assert_eq!(store.create("a", bytes("y")).await.unwrap(), Created::New);
    });
}

#[test]
fn a_failed_sync_of_a_directory_ends_the_store() {
    let sim = Simulation::new(4);
    sim.run(async |env| {
        let store = env.open_store("/store").unwrap();
        store.put("warm", vec![]).await.unwrap();
        sim.disk().fail_sync(2);
        let error = store.create("a", bytes("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "it is unknown whether it is there: {error}");
        let error = store.get("a").await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Unavailable,
            "reading it back would show what may be lost: {error}"
        );
    });
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let sim = Simulation::new(5);
    sim.run(async |env| {
        let store = env.open_store("/store").unwrap();
        sim.disk().limit_space(Some(5));
        let error = store.create("a", bytes("longer than that")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(store.list("").await.unwrap(), []);
        sim.disk().limit_space(None);
        assert_eq!(store.create("a", bytes("longer than that")).await.unwrap(), Created::New);
    });
}

#[test]
fn a_sync_after_a_failed_one_promises_nothing() {
    for seed in 0..32 {
        let sim = Simulation::new(seed);
        let files = sim.env().files();
        let mut file = files.create_new(Path::new("/f")).unwrap();
        files.sync_dir(Path::new("/")).unwrap();
        file.write_all(b"lost").unwrap();
        sim.disk().fail_sync(1);
        file.sync_all().unwrap_err();
        file.sync_all().unwrap();
        sim.crash();
        assert_eq!(read(&*files, "/f").as_deref(), Some(""), "seed {seed}");
    }
}

#[test]
fn store_faults_all_happen_and_lie_as_they_should() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let sim = Simulation::new(seed);
        let faults = StoreFaults {
            latency: Duration::from_millis(20),
            refuse: 0.2,
            lose_reply: 0.2,
            duplicate: 0.5,
            conflict: 0.2,
        };
        sim.set_store_faults(faults);
        sim.run(async |env| {
            let store = env.open_store("sim:x").unwrap();
            let answer = store.create("a", bytes("x")).await;
            sim.set_store_faults(StoreFaults::default());
            let there = store.get("a").await.unwrap().is_some();
            seen.insert((answer.is_ok(), there));
            assert!(there || answer.is_err(), "seed {seed}: acknowledged and not there");
            store.delete("a").await.unwrap();
            env.sleep(SECOND * 20).await;
            if store.get("a").await.unwrap().is_some() {
                seen.insert((true, false));
            }
        });
    }
    let all = [(true, true), (false, true), (false, false), (true, false)];
    assert_eq!(seen, all.into_iter().collect(), "done, lost reply, refused, done again after a delete");
}

#[test]
fn a_far_request_arrives_although_its_sender_died() {
    let mut arrived = 0;
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        sim.set_store_faults(StoreFaults { latency: SECOND, ..StoreFaults::default() });
        sim.run(async |env| {
            let (process, own) = sim.process("sender");
            let store: Arc<dyn Store> = own.open_store("sim:x").unwrap();
            own.spawn_task("send", async move {
                drop(store.create("a", bytes("x")).await);
            });
            env.sleep(Duration::from_millis(5)).await;
            process.kill();
            env.sleep(SECOND * 5).await;
            let there = env.open_store("sim:x").unwrap().get("a").await.unwrap().is_some();
            arrived += usize::from(there);
        });
    }
    assert!(arrived > 30, "{arrived} of 40");
}

#[test]
fn fault_points_are_counted_and_armed_ones_go_off_once() {
    let sim = Simulation::new(6);
    sim.run(async |env| {
        let point = FaultPoint::ManifestAfter;
        env.fault(point).unwrap();
        sim.arm(point, 2, FaultAction::Fail(ErrorKind::Retryable));
        env.fault(point).unwrap();
        assert_eq!(env.fault(point).unwrap_err().kind(), ErrorKind::Retryable);
        env.fault(point).unwrap();
        assert_eq!(sim.faults(), BTreeMap::from([(point, 4)]));

        for action in [FaultAction::Kill, FaultAction::Crash] {
            let (process, own) = sim.process("victim");
            sim.arm(point, 1, action);
            let after = Arc::new(AtomicU64::new(0));
            let task = own.spawn_task("victim", {
                let (own, after) = (own.clone(), Arc::clone(&after));
                async move {
                    assert_eq!(own.fault(point).unwrap_err().kind(), ErrorKind::Cancelled);
                    assert!(own.files().create_new(Path::new("/never")).is_err(), "a dead process writes");
                    own.yield_now().await;
                    after.fetch_add(1, Ordering::Relaxed);
                }
            });
            process.died().await;
            assert!(task.join().await.is_err());
            assert_eq!(after.load(Ordering::Relaxed), 0);
        }
    });
}

#[test]
fn panics_become_errors_with_their_text() {
    let sim = Simulation::new(7);
    sim.run(async |env| {
        let task = env.spawn_task("the task", async { panic!("the reason") });
        assert_eq!(task.join().await.unwrap_err().to_string(), "the task panicked: the reason");
        let error = env.blocking("the work", || -> u32 { panic!("why") }).await.unwrap_err();
        assert_eq!(error.to_string(), "the work panicked: why");
    });
}

#[test]
fn blocking_work_goes_on_without_its_caller() {
    let sim = Simulation::new(8);
    sim.run(async |env| {
        let done = Arc::new(AtomicU64::new(0));
        let work = env.blocking("work", {
            let done = Arc::clone(&done);
            move || done.fetch_add(1, Ordering::Relaxed)
        });
        drop(env.timeout(Duration::ZERO, work).await);
        env.sleep(SECOND).await;
        assert_eq!(done.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn connections_carry_bytes_and_end_with_their_process() {
    let sim = Simulation::new(9);
    sim.run(async |env| {
        let (process, own) = sim.process("server");
        own.spawn_task("server", {
            let own = own.clone();
            async move {
                let mut listener = own.listen("server:1").await.unwrap();
                let mut connection = listener.accept().await.unwrap();
                let mut word = [0; 4];
                connection.read_exact(&mut word).await.unwrap();
                connection.write_all(&word).await.unwrap();
                own.sleep(SECOND * 100).await;
            }
        });
        env.sleep(SECOND).await;
        assert_eq!(own.listen("server:1").await.err().unwrap().kind(), ErrorKind::Unavailable);
        let mut connection = env.connect("server:1").await.unwrap();
        connection.write_all(b"ping").await.unwrap();
        let mut word = [0; 4];
        connection.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
        process.kill();
        assert_eq!(connection.read(&mut word).await.unwrap(), 0, "the peer is gone");
        env.sleep(SECOND).await;
        assert_eq!(env.connect("server:1").await.err().unwrap().kind(), ErrorKind::Retryable);
    });
}

#[test]
fn lines_and_variables() {
    let sim = Simulation::new(10);
    let (process, own) = sim.process("a");
    sim.set_var("NAME", "value");
    assert_eq!((own.var("NAME").as_deref(), own.var("OTHER")), (Some("value"), None));
    own.print("one");
    own.warn("two");
    process.kill();
    own.print("three");
    assert_eq!(sim.printed(), [("a".to_owned(), "one".to_owned()), ("a".to_owned(), "two".to_owned())]);
}

#[test]
fn damage_is_seen_by_readers() {
    let sim = Simulation::new(11);
    let files = sim.env().files();
    write(&*files, "/f", "abc", true);
    sim.disk().damage(Path::new("/f"), |bytes| bytes[1] ^= 1).unwrap();
    assert_eq!(read(&*files, "/f").as_deref(), Some("acc"));
    let missing = sim.disk().damage(Path::new("/g"), Vec::clear).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

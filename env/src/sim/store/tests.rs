//! The local store on a disk that crashes and fails, and stores that answer late, wrongly, or twice.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use types::ErrorKind;

use super::StoreFaults;
use crate::{
    Created, Env, Store,
    sim::{Simulation, shared::lock},
};

const SECOND: Duration = Duration::from_secs(1);

fn bytes(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
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
            let mut rival = env.files().create_new(Path::new("/store/a")).unwrap();
            rival.write_all(b"rival").and_then(|()| rival.sync_all()).unwrap();
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
        let text = store.check_usable().unwrap_err().to_string();
        assert!(text.contains("/store could not be synced") && text.contains("start again"), "{text}");
        for refused in [
            store.create("b", bytes("x")).await.map(drop),
            store.put("warm", vec![]).await,
            store.writer("c").await.map(drop),
            store.len("warm").await.map(drop),
            store.delete("warm").await,
            store.list("").await.map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let again = env.open_store("/store").unwrap();
        again.check_usable().unwrap();
        assert_eq!(again.create("b", bytes("x")).await.unwrap(), Created::New, "opened anew it can be used");
    });
}

#[test]
fn a_long_object_is_synced_as_it_grows() {
    let sim = Simulation::new(6);
    sim.run(async |env| {
        let store = env.open_store("/store").unwrap();
        let mut writer = store.writer("long").await.unwrap();
        let begun = sim.disk().syncs();
        let mut syncs = Vec::new();
        for _ in 0..5 {
            writer.write(Bytes::from(vec![0; 3 << 20])).await.unwrap();
            syncs.push(sim.disk().syncs() - begun);
        }
        assert_eq!(syncs, [0, 0, 1, 1, 1], "each 8 MiB, in whole pieces");
        sim.disk().fail_sync(1);
        let error = writer.write(Bytes::from(vec![0; 3 << 20])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(writer.finish().await.is_err());
        assert_eq!(store.get("long").await.unwrap(), None);
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
        sim.disk().limit_space(Some(5));
        let mut writer = store.writer("b").await.unwrap();
        let error = writer.write(Bytes::from("longer than that")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        drop(writer);
        // What did not become an object takes no room.
        assert_eq!(env.files().read_dir(Path::new("/store/staging~")).unwrap(), Vec::<PathBuf>::new());
        sim.disk().limit_space(None);
        assert_eq!(store.create("a", bytes("longer than that")).await.unwrap(), Created::New);
    });
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

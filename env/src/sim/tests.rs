//! Determinism, time, processes, tasks, fault points and connections of the simulated world.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::ErrorKind;

use super::*;
use crate::{channel, store_conformance};

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
    own.print("one").unwrap();
    own.warn("two");
    sim.fill_output(true);
    assert_eq!(own.print("lost").unwrap_err().kind(), ErrorKind::Unavailable);
    sim.fill_output(false);
    process.kill();
    own.print("three").unwrap();
    assert_eq!(sim.printed(), [("a".to_owned(), "one".to_owned()), ("a".to_owned(), "two".to_owned())]);
}

//! Limits, order, waking and ends of channels.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::{FutureExt, poll};
use rand::RngExt;

use super::*;
use crate::{Env, sim::Simulation};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    name: u32,
    records: usize,
    bytes: usize,
}

impl Weight for Item {
    fn records(&self) -> usize {
        self.records
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

const fn batch(name: u32, records: usize, bytes: usize) -> Item {
    Item { name, records, bytes }
}

const fn mark(name: u32) -> Item {
    batch(name, 0, 0)
}

/// Runs without seeded yields, so that each await does one thing.
fn quiet<T>(body: impl AsyncFnOnce(Env) -> T) -> T {
    let sim = Simulation::new(0);
    sim.set_options(crate::sim::Options { yields: 0.0, ..sim.options() });
    sim.run(body)
}

const LIMITS: Limits = Limits { records: 10, bytes: 100, items: 4 };

#[test]
fn admits_up_to_each_limit() {
    quiet(async |env| {
        for (fill, refused) in [
            (batch(0, 10, 1), batch(1, 1, 1)),
            (batch(0, 1, 100), batch(1, 1, 1)),
            (batch(0, 6, 1), batch(1, 5, 1)),
            (batch(0, 1, 60), batch(1, 1, 41)),
        ] {
            let (sender, mut receiver) = channel(&env, LIMITS);
            sender.try_send(fill).unwrap();
            assert_eq!(sender.try_send(refused), Err(TrySend::Full(refused)));
            assert_eq!(receiver.len_records(), fill.records);
            assert_eq!(receiver.try_recv(), Some(fill));
            assert_eq!(receiver.len_records(), 0);
            sender.try_send(refused).unwrap();
        }
        let (sender, _receiver) = channel(&env, LIMITS);
        (0..4).for_each(|name| sender.try_send(mark(name)).unwrap());
        assert_eq!(sender.try_send(mark(4)), Err(TrySend::Full(mark(4))));
    });
}

#[test]
fn a_mark_needs_no_room_for_records() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        sender.try_send(batch(0, 10, 100)).unwrap();
        sender.try_send(mark(1)).unwrap();
        assert_eq!(receiver.recv().await, Some(batch(0, 10, 100)));
        assert_eq!(receiver.recv().await, Some(mark(1)));
    });
}

#[test]
fn what_is_too_heavy_goes_alone() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        (0..4).for_each(|name| sender.try_send(mark(name)).unwrap());
        let heavy = batch(9, 1_000, 1_000_000);
        sender.try_send(heavy).unwrap();
        assert_eq!(sender.try_send(heavy), Err(TrySend::Full(heavy)));
        for name in 0..4 {
            assert_eq!(receiver.recv().await, Some(mark(name)));
        }
        assert_eq!(receiver.recv().await, Some(heavy));
    });
}

#[test]
fn waiting_senders_are_served_in_order_and_not_overtaken() {
    quiet(async |env| {
        let (first, mut receiver) = channel(&env, LIMITS);
        let (second, third) = (first.clone(), first.clone());
        first.try_send(batch(0, 10, 0)).unwrap();
        let mut large = Box::pin(first.send(batch(1, 8, 0)));
        let mut small = Box::pin(second.send(batch(2, 1, 0)));
        assert!(poll!(&mut large).is_pending());
        assert!(poll!(&mut small).is_pending());
        assert_eq!(third.try_send(mark(3)), Err(TrySend::Full(mark(3))), "a mark overtook waiting senders");
        assert_eq!(receiver.recv().await, Some(batch(0, 10, 0)));
        assert!(poll!(&mut small).is_pending(), "the second overtook the first");
        assert!(poll!(&mut large).is_ready());
        assert!(poll!(&mut small).is_ready());
        assert_eq!(receiver.recv().await, Some(batch(1, 8, 0)));
        assert_eq!(receiver.recv().await, Some(batch(2, 1, 0)));
    });
}

#[test]
fn a_dropped_send_gives_its_turn_to_the_next() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        sender.try_send(batch(0, 10, 0)).unwrap();
        let mut dropped = Box::pin(sender.send(batch(1, 8, 0)));
        assert!(poll!(&mut dropped).is_pending());
        let waiting = env.spawn_task("waiting", {
            let sender = sender.clone();
            async move { sender.send(batch(2, 1, 0)).await.unwrap() }
        });
        env.yield_now().await;
        // It has been given its turn, and dies before it takes it.
        assert_eq!(receiver.try_recv(), Some(batch(0, 10, 0)));
        drop(dropped);
        waiting.join().await.unwrap();
        assert_eq!(receiver.recv().await, Some(batch(2, 1, 0)));
        assert!(receiver.is_empty());
    });
}

#[test]
fn a_dropped_recv_loses_nothing() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        assert!(receiver.recv().now_or_never().is_none());
        sender.try_send(mark(1)).unwrap();
        drop(receiver.recv());
        assert_eq!(receiver.recv().now_or_never(), Some(Some(mark(1))));
    });
}

#[test]
fn the_end_comes_after_the_rest() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        let second = sender.clone();
        sender.send(mark(1)).await.unwrap();
        drop(sender);
        assert_eq!(receiver.recv().await, Some(mark(1)));
        assert!(receiver.recv().now_or_never().is_none(), "a sender is left");
        let end = env.spawn_task("end", async move { assert_eq!(receiver.recv().await, None) });
        env.yield_now().await;
        drop(second);
        end.join().await.unwrap();
    });
}

#[test]
fn a_gone_receiver_gives_items_back() {
    quiet(async |env| {
        let (sender, receiver) = channel(&env, LIMITS);
        sender.try_send(batch(0, 10, 0)).unwrap();
        let (second, third) = (sender.clone(), sender.clone());
        let waiting =
            env.spawn_task("waiting", async move { assert_eq!(second.send(mark(1)).await, Ok(())) });
        waiting.join().await.unwrap();
        let waiting = env.spawn_task("waiting", async move {
            assert_eq!(third.send(batch(2, 1, 0)).await, Err(Closed(batch(2, 1, 0))));
        });
        let watching = env.spawn_task("watching", {
            let sender = sender.clone();
            async move {
                sender.closed().await;
                sender.ready().await;
            }
        });
        env.yield_now().await;
        assert!(!sender.is_closed());
        drop(receiver);
        waiting.join().await.unwrap();
        watching.join().await.unwrap();
        assert_eq!(sender.send(mark(3)).await, Err(Closed(mark(3))));
        assert_eq!(sender.try_send(mark(3)), Err(TrySend::Closed(mark(3))));
        assert!(sender.is_closed());
    });
}

#[test]
fn items_left_behind_are_dropped_with_the_receiver() {
    struct Counted<'a>(&'a AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    quiet(async |env| {
        let dropped = AtomicUsize::new(0);
        let (sender, receiver) = channel(&env, Limits::items(4));
        assert!(sender.try_send(Message(Counted(&dropped))).is_ok());
        drop(receiver);
        assert_eq!(dropped.load(SeqCst), 1);
    });
}

#[test]
fn readiness_is_told_when_room_comes() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        assert!(sender.ready().now_or_never().is_some());
        sender.try_send(batch(0, 10, 0)).unwrap();
        assert!(sender.ready().now_or_never().is_none());
        let ready = env.spawn_task("ready", {
            let sender = sender.clone();
            async move { sender.ready().await }
        });
        env.yield_now().await;
        receiver.try_recv().unwrap();
        ready.join().await.unwrap();
    });
}

#[test]
fn blocked_time_is_measured() {
    quiet(async |env| {
        let (sender, mut receiver) = channel(&env, LIMITS);
        sender.send(batch(0, 10, 0)).await.unwrap();
        assert_eq!(sender.blocked_time(), Duration::ZERO);
        let taker = env.spawn_task("taker", {
            let env = env.clone();
            async move {
                env.sleep(Duration::from_millis(70)).await;
                receiver.recv().await.unwrap();
                env.sleep(Duration::from_millis(50)).await;
                drop(receiver);
            }
        });
        sender.send(batch(1, 1, 0)).await.unwrap();
        assert_eq!(sender.blocked_time(), Duration::from_millis(70));
        assert_eq!(sender.clone().blocked_time(), Duration::ZERO, "a clone is another sender");
        taker.join().await.unwrap();
    });
}

/// Several senders, seeded weights, pauses, cancelled sends and cancelled receives: nothing is lost or doubled, each
/// sender's order is kept, and the channel never holds more than it may.
#[test]
fn many_senders_under_seeds() {
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        sim.run(async |env| {
            let (sender, mut receiver) = channel(&env, LIMITS);
            let mut tasks = Vec::new();
            for number in 0..5_u32 {
                tasks.push(env.spawn_task("sender", send_some(env.clone(), sender.clone(), number)));
            }
            drop(sender);
            let mut next: BTreeMap<u32, u32> = BTreeMap::new();
            let mut rng = env.rng("receiver");
            loop {
                let patience = Duration::from_millis(rng.random_range(0..3));
                let Some(received) = env.timeout(patience, receiver.recv()).await else { continue };
                let Some(Item { name, .. }) = received else { break };
                let expected = next.entry(name / 1_000).or_default();
                assert_eq!(name % 1_000, *expected, "out of order");
                *expected += 1;
                assert!(receiver.len() <= LIMITS.items && receiver.len_records() <= LIMITS.records);
            }
            for task in tasks {
                task.join().await.unwrap();
            }
            assert_eq!(next.values().copied().collect::<Vec<_>>(), [30; 5]);
        });
    }
}

/// Sends 30 items that fit; gives up now and then, and sends the same item again.
async fn send_some(env: Env, sender: Sender<Item>, number: u32) {
    let mut rng = env.rng(&format!("sender {number}"));
    for name in 0..30 {
        let records = rng.random_range(0..6);
        let item = batch(number * 1_000 + name, records, records * rng.random_range(0..15));
        loop {
            let patience = Duration::from_millis(rng.random_range(0..4));
            // `timeout` asks the send first: if it is not done now it was not done at all.
            if let Some(sent) = env.timeout(patience, sender.send(item)).await {
                break sent.unwrap();
            }
        }
    }
}

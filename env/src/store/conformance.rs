//! What every [`Store`] must do, as a test that its crate runs: `store_conformance(&env, store).await`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use types::ErrorKind;

use crate::{Created, Env, Payload, Store};

/// Panics at the first thing that `store`, which must be empty and free of faults, does otherwise than [`Store`] says.
///
/// # Panics
/// If the store does not conform.
pub async fn store_conformance(env: &Env, store: Arc<dyn Store>) {
    absence(&*store).await;
    creation(&*store).await;
    replacement(&*store).await;
    writing(&*store).await;
    ranges(&*store).await;
    listing(&*store).await;
    bad_paths(&*store).await;
    race(env, &store).await;
}

fn payload(text: &str) -> Payload {
    text.as_bytes().chunks(3).map(Bytes::copy_from_slice).collect()
}

async fn content(store: &dyn Store, path: &str) -> Option<Bytes> {
    store.get(path).await.expect("get works")
}

async fn create(store: &dyn Store, path: &str, text: &str) -> Created {
    store.create(path, payload(text)).await.expect("create works")
}

async fn absence(store: &dyn Store) {
    assert_eq!(content(store, "none").await, None);
    assert_eq!(content(store, "no/where").await, None);
    assert_eq!(store.len("none").await.expect("len works"), None);
    assert_eq!(store.get_range("none", 0..1).await.expect("get_range works"), None);
    assert_eq!(store.list("").await.expect("list works"), []);
    assert_eq!(store.list("no/where/").await.expect("list works"), []);
    store.delete("none").await.expect("deleting nothing works");
    store.delete("no/where").await.expect("deleting nothing works");
}

async fn creation(store: &dyn Store) {
    assert_eq!(create(store, "create/a", "first").await, Created::New);
    assert_eq!(create(store, "create/a", "second").await, Created::Exists);
    assert_eq!(
        content(store, "create/a").await.as_deref(),
        Some(&b"first"[..]),
        "a create replaced an object"
    );
    assert_eq!(create(store, "create/empty", "").await, Created::New);
    assert_eq!(store.len("create/empty").await.expect("len works"), Some(0));
    store.delete("create/a").await.expect("delete works");
    store.delete("create/a").await.expect("delete works twice");
    assert_eq!(content(store, "create/a").await, None, "a deleted object is there");
    assert_eq!(create(store, "create/a", "third").await, Created::New);
    assert_eq!(content(store, "create").await, None, "a prefix is no object");
    assert_eq!(store.len("create").await.expect("len works"), None, "a prefix is no object");
}

async fn replacement(store: &dyn Store) {
    for text in ["long first text", "second", ""] {
        store.put("put/a", payload(text)).await.expect("put works");
        assert_eq!(content(store, "put/a").await.as_deref(), Some(text.as_bytes()));
    }
}

async fn writing(store: &dyn Store) {
    let mut writer = store.writer("write/a").await.expect("writer works");
    for piece in payload("piece by piece") {
        writer.write(piece).await.expect("write works");
    }
    assert_eq!(content(store, "write/a").await, None, "an unfinished object is visible");
    assert_eq!(store.list("write/").await.expect("list works"), [], "an unfinished object is listed");
    writer.finish().await.expect("finish works");
    assert_eq!(content(store, "write/a").await.as_deref(), Some(&b"piece by piece"[..]));

    let mut second = store.writer("write/a").await.expect("writer works");
    second.write(Bytes::from_static(b"other")).await.expect("write works");
    let error = second.finish().await.expect_err("a finish replaced an object");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(content(store, "write/a").await.as_deref(), Some(&b"piece by piece"[..]));

    let mut dropped = store.writer("write/b").await.expect("writer works");
    dropped.write(Bytes::from_static(b"never")).await.expect("write works");
    drop(dropped);
    assert_eq!(content(store, "write/b").await, None, "a dropped writer left an object");
}

async fn ranges(store: &dyn Store) {
    create(store, "range/a", "0123456789").await;
    let cases =
        [(0..10, "0123456789"), (2..5, "234"), (8..99, "89"), (10..11, ""), (99..100, ""), (4..4, "")];
    for (range, expected) in cases {
        let found = store.get_range("range/a", range.clone()).await.expect("get_range works");
        assert_eq!(found.as_deref(), Some(expected.as_bytes()), "{range:?}");
    }
    assert_eq!(store.len("range/a").await.expect("len works"), Some(10));
}

async fn listing(store: &dyn Store) {
    for path in ["list/b", "list/a/2", "list/a/10", "list/a.b", "lists/x"] {
        create(store, path, path).await;
    }
    let all = store.list("list/").await.expect("list works");
    let paths: Vec<&str> = all.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["list/a.b", "list/a/10", "list/a/2", "list/b"]);
    assert!(all.iter().all(|entry| entry.len == entry.path.len() as u64), "{all:?}");
    let below = store.list("list/a/").await.expect("list works");
    assert_eq!(below.len(), 2, "{below:?}");
    let everything = store.list("").await.expect("list works");
    assert!(everything.is_sorted() && everything.len() > all.len(), "{everything:?}");
}

async fn bad_paths(store: &dyn Store) {
    for path in ["", "/a", "a/", "a//b", "..", "a/../b", "a b", "a\\b", "a\0", "staging~/x"] {
        assert!(store.create(path, payload("x")).await.is_err(), "{path:?} was created");
        assert!(store.put(path, payload("x")).await.is_err(), "{path:?} was put");
        assert!(store.writer(path).await.is_err(), "{path:?} has a writer");
        assert!(store.get(path).await.is_err(), "{path:?} was read");
        assert!(store.delete(path).await.is_err(), "{path:?} was deleted");
    }
    assert!(store.list("lis").await.is_err(), "a prefix without a slash was listed");
}

async fn race(env: &Env, store: &Arc<dyn Store>) {
    const RIVALS: usize = 8;
    for round in 0..4 {
        let path = format!("race/{round}");
        let winners = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for rival in 0..RIVALS {
            let (store, path, winners) = (Arc::clone(store), path.clone(), Arc::clone(&winners));
            tasks.push(env.spawn_task("rival", async move {
                if create(&*store, &path, &format!("rival {rival}")).await == Created::New {
                    winners.lock().expect("no rival panics with it").push(rival);
                }
            }));
        }
        for task in tasks {
            task.join().await.expect("no rival panics");
        }
        let winners = winners.lock().expect("no rival panics with it").clone();
        assert_eq!(winners.len(), 1, "the creators of {path}: {winners:?}");
        let expected = format!("rival {}", winners[0]);
        assert_eq!(content(&**store, &path).await.as_deref(), Some(expected.as_bytes()));
    }
}

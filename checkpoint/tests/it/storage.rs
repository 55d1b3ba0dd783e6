//! The start-up probe and retries, on stores that are fit and on stores that are not.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use env::{
    Created, Env, Payload, Store, StoreEntry, StoreWriter,
    sim::{Simulation, StoreFaults},
};
use tidegate_checkpoint::storage::{probe::probe, retry::Retry};
use types::{Error, ErrorKind, Result};

use crate::fixture::RETRY;

/// How a store breaks what safety rests on.
#[derive(Clone, Copy, PartialEq)]
enum Unfit {
    /// Every create succeeds, the later one wins.
    CreatesTwice,
    /// It looks whether there is an object, and writes later: one after the other, creates are as they should be.
    LooksFirst,
    /// Nothing that was written can be read.
    ForgetsWrites,
    /// It cannot be written.
    ReadOnly,
}

struct UnfitStore {
    inner: Arc<dyn Store>,
    how: Unfit,
}

#[async_trait]
impl Store for UnfitStore {
    fn url(&self) -> &str {
        self.inner.url()
    }
    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        match self.how {
            Unfit::ReadOnly => Err(Error::unavailable("read-only")),
            Unfit::CreatesTwice => self.inner.put(path, bytes).await.map(|()| Created::New),
            Unfit::LooksFirst if self.inner.len(path).await?.is_some() => Ok(Created::Exists),
            Unfit::LooksFirst => self.inner.put(path, bytes).await.map(|()| Created::New),
            Unfit::ForgetsWrites => self.inner.create(path, bytes).await,
        }
    }
    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        self.inner.put(path, bytes).await
    }
    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        self.inner.writer(path).await
    }
    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        if self.how == Unfit::ForgetsWrites { Ok(None) } else { self.inner.get(path).await }
    }
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(path, range).await
    }
    async fn len(&self, path: &str) -> Result<Option<u64>> {
        self.inner.len(path).await
    }
    async fn delete(&self, path: &str) -> Result<()> {
        self.inner.delete(path).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        self.inner.list(prefix).await
    }
    fn local_dir(&self) -> Option<PathBuf> {
        self.inner.local_dir()
    }
}

#[test]
fn a_fit_store_passes_the_probe_and_nothing_is_left_behind() {
    let sim = Simulation::new(41);
    sim.run(async |env| {
        for url in ["/dir", "memory:m", "sim:far"] {
            let store = env.open_store(url).unwrap();
            probe(&env, &*store, "checkpoint directory").await.unwrap();
            assert!(store.list("").await.unwrap().is_empty(), "{url}");
        }
        let far = env.open_store("sim:far").unwrap();
        sim.set_store_faults(StoreFaults { lose_reply: 0.2, refuse: 0.2, ..StoreFaults::default() });
        probe(&env, &*far, "checkpoint directory").await.expect("a store that answers badly is fit");
    });
}

#[test]
fn an_unfit_store_is_refused_with_its_name() {
    Simulation::new(42).run(async |env| {
        for (how, what) in [
            (Unfit::CreatesTwice, "conditional create"),
            (Unfit::LooksFirst, "lets several win"),
            (Unfit::ForgetsWrites, "read-after-write"),
            (Unfit::ReadOnly, "make it writable"),
        ] {
            let store = UnfitStore { inner: env.open_store("sim:far").unwrap(), how };
            let error = probe(&env, &store, "checkpoint directory").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.message().contains("sim:far") || error.message().contains("far"), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    });
}

/// Calls a function that fails in a given way; how often it was called, the result, and how long it took.
async fn retried(env: &Env, kind: ErrorKind, failures: u32) -> (u32, Result<()>, Duration) {
    let (calls, start) = (AtomicU32::new(0), env.now());
    let call = async || match calls.fetch_add(1, Ordering::Relaxed) {
        call if call < failures => Err(Error::new(kind, "failed")),
        _ => Ok(()),
    };
    let result = RETRY.run(env, "do it", call).await;
    (calls.load(Ordering::Relaxed), result, env.now().since(start))
}

#[test]
fn only_passing_faults_are_tried_again_and_not_for_ever() {
    Simulation::new(43).run(async |env| {
        let (calls, result, _) = retried(&env, ErrorKind::Retryable, 3).await;
        assert!(result.is_ok() && calls == 4);
        for kind in [ErrorKind::Unavailable, ErrorKind::Corrupt, ErrorKind::Fenced] {
            let (calls, result, _) = retried(&env, kind, 3).await;
            assert_eq!((calls, result.unwrap_err().kind()), (1, kind));
        }
        let (calls, result, took) = retried(&env, ErrorKind::Retryable, u32::MAX).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Retryable);
        assert!(took <= RETRY.deadline && took > RETRY.deadline / 2, "gave up after {took:?}");
        assert!((20..60).contains(&calls), "{calls} calls: the pauses do not grow to their limit");
    });
}

#[test]
fn a_call_that_never_returns_is_given_up() {
    Simulation::new(44).run(async |env| {
        let start = env.now();
        let error = RETRY.run(&env, "wait", std::future::pending::<Result<()>>).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable);
        assert_eq!(env.now().since(start), RETRY.deadline);
    });
}

#[test]
fn an_object_of_ones_own_is_created_once_and_never_replaces_another() {
    let sim = Simulation::new(45);
    sim.run(async |env| {
        let store = env.open_store("sim:far").unwrap();
        let (own, other) = (Bytes::from_static(b"own"), Bytes::from_static(b"other"));
        sim.set_store_faults(StoreFaults { lose_reply: 0.4, refuse: 0.2, ..StoreFaults::default() });
        for number in 0..20 {
            Retry::STORE.create_own(&env, &*store, &format!("f{number}"), &own).await.unwrap();
        }
        let error = Retry::STORE.create_own(&env, &*store, "f7", &other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        sim.set_store_faults(StoreFaults::default());
        assert_eq!(store.get("f7").await.unwrap(), Some(own));
    });
}

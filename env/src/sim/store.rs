//! A store that answers late, fails before or after the deed, and does things twice, as the seed says.

#[cfg(test)]
mod tests;

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngExt;
use types::{Error, ErrorKind, Result};

use super::{shared::Shared, world::SimWorld};
use crate::{BoxFuture, Created, MemoryLimit, Payload, Rng, Store, StoreEntry, StoreRequests, StoreWriter};

/// What goes wrong with calls to stores, each with its probability from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreFaults {
    /// Half of the longest time that a call takes.
    pub latency: Duration,
    /// The call fails and nothing was done.
    pub refuse: f64,
    /// It was done, but the caller gets an error.
    pub lose_reply: f64,
    /// It is done again, up to ten seconds later.
    pub duplicate: f64,
    /// A create is answered as if somebody else's were under way, and was not done.
    pub conflict: f64,
}

impl StoreFaults {
    /// A seeded mixture: some kinds of fault, each rare enough that retries get through.
    #[must_use]
    pub fn some(rng: &mut Rng) -> Self {
        let mut chance = || if rng.random_bool(0.5) { rng.random_range(0.0..0.2) } else { 0.0 };
        let (refuse, lose_reply, duplicate, conflict) = (chance(), chance(), chance(), chance());
        let latency = Duration::from_millis(rng.random_range(0..50));
        Self { latency, refuse, lose_reply, duplicate, conflict }
    }
}

/// What a test makes of one call to a store, besides the faults that are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreCall {
    /// Nothing.
    Goes,
    /// It is done so much later.
    Waits(Duration),
    /// It fails with an error of this kind and is not done.
    Fails(ErrorKind),
}

/// Says what becomes of a call, from the name of the process and the call, such as `delete attempt-0/manifest-1`.
pub(super) type StoreRule = dyn Fn(&str, &str) -> StoreCall + Send + Sync;

const LATEST_DUPLICATE: Duration = Duration::from_secs(10);

/// What one call to a store will meet.
struct Fate {
    before: Duration,
    after: Duration,
    refused: bool,
    reply_lost: bool,
    again: Option<Duration>,
    conflict: bool,
}

impl Fate {
    fn draw(shared: &Shared) -> Self {
        let faults = shared.options().store;
        let mut rng = shared.rng();
        let latency = u64::try_from(faults.latency.as_micros()).unwrap_or(u64::MAX);
        let mut wait = |longest: u64| Duration::from_micros(rng.random_range(0..=longest));
        let (before, after) = (wait(latency), wait(latency));
        let again = wait(LATEST_DUPLICATE.as_micros() as u64);
        Self {
            before,
            after,
            refused: rng.random_bool(faults.refuse),
            reply_lost: rng.random_bool(faults.lose_reply),
            again: rng.random_bool(faults.duplicate).then_some(again),
            conflict: rng.random_bool(faults.conflict),
        }
    }
}

/// Where a store's requests are carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// In the process that asks: a dead process asks nothing any more.
    Local,
    /// Far away: a request that is on its way arrives also when its sender has died.
    Remote,
}

/// `inner`, as it is seen through a bad world.
pub(super) struct FaultyStore {
    pub(super) inner: Arc<dyn Store>,
    pub(super) world: SimWorld,
    pub(super) reach: Reach,
}

impl FaultyStore {
    /// Carries out a call that may be repeated.
    async fn call<T: Send + 'static>(
        &self,
        what: String,
        deed: impl Fn(Arc<dyn Store>) -> BoxFuture<'static, Result<T>> + Send + Sync + 'static,
    ) -> Result<T> {
        self.world.until_alive().await;
        let fate = Fate::draw(&self.world.shared);
        if fate.conflict && what.starts_with("create") {
            self.world.pause(fate.before).await;
            return Err(Error::retryable(format!("{what}: simulated: another request is under way (409)")));
        }
        let ruled = self.world.shared.rule(&self.world.process.name, &what);
        let (shared, inner, reach) = (Arc::clone(&self.world.shared), Arc::clone(&self.inner), self.reach);
        let request = {
            let (shared, what, world) = (Arc::clone(&shared), what.clone(), self.world.clone());
            async move {
                shared.pause(fate.before).await;
                match ruled {
                    StoreCall::Goes => {}
                    StoreCall::Waits(span) => shared.pause(span).await,
                    StoreCall::Fails(kind) => {
                        return Err(Error::new(kind, format!("{what}: simulated: refused")));
                    }
                }
                if fate.refused {
                    return Err(Error::retryable(format!("{what}: simulated: no answer")));
                }
                let done = deed(Arc::clone(&inner)).await;
                world.note(&format!("store {what} {}", if done.is_ok() { "done" } else { "failed" }));
                if let Some(delay) = fate.again {
                    let late = Arc::clone(&shared);
                    shared.detach(async move {
                        late.pause(delay).await;
                        drop(deed(inner).await);
                        world.note(&format!("store {what} done again"));
                    });
                }
                shared.pause(fate.after).await;
                if fate.reply_lost {
                    done.and(Err(Error::retryable("simulated: the answer was lost")))
                } else {
                    done
                }
            }
        };
        let answer = match reach {
            Reach::Local => request.await,
            Reach::Remote => shared.detached(request).await,
        };
        self.world.until_alive().await;
        answer
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        let at = path.to_owned();
        self.call(format!("create {path}"), move |store| {
            let (at, bytes) = (at.clone(), bytes.clone());
            Box::pin(async move { store.create(&at, bytes).await })
        })
        .await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        let at = path.to_owned();
        self.call(format!("put {path}"), move |store| {
            let (at, bytes) = (at.clone(), bytes.clone());
            Box::pin(async move { store.put(&at, bytes).await })
        })
        .await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        self.world.until_alive().await;
        let inner = self.inner.writer(path).await?;
        Ok(Box::new(FaultyWriter { inner, path: path.to_owned(), world: self.world.clone() }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let at = path.to_owned();
        self.call(format!("get {path}"), move |store| {
            let at = at.clone();
            Box::pin(async move { store.get(&at).await })
        })
        .await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let at = path.to_owned();
        self.call(format!("get {path} {range:?}"), move |store| {
            let (at, range) = (at.clone(), range.clone());
            Box::pin(async move { store.get_range(&at, range).await })
        })
        .await
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        let at = path.to_owned();
        self.call(format!("len {path}"), move |store| {
            let at = at.clone();
            Box::pin(async move { store.len(&at).await })
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let at = path.to_owned();
        self.call(format!("delete {path}"), move |store| {
            let at = at.clone();
            Box::pin(async move { store.delete(&at).await })
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        let below = prefix.to_owned();
        self.call(format!("list {prefix}"), move |store| {
            let below = below.clone();
            Box::pin(async move { store.list(&below).await })
        })
        .await
    }

    async fn tidy(&self) -> Result<()> {
        self.inner.tidy().await
    }

    fn requests(&self) -> Vec<StoreRequests> {
        self.inner.requests()
    }

    async fn prune(&self, deleted: &[String]) -> Result<()> {
        self.inner.prune(deleted).await
    }

    fn limit_memory(&self, limit: MemoryLimit) {
        self.inner.limit_memory(limit);
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.inner.local_dir()
    }

    fn check_usable(&self) -> Result<()> {
        self.inner.check_usable()
    }
}

struct FaultyWriter {
    inner: Box<dyn StoreWriter>,
    path: String,
    world: SimWorld,
}

/// Waits, and says whether the call is to fail before the deed or after it.
async fn meet(world: &SimWorld, path: &str) -> Result<Fate> {
    world.until_alive().await;
    let fate = Fate::draw(&world.shared);
    world.pause(fate.before).await;
    if fate.refused {
        return Err(Error::retryable(format!("write {path}: simulated: no answer")));
    }
    Ok(fate)
}

#[async_trait]
impl StoreWriter for FaultyWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        meet(&self.world, &self.path).await?;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        let Self { inner, path, world } = *self;
        let fate = meet(&world, &path).await?;
        inner.finish().await?;
        world.note(&format!("store wrote {path}"));
        world.pause(fate.after).await;
        if fate.reply_lost {
            return Err(Error::retryable(format!("write {path}: simulated: the answer was lost")));
        }
        Ok(())
    }
}

//! `s3://BUCKET/PREFIX`: a store on S3, or on what speaks as it does, through the crate `object_store`.
//!
//! A create is one request with `If-None-Match: *`, and is sent once: a request whose answer was lost may have been
//! carried out, and a second one would then meet its own object and take it for somebody else's. Everything else gives
//! the same result when it is sent again, so a passing fault (5xx, a dropped connection) is met by a few tries, within
//! [`RETRIES`]. `docs/0016-s3.md` says what was found out about servers and about `object_store`.

mod exchange;
mod options;
mod requests;
#[cfg(any(test, feature = "test-util"))]
mod server;
#[cfg(test)]
mod tests;
mod writer;

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    BackoffConfig, Error as S3Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig, WriteMultipart, aws::AmazonS3, path::Path,
};
use types::{Error, Result};

#[cfg(any(test, feature = "test-util"))]
pub use self::server::{S3Proxy, S3Request, S3Server, Treatment};
use self::{exchange::failed, requests::Requests, writer::S3Writer};
use super::{
    Created, Payload, Store, StoreEntry, StoreRequests, StoreWriter,
    path::{check_object, check_prefix, is_part},
};
use crate::{BoxFuture, TaskHandle};

/// How often and how long a request that may be repeated is sent again inside of one call. Callers go on after that, with
/// a deadline of their own.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    },
    max_retries: 5,
    retry_timeout: Duration::from_secs(10),
};

/// How many parts of one object are on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// Runs a task where sockets are served, whoever asks for it.
pub(crate) type Spawn = Arc<dyn Fn(&str, BoxFuture<'static, ()>) -> TaskHandle + Send + Sync>;

/// A prefix in a bucket as a store.
pub(crate) struct S3Store {
    bucket: Arc<Bucket>,
}

/// What requests need.
struct Bucket {
    /// As the user wrote it.
    url: String,
    /// What stands before each object path: empty, or with a slash at its end.
    root: String,
    /// Sends requests again.
    steady: AmazonS3,
    /// Sends each request once and with `If-None-Match: *`: for what must be done once or not at all.
    creating: AmazonS3,
    requests: Arc<Requests>,
    spawn: Spawn,
}

impl S3Store {
    /// Opens `s3://bucket/prefix` with the options in `vars`, names and values of environment variables. Sends nothing.
    ///
    /// # Errors
    /// `InvalidJob` for options that cannot be.
    pub(crate) fn open(
        url: &str,
        bucket: &str,
        prefix: &str,
        vars: &[(String, String)],
        spawn: Spawn,
    ) -> Result<Self> {
        let requests = Arc::new(Requests::default());
        let (steady, creating) = options::clients(url, bucket, vars, &requests)?;
        let root = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let url = url.to_owned();
        Ok(Self { bucket: Arc::new(Bucket { url, root, steady, creating, requests, spawn }) })
    }

    /// Runs `work` as a task of its own; it ends with this future.
    async fn run<T: Send + 'static>(&self, work: impl AsyncWork<T>) -> Result<T> {
        self.bucket.run(work).await
    }
}

/// A future that may move to another thread.
trait AsyncWork<T>: Future<Output = Result<T>> + Send + 'static {}
impl<T, F: Future<Output = Result<T>> + Send + 'static> AsyncWork<T> for F {}

/// Ends a task whose result nobody waits for any more.
struct Running(TaskHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bucket {
    fn key(&self, path: &str) -> Result<Path> {
        check_object(path)?;
        Path::parse(format!("{}{path}", self.root))
            .map_err(|error| Error::internal(format!("{path} is no key in {}", self.url)).with_source(error))
    }

    /// The error that `error` is, as an answer to a request that was to `what` the object at `path`.
    fn failed(&self, what: &str, path: &str, error: &S3Error) -> Error {
        failed(&format!("cannot {what} {path} in {}", self.url), error)
    }

    /// Connections belong to the runtime in which they were made, and must not wait for functions of the user's. So all
    /// requests are made there where [`Spawn`] runs its tasks.
    async fn run<T: Send + 'static>(&self, work: impl AsyncWork<T>) -> Result<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = Box::pin(async move { drop(sender.send(work.await)) });
        let _running = Running((self.spawn)("store request", task));
        receiver.await.map_err(|_| Error::retryable(format!("a request to {} was broken off", self.url)))?
    }

    async fn create(&self, path: &str, key: &Path, bytes: PutPayload) -> Result<Created> {
        // Not `PutMode::Create`, which would send the header a second time, beside the client's own.
        match self.creating.put(key, bytes).await {
            Ok(_) => Ok(Created::New),
            Err(S3Error::Precondition { .. } | S3Error::NotModified { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.failed("create", path, &error)),
        }
    }

    /// A request of many gigabytes would be cut off by any time limit, or have none.
    async fn put_in_parts(&self, key: &Path, bytes: Payload) -> Result<(), S3Error> {
        let len: usize = bytes.iter().map(Bytes::len).sum();
        let part = (writer::PART as usize).max(len.div_ceil(writer::MOST_PARTS));
        let mut upload = WriteMultipart::new_with_chunk_size(self.steady.put_multipart(key).await?, part);
        for piece in bytes {
            upload.wait_for_capacity(PARTS_AT_ONCE).await?;
            upload.put(piece);
        }
        upload.finish().await.map(drop)
    }

    async fn len(&self, path: &str, key: &Path) -> Result<Option<u64>> {
        match self.steady.head(key).await {
            Ok(meta) => Ok(Some(meta.size)),
            // Such an answer has no body, and cannot say what is missing: an answer to a read can.
            Err(S3Error::NotFound { .. }) => {
                let first = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
                match self.get(path, key, first).await {
                    Ok(None) => Ok(None),
                    Ok(Some(_)) | Err(GetFailed { beyond_the_end: true, .. }) => Err(Error::retryable(
                        format!("{} is now here, now not: {path} in answer to two requests", self.url),
                    )),
                    Err(failed) => Err(failed.error),
                }
            }
            Err(error) => Err(self.failed("look at", path, &error)),
        }
    }

    async fn get(&self, path: &str, key: &Path, options: GetOptions) -> Result<Option<Bytes>, GetFailed> {
        let found = match self.steady.get_opts(key, options).await {
            Ok(found) => found.bytes().await,
            Err(S3Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        found.map(Some).map_err(|error| GetFailed {
            beyond_the_end: exchange::status(&error) == Some(exchange::RANGE_NOT_SATISFIABLE),
            error: self.failed("read", path, &error),
        })
    }
}

struct GetFailed {
    beyond_the_end: bool,
    error: Error,
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> &str {
        &self.bucket.url
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move { bucket.create(&path, &key, bytes.into_iter().collect()).await }).await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move {
            let len: u64 = bytes.iter().map(|piece| piece.len() as u64).sum();
            let done = if len <= writer::PART {
                bucket.steady.put(&key, bytes.into_iter().collect()).await.map(drop)
            } else {
                bucket.put_in_parts(&key, bytes).await
            };
            done.map_err(|error| bucket.failed("write", &path, &error))
        })
        .await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        let key = self.bucket.key(path)?;
        Ok(Box::new(S3Writer::new(Arc::clone(&self.bucket), path.to_owned(), key)))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move {
            bucket.get(&path, &key, GetOptions::default()).await.map_err(|failed| failed.error)
        })
        .await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move {
            if !range.is_empty() {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                match bucket.get(&path, &key, options).await {
                    Err(GetFailed { beyond_the_end: true, .. }) => {}
                    other => return other.map_err(|failed| failed.error),
                }
            }
            Ok(bucket.len(&path, &key).await?.map(|_| Bytes::new()))
        })
        .await
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move { bucket.len(&path, &key).await }).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.bucket.key(path)?, path.to_owned());
        self.run(async move {
            match bucket.steady.delete(&key).await {
                Ok(()) | Err(S3Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(bucket.failed("delete", &path, &error)),
            }
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        check_prefix(prefix)?;
        let bucket = Arc::clone(&self.bucket);
        let below = format!("{}{prefix}", bucket.root);
        let prefix = prefix.to_owned();
        self.run(async move {
            let mut found = Vec::new();
            let mut listing = bucket.steady.list(Some(&Path::from(below.trim_end_matches('/'))));
            loop {
                let next = listing.try_next().await;
                let Some(meta) = next.map_err(|error| bucket.failed("list", &prefix, &error))? else { break };
                // Others may keep in the same bucket what no store of ours could have written.
                let path = meta.location.as_ref().strip_prefix(&bucket.root);
                if let Some(path) = path.filter(|path| path.split('/').all(is_part)) {
                    found.push(StoreEntry { path: path.to_owned(), len: meta.size });
                }
            }
            found.sort();
            Ok(found)
        })
        .await
    }

    fn local_dir(&self) -> Option<PathBuf> {
        None
    }

    fn requests(&self) -> Vec<StoreRequests> {
        self.bucket.requests.counts()
    }
}

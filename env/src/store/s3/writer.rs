//! Writing an object piece by piece: as one create if it is small, otherwise as a multipart upload whose last step is
//! conditional. Only one part is held in memory.
//!
//! An upload that is not finished is aborted, also when the writer is dropped. What a killed process has begun stays in
//! the bucket, invisible, until a lifecycle rule of the bucket removes it (`docs/0016-s3.md`).
//!
//! A last step that was not answered clearly is tried again, since much would be lost with it, and what is there then is
//! known by its length and digest.

#![allow(
    clippy::disallowed_methods,
    reason = "requests, and pauses between them, are made in the real world"
)]

use std::{mem, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    Error as S3Error, GetOptions, GetRange, PutPayload,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use types::{DigestBuilder, Error, ErrorKind, Result};

use super::{super::exists, Bucket};
use crate::{Created, Payload, StoreWriter};

/// The length of the first parts, in bytes. S3 takes no part below 5 MiB but the last.
pub(super) const PART: u64 = 8 << 20;
/// After so many parts their length doubles: S3 takes 10,000 parts, which so hold 484 GiB.
const DOUBLING: usize = 2_000;
/// More parts than this S3 does not take.
pub(super) const MOST_PARTS: usize = 10_000;

/// The pauses between tries of the last step.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6)];

/// The length at which the part with this number, from 0, is sent.
const fn part_len(number: usize) -> u64 {
    PART << (number / DOUBLING)
}

pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    path: String,
    key: Path,
    pieces: Payload,
    held: u64,
    written: Written,
    /// Begun when the first part is full.
    upload: Option<Upload>,
}

/// All that was written so far, as far as it must be known again.
#[derive(Default)]
struct Written {
    len: u64,
    digest: DigestBuilder,
}

/// What makes the object visible.
enum LastStep {
    Create(PutPayload),
    Complete(Upload),
}

/// A multipart upload, aborted when dropped before it is complete.
struct Upload {
    bucket: Arc<Bucket>,
    key: Path,
    id: String,
    parts: Vec<PartId>,
    complete: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let (bucket, key, id) = (Arc::clone(&self.bucket), self.key.clone(), mem::take(&mut self.id));
        // Whether it works nobody waits for: what is left over is rubbish, and invisible.
        let abort = async move { drop(bucket.steady.abort_multipart(&key, &id).await) };
        drop((self.bucket.spawn)("abort of an upload", Box::pin(abort)));
    }
}

impl S3Writer {
    pub(super) fn new(bucket: Arc<Bucket>, path: String, key: Path) -> Self {
        Self { bucket, path, key, pieces: Vec::new(), held: 0, written: Written::default(), upload: None }
    }

    fn take(&mut self) -> PutPayload {
        self.held = 0;
        mem::take(&mut self.pieces).into_iter().collect()
    }

    async fn begin(&mut self) -> Result<Upload> {
        let (bucket, key, path) = (Arc::clone(&self.bucket), self.key.clone(), self.path.clone());
        let id = self.bucket.run(async move {
            let begun = bucket.steady.create_multipart(&key).await;
            begun.map_err(|error| bucket.failed("begin to upload", &path, &error))
        });
        let id = id.await?;
        let (bucket, key) = (Arc::clone(&self.bucket), self.key.clone());
        Ok(Upload { bucket, key, id, parts: Vec::new(), complete: false })
    }

    /// Sends what is held as the next part.
    async fn send_part(&mut self, upload: &mut Upload) -> Result<()> {
        let number = upload.parts.len();
        if number == MOST_PARTS {
            return Err(Error::unavailable(format!(
                "cannot upload {} to {}: it is longer than {MOST_PARTS} parts, which is all that S3 takes: raise the \
                 parallelism, so that each subtask has less state",
                self.path, self.bucket.url
            )));
        }
        let (bucket, key, id) = (Arc::clone(&self.bucket), self.key.clone(), upload.id.clone());
        let (path, part) = (self.path.clone(), self.take());
        let sent = self.bucket.run(async move {
            let sent = bucket.steady.put_part(&key, &id, number, part).await;
            sent.map_err(|error| bucket.failed("upload a part of", &path, &error))
        });
        upload.parts.push(sent.await?);
        Ok(())
    }
}

impl LastStep {
    async fn once(&mut self, bucket: &Bucket, path: &str, key: &Path) -> Result<Created> {
        let upload = match self {
            Self::Create(bytes) => return bucket.create(path, key, bytes.clone()).await,
            Self::Complete(upload) => upload,
        };
        match bucket.creating.complete_multipart(key, &upload.id, upload.parts.clone()).await {
            Ok(_) => {
                upload.complete = true;
                Ok(Created::New)
            }
            Err(S3Error::Precondition { .. } | S3Error::NotModified { .. }) => Ok(Created::Exists),
            Err(error) => Err(bucket.failed("complete the upload of", path, &error)),
        }
    }
}

/// Makes the object visible, if there is none. An upload of which it is not known in the end whether it was completed is
/// aborted: if it was, there is nothing left to abort.
async fn end(bucket: &Bucket, path: &str, key: &Path, mut last: LastStep, written: Written) -> Result<()> {
    let mut pauses = PAUSES.into_iter();
    let mut unclear = None;
    loop {
        let error = match last.once(bucket, path, key).await {
            Ok(Created::New) => return Ok(()),
            // An earlier try may have been carried out.
            Ok(Created::Exists) => match unclear {
                None => return Err(exists(path)),
                Some(earlier) => earlier,
            },
            Err(error) if error.kind() != ErrorKind::Retryable => return Err(error),
            Err(error) => error,
        };
        match found(bucket, path, key, &written).await {
            Ok(None) | Err(_) => {}
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(exists(path)),
        }
        let Some(pause) = pauses.next() else { return Err(error) };
        unclear = Some(error);
        tokio::time::sleep(pause).await;
    }
}

/// Whether the object that is there, if there is one, is what was written.
async fn found(bucket: &Bucket, path: &str, key: &Path, written: &Written) -> Result<Option<bool>> {
    let Some(len) = bucket.len(path, key).await? else { return Ok(None) };
    let mut digest = DigestBuilder::default();
    let mut from = 0;
    while from < len && len == written.len {
        let range = Some(GetRange::Bounded(from..len.min(from + PART)));
        let piece = bucket.get(path, key, GetOptions { range, ..GetOptions::default() }).await;
        let piece = piece.map_err(|failed| failed.error)?.filter(|piece| !piece.is_empty());
        let Some(piece) = piece else { return Ok(None) };
        digest.update(&piece);
        from += piece.len() as u64;
    }
    Ok(Some(len == written.len && digest.finish() == written.digest.finish()))
}

#[async_trait]
impl StoreWriter for S3Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.held += bytes.len() as u64;
        self.written.len += bytes.len() as u64;
        self.written.digest.update(&bytes);
        self.pieces.push(bytes);
        if self.held < part_len(self.upload.as_ref().map_or(0, |upload| upload.parts.len())) {
            return Ok(());
        }
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.begin().await?,
        };
        // After an error it is dropped, and so aborted.
        self.send_part(&mut upload).await?;
        self.upload = Some(upload);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let last = match self.upload.take() {
            None => LastStep::Create(self.take()),
            Some(mut upload) => {
                if self.held > 0 {
                    self.send_part(&mut upload).await?;
                }
                LastStep::Complete(upload)
            }
        };
        let Self { bucket, path, key, written, .. } = *self;
        let there = Arc::clone(&bucket);
        there.run(async move { end(&bucket, &path, &key, last, written).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_within_what_s3_takes() {
        assert_eq!(part_len(0), PART);
        assert_eq!(part_len(DOUBLING), 2 * PART);
        assert!(PART >= 5 << 20 && part_len(MOST_PARTS - 1) <= 5 << 30);
        let all: u64 = (0..MOST_PARTS).map(part_len).sum();
        assert_eq!(all >> 30, 484);
    }
}

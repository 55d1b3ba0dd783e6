//! Writing an object piece by piece: as one create if it is small, otherwise as a multipart upload whose last step is
//! conditional. Only one part is held in memory.
//!
//! An upload that is not finished is aborted, also when the writer is dropped. What a killed process has begun stays in
//! the bucket, invisible, until a lifecycle rule of the bucket removes it (`docs/0016-s3.md`).

use std::{mem, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    Error as S3Error, PutPayload,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use types::{Error, Result};

use super::{super::exists, Bucket};
use crate::{Created, Payload, StoreWriter};

/// The length of the first parts, in bytes. S3 takes no part below 5 MiB but the last.
pub(super) const PART: u64 = 8 << 20;
/// After so many parts their length doubles: S3 takes 10,000 parts, which so hold 484 GiB.
const DOUBLING: usize = 2_000;
/// More parts than this S3 does not take.
pub(super) const MOST_PARTS: usize = 10_000;

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
    /// Begun when the first part is full.
    upload: Option<Upload>,
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
        Self { bucket, path, key, pieces: Vec::new(), held: 0, upload: None }
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

/// Makes the object visible, if there is none. An upload whose completion was not answered clearly is aborted: if it was
/// carried out, there is nothing left to abort.
async fn complete(mut upload: Upload, path: String) -> Result<()> {
    let bucket = Arc::clone(&upload.bucket);
    let parts = mem::take(&mut upload.parts);
    let done = bucket.creating.complete_multipart(&upload.key, &upload.id, parts).await;
    match done {
        Ok(_) => {
            upload.complete = true;
            Ok(())
        }
        Err(S3Error::Precondition { .. } | S3Error::NotModified { .. }) => Err(exists(&path)),
        Err(error) => Err(bucket.failed("complete the upload of", &path, &error)),
    }
}

#[async_trait]
impl StoreWriter for S3Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.held += bytes.len() as u64;
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
        let Some(mut upload) = self.upload.take() else {
            let (bucket, key, path, bytes) =
                (Arc::clone(&self.bucket), self.key.clone(), self.path.clone(), self.take());
            let created = self.bucket.run(async move { bucket.create(&path, &key, bytes).await }).await?;
            return match created {
                Created::New => Ok(()),
                Created::Exists => Err(exists(&self.path)),
            };
        };
        if self.held > 0 {
            self.send_part(&mut upload).await?;
        }
        let path = self.path.clone();
        self.bucket.run(complete(upload, path)).await
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

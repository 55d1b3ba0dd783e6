//! From the public sinks to [`AnySink`]: [`plain`] and [`two_phase`], called when a stream gets its sink. Wherever a sink
//! or its committer is called, in a task or beside it, a panic in it becomes an error here; that of a writer does in its
//! task.

use std::sync::Arc;

use env::{BoxFuture, Env};
use serde::{Serialize, de::DeserializeOwned};
use types::{Bincode, Codec, Error, Result};

use crate::{
    api::{
        erased::{AnyCommitter, AnySealed, AnySink, AnyWriter, Guarantee},
        sink::{
            CommitOutcome, Committer, Marker, PlainWriter, Sink, SinkContext, TransactionId, TwoPhaseSink,
            TwoPhaseWriter,
        },
    },
    record::AnyBatch,
    task::guard,
};

/// A sink without transactions, erased.
pub(crate) fn plain(sink: impl Sink) -> Arc<dyn AnySink> {
    Arc::new(Plain(sink))
}

/// A two-phase sink, erased.
pub(crate) fn two_phase(sink: impl TwoPhaseSink) -> Arc<dyn AnySink> {
    Arc::new(TwoPhase(sink))
}

struct Plain<S>(S);

impl<S: Sink> AnySink for Plain<S> {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    fn place<'a>(&'a self, _env: &'a Env) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn writer(&self, context: SinkContext) -> BoxFuture<'_, Result<Box<dyn AnyWriter>>> {
        Box::pin(guard::caught(async move {
            let writer = self.0.writer(&context).await?;
            Ok(Box::new(PlainAdapter(writer)) as Box<dyn AnyWriter>)
        }))
    }

    fn committer(&self, _context: SinkContext) -> Option<BoxFuture<'_, Result<Box<dyn AnyCommitter>>>> {
        None
    }
}

struct PlainAdapter<W>(W);

impl<W: PlainWriter> AnyWriter for PlainAdapter<W> {
    fn write(&mut self, mut batch: Box<dyn AnyBatch>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.write(std::mem::take(batch.typed())))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.flush())
    }

    fn seal(&mut self, _id: &TransactionId) -> Result<Option<AnySealed>> {
        Ok(None)
    }
}

struct TwoPhase<S>(S);

impl<S: TwoPhaseSink> AnySink for TwoPhase<S> {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(guard::caught(async move { self.0.place(env).await }))
    }

    fn writer(&self, context: SinkContext) -> BoxFuture<'_, Result<Box<dyn AnyWriter>>> {
        Box::pin(guard::caught(async move {
            let writer = self.0.writer(&context).await?;
            Ok(Box::new(TwoPhaseAdapter(writer)) as Box<dyn AnyWriter>)
        }))
    }

    fn committer(&self, context: SinkContext) -> Option<BoxFuture<'_, Result<Box<dyn AnyCommitter>>>> {
        Some(Box::pin(guard::caught(async move {
            let committer = self.0.committer(&context).await?;
            Ok(Box::new(CommitterAdapter(committer)) as Box<dyn AnyCommitter>)
        })))
    }
}

struct TwoPhaseAdapter<W>(W);

impl<W: TwoPhaseWriter> AnyWriter for TwoPhaseAdapter<W> {
    fn write(&mut self, mut batch: Box<dyn AnyBatch>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.write(std::mem::take(batch.typed())))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn seal(&mut self, id: &TransactionId) -> Result<Option<AnySealed>> {
        Ok(self.0.seal(id)?.map(|sealed| Box::new(sealed) as AnySealed))
    }
}

struct CommitterAdapter<C>(C);

impl<C: Committer> AnyCommitter for CommitterAdapter<C> {
    fn prepare<'a>(&'a mut self, id: &'a TransactionId, sealed: AnySealed) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(guard::caught(async move {
            let sealed = sealed
                .downcast()
                .map_err(|_| Error::internal(format!("sink {}: a transaction of another sink", id.sink)))?;
            encode_prepared(&self.0.prepare(id, *sealed).await?)
        }))
    }

    fn commit<'a>(
        &'a mut self,
        id: &'a TransactionId,
        prepared: &'a [u8],
    ) -> BoxFuture<'a, Result<CommitOutcome>> {
        Box::pin(guard::caught(async move { self.0.commit(id, &decode_prepared(id, prepared)?).await }))
    }

    fn revoke<'a>(&'a mut self, id: &'a TransactionId, prepared: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(guard::caught(async move { self.0.revoke(id, &decode_prepared(id, prepared)?).await }))
    }

    fn sweep<'a>(&'a mut self, keep: &'a [TransactionId]) -> BoxFuture<'a, Result<()>> {
        Box::pin(guard::caught(async move { self.0.sweep(keep).await }))
    }

    fn finds<'a>(&'a mut self, id: &'a TransactionId, prepared: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(guard::caught(async move { self.0.finds(id, &decode_prepared(id, prepared)?).await }))
    }

    fn held(&mut self) -> BoxFuture<'_, Result<Vec<Marker>>> {
        Box::pin(guard::caught(async move { self.0.held().await }))
    }
}

/// The first byte of a stored prepared transaction; bincode follows.
const PREPARED_VERSION: u8 = 1;

fn encode_prepared<P: Serialize>(prepared: &P) -> Result<Vec<u8>> {
    let mut bytes = vec![PREPARED_VERSION];
    Bincode::encode(prepared, &mut bytes)?;
    Ok(bytes)
}

fn decode_prepared<P: DeserializeOwned>(id: &TransactionId, bytes: &[u8]) -> Result<P> {
    let of = || format!("prepared transaction {} of sink {}, writer {}", id.checkpoint, id.sink, id.writer);
    match bytes.split_first() {
        Some((&PREPARED_VERSION, body)) => Bincode::decode(body).map_err(|error| error.context(of())),
        Some((version, _)) => Err(Error::corrupt(format!(
            "{}: version {version}, this program knows {PREPARED_VERSION}: start it with the newer one",
            of()
        ))),
        None => Err(Error::corrupt(format!("{}: no bytes", of()))),
    }
}

#[cfg(test)]
mod tests {
    use types::{AttemptId, CheckpointId, ErrorKind, JobId, Lineage, SubtaskIndex, Uid};

    use super::*;

    fn id() -> TransactionId {
        TransactionId {
            job: JobId(1),
            sink: Uid::new("out").expect("a good uid"),
            lineage: Lineage(2),
            writer: SubtaskIndex(3),
            attempt: AttemptId(4),
            checkpoint: CheckpointId(5),
        }
    }

    #[test]
    fn prepared_transactions_survive_storage() {
        let prepared = ("part-1".to_owned(), 17_u64);
        let bytes = encode_prepared(&prepared).expect("it can be encoded");
        assert_eq!(decode_prepared::<(String, u64)>(&id(), &bytes).expect("its own bytes"), prepared);
    }

    #[test]
    fn damaged_prepared_transactions_name_the_sink() {
        for bytes in [&[][..], &[9, 1], &[1], &[1, 200, 0]] {
            let error = decode_prepared::<(String, u64)>(&id(), bytes).expect_err("not its bytes");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.message().starts_with("prepared transaction 5 of sink out, writer 3: "), "{error}");
        }
    }
}

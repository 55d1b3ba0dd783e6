//! The writing end of a sink task. The writer works on the task; the committer works beside it, one step at a time, in
//! the order in which it is asked: prepare, commit, prepare, ... A commit that must be retried is retried for ever.

use std::time::Duration;

use checkpoint::manifest::PreparedTransaction;
use env::{BoxFuture, Env, FaultPoint, Limits, Message, Receiver, Sender, channel};
use types::{CheckpointId, Error, Result};

use super::guard;
use crate::{
    api::{
        erased::{AnyCommitter, AnySealed, AnyWriter},
        sink::{CommitOutcome, SinkContext, TransactionId},
    },
    metrics::OperatorMetrics,
    record::AnyBatch,
};

/// What the committer has done.
#[derive(Debug)]
pub(crate) enum CommitterEvent {
    /// This transaction is durable.
    Prepared(PreparedTransaction),
    /// Everything up to this checkpoint is committed.
    Committed(CheckpointId),
    /// The attempt must end.
    Failed(Error),
}

pub(crate) enum CommitterWork {
    Prepare(CheckpointId, AnySealed),
    Commit(CheckpointId),
}

type Writing = BoxFuture<'static, (Box<dyn AnyWriter>, Result<()>)>;

enum Writer {
    Free(Box<dyn AnyWriter>),
    /// A write or a flush is under way; the writer comes back with its result.
    Busy(Writing),
    /// Only inside a method.
    Taken,
}

/// A sink at the end of a chain.
pub(crate) struct SinkTail {
    writer: Writer,
    pub(crate) context: SinkContext,
    committer: Option<Sender<Message<CommitterWork>>>,
    metrics: OperatorMetrics,
}

impl SinkTail {
    pub(crate) fn new(
        writer: Box<dyn AnyWriter>,
        context: SinkContext,
        committer: Option<Sender<Message<CommitterWork>>>,
        metrics: OperatorMetrics,
    ) -> Self {
        Self { writer: Writer::Free(writer), context, committer, metrics }
    }

    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.writer, Writer::Busy(_))
    }

    /// Whether the sink commits with checkpoints.
    pub(crate) fn has_committer(&self) -> bool {
        self.committer.is_some()
    }

    /// Begins to write a batch; only when not busy.
    pub(crate) fn write(&mut self, batch: Box<dyn AnyBatch>) {
        self.metrics.records_in(batch.len() as u64);
        self.begin(|mut writer| {
            Box::pin(async move {
                let result = guard::caught(writer.write(batch)).await;
                (writer, result)
            })
        });
    }

    /// Begins to make everything durable (plain sinks); only when not busy.
    pub(crate) fn flush(&mut self) {
        self.begin(|mut writer| {
            Box::pin(async move {
                let result = guard::caught(writer.flush()).await;
                (writer, result)
            })
        });
    }

    fn begin(&mut self, work: impl FnOnce(Box<dyn AnyWriter>) -> Writing) {
        if let Writer::Free(writer) = std::mem::replace(&mut self.writer, Writer::Taken) {
            self.writer = Writer::Busy(work(writer));
        }
    }

    /// Waits for the write or flush under way. Cancel-safe.
    ///
    /// # Errors
    /// What the sink says.
    pub(crate) async fn written(&mut self) -> Result<()> {
        let Writer::Busy(work) = &mut self.writer else { return std::future::pending().await };
        let (writer, result) = work.await;
        self.writer = Writer::Free(writer);
        result.map_err(|error| error.context(format!("sink {}", self.context.uid)))
    }

    /// Ends the open transaction at a barrier; only when not busy. Says whether one must be prepared.
    ///
    /// # Errors
    /// What the sink says.
    pub(crate) async fn seal(&mut self, checkpoint: CheckpointId) -> Result<bool> {
        let id = transaction(&self.context, checkpoint);
        let Writer::Free(writer) = &mut self.writer else {
            return Err(Error::internal("a sink was sealed in the middle of a write"));
        };
        let here = |error: Error| error.context(format!("sink {}, seal", id.sink));
        let sealed = guard::catch(|| writer.seal(&id)).map_err(here)?;
        let Some(sealed) = sealed else { return Ok(false) };
        self.tell(CommitterWork::Prepare(checkpoint, sealed)).await?;
        Ok(true)
    }

    /// Commits everything up to `checkpoint`.
    ///
    /// # Errors
    /// `Internal` if the committer is gone.
    pub(crate) async fn commit(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.tell(CommitterWork::Commit(checkpoint)).await
    }

    async fn tell(&mut self, work: CommitterWork) -> Result<()> {
        let gone = || Error::internal("the sink's committer is gone");
        self.committer.as_ref().ok_or_else(gone)?.send(Message(work)).await.map_err(|_| gone())
    }
}

/// The id of what `context`'s writer seals at `checkpoint`.
pub(crate) fn transaction(context: &SinkContext, checkpoint: CheckpointId) -> TransactionId {
    TransactionId {
        job: context.job,
        sink: context.uid.clone(),
        lineage: context.lineage,
        writer: context.subtask,
        attempt: context.attempt,
        checkpoint,
    }
}

/// The id of a transaction found in a snapshot.
pub(crate) fn transaction_of(context: &SinkContext, prepared: &PreparedTransaction) -> TransactionId {
    TransactionId {
        job: context.job,
        sink: context.uid.clone(),
        lineage: prepared.lineage,
        writer: prepared.writer,
        attempt: prepared.attempt,
        checkpoint: prepared.checkpoint,
    }
}

/// Commits one transaction, however long it takes.
///
/// # Errors
/// `Lost` if it can never be committed; what the sink says if trying again is of no use.
pub(crate) async fn commit_for_ever(
    env: &Env,
    committer: &mut dyn AnyCommitter,
    id: &TransactionId,
    payload: &[u8],
) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let why = match committer.commit(id, payload).await {
            Ok(CommitOutcome::Committed) => return Ok(()),
            Ok(CommitOutcome::Lost(what)) => {
                return Err(Error::lost(format!("sink {}, checkpoint {}: {what}", id.sink, id.checkpoint)));
            }
            Ok(CommitOutcome::Retry(why)) => why,
            Err(error) if error.kind() == types::ErrorKind::Retryable => error.to_string(),
            Err(error) => {
                return Err(
                    error.context(format!("sink {}, commit of checkpoint {}", id.sink, id.checkpoint))
                );
            }
        };
        env.warn(&format!("sink {}: commit of checkpoint {} is tried again: {why}", id.sink, id.checkpoint));
        env.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Starts the committer of one sink task. It ends when the task drops its end.
pub(crate) fn spawn_committer(
    env: &Env,
    context: SinkContext,
    mut committer: Box<dyn AnyCommitter>,
    done: Sender<Message<CommitterEvent>>,
) -> (Sender<Message<CommitterWork>>, env::TaskHandle) {
    let (sender, receiver) = channel(env, Limits::items(16));
    let name = format!("committer {} {}", context.uid, context.subtask);
    let handle = env.clone().spawn_user(&name, async move {
        // A committer that is gone without a word would leave its checkpoint waiting for ever.
        let served = guard::caught(serve(&context, &mut *committer, receiver, &done)).await;
        if let Err(error) = served {
            let _gone = done.send(Message(CommitterEvent::Failed(error))).await;
        }
    });
    (sender, handle)
}

async fn serve(
    context: &SinkContext,
    committer: &mut dyn AnyCommitter,
    mut work: Receiver<Message<CommitterWork>>,
    done: &Sender<Message<CommitterEvent>>,
) -> Result<()> {
    let env = &context.env;
    let mut prepared: Vec<PreparedTransaction> = Vec::new();
    while let Some(Message(next)) = work.recv().await {
        let event = match next {
            CommitterWork::Prepare(checkpoint, sealed) => {
                let id = transaction(context, checkpoint);
                env.fault(FaultPoint::PrepareBefore)?;
                let payload = committer.prepare(&id, sealed).await;
                let payload = payload.map_err(|error| error.context(format!("sink {}, prepare", id.sink)))?;
                env.fault(FaultPoint::PrepareAfter)?;
                let transaction = PreparedTransaction {
                    lineage: id.lineage,
                    writer: id.writer,
                    attempt: id.attempt,
                    checkpoint,
                    payload,
                    file: None,
                };
                prepared.push(transaction.clone());
                CommitterEvent::Prepared(transaction)
            }
            CommitterWork::Commit(upto) => {
                let (due, later): (Vec<_>, _) =
                    std::mem::take(&mut prepared).into_iter().partition(|it| it.checkpoint <= upto);
                prepared = later;
                for it in due {
                    commit_for_ever(env, committer, &transaction_of(context, &it), &it.payload).await?;
                }
                CommitterEvent::Committed(upto)
            }
        };
        if done.send(Message(event)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

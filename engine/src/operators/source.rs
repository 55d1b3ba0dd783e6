//! From a public [`Source`] to [`AnySource`], and the reader of all splits that one subtask was given.
//!
//! A bounded source is read one split after the other, in the order of their ids; an unbounded one from all its splits
//! at once, the ready ones in turn.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use checkpoint::manifest::{ListElements, ListPart, Redistribution};
use env::{BoxFuture, Env};
use types::{Bincode, Codec, Error, Result};

use super::operator::OutBatch;
use crate::{
    api::{
        data::shape_bytes,
        erased::{AnyReader, AnySource, ReaderEvent, SplitState},
        source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
    },
    record::{BATCH_BYTES, BatchBuilder},
    task::guard,
};

/// The name of the list state that holds a source's splits.
pub(crate) const SPLITS: &str = "splits";

/// A source, erased.
pub(crate) fn erase(source: impl Source) -> Arc<dyn AnySource> {
    Arc::new(Erased(source))
}

/// The splits in a list state named `splits`.
///
/// # Errors
/// `Corrupt` if these are no splits.
pub(crate) fn decode_splits(part: &ListPart) -> Result<Vec<SplitState>> {
    part.elements.iter().map(Bincode::decode).collect()
}

/// The elements of such a list state.
///
/// # Errors
/// If a split cannot be encoded.
pub(crate) fn encode_splits(splits: &[SplitState]) -> Result<ListElements> {
    splits.iter().map(encode).collect()
}

struct Erased<S>(S);

impl<S: Source> AnySource for Erased<S> {
    fn boundedness(&self) -> Boundedness {
        self.0.boundedness()
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(guard::caught(async move { self.0.place(env).await }))
    }

    fn reads(&self, place: &str, path: &Path) -> bool {
        self.0.reads(place, path)
    }

    fn moved(&self, split: &SplitState, from: &str, to: &str) -> Result<SplitState> {
        let stored: S::Split = Bincode::decode(&split.split).map_err(|error| error.context(&split.id))?;
        guard::catch(|| {
            let moved = self.0.moved(stored, from, to)?;
            Ok(SplitState { id: moved.id(), finished: split.finished, split: encode(&moved)? })
        })
    }

    fn discover<'a>(&'a self, context: &'a SourceContext) -> BoxFuture<'a, Result<Vec<SplitState>>> {
        Box::pin(guard::caught(async move {
            let mut splits = BTreeMap::new();
            for split in self.0.discover(context).await? {
                let id = split.id();
                let state = SplitState { id: id.clone(), finished: false, split: encode(&split)? };
                if splits.insert(id.clone(), state).is_some() {
                    return Err(Error::internal(format!(
                        "source {}: two splits are called {id:?}",
                        context.uid
                    )));
                }
            }
            Ok(splits.into_values().collect())
        }))
    }

    fn reader(&self, context: SourceContext) -> Box<dyn AnyReader> {
        Box::new(Reader { source: self.0.clone(), context, slots: BTreeMap::new(), last: None })
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Bincode::encode(value, &mut bytes)?;
    Ok(bytes)
}

/// Where a split of this subtask stands.
enum Stage<S: Source> {
    /// Not yet begun, or read to its end.
    Resting(SplitState),
    /// Being opened; the future lives here, so that dropping `next` does not begin the work again.
    Opening(SplitState, BoxFuture<'static, Result<S::Reader>>),
    /// Being read.
    Open(S::Reader),
    /// Its last records were handed over, its end not yet.
    Ended(S::Reader),
}

/// A split and what it has to emit.
struct Slot<S: Source> {
    stage: Stage<S>,
    out: BatchBuilder<S::Out>,
}

impl<S: Source> Slot<S> {
    fn new(split: SplitState) -> Self {
        Self { stage: Stage::Resting(split), out: BatchBuilder::default() }
    }

    fn is_finished(&self) -> bool {
        matches!(&self.stage, Stage::Resting(split) if split.finished)
    }

    fn state(&self) -> Result<SplitState> {
        let (reader, finished) = match &self.stage {
            Stage::Resting(split) | Stage::Opening(split, _) => return Ok(split.clone()),
            Stage::Open(reader) => (reader, false),
            Stage::Ended(reader) => (reader, true),
        };
        guard::catch(|| {
            let split = reader.position();
            Ok(SplitState { id: split.id(), finished, split: encode(&split)? })
        })
    }

    /// Opens the split if that is still to be done, then reads until it has something to say. Cancel-safe.
    async fn advance(&mut self, source: &S, context: &SourceContext, records: usize) -> Result<ReadStatus> {
        if let Stage::Resting(split) = &self.stage {
            self.stage = Stage::Opening(split.clone(), opening(source, context, &split.split)?);
        }
        if let Stage::Opening(_, opened) = &mut self.stage {
            self.stage = Stage::Open(opened.await?);
        }
        match &mut self.stage {
            Stage::Open(reader) => {
                let limit = records;
                reader.read(&mut SourceOutput { batch: &mut self.out, limit, byte_limit: BATCH_BYTES }).await
            }
            _ => Ok(ReadStatus::End),
        }
    }

    /// Notes that the reader came to its end.
    fn end(&mut self) -> Result<()> {
        let finished = SplitState { finished: true, ..self.state()? };
        let stage = std::mem::replace(&mut self.stage, Stage::Resting(finished));
        if let Stage::Open(reader) = stage
            && !self.out.is_empty()
        {
            self.stage = Stage::Ended(reader);
        }
        Ok(())
    }

    /// Whether the end of this split is to be reported now; it is from then on at rest.
    fn take_end(&mut self) -> Result<bool> {
        let ended = matches!(self.stage, Stage::Ended(_));
        if ended {
            *self = Self::new(self.state()?);
        }
        Ok(ended)
    }
}

fn opening<S: Source>(
    source: &S,
    context: &SourceContext,
    split: &[u8],
) -> Result<BoxFuture<'static, Result<S::Reader>>> {
    let (source, context) = (source.clone(), context.clone());
    let split = Bincode::decode(split)?;
    Ok(Box::pin(async move { source.open(split, &context).await }))
}

/// Reads the splits of one subtask.
struct Reader<S: Source> {
    source: S,
    context: SourceContext,
    slots: BTreeMap<String, Slot<S>>,
    /// The split that was read last: the others come first now.
    last: Option<String>,
}

impl<S: Source> Reader<S> {
    /// Waits for the next records or the end of a split. Cancel-safe: all that is kept is in the slots.
    async fn event(&mut self, records: usize) -> Result<ReaderEvent> {
        loop {
            for slot in self.slots.values_mut() {
                if slot.take_end()? {
                    return Ok(ReaderEvent::SplitEnded);
                }
            }
            let (id, status) = self.advance_any(records).await?;
            let slot = self.slots.get_mut(&id).expect("a split is never removed");
            self.last = Some(id);
            if status == ReadStatus::End {
                slot.end()?;
            }
            if !slot.out.is_empty() {
                return Ok(ReaderEvent::Batch(OutBatch::new(slot.out.take())));
            }
            if status == ReadStatus::End {
                return Ok(ReaderEvent::SplitEnded);
            }
            // A reader that found nothing yet gives way instead of spinning.
            self.context.env.yield_now().await;
        }
    }

    /// Polls the splits whose turn it is until one has something to say. A split is touched only when those before it
    /// have nothing, so that a busy source costs one future per batch.
    async fn advance_any(&mut self, records: usize) -> Result<(String, ReadStatus)> {
        let (source, context) = (&self.source, &self.context);
        let at_once = match source.boundedness() {
            Boundedness::Bounded => 1,
            Boundedness::Unbounded => usize::MAX,
        };
        let mut slots: Vec<_> =
            self.slots.iter_mut().filter(|(_, slot)| !slot.is_finished()).take(at_once).collect();
        let turn = slots.partition_point(|(id, _)| self.last.as_ref().is_some_and(|last| *id <= last));
        let waiting = slots.len();
        slots.rotate_left(turn % waiting.max(1));

        let mut untouched = slots.into_iter();
        let mut pending: Vec<(&String, _)> = Vec::new();
        poll_fn(|cx| {
            for (id, advance) in &mut pending {
                if let Poll::Ready(status) = poll(advance, cx) {
                    return Poll::Ready(named(id, status));
                }
            }
            for (id, slot) in &mut untouched {
                let mut advance = Box::pin(slot.advance(source, context, records));
                if let Poll::Ready(status) = poll(&mut advance, cx) {
                    return Poll::Ready(named(id, status));
                }
                pending.push((id, advance));
            }
            Poll::Pending
        })
        .await
    }
}

fn poll<F: Future>(future: &mut Pin<Box<F>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.as_mut().poll(cx)
}

fn named(id: &str, status: Result<ReadStatus>) -> Result<(String, ReadStatus)> {
    Ok((id.to_owned(), status?))
}

impl<S: Source> AnyReader for Reader<S> {
    fn add(&mut self, split: SplitState) {
        self.slots.insert(split.id.clone(), Slot::new(split));
    }

    fn open_splits(&self) -> usize {
        self.slots.values().filter(|slot| !slot.is_finished()).count()
    }

    fn next(&mut self, records: usize) -> BoxFuture<'_, Result<ReaderEvent>> {
        Box::pin(self.event(records))
    }

    fn snapshot(&mut self) -> Result<ListPart> {
        let states = self.slots.values().map(Slot::state);
        let elements = states.map(|state| encode(&state?)).collect::<Result<_>>()?;
        Ok(ListPart {
            name: SPLITS.to_owned(),
            redistribution: Redistribution::Split,
            codec: Bincode::ID.to_owned(),
            shape: shape_bytes::<SplitState>(),
            elements,
        })
    }

    fn place(&self) -> Option<String> {
        let slot = self.last.as_ref().and_then(|last| self.slots.get(last));
        match slot.map(|slot| &slot.stage) {
            Some(Stage::Open(reader) | Stage::Ended(reader)) => {
                // Part of another error's text: a panic here must not take its place.
                guard::catch(|| Ok(reader.position().place())).ok().or_else(|| self.last.clone())
            }
            _ => self.last.clone(),
        }
    }
}

#[cfg(test)]
mod tests;

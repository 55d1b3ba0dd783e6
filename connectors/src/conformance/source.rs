//! What a source must keep: positions and cancellation.

use std::{fmt::Debug, future::poll_fn, pin::pin, task::Poll, time::Duration};

use engine::{
    api::source::{ReadStatus, Source, SourceContext, SourceOutput, SplitReader},
    record::BatchBuilder,
};
use env::Env;
use types::{Bincode, Codec, SubtaskIndex, Timestamp, Uid};

type Record<T> = (T, Option<Timestamp>);

/// Reads the first `most` records of each split; then, for every k, reads k records, goes on from the position in a new
/// reader, and expects the same records; then reads them with every read dropped at its awaits. `most` bounds sources
/// without end.
///
/// # Panics
/// If a record is missing, repeated or different.
pub async fn contract<S>(env: &Env, source: &S, most: usize)
where
    S: Source,
    S::Out: PartialEq + Debug,
{
    let context = context(env);
    source.validate().expect("the settings are right");
    let mut splits = source.discover(&context).await.expect("the splits can be found");
    assert!(splits.is_sorted_by_key(engine::api::source::Split::id), "splits are sorted by id");
    for split in splits.drain(..) {
        let expected = read_all(open(source, split.clone(), &context).await, most).await;
        positions(source, &split, &context, &expected).await;
        for patience in 0..4 {
            let reader = open(source, split.clone(), &context).await;
            let found = read_impatiently(env, reader, most, patience).await;
            assert_eq!(
                found, expected,
                "reads dropped after {patience} awaits lost or repeated a record of {split:?}"
            );
        }
    }
}

/// Where a source of the kit runs.
#[must_use]
pub fn context(env: &Env) -> SourceContext {
    let uid = Uid::new("conformance").expect("the name is allowed");
    SourceContext { uid, env: env.clone(), subtask: SubtaskIndex(0), parallelism: 1 }
}

async fn open<S: Source>(source: &S, split: S::Split, context: &SourceContext) -> S::Reader {
    source.open(split, context).await.expect("a split can be opened")
}

async fn positions<S>(source: &S, split: &S::Split, context: &SourceContext, expected: &[Record<S::Out>])
where
    S: Source,
    S::Out: PartialEq + Debug,
{
    let mut reader = open(source, split.clone(), context).await;
    for read in 0..=expected.len() {
        let position = stored(&reader.position());
        let rest = read_all(open(source, position.clone(), context).await, expected.len() - read).await;
        assert_eq!(rest, expected[read..], "read on from {position:?}, after {read} records");
        if read < expected.len() {
            let next = read_all_of(&mut reader, 1).await;
            assert_eq!(next, expected[read..=read], "record {read} of {split:?}, read alone");
        }
    }
}

/// The position as it comes out of a checkpoint.
fn stored<P: engine::api::source::Split>(position: &P) -> P {
    let mut bytes = Vec::new();
    Bincode::encode(position, &mut bytes).expect("a position can be encoded");
    Bincode::decode(&bytes).expect("a position can be decoded")
}

async fn read_all<R: SplitReader>(mut reader: R, most: usize) -> Vec<Record<R::Out>> {
    read_all_of(&mut reader, most).await
}

/// The next `most` records, in batches of up to 7.
async fn read_all_of<R: SplitReader>(reader: &mut R, most: usize) -> Vec<Record<R::Out>> {
    const ROOM: usize = 7;
    let mut records = Vec::new();
    while records.len() < most {
        let room = ROOM.min(most - records.len());
        let mut batch = BatchBuilder::default();
        let mut out = SourceOutput::new(&mut batch, room, usize::MAX);
        let status = reader.read(&mut out).await.expect("a split can be read");
        assert!(batch.len() <= room, "{} records where there was room for {room}", batch.len());
        take(&mut batch, &mut records);
        if status == ReadStatus::End {
            break;
        }
    }
    records
}

/// Drops every read that has waited `patience` times and begins it again.
async fn read_impatiently<R: SplitReader>(
    env: &Env,
    mut reader: R,
    most: usize,
    patience: usize,
) -> Vec<Record<R::Out>> {
    /// Long enough for whatever a reader waits for.
    const TURN: Duration = Duration::from_millis(1);
    /// More than a reader needs for one record, however often it is interrupted.
    const MOST_DROPPED: usize = 100_000;
    let mut records = Vec::new();
    let mut dropped = 0;
    while records.len() < most {
        let mut batch = BatchBuilder::default();
        let mut out = SourceOutput::new(&mut batch, 7.min(most - records.len()), usize::MAX);
        let status = {
            let mut read = pin!(reader.read(&mut out));
            let mut waits = 0;
            poll_fn(|cx| match read.as_mut().poll(cx) {
                Poll::Ready(status) => Poll::Ready(Some(status.expect("a split can be read"))),
                Poll::Pending if waits >= patience => Poll::Ready(None),
                Poll::Pending => {
                    waits += 1;
                    Poll::Pending
                }
            })
            .await
        };
        take(&mut batch, &mut records);
        match status {
            Some(ReadStatus::End) => break,
            Some(ReadStatus::More) => dropped = 0,
            None => {
                dropped += 1;
                assert!(
                    dropped < MOST_DROPPED,
                    "a read that is dropped after {patience} awaits gets nowhere"
                );
                env.sleep(TURN).await;
            }
        }
    }
    records
}

fn take<T>(batch: &mut BatchBuilder<T>, records: &mut Vec<Record<T>>) {
    let mut batch = batch.take();
    while let Some(record) = batch.next() {
        records.push((record.value, record.time));
    }
}

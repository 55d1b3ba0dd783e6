//! Batches keep values, times and keys together, from whatever place they are looked at.
#![allow(clippy::unwrap_used)]

use types::MaxParallelism;

use super::*;

fn key(bytes: &[u8]) -> KeyRef<'_> {
    KeyRef::new(bytes, MaxParallelism::DEFAULT)
}

/// What is left of a batch, without taking it.
fn rest(batch: &Batch<u8>) -> Vec<(u8, Option<i64>)> {
    let mut copy = batch.clone();
    let mut rest = Vec::new();
    while let Some(record) = copy.next() {
        rest.push((record.value, record.time.map(|time| time.0)));
    }
    rest
}

#[test]
fn records_with_and_without_time_stand_in_one_batch() {
    let mut builder = BatchBuilder::default();
    builder.push(1, None);
    builder.extend([2, 3], None);
    builder.extend([4, 5], Some(Timestamp(40)));
    builder.push(6, None);
    builder.extend([7], None);
    builder.push(8, Some(Timestamp(80)));
    let mut batch = builder.build();
    let times = [None, None, None, Some(40), Some(40), None, None, Some(80)];
    let all: Vec<_> = (1..=8).zip(times).collect();
    assert_eq!(rest(&batch), all);
    assert_eq!(batch.max_time(), Some(Timestamp(80)));
    for _ in 0..4 {
        batch.next();
    }
    assert_eq!(rest(&batch), all[4..]);
}

#[test]
fn times_are_assigned_to_what_is_left() {
    let mut batch = Batch::from(vec![1_u8, 2, 3]);
    assert_eq!(batch.max_time(), None);
    batch.next();
    batch.assign_times(|value| Timestamp(i64::from(*value) * 10));
    assert_eq!(rest(&batch), [(2, Some(20)), (3, Some(30))]);
    assert_eq!(batch.max_time(), Some(Timestamp(30)));
}

#[test]
fn keys_stay_with_their_records() {
    let mut builder = BatchBuilder::default();
    for (value, bytes) in [(1, &b"one"[..]), (2, b""), (3, b"three")] {
        builder.push_keyed(value, None, key(bytes));
    }
    let mut batch = builder.build();
    assert_eq!(batch.heap_bytes(), 8);
    batch.next();
    let mut copy = batch.clone();
    for batch in [&mut batch, &mut copy] {
        assert_eq!(batch.keys().map(|key| key.bytes).collect::<Vec<_>>(), [&b""[..], b"three"]);
        let record = batch.next().unwrap();
        assert_eq!((record.value, record.key().bytes), (2, &b""[..]));
        let record = batch.next().unwrap();
        assert_eq!((record.value, record.key().hash), (3, key(b"three").hash));
        assert!(batch.next().is_none());
    }
}

#[test]
fn a_builder_is_empty_after_each_batch_and_keeps_its_room() {
    let mut builder = BatchBuilder::default();
    builder.push(1_u64, Some(Timestamp(1)));
    builder.add_bytes(5);
    assert_eq!(builder.weight(), 13);
    let room = builder.values.capacity();
    assert_eq!(builder.take().heap_bytes(), 5);
    assert!(builder.is_empty() && builder.weight() == 0 && builder.times.is_empty());
    assert_eq!(builder.values.capacity(), room);
}

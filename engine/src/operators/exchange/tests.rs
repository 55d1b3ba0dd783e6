//! Where records go, and that all of them go there, in order and in batches of bounded size.
#![allow(clippy::unwrap_used)]

use types::{MaxParallelism, key_hash, ordered};

use super::*;
use crate::testing::ends::runtime_context;

const BATCH: usize = 16;

fn context(subtask: u32, targets: usize) -> ExchangeContext {
    let max_parallelism = MaxParallelism::DEFAULT;
    ExchangeContext {
        targets,
        max_parallelism,
        upstream: runtime_context(subtask, BATCH),
        batch_records: BATCH,
        batch_bytes: 1 << 20,
    }
}

/// Sends `records` in batches of `size` and returns what each target got, batch by batch.
fn send(
    exchange: &Arc<dyn Exchange>,
    subtask: u32,
    targets: usize,
    records: u64,
    size: usize,
) -> Vec<Vec<Batch<u64>>> {
    let mut output = exchange.output(&context(subtask, targets));
    let mut got: Vec<Vec<Batch<u64>>> = (0..targets).map(|_| Vec::new()).collect();
    let all: Vec<u64> = (0..records).collect();
    for records in all.chunks(size) {
        let mut batch = Batch::from(records.to_vec());
        output.push(&mut batch).unwrap();
        assert!(batch.is_empty());
    }
    output.flush();
    assert!(!output.has_partial());
    while let Some((target, mut batch)) = output.take_ready() {
        assert!(batch.records.len() <= BATCH);
        got[target].push(std::mem::take(batch.records.typed()));
    }
    got
}

/// The values that each target got.
fn values(got: Vec<Vec<Batch<u64>>>) -> Vec<Vec<u64>> {
    got.into_iter().map(|batches| batches.iter().flat_map(Batch::as_slice).copied().collect()).collect()
}

#[test]
fn round_robin_takes_turns_from_the_own_place_on() {
    let exchange = round_robin::<u64>();
    assert_eq!(values(send(&exchange, 0, 3, 7, 7)), [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    assert_eq!(values(send(&exchange, 1, 3, 7, 2)), [vec![2, 5], vec![0, 3, 6], vec![1, 4]]);
}

#[test]
fn one_target_gets_whole_batches_and_collected_small_ones() {
    for (size, expect) in [(BATCH, [BATCH; 4]), (BATCH / 2, [BATCH / 2; 4]), (2, [BATCH; 4])] {
        let got = send(&round_robin::<u64>(), 5, 1, (expect[0] * 4) as u64, size);
        let sizes: Vec<_> = got[0].iter().map(Batch::len).collect();
        assert_eq!(sizes, expect, "batches of {size}");
        assert_eq!(values(got), [(0..(expect[0] * 4) as u64).collect::<Vec<_>>()]);
    }
    // A large batch does not overtake a partial one, and is cut.
    let mut output = round_robin::<u64>().output(&context(0, 1));
    output.push(&mut Batch::from(vec![0_u64])).unwrap();
    output.push(&mut Batch::from((1..40).collect::<Vec<u64>>())).unwrap();
    output.flush();
    let mut all = Vec::new();
    while let Some((_, mut batch)) = output.take_ready() {
        assert!(batch.records.len() <= BATCH);
        all.extend_from_slice(batch.records.typed::<u64>().as_slice());
    }
    assert_eq!(all, (0..40).collect::<Vec<u64>>());
}

#[test]
fn equal_keys_meet_at_the_owner_of_their_group() {
    let exchange = hash::<u64, _>(encode_owned(|&record: &u64| record % 50));
    let mut seen = 0;
    for (target, batches) in send(&exchange, 0, 3, 500, 100).into_iter().enumerate() {
        for mut batch in batches {
            while let Some(record) = batch.next() {
                let key = record.key();
                assert_eq!(ordered::decode::<u64>(key.bytes).unwrap(), record.value % 50);
                assert_eq!(key.hash, key_hash(key.bytes));
                assert_eq!(key.group, MaxParallelism::DEFAULT.key_group(key.hash));
                assert_eq!(MaxParallelism::DEFAULT.owner(key.group, 3).0 as usize, target);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 500);
}

#[test]
fn a_borrowed_key_is_the_same_key() {
    let bytes = |exchange: Arc<dyn Exchange>| {
        let got = send(&exchange, 0, 2, 30, 30);
        got.iter()
            .flatten()
            .flat_map(|batch| batch.keys().map(|key| key.bytes.to_vec()).collect::<Vec<_>>())
            .collect()
    };
    let owned: Vec<Vec<u8>> = bytes(hash::<u64, _>(encode_owned(|&record: &u64| record)));
    assert_eq!(owned, bytes(hash::<u64, _>(encode_borrowed(|record: &u64| record))));
}

#[test]
fn shuffle_spreads_evenly_and_differs_between_subtasks() {
    let exchange = shuffle::<u64>();
    let [first, second] = [0, 1].map(|subtask| values(send(&exchange, subtask, 4, 4000, 1000)));
    for target in &first {
        assert!((900..1100).contains(&target.len()), "{} of 4000 in a quarter", target.len());
    }
    assert_ne!(first, second);
}

#[test]
fn broadcast_gives_all_to_all_and_global_all_to_one() {
    let all: Vec<u64> = (0..50).collect();
    assert_eq!(values(send(&broadcast::<u64>(), 1, 3, 50, 9)), [all.clone(), all.clone(), all.clone()]);
    assert_eq!(values(send(&global::<u64>(), 1, 3, 50, 9)), [all, vec![], vec![]]);
}

#[test]
fn custom_asks_the_function_and_names_a_bad_answer() {
    let exchange = custom(|&record: &u64, targets| (record % 2) as usize * (targets - 1));
    assert_eq!(values(send(&exchange, 0, 3, 5, 5)), [vec![0, 2, 4], vec![], vec![1, 3]]);
    let mut output = custom(|_: &u64, targets| targets).output(&context(0, 3));
    let error = output.push(&mut Batch::from(vec![1_u64])).unwrap_err();
    assert!(error.message().starts_with("the partitioner chose subtask 3 of 3"), "{error}");
}

#[test]
fn a_clone_leaves_the_batch_for_the_next_reader() {
    let mut output = hash::<u64, _>(encode_owned(|&record: &u64| record)).output(&context(0, 1));
    let mut batch = Batch::from(vec![7_u64, 8, 9]);
    batch.assign_times(|&record| Timestamp(record as i64 * 10));
    batch.next().unwrap();
    output.push_clone(&mut batch).unwrap();
    assert_eq!(batch.as_slice(), [8, 9]);
    output.flush();
    let (_, mut copy) = output.take_ready().unwrap();
    let first = copy.records.typed::<u64>().next().unwrap();
    assert_eq!((first.value, first.time), (8, Some(Timestamp(80))));
}

#[test]
fn batches_are_bounded_by_the_bytes_they_are_known_to_hold() {
    let context = ExchangeContext { batch_bytes: 1000, ..context(0, 1) };
    let mut output = global::<u64>().output(&context);
    let mut builder = BatchBuilder::default();
    (0..7_u64).for_each(|record| builder.push(record, None));
    builder.add_bytes(7 * 492);
    output.push(&mut builder.build()).unwrap();
    output.flush();
    let mut found = Vec::new();
    while let Some((_, batch)) = output.take_ready() {
        found.push((batch.records.len(), batch.bytes));
    }
    assert_eq!(found, [(2, 984), (2, 984), (2, 984), (1, 492)]);
}

#[test]
fn long_keys_end_a_block() {
    let exchange = hash::<u64, _>(encode_owned(|record: &u64| format!("{record}{}", "x".repeat(30 << 10))));
    let mut output = exchange.output(&context(0, 1));
    let mut batch = Batch::from((0..200).collect::<Vec<u64>>());
    output.push(&mut batch).unwrap();
    assert!(batch.is_empty());
    output.flush();
    let mut next = 0;
    while let Some((_, mut batch)) = output.take_ready() {
        let batch = batch.records.typed::<u64>();
        while let Some(record) = batch.next() {
            assert_eq!(record.value, next);
            let key = ordered::decode::<String>(record.key().bytes).unwrap();
            assert!(key.starts_with(&format!("{next}x")), "another record's key");
            next += 1;
        }
    }
    assert_eq!(next, 200);
}

#[test]
fn a_record_whose_key_cannot_be_made_is_the_last_one_taken() {
    let bad = |&record: &u64| -> u64 {
        assert!(record != 150, "no key");
        record % 7
    };
    let selectors: [Arc<dyn Exchange>; 2] = [
        hash::<u64, _>(encode_owned(bad)),
        hash::<u64, _>(|&record, into| match record {
            150 => Err(Error::user("no key")),
            _ => ordered::encode_into(&record, into),
        }),
    ];
    for exchange in selectors {
        let mut output = exchange.output(&context(0, 2));
        let mut batch = Batch::from((0..200).collect::<Vec<u64>>());
        let error = output.push(&mut batch).unwrap_err();
        assert!(error.to_string().contains("no key"), "{error}");
        assert_eq!(batch.as_slice().first(), Some(&151));
        output.flush();
        let ready = std::iter::from_fn(|| output.take_ready());
        assert_eq!(ready.map(|(_, batch)| batch.records.len()).sum::<usize>(), 150);
    }
}

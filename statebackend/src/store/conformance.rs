//! What every store must do: one check for all, run by each store's test against a store that it opens empty.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use types::{Error, Result, Timestamp};

use super::{
    Change, ExpiredUntil, ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, WriteBatch, successor,
};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Holds a store to the contract of [`KeyValueStore`]. `open` opens one in a directory, which it makes and wipes if need
/// be; directories are below `dir`, where nothing else may be. A store in memory has no use for them.
///
/// # Panics
/// If the store does not do what the contract says.
pub fn conformance(dir: &Path, mut open: impl FnMut(&Path) -> Box<dyn KeyValueStore>) {
    an_empty_store_has_nothing(&*open(&dir.join("empty")));
    later_changes_of_a_batch_win(&mut *open(&dir.join("batch")));
    a_bulk_load_is_read_and_changed(&mut *open(&dir.join("load")));
    much_is_kept_and_deleted(&mut *open(&dir.join("much")));
    what_has_not_expired_stays(&mut *open(&dir.join("expiring")));
    errors_of_the_caller_come_back(&mut *open(&dir.join("errors")));
    for seed in 1..=4 {
        behaves_as_a_sorted_map(&mut *open(&dir.join(format!("random-{seed}"))), seed);
    }
    stores_are_separate(open(&dir.join("one")), open(&dir.join("other")));
    a_store_begins_empty(&mut || open(&dir.join("again")));
}

fn an_empty_store_has_nothing(store: &dyn KeyValueStore) {
    check(store, &Model::new(), &[b"".to_vec(), b"a".to_vec()]);
    store.read(&KeyBatch::default(), &mut |_, _| panic!("no key was asked for")).expect("reading no key");
}

fn later_changes_of_a_batch_win(store: &mut dyn KeyValueStore) {
    let mut model = Model::new();
    let changes = [
        Change::Put(b"a1", b"old"),
        Change::Put(b"a1", b"new"),
        Change::Put(b"a2", b"gone"),
        Change::Delete(b"a2"),
        Change::Put(b"b1", b"gone"),
        Change::DeletePrefix(b"b"),
        Change::Put(b"b2", b""),
        Change::Delete(b"never there"),
        Change::DeletePrefix(b"nor these"),
    ];
    write(store, &mut model, &changes);
    assert_eq!(model.len(), 2);
    check(store, &model, &[b"a".to_vec(), b"b".to_vec(), b"".to_vec()]);
    write(store, &mut model, &[]);
    check(store, &model, &[b"".to_vec()]);
}

fn a_bulk_load_is_read_and_changed(store: &mut dyn KeyValueStore) {
    let mut model = Model::new();
    for part in 0..3_u8 {
        let mut entries = SortedEntries::default();
        for number in 0..500_u16 {
            let key = [&[part][..], &number.to_be_bytes()].concat();
            let value = vec![part; usize::from(number % 40)];
            entries.push(&key, &value);
            model.insert(key, value);
        }
        store.bulk_load(&entries).expect("a bulk load");
    }
    store.bulk_load(&SortedEntries::default()).expect("a bulk load of nothing");
    let changes =
        [Change::Delete(&[1, 0, 7]), Change::Put(&[1, 0, 8], b"changed"), Change::DeletePrefix(&[2, 1])];
    write(store, &mut model, &changes);
    check(store, &model, &[vec![], vec![1], vec![2], vec![2, 1]]);
}

/// Four megabytes are more than a store keeps in its first buffer: what is deleted then is gone all the same.
fn much_is_kept_and_deleted(store: &mut dyn KeyValueStore) {
    let mut model = Model::new();
    let value = [7; 1 << 10];
    let keys = |part: u8| (0..500_u16).map(move |number| [&[part][..], &number.to_be_bytes()].concat());
    let parts: Vec<Vec<_>> = (0..8).map(|part| keys(part).collect()).collect();
    for keys in &parts {
        let puts: Vec<_> = keys.iter().map(|key| Change::Put(key, &value)).collect();
        write(store, &mut model, &puts);
    }
    for keys in &parts {
        let deletions: Vec<_> = keys.iter().step_by(3).map(|key| Change::Delete(key)).collect();
        write(store, &mut model, &deletions);
    }
    write(store, &mut model, &[Change::DeletePrefix(&[3])]);
    assert_eq!(model.len(), 7 * 333);
    check(store, &model, &[vec![0], vec![3], vec![7], vec![]]);
}

/// What has expired may go or stay.
fn what_has_not_expired_stays(store: &mut dyn KeyValueStore) {
    let until = ExpiredUntil::default();
    store.expires(&[0, 1], &ExpiryRule::of_values(until.clone()));
    let mut lives = Model::new();
    for now in 0..40_i64 {
        let mut batch = WriteBatch::default();
        for (number, state) in [1_u8, 2].into_iter().cycle().take(20).enumerate() {
            let deadline = now + number as i64;
            let key = [&[0, state][..], &deadline.to_be_bytes()].concat();
            batch.push(Change::Put(&key, &deadline.to_le_bytes()));
            lives.insert(key, deadline.to_le_bytes().to_vec());
        }
        store.write(&batch).expect("a write");
        until.set(Timestamp(now));
        let has_expired = |key: &[u8]| key[1] == 1 && key[2..] <= now.to_be_bytes()[..];
        lives.retain(|key, _| !has_expired(key));
        let found = scan(store, &[0], Order::Ascending, usize::MAX);
        let found: Vec<_> = found.into_iter().filter(|(key, _)| !has_expired(key)).collect();
        assert_eq!(found, lives.iter().map(owned).collect::<Vec<_>>(), "at {now}");
    }
}

fn errors_of_the_caller_come_back(store: &mut dyn KeyValueStore) {
    write(store, &mut Model::new(), &[Change::Put(b"k", b"v")]);
    let mut keys = KeyBatch::default();
    keys.push(b"k");
    let read = store.read(&keys, &mut |_, _| Err(Error::user("stop")));
    assert_eq!(read.expect_err("the error of a reader").to_string(), "stop");
    let scan = store.scan(b"", Order::Ascending, &mut |_, _| Err(Error::user("stop")));
    assert_eq!(scan.expect_err("the error of a scanner").to_string(), "stop");
}

/// Random changes over few keys, among them the least and the greatest bytes, compared with a model after each batch.
fn behaves_as_a_sorted_map(store: &mut dyn KeyValueStore, seed: u64) {
    let mut random = Random(seed);
    let mut model = Model::new();
    for _ in 0..60 {
        let keys: Vec<(Vec<u8>, u64)> =
            (0..random.below(20)).map(|_| (random.key(), random.next())).collect();
        let values: Vec<Vec<u8>> = keys.iter().map(|(_, number)| number.to_le_bytes().to_vec()).collect();
        let changes: Vec<Change<'_>> = keys
            .iter()
            .zip(&values)
            .map(|((key, number), value)| match number % 8 {
                0..5 => Change::Put(key, value),
                5 | 6 => Change::Delete(key),
                _ => Change::DeletePrefix(key),
            })
            .collect();
        write(store, &mut model, &changes);
        let prefixes = [random.key(), random.key(), vec![u8::MAX], vec![]];
        check(store, &model, &prefixes);
    }
    assert!(model.len() > 1, "seed {seed} has left nothing to compare");
}

fn stores_are_separate(mut first: Box<dyn KeyValueStore>, second: Box<dyn KeyValueStore>) {
    write(&mut *first, &mut Model::new(), &[Change::Put(b"k", b"v")]);
    check(&*second, &Model::new(), &[vec![]]);
}

/// Whatever a directory held belonged to an attempt that is over: a start fills the store again.
fn a_store_begins_empty(open: &mut dyn FnMut() -> Box<dyn KeyValueStore>) {
    let mut first = open();
    write(&mut *first, &mut Model::new(), &[Change::Put(b"b", b"v"), Change::Put(b"c", b"v")]);
    drop(first);
    let mut second = open();
    check(&*second, &Model::new(), &[vec![]]);
    // Less than what was there, so that a load would not go.
    let mut entries = SortedEntries::default();
    entries.push(b"a", b"w");
    second.bulk_load(&entries).expect("a bulk load");
    check(&*second, &Model::from([(b"a".to_vec(), b"w".to_vec())]), &[vec![]]);
}

/// Small seeded numbers: the check needs variety and no crate for it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn key(&mut self) -> Vec<u8> {
        (0..1 + self.below(3)).map(|_| [0, 1, 127, u8::MAX][self.below(4) as usize]).collect()
    }
}

fn write(store: &mut dyn KeyValueStore, model: &mut Model, changes: &[Change<'_>]) {
    let mut batch = WriteBatch::default();
    for change in changes {
        batch.push(*change);
        match *change {
            Change::Put(key, value) => drop(model.insert(key.to_vec(), value.to_vec())),
            Change::Delete(key) => drop(model.remove(key)),
            Change::DeletePrefix(prefix) => model.retain(|key, _| !key.starts_with(prefix)),
        }
    }
    store.write(&batch).expect("a write");
}

/// Compares everything below the prefixes, in both orders, and every single key.
fn check(store: &dyn KeyValueStore, model: &Model, prefixes: &[Vec<u8>]) {
    for prefix in prefixes {
        let below = |key: &Vec<u8>| {
            key.as_slice() >= prefix.as_slice() && successor(prefix).is_none_or(|end| *key < end)
        };
        let mut expected: Vec<_> = model.iter().filter(|(key, _)| below(key)).map(owned).collect();
        assert_eq!(scan(store, prefix, Order::Ascending, usize::MAX), expected, "below {prefix:?}");
        let first: Vec<_> = expected.iter().take(1).cloned().collect();
        assert_eq!(scan(store, prefix, Order::Ascending, 1), first, "the first below {prefix:?}");
        expected.reverse();
        assert_eq!(
            scan(store, prefix, Order::Descending, usize::MAX),
            expected,
            "below {prefix:?}, backwards"
        );
        expected.truncate(1);
        assert_eq!(scan(store, prefix, Order::Descending, 1), expected, "the last below {prefix:?}");
    }
    let mut keys = KeyBatch::default();
    let asked: Vec<&[u8]> = model.keys().map(Vec::as_slice).chain([&b"missing"[..], b""]).collect();
    asked.iter().for_each(|key| keys.push(key));
    let mut answers = vec![0; asked.len()];
    let compare = &mut |number: usize, value: Option<&[u8]>| {
        answers[number] += 1;
        assert_eq!(value, model.get(asked[number]).map(Vec::as_slice), "key {:?}", asked[number]);
        Ok(())
    };
    store.read(&keys, compare).expect("a read");
    assert!(answers.iter().all(|count| *count == 1), "each key is answered once: {answers:?}");
}

fn scan(store: &dyn KeyValueStore, prefix: &[u8], order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| -> Result<ControlFlow<()>> {
        found.push((key.to_vec(), value.to_vec()));
        Ok(if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    store.scan(prefix, order, visit).expect("a scan");
    found
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

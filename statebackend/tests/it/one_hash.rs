//! Keys of one hash, all 64 bits of it. Chance brings them too seldom for any test, so they are made by hand; each has its
//! own state all the same: in the table, in the store behind it, in runs, and as a timer.

use statebackend::KeyRef;
use types::{CheckpointId, Timestamp, key_hash};

use crate::fixture::{Behind, Context, MAX, Subtask, declare, each_store, simulated};

/// What XXH3 puts over the two halves of a key of 16 bytes, and over the first word of longer ones.
const OVER_SHORT: [u64; 2] = [0x6782_737b_ea42_39b9, 0xaf56_bc3b_0996_523a];
const OVER_LONG: u64 = 0xbe4b_a423_396c_feb8;

/// Two pairs of keys; those of a pair have one hash. The first are compared as two words, the others byte by byte.
///
/// XXH3 multiplies words with one another after it has put constants over them. What meets a zero there leaves no trace;
/// of a short key the first half is also added, its bytes reversed, and the second one as it is.
pub(crate) fn pairs() -> [[Vec<u8>; 2]; 2] {
    let key = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let ([low, high], odd) = (OVER_SHORT, 0x1234_5678_9abc_def0_u64);
    let short = [key(&[low, high ^ odd]), key(&[low ^ odd.swap_bytes(), high])];
    let long = [1, 2].map(|unseen| key(&[OVER_LONG, unseen, 3, 4]));
    [short, long]
}

/// Both of each pair are filled; then the first is emptied and the second changes.
fn keep_apart(behind: &Behind) {
    simulated(1, async |env, store| {
        let handles = declare().1;
        let timer = |number: u64| Timestamp(i64::try_from(number).unwrap());
        let mut subtask = Subtask::before(behind, MAX.all(), 0, CheckpointId(1));
        for (number, bytes) in (0..).zip(pairs().as_flattened()) {
            subtask.state.register_event_timer(KeyRef::new(bytes, MAX), timer(number));
            let mut ctx = Context { state: &mut subtask.state, key: bytes };
            handles.value.set(&mut ctx, number).unwrap();
            handles.list.append(&mut ctx, number.to_string()).unwrap();
            handles.map.put(&mut ctx, &1, number).unwrap();
        }
        subtask.state.flip(CheckpointId(1));
        for (number, [first, second]) in (0..).step_by(2).zip(&pairs()) {
            subtask.state.delete_event_timer(KeyRef::new(first, MAX), timer(number));
            let mut ctx = Context { state: &mut subtask.state, key: first };
            assert_eq!(handles.value.take(&mut ctx).unwrap(), Some(number));
            handles.list.clear(&mut ctx).unwrap();
            handles.map.clear(&mut ctx).unwrap();
            let mut ctx = Context { state: &mut subtask.state, key: second };
            assert_eq!(handles.value.replace(&mut ctx, number + 10).unwrap(), Some(number + 1));
        }
        subtask.state.flip(CheckpointId(2));
        assert_eq!(subtask.seal(&*store, 1).await, [1, 2].map(CheckpointId));
        let mut restored = Subtask::before(behind, MAX.all(), 0, CheckpointId(3));
        restored.restore(&env, &*store, &subtask.runs).await.unwrap();
        for mut subtask in [subtask, restored] {
            for (number, [first, second]) in (0..).step_by(2).zip(pairs()) {
                let mut look = |key: &[u8]| {
                    let mut ctx = Context { state: &mut subtask.state, key };
                    let value = handles.value.get(&mut ctx).unwrap();
                    (value, handles.list.get(&mut ctx).unwrap(), handles.map.entries(&mut ctx).unwrap())
                };
                assert_eq!(look(&first), (None, vec![], vec![]));
                assert_eq!(
                    look(&second),
                    (Some(number + 10), vec![(number + 1).to_string()], vec![(1, number + 1)])
                );
                let (at, fired) = subtask.state.pop_event_timer(Timestamp::MAX).unwrap();
                assert_eq!((at, fired.bytes.to_vec()), (timer(number + 1), second));
            }
            assert_eq!(subtask.state.next_event_timer(), None);
        }
    });
}

#[test]
fn keys_of_one_hash_have_their_own_state() {
    for [first, second] in pairs() {
        assert_ne!(first, second);
        assert_eq!(key_hash(&first), key_hash(&second));
    }
    keep_apart(&Behind::Nothing);
    each_store(|with_cells| [1, 100].into_iter().for_each(|cells| keep_apart(&with_cells(cells).0)));
}

//! What may happen to state with a time to live, and how often.

use proptest::prelude::*;

use super::Change;

/// A change, by a record that is so much ahead of the watermark, or behind it.
pub(in crate::conformance) fn change() -> impl Strategy<Value = (i64, Change)> {
    let change = prop_oneof![
        3 => any::<u8>().prop_map(|number| Change::Set(number.into())),
        2 => any::<u8>().prop_map(|number| Change::Add(number.into())),
        2 => Just(Change::Take),
        1 => any::<u8>().prop_map(|number| Change::SetRead(number.into())),
        2 => Just(Change::Read),
        2 => any::<u32>().prop_map(Change::AppendRead),
        2 => Just(Change::ReadList),
        2 => (0_u32..6, any::<u64>()).prop_map(|(sub, value)| Change::PutRead(sub, value)),
        3 => (0_u32..6).prop_map(Change::ReadEntry),
        6 => any::<u32>().prop_map(Change::Append),
        1 => any::<u32>().prop_map(Change::ReplaceList),
        1 => Just(Change::ClearList),
        5 => (0_u32..6, any::<u64>()).prop_map(|(sub, value)| Change::Put(sub, value)),
        2 => (0_u32..6).prop_map(Change::RemoveEntry),
        1 => Just(Change::ClearMap),
        2 => (0_u8..9).prop_map(Change::Reduce),
        1 => Just(Change::TakeLongest),
        2 => any::<u32>().prop_map(Change::Aggregate),
        1 => Just(Change::ClearMean),
        2 => any::<u64>().prop_map(Change::SetClocked),
        1 => Just(Change::TakeClocked),
        6 => Just(Change::Look),
    ];
    (-12_i64..16, change)
}

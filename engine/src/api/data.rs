//! What may flow in a stream ([`Data`]) and what may be a key ([`Key`]). Both hold for every type that has what they
//! ask for: nobody implements them by hand.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use types::Shape;

/// A record: cloned where several operators read one stream, encoded where it leaves the process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a record of a stream",
    label = "records must be encoded, cloned and sent between threads",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `Clone`, and hold no references"
)]
pub trait Data: Serialize + DeserializeOwned + Clone + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Data for T {}

/// A key: its ordered bytes choose the key group and are what state is kept under.
///
/// Integers, text, booleans, floats, tuples, structs, enums, options and lists of these can be keys; maps cannot, which
/// is found when the job is built. Two keys are the same key when their ordered bytes are equal.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used as a key",
    label = "its encoded bytes choose the key group, and it is printed in error messages",
    note = "derive `serde::Serialize`, `serde::Deserialize`, `Clone`, `PartialEq`, `Eq` and `Debug`"
)]
pub trait Key: Data + Eq + Debug {}

#[diagnostic::do_not_recommend]
impl<T: Data + Eq + Debug> Key for T {}

/// The canonical bytes of a type's shape.
pub(crate) fn shape_bytes<T: DeserializeOwned>() -> Vec<u8> {
    Shape::trace::<T>().to_bytes()
}

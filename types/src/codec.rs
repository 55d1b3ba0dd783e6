//! How values of state become bytes. The codec's id stands in the schema section of every run, so that a snapshot is
//! never read with another one.

use serde::{Serialize, de::DeserializeOwned};

use crate::Result;

mod bincode;

pub use bincode::Bincode;

/// Turns values of state into bytes and back, through serde.
///
/// # Contract
/// * The bytes of a value depend on the value alone, and another version of the program, on another machine, reads them.
/// * `decode` takes exactly what `encode` wrote; any other bytes are an error, never a panic, and never cost more
///   memory than a few times their length.
pub trait Codec: 'static {
    /// The name that is stored with the state. A change of the bytes is a new name.
    const ID: &'static str;

    /// Appends the bytes of `value` to `out`, which is left as it was if that fails.
    ///
    /// # Errors
    /// `InvalidJob` if a value of this type could not be read back, `User` if its `Serialize` fails.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Decodes the value that fills `bytes` to the end.
    ///
    /// # Errors
    /// `Corrupt` if these are not the bytes of a `T`; `InvalidJob` if no `T` can be read by this codec.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T>;
}

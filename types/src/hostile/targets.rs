//! The decoders of this crate: stored shapes, ordered keys, values of state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FREE_MEMORY, Target};
use crate::{Bincode, Codec, Result, Shape, ShapedValue, ordered};

/// The stored form of a shape.
pub const SHAPE: Target = Target {
    name: "shape",
    decode: |bytes| {
        let shape = Shape::from_bytes(bytes)?;
        assert_eq!(shape.to_bytes(), bytes, "a shape has one spelling");
        Ok(())
    },
    repair: |_| {},
    longest: 1 << 20,
    free: FREE_MEMORY,
};

/// A key of many parts, in ordered bytes.
pub const KEY: Target = Target {
    name: "key",
    decode: |bytes| {
        let key: Key = ordered::decode(bytes)?;
        let mut again = Vec::new();
        ordered::encode_into(&key, &mut again)?;
        assert_eq!(again, bytes, "a key has one spelling");
        Ok(())
    },
    repair: |_| {},
    longest: LONGEST_VALUE,
    free: FREE_MEMORY,
};

/// A value of state, in the bytes of the codec `bincode2`.
pub const VALUE: Target = Target {
    name: "value",
    decode: |bytes| Bincode::decode::<Value>(bytes).map(drop),
    repair: |_| {},
    longest: LONGEST_VALUE,
    free: FREE_MEMORY,
};

/// A stored shape behind its length (`u16`), and then a value that is read by it, without its type.
pub const SHAPED_VALUE: Target =
    Target { name: "shaped-value", decode: shaped_value, repair: |_| {}, longest: 512, free: FREE_MEMORY };

/// How much an element of a value takes is for its type to say, and may be far more than its bytes: what is free must do.
const LONGEST_VALUE: usize = 4 << 10;

fn shaped_value(bytes: &[u8]) -> Result<()> {
    let (len, rest) = bytes.split_first_chunk().unwrap_or((&[0; 2], bytes));
    let (shape, value) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let shape = Shape::from_bytes(shape)?;
    let checked = ShapedValue::check(&shape, Bincode::ID, value);
    let decoded = ShapedValue::decode(&shape, Bincode::ID, value);
    assert_eq!(checked.is_ok(), decoded.is_ok(), "what is checked can be read: {checked:?}, {decoded:?}");
    // As a key most values are wrong; either way it must come back.
    let _ = ShapedValue::decode_key(&shape, value);
    decoded.map(drop)
}

/// Something of everything that may stand in a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    text: String,
    numbers: Vec<Option<i64>>,
    pair: (u8, char),
    kind: Kind,
    ratio: f64,
    words: Vec<String>,
}

/// A list inside of lists.
type Inner = Vec<(u8, Option<Box<Value>>)>;

/// Something of everything that may stand in a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Value {
    key: Key,
    by_name: BTreeMap<String, Vec<u16>>,
    deep: Vec<Vec<Inner>>,
    wide: [u128; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    None,
    Some(u32),
    Both { left: i16, right: bool },
}

/// Small real inputs of each target, with the target's name in front: what the corpus begins with.
///
/// # Errors
/// Never: all of it can be encoded.
pub fn seeds() -> Result<Vec<(&'static str, &'static str, Vec<u8>)>> {
    let key = Key {
        text: "a text with \0 and \u{1}".to_owned(),
        numbers: vec![Some(-1), None, Some(i64::MAX)],
        pair: (255, 'é'),
        kind: Kind::Both { left: -300, right: true },
        ratio: -0.5,
        words: vec![String::new(), "word".to_owned()],
    };
    let small = Key { kind: Kind::None, words: Vec::new(), numbers: Vec::new(), ..key.clone() };
    let value = |deep| Value {
        key: Key { kind: Kind::Some(70_000), ..key.clone() },
        by_name: BTreeMap::from([("one".to_owned(), vec![1, 300, 65_535]), ("two".to_owned(), Vec::new())]),
        deep,
        wide: [u128::MAX, 7],
    };
    let flat = value(Vec::new());
    let deep = value(vec![vec![vec![(7, None), (8, Some(Box::new(flat.clone())))], Vec::new()]]);
    let (mut keys, mut values) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    ordered::encode_into(&key, &mut keys[0])?;
    ordered::encode_into(&small, &mut keys[1])?;
    Bincode::encode(&flat, &mut values[0])?;
    Bincode::encode(&deep, &mut values[1])?;
    let shape = Shape::trace::<Value>().to_bytes();
    let shaped = |value: &[u8]| {
        let short = Shape::trace::<Vec<(u16, Kind, Option<String>)>>().to_bytes();
        [&(short.len() as u16).to_le_bytes()[..], &short, value].concat()
    };
    let mut list = Vec::new();
    Bincode::encode(&[(9_u16, Kind::Some(1), Some("text")), (400, Kind::None, None)][..], &mut list)?;
    // A hundred thousand elements in five bytes.
    let units = Shape::Seq(Shape::Unit.into()).to_bytes();
    let units = [&(units.len() as u16).to_le_bytes()[..], &units, &[0xfc, 0xa0, 0x86, 0x01, 0]].concat();
    let [first_key, second_key] = keys;
    let [first_value, second_value] = values;
    Ok(vec![
        (KEY.name, "all-parts", first_key),
        (KEY.name, "few-parts", second_key),
        (VALUE.name, "flat", first_value),
        (VALUE.name, "deep", second_value),
        (SHAPE.name, "value", shape),
        (SHAPE.name, "text", Shape::Str.to_bytes()),
        (SHAPE.name, "key", Shape::trace::<Key>().to_bytes()),
        (SHAPE.name, "bomb-of-units", Shape::Tuple(vec![Shape::Unit; 40_000]).to_bytes()),
        (SHAPED_VALUE.name, "list", shaped(&list)),
        (SHAPED_VALUE.name, "empty-list", shaped(&[0])),
        (SHAPED_VALUE.name, "bomb-of-units", units),
    ])
}

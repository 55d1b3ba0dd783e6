//! How stored bytes are printed by their shape.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::*;
use crate::{Bincode, Codec, ordered};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Nothing,
    Named(String),
    Pair(i16, u128),
    Full { at: i64, tags: BTreeMap<String, Option<f64>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    event: Event,
    next: Option<Box<Node>>,
}

fn stored<T: Serialize + DeserializeOwned>(value: &T) -> ShapedValue {
    let mut bytes = Vec::new();
    Bincode::encode(value, &mut bytes).unwrap();
    ShapedValue::decode(&Shape::trace::<T>(), Bincode::ID, &bytes).unwrap()
}

#[track_caller]
fn check<T: Serialize + DeserializeOwned>(value: &T, expected: &str) {
    assert_eq!(stored(value).to_string(), expected);
}

#[test]
fn values_are_printed() {
    check(&(true, -1_i8, u128::MAX, 'x'), "(true, -1, 340282366920938463463374607431768211455, 'x')");
    check(&(0.1_f32, 1.0_f64, f64::NAN), "(0.1, 1.0, NaN)");
    check(&(String::from("a\"b"), ()), r#"("a\"b", ())"#);
    check(&std::ffi::CString::new([1, 255]).unwrap(), "0x01ff");
    check(&vec![Some(1_u8), None], "[some(1), none]");
    check(&BTreeMap::from([("a".to_owned(), 1_u8), ("b".to_owned(), 2)]), r#"{"a": 1, "b": 2}"#);
    check(&Event::Nothing, "Nothing");
    check(&Event::Pair(-5, 7), "Pair(-5, 7)");
    let full = Event::Full { at: -1, tags: BTreeMap::from([("k".into(), Some(0.5))]) };
    let named = Event::Named("n".into());
    let node = Node { event: full, next: Some(Node { event: named, next: None }.into()) };
    check(
        &node,
        r#"Node { event: Full { at: -1, tags: {"k": some(0.5)} }, next: some(Node { event: Named("n"), next: none }) }"#,
    );
}

#[test]
fn keys_are_printed() {
    let key = ("user\0".to_owned(), -7_i64, Event::Pair(1, 2), vec![1_u8, 2], 2.5_f64);
    let mut bytes = Vec::new();
    ordered::encode_into(&key, &mut bytes).unwrap();
    let shape = Shape::trace::<(String, i64, Event, Vec<u8>, f64)>();
    let printed = ShapedValue::decode_key(&shape, &bytes).unwrap();
    assert_eq!(printed.to_string(), r#"("user\0", -7, Pair(1, 2), [1, 2], 2.5)"#);
    assert_eq!(ShapedValue::decode_key(&shape, &bytes[1..9]).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn what_is_not_known_is_hex() {
    let half = Shape::Tuple(vec![Shape::U8, option(Shape::Unknown)]);
    let decode = |shape: &Shape, codec: &str, bytes: &[u8]| ShapedValue::decode(shape, codec, bytes).unwrap();
    assert_eq!(decode(&half, Bincode::ID, &[1, 0]).to_string(), "(1, none)");
    assert_eq!(decode(&half, Bincode::ID, &[1, 1, 5]), ShapedValue::Opaque(vec![1, 1, 5]));
    assert_eq!(decode(&Shape::U8, "another", &[1]).to_string(), "0x01");
    let open = choice(vec![variant(0, "A", Fields::Unit)], true);
    assert_eq!(decode(&open, Bincode::ID, &[0]).to_string(), "A");
    assert_eq!(decode(&open, Bincode::ID, &[1]), ShapedValue::Opaque(vec![1]));
    let closed = choice(vec![variant(0, "A", Fields::Unit)], false);
    assert!(ShapedValue::decode(&closed, Bincode::ID, &[1]).is_err());
    assert!(ShapedValue::decode(&Shape::U8, Bincode::ID, &[1, 2]).is_err());
}

#[test]
fn a_shape_that_never_ends_is_refused() {
    let shape = Shape::Tuple(vec![Shape::Recursive(0)]);
    assert!(ShapedValue::decode(&shape, Bincode::ID, &[]).is_err());
    let chain = |links| (0..links).fold(None, |next, _| Some(Box::new(Node { event: Event::Nothing, next })));
    assert_eq!(stored(&chain(127)).to_string().matches("Nothing").count(), 127);
}

#[test]
fn json_is_that_of_the_type() {
    let value =
        (Event::Named("n".into()), Event::Nothing, Some(-3_i64), BTreeMap::from([(1_u8, "x".to_owned())]));
    assert_eq!(serde_json::to_string(&stored(&value)).unwrap(), r#"[{"Named":"n"},"Nothing",-3,{"1":"x"}]"#);
    let wide = (i128::MIN, u128::MAX);
    assert_eq!(serde_json::to_string(&stored(&wide)).unwrap(), serde_json::to_string(&wide).unwrap());
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Nothing),
        "[ -~]{0,9}"
            .prop_filter("says none", |text| !text.contains("None") && !text.contains("Some("))
            .prop_map(Event::Named),
        any::<(i16, u128)>().prop_map(|(a, b)| Event::Pair(a, b)),
        (any::<i64>(), prop::collection::btree_map("[a-z]{0,3}", any::<Option<f64>>(), 0..4))
            .prop_map(|(at, tags)| Event::Full { at, tags }),
    ]
}

/// What `Debug` prints, in our words.
fn debug<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}").replace("Some(", "some(").replace("None", "none")
}

proptest! {
    #[test]
    fn prints_what_the_type_prints(events in vec(event(), 0..4)) {
        let nodes = events.into_iter().fold(None, |next, event| Some(Box::new(Node { event, next })));
        prop_assert_eq!(stored(&nodes).to_string(), debug(&nodes));
        prop_assert_eq!(serde_json::to_string(&stored(&nodes))?, serde_json::to_string(&nodes)?);
    }

    #[test]
    fn hostile_bytes_never_panic(shape in shape(), bytes in vec(prop_oneof![0_u8..4, any::<u8>()], 0..40)) {
        let _ = ShapedValue::decode(&shape, Bincode::ID, &bytes);
        let _ = ShapedValue::decode_key(&shape, &bytes);
    }
}

#![allow(clippy::unwrap_used)]

mod keys;
mod traced;
mod values;

use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serialize};

use super::*;
use crate::ErrorKind;

fn option(inner: Shape) -> Shape {
    Shape::Option(inner.into())
}

fn named(name: &str, fields: Vec<(&str, Shape)>) -> Shape {
    let fields = fields.into_iter().map(|(name, shape)| (name.into(), shape)).collect();
    Shape::Struct { name: name.into(), fields: Fields::Named(fields) }
}

fn variant(index: u32, name: &str, fields: Fields) -> Variant {
    Variant { index, name: name.into(), fields }
}

fn choice(variants: Vec<Variant>, open: bool) -> Shape {
    Shape::Enum { name: "Choice".into(), variants, open }
}

/// One of everything.
fn everything() -> Shape {
    let variants = vec![
        variant(0, "Unit", Fields::Unit),
        variant(1, "New", Fields::Newtype(Shape::I128.into())),
        variant(2, "Two", Fields::Tuple(vec![Shape::F32, Shape::Recursive(0)])),
        variant(3, "Named", Fields::Named(vec![("at".into(), Shape::Char)])),
        variant(4, "Dark", Fields::Unknown),
    ];
    named(
        "Total",
        vec![
            ("count", Shape::U64),
            ("list", Shape::Seq(option(Shape::Str).into())),
            ("map", Shape::Map(Shape::Bytes.into(), Shape::Any.into())),
            ("choice", choice(variants, true)),
            ("four", Shape::Tuple(vec![Shape::U8; 4])),
            ("pair", Shape::Tuple(vec![Shape::Unit, Shape::Unknown])),
        ],
    )
}

#[test]
fn prints_on_one_line() {
    assert_eq!(
        everything().to_string(),
        "struct Total { count: u64, list: [option<str>], map: map<bytes, any>, choice: enum Choice { Unit | \
         New(i128) | Two(f32, ^0) | Named { at: char } | Dark(unknown) | .. }, four: [u8; 4], pair: ((), unknown) }"
    );
}

/// These bytes are in users' snapshots, and fingerprints are taken of them.
#[test]
fn golden_bytes() {
    let shape = named("T", vec![("a", Shape::U64), ("b", option(Shape::Recursive(1)))]);
    let expected =
        b"\x01\x24\x01\0\0\0T\x03\x02\0\0\0\x01\0\0\0a\x0A\x01\0\0\0b\x20\x26\x01\0\0\0".as_slice();
    assert_eq!(shape.to_bytes(), expected);
    assert_eq!(shape.fingerprint(), 112_669_353_324_368_093_824_394_218_377_723_346_342);
    let shape = choice(vec![variant(0, "A", Fields::Unit), variant(7, "B", Fields::Unknown)], true);
    let expected =
        b"\x01\x25\x06\0\0\0Choice\x01\x02\0\0\0\0\0\0\0\x01\0\0\0A\0\x07\0\0\0\x01\0\0\0B\x04".as_slice();
    assert_eq!(shape.to_bytes(), expected);
}

#[test]
fn stored_form_is_read_back() {
    let bytes = everything().to_bytes();
    assert_eq!(Shape::from_bytes(&bytes).unwrap(), everything());
    for len in 0..bytes.len() {
        assert_eq!(Shape::from_bytes(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Shape::from_bytes(&longer).unwrap_err().message().contains("bytes are left"));
}

#[test]
fn stored_form_is_bounded() {
    let nested = |levels: usize| (0..levels).fold(Shape::U8, |inner, _| option(inner));
    assert!(Shape::from_bytes(&nested(64).to_bytes()).is_ok());
    assert!(Shape::from_bytes(&nested(65).to_bytes()).is_err());
    assert!(Shape::from_bytes(&[[1].as_slice(), &[32; 1_000_000]].concat()).is_err());
    assert!(Shape::from_bytes(&[1, 35, 255, 255, 255, 255]).is_err());
    assert!(Shape::from_bytes(&Shape::Recursive(0).to_bytes()).is_err());
    assert!(Shape::from_bytes(&[2, 0]).unwrap_err().message().contains("version 2"));
    let twice = choice(vec![variant(1, "A", Fields::Unit), variant(1, "B", Fields::Unit)], false);
    assert!(Shape::from_bytes(&twice.to_bytes()).is_err());
}

#[test]
fn what_may_be_stored_and_what_may_be_a_key() {
    let check = |result: Result<()>, expected: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        assert!(error.message().starts_with(expected), "{error}");
    };
    check(everything().storable(), "field `map{value}` asks the bytes");
    check(everything().orderable(), "field `map{value}` asks the bytes");
    check(Shape::Any.storable(), "the type asks the bytes");
    let map = || Shape::Map(Shape::U8.into(), Shape::U8.into());
    check(map().orderable(), "the type is a map");
    let deep =
        choice(vec![variant(0, "A", Fields::Tuple(vec![Shape::U8, named("S", vec![("m", map())])]))], false);
    assert!(deep.storable().is_ok());
    check(deep.orderable(), "field `::A.1.m` is a map");
    assert!(Shape::Tuple(vec![Shape::Unknown, Shape::F64]).orderable().is_ok());
}

#[test]
fn the_first_difference_is_named() {
    let check = |expected: &Shape, found: &Shape, text: &str| {
        assert_eq!(Shape::diff(expected, found).as_deref(), Some(text));
        assert!(Shape::diff(found, expected).is_some());
        assert_ne!(expected.fingerprint(), found.fingerprint());
        assert_eq!(expected.merge(found).unwrap_err().kind(), ErrorKind::IncompatibleState);
    };
    let total = |fields| named("Total", fields);
    let seq = |inner: Shape| Shape::Seq(inner.into());
    check(&Shape::U64, &Shape::I32, "expected u64, found i32");
    check(
        &total(vec![("count", Shape::U64)]),
        &total(vec![("count", Shape::I32)]),
        "field `count`: expected u64, found i32",
    );
    check(
        &total(vec![("orders", seq(total(vec![("price", option(Shape::U64))])))]),
        &total(vec![("orders", seq(total(vec![("price", option(Shape::F64))])))]),
        "field `orders[].price?`: expected u64, found f64",
    );
    check(
        &total(vec![("a", Shape::U8), ("b", Shape::U8)]),
        &total(vec![("a", Shape::U8)]),
        "field `b`: is missing in what was found",
    );
    check(
        &total(vec![("a", Shape::U8)]),
        &total(vec![("a", Shape::U8), ("b", Shape::U8)]),
        "field `b`: is not expected but was found",
    );
    check(
        &total(vec![("a", Shape::U8), ("b", Shape::U8)]),
        &total(vec![("b", Shape::U8), ("a", Shape::U8)]),
        "field `a`: found `b` in its place",
    );
    check(&total(vec![]), &named("Sum", vec![]), "expected struct Total, found struct Sum");
    check(
        &Shape::Tuple(vec![Shape::U8; 2]),
        &Shape::Tuple(vec![Shape::U8; 3]),
        "expected a tuple of 2, found a tuple of 3",
    );
    let one = |fields| choice(vec![variant(0, "A", fields)], false);
    check(
        &one(Fields::Newtype(Shape::U8.into())),
        &one(Fields::Newtype(Shape::Str.into())),
        "field `::A.0`: expected u8, found str",
    );
    check(
        &one(Fields::Unit),
        &one(Fields::Newtype(Shape::U8.into())),
        "field `::A`: expected no fields, found one unnamed field",
    );
    check(
        &one(Fields::Unit),
        &choice(vec![variant(0, "B", Fields::Unit)], false),
        "expected variant 0 `A`, found variant 0 `B`",
    );
    check(
        &one(Fields::Unit),
        &choice(vec![variant(0, "A", Fields::Unit), variant(1, "B", Fields::Unit)], false),
        "expected no further variant, found variant 1 `B`",
    );
}

#[test]
fn partial_shapes_agree_and_complete_each_other() {
    let traced = named("T", vec![("id", Shape::Unknown), ("list", Shape::Seq(Shape::U8.into()))]);
    let sampled = named("T", vec![("id", Shape::Str), ("list", Shape::Seq(Shape::Unknown.into()))]);
    let whole = named("T", vec![("id", Shape::Str), ("list", Shape::Seq(Shape::U8.into()))]);
    assert!(!traced.is_complete() && !sampled.is_complete() && whole.is_complete());
    assert_eq!(traced.merge(&sampled).unwrap(), whole);
    assert_eq!(sampled.merge(&traced).unwrap(), whole);

    let a = || variant(0, "A", Fields::Unit);
    let b = |fields| variant(1, "B", fields);
    let c = || variant(2, "C", Fields::Newtype(Shape::U8.into()));
    let open = choice(vec![a(), c()], true).merge(&choice(vec![b(Fields::Unit)], true)).unwrap();
    assert_eq!(open, choice(vec![a(), b(Fields::Unit), c()], true));
    assert!(!open.is_complete());
    let closed = open.merge(&choice(vec![a(), b(Fields::Unknown), c()], false)).unwrap();
    assert_eq!(closed, choice(vec![a(), b(Fields::Unit), c()], false));
    assert!(closed.is_complete());
    // A closed enum has no further variants.
    assert!(choice(vec![a()], false).merge(&choice(vec![c()], true)).is_err());
    // A name that was not found out agrees with every name, and gives way.
    let nameless = choice(vec![variant(0, "", Fields::Unit)], false);
    assert!(!nameless.is_complete());
    assert_eq!(nameless.merge(&choice(vec![a()], false)).unwrap(), choice(vec![a()], false));
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::U64),
        Just(Shape::Str),
        Just(Shape::Unknown),
        Just(Shape::Any),
        Just(Shape::Bytes),
        Just(Shape::Unit)
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let fields = prop_oneof![
            Just(Fields::Unit),
            Just(Fields::Unknown),
            inner.clone().prop_map(|shape| Fields::Newtype(shape.into())),
            vec(inner.clone(), 0..3).prop_map(Fields::Tuple),
            vec(("[a-z]{0,3}", inner.clone()), 0..3).prop_map(Fields::Named),
        ];
        prop_oneof![
            inner.clone().prop_map(option),
            inner.clone().prop_map(|shape| Shape::Seq(shape.into())),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| Shape::Map(key.into(), value.into())),
            vec(inner.clone(), 0..4).prop_map(Shape::Tuple),
            ("[A-Z]{1,2}", fields.clone()).prop_map(|(name, fields)| Shape::Struct { name, fields }),
            (vec(("[A-Z]{1,2}", fields), 0..4), any::<bool>()).prop_map(|(variants, open)| {
                let variants =
                    (0..).zip(variants).map(|(index, (name, fields))| Variant { index, name, fields });
                choice(variants.collect(), open)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_shape_is_read_back(shape in shape()) {
        prop_assert_eq!(&Shape::from_bytes(&shape.to_bytes())?, &shape);
        prop_assert_eq!(Shape::diff(&shape, &shape), None);
        prop_assert_eq!(&shape.merge(&shape)?, &shape);
    }

    #[test]
    fn shapes_differ_or_merge_alike_both_ways(left in shape(), right in shape()) {
        prop_assert_eq!(Shape::diff(&left, &right).is_some(), Shape::diff(&right, &left).is_some());
        if let Ok(both) = left.merge(&right) {
            prop_assert_eq!(Shape::diff(&both, &left), None);
            prop_assert_eq!(Shape::diff(&both, &right), None);
        }
    }

    #[test]
    fn damaged_shapes_never_panic(shape in shape(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = shape.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Shape::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }

    #[test]
    fn hostile_shapes_never_panic(bytes in vec(prop_oneof![0_u8..4, 30_u8..40, any::<u8>()], 0..60)) {
        let bytes = [&[1], bytes.as_slice()].concat();
        if let Ok(read) = Shape::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}

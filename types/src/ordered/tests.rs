#![allow(clippy::unwrap_used)]

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Error, ErrorKind};

fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Place {
    Nowhere,
    Town(String),
    Point(i32, i32),
    Street { name: String, number: Option<u16> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    text: String,
    number: i64,
    list: Vec<(String, i8)>,
    place: Place,
    four: [u8; 4],
    flag: bool,
}

/// What the table in the module's documentation says, byte by byte. These bytes are in users' snapshots.
#[test]
fn golden_bytes() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype(u16);

    fn check<T: Serialize + ?Sized>(value: &T, expected: &[u8]) {
        assert_eq!(bytes_of(value), expected);
    }

    check(&0x0102_u16, &[1, 2]);
    check(&0x0102_0304_0506_0708_u64, &[1, 2, 3, 4, 5, 6, 7, 8]);
    check(&7_u128, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    check(&-1_i8, &[0x7F]);
    check(&0_i16, &[0x80, 0]);
    check(&1_i32, &[0x80, 0, 0, 1]);
    check(&i64::MIN, &[0; 8]);
    check(&-1_i128, &[0x7F, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]);
    check(&true, &[1]);
    check(&'a', &[0, 0, 0, 0x61]);
    check(&1.0_f32, &[0xBF, 0x80, 0, 0]);
    check(&-1.0_f32, &[0x40, 0x7F, 0xFF, 0xFF]);
    check(&-0.0_f64, &[0x80, 0, 0, 0, 0, 0, 0, 0]);
    check(&f64::NAN, &[0xFF, 0xF8, 0, 0, 0, 0, 0, 0]);
    check("", &[0]);
    check("word", b"word\0");
    check("a\0b\u{1}c", &[b'a', 1, 1, b'b', 1, 2, b'c', 0]);
    check(&(), &[]);
    check(&Unit, &[]);
    check(&Newtype(5), &[0, 5]);
    check(&None::<u8>, &[0]);
    check(&Some(7_u8), &[1, 7]);
    check(&("a", 1_u8), &[b'a', 0, 1]);
    check(&[3_u8, 4], &[3, 4]);
    check(&vec![3_u8, 4], &[1, 3, 1, 4, 0]);
    check(&Place::Nowhere, &[0]);
    check(&Place::Point(0, -1), &[2, 0x80, 0, 0, 0, 0x7F, 255, 255, 255]);
    check(&Place::Street { name: "x".into(), number: Some(1) }, &[3, b'x', 0, 1, 0, 1]);
}

#[test]
fn a_map_is_refused_and_leaves_the_buffer_as_it_was() {
    let mut bytes = vec![9];
    let error = encode_into(&("front", BTreeMap::from([(1, 2)])), &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    assert!(error.message().contains("a map cannot be ordered"), "{error}");
    assert_eq!(bytes, [9]);
    assert_eq!(decode::<BTreeMap<u8, u8>>(&[0]).unwrap_err().kind(), ErrorKind::InvalidJob);
}

#[test]
fn a_field_that_is_left_out_is_refused() {
    #[derive(Serialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    assert_eq!(bytes_of(&Sparse { maybe: Some(1) }), [1, 1]);
    let error = encode_into(&Sparse { maybe: None }, &mut Vec::new()).unwrap_err();
    assert!(error.message().contains("`maybe`"), "{error}");
}

#[test]
fn many_variants_keep_their_order() {
    let mut indexes = vec![0, 1, 253, 254, 255, 256, 65_535, 65_536, u32::MAX];
    let encoded: Vec<Vec<u8>> = indexes
        .iter()
        .map(|index| {
            let mut bytes = Vec::new();
            Ordered::put_variant(*index, &mut bytes);
            assert_eq!(Ordered::take_variant(&mut bytes.as_slice()).unwrap(), *index);
            bytes
        })
        .collect();
    indexes.sort_unstable();
    assert!(encoded.is_sorted());
    assert_eq!(encoded[3], [254]);
    assert_eq!(encoded[4], [255, 0, 0, 0, 255]);
}

#[test]
fn floats_are_in_total_order_with_one_nan() {
    let order = [
        f64::NEG_INFINITY,
        f64::MIN,
        -1.0,
        -f64::MIN_POSITIVE,
        -5e-324,
        0.0,
        5e-324,
        1.0,
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
    ];
    let encoded: Vec<Vec<u8>> = order.iter().map(bytes_of).collect();
    assert!(encoded.windows(2).all(|pair| pair[0] < pair[1]));
    for nan in [-f64::NAN, f64::from_bits(0x7FF0_0000_0000_0001), f64::from_bits(u64::MAX)] {
        assert_eq!(bytes_of(&nan), encoded[10]);
    }
    assert!(decode::<f64>(&encoded[10]).unwrap().is_nan());
    assert_eq!(bytes_of(&-0.0_f32), bytes_of(&0.0_f32));
}

#[test]
fn other_spellings_of_a_value_are_refused() {
    let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    refused(decode::<f64>(&(!(-0.0_f64).to_bits()).to_be_bytes()).unwrap_err());
    refused(decode::<f32>(&[0xFF; 4]).unwrap_err());
    refused(decode::<bool>(&[2]).unwrap_err());
    refused(decode::<Option<u8>>(&[2, 0]).unwrap_err());
    refused(decode::<String>(&[1, 3, 0]).unwrap_err());
    refused(decode::<String>(&[0xFF, 0]).unwrap_err());
    refused(decode::<char>(&[0, 0, 0xD8, 0]).unwrap_err());
    refused(decode::<u8>(&[1, 2]).unwrap_err());
    refused(decode::<Vec<u8>>(&[1, 3]).unwrap_err());
    refused(decode::<Place>(&[255, 0, 0, 0, 1]).unwrap_err());
    refused(decode::<Place>(&[200]).unwrap_err());
}

#[test]
fn nesting_is_bounded_in_both_directions() {
    #[derive(Serialize, Deserialize)]
    enum Chain {
        End,
        Link(Box<Chain>),
    }
    let chain = |links: usize| (0..links).fold(Chain::End, |end, _| Chain::Link(Box::new(end)));
    let deepest = bytes_of(&chain(127));
    assert!(decode::<Chain>(&deepest).is_ok());
    assert!(encode_into(&chain(128), &mut Vec::new()).is_err());
    assert!(decode::<Chain>(&[1; 1_000_000]).is_err());
}

#[test]
fn a_prefix_of_parts_is_a_prefix_of_bytes() {
    let whole = bytes_of(&("user", 7_u32, "window"));
    let mut front = bytes_of("user");
    encode_into(&7_u32, &mut front).unwrap();
    assert!(whole.starts_with(&front));

    let mut rest = whole.as_slice();
    assert_eq!(decode_prefix::<String>(&mut rest).unwrap(), "user");
    assert_eq!(decode_prefix::<u32>(&mut rest).unwrap(), 7);
    assert_eq!(decode_prefix::<String>(&mut rest).unwrap(), "window");
    assert!(rest.is_empty());
}

#[test]
fn text_of_every_length_with_and_without_escapes() {
    for len in 0..40_u8 {
        let plain: Vec<u8> = (0..len).map(|byte| byte + 2).collect();
        check_text(&plain);
        for at in 0..usize::from(len) {
            for byte in [0, 1, 0x80, 0x81, 0xFF] {
                let mut bytes = plain.clone();
                bytes[at] = byte;
                assert_eq!(plain_len(&bytes), if byte <= 1 { at } else { bytes.len() });
                check_text(&bytes);
            }
        }
    }
}

fn check_text(bytes: &[u8]) {
    let mut expected = vec![9];
    put_escaped(bytes, &mut expected);
    let mut encoded = vec![9];
    Ordered::put_bytes(bytes, &mut encoded);
    assert_eq!(encoded, expected);
    let mut rest = &encoded[1..];
    assert_eq!(Ordered::take_bytes(&mut rest).unwrap(), bytes);
    assert!(rest.is_empty());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[\u{0}\u{1}\u{2}ab\u{7f}]{0,20}", ".{0,12}"]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Nowhere),
        text().prop_map(Place::Town),
        (any::<i32>(), any::<i32>()).prop_map(|(x, y)| Place::Point(x, y)),
        (text(), any::<Option<u16>>()).prop_map(|(name, number)| Place::Street { name, number }),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    (text(), -2_i64..2, vec((text(), any::<i8>()), 0..3), place(), any::<[u8; 4]>(), any::<bool>())
        .prop_map(|(text, number, list, place, four, flag)| Key { text, number, list, place, four, flag })
}

fn check_pair<T>(a: &T, b: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + Ord + Debug,
{
    let (left, right) = (bytes_of(a), bytes_of(b));
    prop_assert_eq!(left.cmp(&right), a.cmp(b));
    prop_assert_eq!(&decode::<T>(&left)?, a);
    // Self-delimiting: no value's bytes are the beginning of another's, and whatever follows does not matter.
    prop_assert!(a == b || (!left.starts_with(&right) && !right.starts_with(&left)));
    let joined = [left.as_slice(), &right].concat();
    let mut rest = joined.as_slice();
    prop_assert_eq!(&decode_prefix::<T>(&mut rest)?, a);
    prop_assert_eq!(rest, right);
    Ok(())
}

/// Whatever is accepted is what encoding writes: no two byte strings stand for one key.
fn check_hostile<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = decode::<T>(bytes) {
        prop_assert_eq!(bytes_of(&value), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn keys_are_ordered_as_values(a in key(), b in key()) {
        check_pair(&a, &b)?;
    }

    #[test]
    fn near_keys_are_ordered_as_values(a in vec("[\u{0}\u{1}\u{2}]{0,3}", 0..3), b in vec("[\u{0}\u{1}\u{2}]{0,3}", 0..3)) {
        check_pair(&a, &b)?;
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        check_pair(&set(&a), &set(&b))?;
    }

    #[test]
    fn numbers_are_ordered_as_values(
        a in any::<(u8, u16, u32, u64, u128)>(), b in any::<(u8, u16, u32, u64, u128)>(),
        c in any::<(i8, i16, i32, i64, i128, char)>(), d in any::<(i8, i16, i32, i64, i128, char)>(),
    ) {
        check_pair(&a, &b)?;
        check_pair(&a.4, &b.4)?;
        check_pair(&c, &d)?;
        check_pair(&c.4, &d.4)?;
        check_pair(&c.5, &d.5)?;
    }

    #[test]
    fn floats_are_ordered_as_values(a in any::<f64>(), b in any::<f64>()) {
        let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
        prop_assert_eq!(bytes_of(&a).cmp(&bytes_of(&b)), order);
        prop_assert_eq!(decode::<f64>(&bytes_of(&a))?, a);
        let (a, b) = (a as f32, b as f32);
        prop_assert_eq!(bytes_of(&a).cmp(&bytes_of(&b)), a.partial_cmp(&b).unwrap_or(Ordering::Equal));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in vec(prop_oneof![0_u8..4, any::<u8>()], 0..60)) {
        check_hostile::<Key>(&bytes)?;
        check_hostile::<Place>(&bytes)?;
        check_hostile::<(f64, f32)>(&bytes)?;
        check_hostile::<Vec<Option<String>>>(&bytes)?;
        check_hostile::<(String, char, bool)>(&bytes)?;
        check_hostile::<Vec<Vec<()>>>(&bytes)?;
    }

    #[test]
    fn damaged_keys_never_panic(key in key(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes_of(&key);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_hostile::<Key>(&bytes)?;
    }
}

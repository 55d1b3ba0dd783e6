#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ::bincode::{config, serde as oracle};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

use super::*;
use crate::ErrorKind;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Nothing,
    Named(String),
    Pair(i16, u128),
    Full { at: i64, tags: BTreeMap<String, Option<f64>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Total {
    name: String,
    count: u64,
    small: (u8, i8, u16, u32, i32),
    wide: i128,
    ratio: f32,
    letter: char,
    sure: bool,
    events: Vec<Event>,
    set: BTreeSet<i64>,
    raw: [u8; 3],
    boxed: Option<Box<Total>>,
    waited: Duration,
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    Bincode::encode(value, &mut bytes).unwrap();
    bytes
}

fn corrupt<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
    let error = Bincode::decode::<T>(bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    error.to_string()
}

#[test]
fn golden_bytes() {
    assert_eq!(encoded(&250_u64), [250]);
    assert_eq!(encoded(&251_u64), [251, 251, 0]);
    assert_eq!(encoded(&65_536_u32), [252, 0, 0, 1, 0]);
    assert_eq!(encoded(&(1_u64 << 32)), [253, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(encoded(&-1_i32), [1]);
    assert_eq!(encoded(&200_u8), [200]);
    assert_eq!(encoded("word"), *b"\x04word");
    assert_eq!(encoded(&Some(vec![1_u16, 2])), [1, 2, 1, 2]);
    assert_eq!(encoded(&Event::Pair(-2, 3)), [2, 3, 3]);
    assert_eq!(encoded(&'ß'), [0xC3, 0x9F]);
}

#[test]
fn a_length_without_bytes_costs_nothing() {
    let huge = [253, 255, 255, 255, 255, 255, 255, 255, 127];
    assert!(corrupt::<String>(&huge).contains("at offset 9 of 9 bytes: the bytes end"));
    corrupt::<Vec<u8>>(&huge);
    corrupt::<Vec<u64>>(&huge);
    corrupt::<Vec<()>>(&huge);
    corrupt::<BTreeMap<u8, ()>>(&huge);
    assert_eq!(
        Bincode::decode::<Vec<()>>(&[253, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn only_the_shortest_form_is_accepted() {
    corrupt::<u64>(&[251, 250, 0]);
    corrupt::<u64>(&[252, 255, 255, 0, 0]);
    corrupt::<u128>(&[254, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    corrupt::<u16>(&[252, 0, 0, 1, 0]);
    corrupt::<u64>(&[255]);
    corrupt::<char>(&[0xC0, 0x80]);
    corrupt::<u8>(&[1, 1]);
}

#[test]
fn types_that_could_not_be_read_again_are_refused() {
    #[derive(Serialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Text(String),
    }
    let error = Bincode::encode(&Sparse { maybe: None }, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    let error = Bincode::decode::<Either>(&[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    assert!(error.message().contains("untagged"), "{error}");
}

/// Otherwise the next value would be read from the wrong place, and be wrong without an error.
#[test]
fn a_list_is_written_and_read_to_its_end() {
    use serde::{de, ser::SerializeSeq};

    struct Liar;
    impl Serialize for Liar {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(Some(3))?;
            list.serialize_element(&1_u8)?;
            list.end()
        }
    }
    let error = Bincode::encode(&(Liar, 1_u8), &mut Vec::new()).unwrap_err();
    assert!(error.message().contains("another number of elements"), "{error}");

    #[derive(Debug)]
    struct First;
    impl<'de> de::Visitor<'de> for First {
        type Value = Self;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
            list.next_element::<u8>()?;
            Ok(self)
        }
    }
    impl<'de> Deserialize<'de> for First {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_seq(Self)
        }
    }
    let two = encoded(&(vec![1_u8, 2], 3_u8));
    assert!(corrupt::<(First, u8)>(&two).contains("more elements than its type reads"));
    Bincode::decode::<(First, u8)>(&encoded(&(vec![1_u8], 3_u8))).unwrap();
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Nothing),
        ".{0,9}".prop_map(Event::Named),
        any::<(i16, u128)>().prop_map(|(a, b)| Event::Pair(a, b)),
        (any::<i64>(), prop::collection::btree_map(".{0,3}", any::<Option<f64>>(), 0..4))
            .prop_map(|(at, tags)| Event::Full { at, tags }),
    ]
}

fn total() -> impl Strategy<Value = Total> {
    let numbers = any::<(u64, (u8, i8, u16, u32, i32), i128, f32, char, bool)>();
    let rest = (vec(event(), 0..4), any::<BTreeSet<i64>>(), any::<[u8; 3]>(), any::<Duration>());
    (".{0,30}", numbers, rest).prop_map(|(name, numbers, rest)| {
        let (count, small, wide, ratio, letter, sure) = numbers;
        let (events, set, raw, waited) = rest;
        let inner =
            Total { name, count, small, wide, ratio, letter, sure, events, set, raw, boxed: None, waited };
        Total { boxed: Some(Box::new(inner.clone())), ..inner }
    })
}

proptest! {
    #[test]
    fn writes_the_bytes_of_the_crate(value in total()) {
        let bytes = encoded(&value);
        prop_assert_eq!(&bytes, &oracle::encode_to_vec(&value, config::standard()).unwrap());
        prop_assert_eq!(Bincode::decode::<Total>(&bytes).unwrap(), value);
    }

    #[test]
    fn integers_around_the_steps_are_those_of_the_crate(shift in 0_u32..128, near in -2_i8..3) {
        let wide = (1_u128 << shift).wrapping_add_signed(near.into());
        let value = (wide, wide as i128, (wide as u64, wide as i64, wide as u32), (wide as i32, wide as u16, wide as i16));
        let bytes = encoded(&value);
        prop_assert_eq!(&bytes, &oracle::encode_to_vec(value, config::standard()).unwrap());
        prop_assert_eq!(Bincode::decode::<(u128, i128, (u64, i64, u32), (i32, u16, i16))>(&bytes).unwrap(), value);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in vec(prop_oneof![0_u8..4, 248_u8..=255, any::<u8>()], 0..80)) {
        if let Ok(value) = Bincode::decode::<Vec<Event>>(&bytes) {
            let again = Bincode::decode::<Vec<Event>>(&encoded(&value));
            prop_assert_eq!(format!("{again:?}"), format!("Ok({value:?})"));
        }
        if let Ok(value) = Bincode::decode::<(u128, i64, Option<String>, char)>(&bytes) {
            prop_assert_eq!(encoded(&value), bytes);
        }
    }

    #[test]
    fn damaged_values_never_panic(value in total(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encoded(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Bincode::decode::<Total>(&bytes);
        bytes.truncate(at);
        prop_assert!(Bincode::decode::<Total>(&bytes).is_err());
    }
}

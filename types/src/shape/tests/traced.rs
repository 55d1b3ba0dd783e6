//! Which shapes are found for which types.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use serde::de::{self, DeserializeOwned, Deserializer};

use super::*;
use crate::{Timestamp, Uid};

#[track_caller]
fn check<T: DeserializeOwned>(expected: &str) {
    assert_eq!(Shape::trace::<T>().to_string(), expected);
}

#[derive(Serialize, Deserialize)]
struct Pair<A, B>(A, B);

#[derive(Serialize, Deserialize)]
struct Wrapper<T> {
    inner: T,
}

#[derive(Serialize, Deserialize)]
struct Unit;

#[derive(Serialize, Deserialize)]
enum Event {
    Nothing,
    Named(String),
    Pair(i16, u128),
    Full { at: i64, tags: BTreeMap<String, Option<f64>> },
}

#[test]
fn scalars_and_collections() {
    check::<(bool, i8, i16, i32, i64, i128, char, ())>("(bool, i8, i16, i32, i64, i128, char, ())");
    check::<(u8, u16, u32, u64, u128, f32, f64, String)>("(u8, u16, u32, u64, u128, f32, f64, str)");
    check::<[u8; 16]>("[u8; 16]");
    check::<Vec<Option<Box<str>>>>("[option<str>]");
    check::<HashMap<u8, BTreeSet<i64>>>("map<u8, [i64]>");
    check::<Result<u8, String>>("enum Result { Ok(u8) | Err(str) }");
    check::<std::ffi::CString>("bytes");
    check::<Duration>("struct Duration { secs: u64, nanos: u32 }");
    check::<SystemTime>("struct SystemTime { secs_since_epoch: u64, nanos_since_epoch: u32 }");
    check::<IpAddr>("enum IpAddr { V4([u8; 4]) | V6([u8; 16]) }");
    check::<Timestamp>("struct Timestamp(i64)");
}

#[test]
fn structs_and_enums() {
    check::<Pair<u8, Unit>>("struct Pair(u8, struct Unit)");
    check::<Event>(
        "enum Event { Nothing | Named(str) | Pair(i16, u128) | Full { at: i64, tags: map<str, option<f64>> } }",
    );
    check::<(Event, Vec<Event>)>(&format!("({0}, [{0}])", Shape::trace::<Event>()));
    assert!(Shape::trace::<(Event, Event)>().is_complete());
}

/// One generic type, several parameters, also inside itself.
#[test]
fn generic_types_are_kept_apart() {
    check::<(Wrapper<u8>, Wrapper<String>)>("(struct Wrapper { inner: u8 }, struct Wrapper { inner: str })");
    check::<Wrapper<Wrapper<Wrapper<u8>>>>(
        "struct Wrapper { inner: struct Wrapper { inner: struct Wrapper { inner: u8 } } }",
    );
    check::<Option<Option<Vec<Vec<u8>>>>>("option<option<[[u8]]>>");
}

#[test]
fn recursive_types_refer_to_themselves() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
        parent: Option<Box<Tree>>,
        size: u8,
    }
    check::<Tree>("struct Tree { name: str, children: [^1], parent: option<^1>, size: u8 }");

    // The variant that ends the recursion comes last, and two of them are needed at once.
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Term {
        Add(Box<Term>, Box<Term>, u8),
        Not { of: Box<Term>, at: u16 },
        Call(Vec<Term>),
        Number(i64),
    }
    check::<Term>("enum Term { Add(^0, ^0, u8) | Not { of: ^0, at: u16 } | Call([^1]) | Number(i64) }");
    check::<Wrapper<Vec<Term>>>(&format!("struct Wrapper {{ inner: [{}] }}", Shape::trace::<Term>()));

    // Nameless all the way.
    #[derive(Deserialize)]
    #[serde(transparent)]
    #[allow(dead_code)]
    struct Nest(Vec<(u8, Nest)>);
    check::<Nest>("[(u8, ^1)]");

    // Through one another.
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Ping {
        pong: Box<Pong>,
        last: u8,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Pong {
        Ping(Box<Ping>),
        End,
    }
    check::<Ping>("struct Ping { pong: enum Pong { Ping(^1) | End }, last: u8 }");
}

fn parsed<'de, D: Deserializer<'de>>(deserializer: D, accept: fn(&str) -> bool) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if accept(&text) { Ok(text) } else { Err(de::Error::custom("not accepted")) }
}

fn uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parsed(deserializer, |text| text.len() == 36)
}

fn never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parsed(deserializer, |_| false)
}

#[test]
fn types_that_check_what_they_read() {
    check::<(NonZeroU32, Uid, u8)>("(u32, str, u8)");

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Checked {
        #[serde(deserialize_with = "uuid")]
        id: String,
        after: u8,
    }
    check::<Checked>("struct Checked { id: str, after: u8 }");

    /// A list that must not be empty.
    #[derive(Deserialize)]
    #[serde(try_from = "Vec<u8>")]
    struct NotEmpty;
    impl TryFrom<Vec<u8>> for NotEmpty {
        type Error = &'static str;
        fn try_from(list: Vec<u8>) -> Result<Self, Self::Error> {
            if list.is_empty() { Err("empty") } else { Ok(Self) }
        }
    }
    check::<(NotEmpty, u16)>("([u8], u16)");
}

#[test]
fn what_lies_behind_a_refusal_is_reached_by_name() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Stubborn {
        before: u8,
        #[serde(deserialize_with = "never")]
        refused: String,
        event: Event,
        after: u16,
    }
    let event = Shape::trace::<Event>().to_string();
    let stubborn = format!("struct Stubborn {{ before: u8, refused: str, event: {event}, after: u16 }}");
    check::<Stubborn>(&stubborn);
    check::<(Stubborn, u8)>(&format!("({stubborn}, unknown)"));
    check::<(u8, Option<Stubborn>, Vec<Stubborn>, u8)>(&format!(
        "(u8, option<{stubborn}>, [{stubborn}], u8)"
    ));
    check::<Wrapper<Pair<Stubborn, u8>>>(&format!(
        "struct Wrapper {{ inner: struct Pair({stubborn}, unknown) }}"
    ));

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Some3 {
        First(Stubborn),
        Second { a: Stubborn, b: u8 },
        Third,
    }
    check::<(Some3, u8)>(&format!(
        "(enum Some3 {{ First({stubborn}) | Second {{ a: {stubborn}, b: u8 }} | Third }}, u8)"
    ));
}

#[test]
fn types_that_ask_the_bytes_cannot_be_stored() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        Number(u8),
        Text(String),
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Holder {
        fine: u8,
        either: Either,
        more: u8,
    }
    check::<Holder>("struct Holder { fine: u8, either: any, more: u8 }");
    let error = Shape::trace::<Holder>().storable().unwrap_err();
    assert!(error.message().starts_with("field `either` asks"), "{error}");
    assert!(Shape::trace::<Flat>().storable().is_err());
}

#[test]
fn aliases_and_skipped_fields() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Skipping {
        #[serde(rename = "number")]
        a: u8,
        #[serde(skip)]
        b: u16,
        #[serde(default)]
        c: u32,
    }
    check::<Skipping>("struct Skipping { number: u8, c: u32 }");

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Aliased {
        #[serde(alias = "old")]
        new: u8,
        other: u16,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum AliasedEnum {
        #[serde(alias = "Old")]
        New(u8),
        Other,
    }
    // Serde does not say which names are aliases, so that none is known; they agree with every name.
    let aliased = Shape::trace::<Aliased>();
    assert!(!aliased.is_complete());
    let plain = named("Aliased", vec![("new", Shape::U8), ("other", Shape::U16)]);
    assert_eq!(aliased.merge(&plain).unwrap(), plain);
    assert_eq!(Shape::trace::<AliasedEnum>().to_string(), "enum AliasedEnum { (u8) |  }");
}

#[test]
fn great_types_are_bounded() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wide<T>(Vec<[[T; 32]; 32]>, u8);
    let shape = Shape::trace::<Wide<Wide<Wide<u8>>>>();
    assert!(!shape.is_complete());
    assert!(Shape::from_bytes(&shape.to_bytes()).is_ok());
}

#[test]
fn samples_show_what_they_hold() {
    #[track_caller]
    fn sampled<T: Serialize>(value: &T, expected: &str) {
        assert_eq!(Shape::trace_sample(value).unwrap().to_string(), expected);
    }
    sampled(&(1_u8, "a", None::<u8>, Some(1_i16)), "(u8, str, option<unknown>, option<i16>)");
    sampled(&vec![None, Some(1_u8)], "[option<u8>]");
    sampled(&BTreeMap::from([("a", vec![1_u8]), ("b", vec![])]), "map<str, [u8]>");
    sampled(
        &[Event::Nothing, Event::Pair(1, 2), Event::Nothing],
        "(enum Event { Nothing | .. }, enum Event { Pair(i16, u128) | .. }, enum Event { Nothing | .. })",
    );
    sampled(&vec![Event::Nothing, Event::Named(String::new())], "[enum Event { Nothing | Named(str) | .. }]");
    sampled(
        &Event::Full { at: 1, tags: BTreeMap::new() },
        "enum Event { Full { at: i64, tags: map<unknown, unknown> } | .. }",
    );
    sampled(
        &Pair(Unit, Wrapper { inner: 1.5_f32 }),
        "struct Pair(struct Unit, struct Wrapper { inner: f32 })",
    );
}

#[test]
fn a_sample_fills_what_tracing_left_open() {
    #[derive(Serialize, Deserialize)]
    struct Odd(#[serde(deserialize_with = "never")] String, u8);
    let traced = Shape::trace::<(Odd, Event)>();
    assert_eq!(traced.to_string(), "(struct Odd(str, unknown), unknown)");
    let sample = Shape::trace_sample(&(Odd("x".into(), 1), Event::Nothing)).unwrap();
    let both = traced.merge(&sample).unwrap();
    assert_eq!(both.to_string(), "(struct Odd(str, u8), enum Event { Nothing | .. })");
}

#[test]
fn a_sample_with_a_field_left_out_is_refused() {
    #[derive(Serialize)]
    struct Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    let error = Shape::trace_sample(&Sparse { maybe: None }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
}

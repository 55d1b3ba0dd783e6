//! Keys that somebody wrote down, against the bytes under which the types themselves are stored.

use serde::de::{DeserializeOwned, IntoDeserializer, value::Error as TextError};

use super::*;
use crate::{
    Bincode, Codec,
    ordered::{self, Ordered},
    positional::{Format, Scalar},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Place {
    Nowhere,
    Town(String),
    Point(i32, u128),
    Street { name: String, number: Option<u16> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    text: String,
    number: i64,
    list: Vec<(String, i8)>,
    place: Place,
    wide: i128,
    float: f64,
    single: f32,
    letter: char,
    flag: bool,
    four: [u8; 4],
    unit: (),
    name: Name,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Name(String);

fn bytes_of<T: Serialize>(key: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ordered::encode_into(key, &mut bytes).unwrap();
    bytes
}

fn from_json(shape: &Shape, part: KeyPart, json: &str) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::Deserializer::from_str(json);
    let bytes = shape.key_bytes(part, &mut json)?;
    json.end().map(|()| bytes)
}

fn from_text(shape: &Shape, part: KeyPart, text: &str) -> Result<Vec<u8>, TextError> {
    shape.key_bytes(part, text.into_deserializer())
}

#[track_caller]
fn check<T: Serialize + DeserializeOwned>(json: &str, expected: &T) {
    assert_eq!(from_json(&Shape::trace::<T>(), KeyPart::Whole, json).unwrap(), bytes_of(expected), "{json}");
}

#[test]
fn keys_are_read_as_they_are_stored() {
    check(r#""word""#, &"word".to_owned());
    check(r#""a\u0000b""#, &"a\0b".to_owned());
    check("-1", &-1_i8);
    check("340282366920938463463374607431768211455", &u128::MAX);
    check("-170141183460469231731687303715884105728", &i128::MIN);
    check("2.5", &2.5_f64);
    check("3", &3.0_f32);
    check(r#""NaN""#, &f64::NAN);
    check(r#""-inf""#, &f32::NEG_INFINITY);
    check(r#""0x01FF""#, &std::ffi::CString::new([1, 255]).unwrap());
    check("null", &None::<u8>);
    check("7", &Some(7_u8));
    check("[]", &Vec::<u8>::new());
    check("[3, 4]", &vec![3_u8, 4]);
    check(r#"["user", 7]"#, &("user".to_owned(), 7_u32));
    check(r#""Nowhere""#, &Place::Nowhere);
    check(r#"{"Nowhere": null}"#, &Place::Nowhere);
    check(r#"{"Town": "x"}"#, &Place::Town("x".into()));
    check(r#"{"Point": [1, 2]}"#, &Place::Point(1, 2));
    // In any order.
    check(r#"{"Street": {"number": null, "name": "x"}}"#, &Place::Street { name: "x".into(), number: None });
    check(r#""n""#, &Name("n".into()));
}

#[test]
fn bare_texts_need_no_quotes() {
    let of = |shape: &Shape, text| from_text(shape, KeyPart::Whole, text).unwrap();
    assert_eq!(of(&Shape::Str, "a \"b\""), bytes_of(&"a \"b\""));
    assert_eq!(of(&Shape::trace::<Name>(), "a"), bytes_of(&"a"));
    assert_eq!(of(&Shape::trace::<Place>(), "Nowhere"), bytes_of(&Place::Nowhere));
    assert_eq!(of(&Shape::Char, "x"), bytes_of(&'x'));
    assert_eq!(of(&Shape::F64, "0.1"), bytes_of(&0.1_f64));
    assert_eq!(of(&Shape::F64, "inf"), bytes_of(&f64::INFINITY));
}

#[test]
fn beginnings_are_what_the_bytes_of_others_begin_with() {
    #[derive(Serialize, Deserialize)]
    struct Visit {
        user: String,
        day: u32,
        page: String,
    }
    let visit = bytes_of(&Visit { user: "ann".into(), day: 3, page: "home".into() });
    let begins = |shape: &Shape, json: &str, whole: &[u8]| {
        let beginning = from_json(shape, KeyPart::Beginning, json).unwrap();
        assert!(whole.starts_with(&beginning) && beginning.len() < whole.len(), "{json}: {beginning:?}");
    };
    begins(&Shape::trace::<Visit>(), r#"{"user": "ann"}"#, &visit);
    begins(&Shape::trace::<Visit>(), r#"{"day": 3, "user": "ann"}"#, &visit);
    begins(&Shape::trace::<(String, u32, String)>(), r#"["ann", 3]"#, &visit);
    begins(&Shape::Str, r#""hom""#, &bytes_of(&"home"));
    begins(&Shape::Str, r#""home""#, &bytes_of(&"home"));
    begins(&Shape::trace::<Vec<u8>>(), "[3]", &bytes_of(&vec![3_u8, 4]));
    begins(
        &Shape::trace::<Place>(),
        r#""Street""#,
        &bytes_of(&Place::Street { name: "".into(), number: None }),
    );
    let text = from_text(&Shape::Str, KeyPart::Beginning, "a\0").unwrap();
    assert_eq!(text, b"a\x01\x01");
    // The parts of a beginning are whole: `an` is not `ann`.
    let an = from_json(&Shape::trace::<Visit>(), KeyPart::Beginning, r#"{"user": "an"}"#).unwrap();
    assert!(!visit.starts_with(&an));
}

#[test]
fn what_is_no_such_key_is_named() {
    #[track_caller]
    fn refused<T: DeserializeOwned>(part: KeyPart, json: &str, said: &str) {
        let error = from_json(&Shape::trace::<T>(), part, json).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let (whole, beginning) = (KeyPart::Whole, KeyPart::Beginning);
    refused::<u8>(whole, "300", "expected u8");
    refused::<u8>(whole, "-1", "expected u8");
    refused::<u64>(whole, r#""7""#, "expected u64");
    refused::<u64>(beginning, "7", "u64 has no beginning");
    refused::<String>(whole, "7", "expected str");
    refused::<bool>(whole, "7", "expected a boolean");
    refused::<f64>(whole, r#""x""#, "expected f64");
    refused::<f64>(whole, "true", "expected f64");
    refused::<std::ffi::CString>(whole, r#""ff""#, "written as 0x");
    refused::<std::ffi::CString>(whole, r#""0xf""#, "written as 0x");
    refused::<(String, u8)>(whole, r#"["a"]"#, "expected a list of 2");
    refused::<(String, u8)>(whole, r#"["a", 1, 2]"#, "expected a list of 2, found more");
    refused::<(String, u8)>(beginning, r#"["a", 1, 2]"#, "expected a list of 2, found more");
    refused::<Vec<u8>>(whole, "7", "expected a list");
    refused::<Place>(whole, r#""Nohwere""#, "the variants are Nowhere, Town, Point, Street");
    refused::<Place>(whole, r#""Town""#, "variant Town has one unnamed field");
    refused::<Place>(whole, "{}", "an object of one variant");
    refused::<Place>(whole, r#"{"Nowhere": null, "Town": "x"}"#, "an object of one variant");
    refused::<Place>(whole, r#"{"Street": {"name": "x"}}"#, "field \"number\" is missing");
    refused::<Place>(whole, r#"{"Street": {"nam": "x"}}"#, "the fields are name, number");
    refused::<Place>(whole, r#"{"Street": {"name": "x", "name": "y"}}"#, "stands there twice");
    refused::<Key>(beginning, r#"{"number": 3}"#, "field \"text\" is missing");
    let error = from_json(&option(Shape::Unknown), whole, "7").unwrap_err().to_string();
    assert!(error.contains("not known"), "{error}");
}

#[test]
fn examples_are_keys() {
    let check = |shape: &Shape, expected: &str| {
        assert_eq!(shape.example(), expected);
        from_json(shape, KeyPart::Whole, &shape.example()).unwrap();
    };
    check(&Shape::trace::<Place>(), r#""Nowhere""#);
    check(
        &Shape::trace::<Key>(),
        r#"{"text":"text","number":-42,"list":[["text",-42]],"place":"Nowhere","wide":-42,"float":1.5,"single":1.5,"letter":"x","flag":true,"four":[42,42,42,42],"unit":null,"name":"text"}"#,
    );
    check(&choice(vec![variant(0, "A", Fields::Newtype(Shape::Bytes.into()))], false), r#"{"A":"0x00ff"}"#);
    check(&Shape::Tuple(vec![option(Shape::U8), Shape::Seq(Shape::Recursive(1).into())]), "[42,[]]");
}

#[test]
fn a_shape_that_never_ends_is_refused() {
    let shape = Shape::Struct { name: "S".into(), fields: Fields::Newtype(Shape::Recursive(0).into()) };
    assert!(from_json(&shape, KeyPart::Whole, "1").is_err());
    let deep = Shape::Tuple(vec![Shape::Recursive(0)]);
    assert!(from_json(&deep, KeyPart::Whole, &"[".repeat(10_000)).is_err());
}

/// More unit values than a list should be made of, in five bytes.
#[test]
fn a_list_of_nothing_takes_no_memory() {
    let bytes = [0xFC, 0xFF, 0xFF, 0xFF, 0x00];
    let nothing = Shape::Tuple(vec![Shape::Unit]);
    let list = Shape::Seq(nothing.into());
    assert_eq!(ShapedValue::decode(&list, Bincode::ID, &bytes).unwrap(), ShapedValue::Opaque(bytes.into()));
    let few = ShapedValue::decode(&list, Bincode::ID, &[2]).unwrap();
    assert_eq!(few.to_string(), "[(()), (())]");
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Nowhere),
        ".{0,5}".prop_map(Place::Town),
        any::<(i32, u128)>().prop_map(|(x, y)| Place::Point(x, y)),
        (".{0,5}", any::<Option<u16>>()).prop_map(|(name, number)| Place::Street { name, number }),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    let first = ("[\u{0}\u{1}\"\\\\a]{0,6}", any::<i64>(), vec((".{0,3}", any::<i8>()), 0..3), place());
    let second = (any::<i128>(), any::<f64>(), any::<f32>(), any::<char>(), any::<bool>(), any::<[u8; 4]>());
    (first, second, ".{0,3}").prop_map(
        |((text, number, list, place), (wide, float, single, letter, flag, four), name)| Key {
            text,
            number,
            list,
            place,
            wide,
            float,
            single,
            letter,
            flag,
            four,
            unit: (),
            name: Name(name),
        },
    )
}

/// Shapes of keys of which JSON tells every value apart.
fn key_shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Unit),
        Just(Shape::Bool),
        Just(Shape::I16),
        Just(Shape::I128),
        Just(Shape::U64),
        Just(Shape::Char),
        Just(Shape::Str),
        Just(Shape::Bytes),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        let named = || {
            vec(inner.clone(), 0..3).prop_map(|shapes| {
                Fields::Named((b'a'..).map(|name| char::from(name).to_string()).zip(shapes).collect())
            })
        };
        let fields = prop_oneof![
            Just(Fields::Unit),
            inner.clone().prop_map(|shape| Fields::Newtype(shape.into())),
            vec(inner.clone(), 0..3).prop_map(Fields::Tuple),
            named(),
        ];
        prop_oneof![
            // Nothing in an option that would be printed as nothing, too.
            inner.clone().prop_map(|shape| match shape.unwrapped() {
                Shape::Unit | Shape::Option(_) | Shape::Struct { fields: Fields::Unit, .. } => shape,
                _ => option(shape),
            }),
            inner.clone().prop_map(|shape| Shape::Seq(shape.into())),
            vec(inner.clone(), 0..4).prop_map(Shape::Tuple),
            fields.clone().prop_map(|fields| Shape::Struct { name: "S".into(), fields }),
            vec(fields, 1..4).prop_map(|variants| {
                let variants = (0..)
                    .zip(variants)
                    .map(|(index, fields)| variant(index * 200, &format!("V{index}"), fields));
                choice(variants.collect(), false)
            }),
        ]
    })
}

/// Appends the ordered bytes of some value of `shape`, chosen by `choices`.
fn put(shape: &Shape, choices: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let mut next = || choices.next().unwrap_or_default();
    match shape {
        Shape::Unit => {}
        Shape::Bool => out.push(next() & 1),
        Shape::I16 => out.extend([next(), next()]),
        Shape::I128 => out.extend([(); 16].map(|()| next())),
        Shape::U64 => out.extend([(); 8].map(|()| next())),
        Shape::Char => Ordered::put(char::from(next()), out),
        Shape::Str => Ordered::put_bytes(&[next() & 0x7F, next() & 0x7F][..usize::from(next() % 3)], out),
        Shape::Bytes => Ordered::put_bytes(&[next(), next()][..usize::from(next() % 3)], out),
        Shape::Option(inner) => {
            out.push(next() & 1);
            if out.last() == Some(&1) {
                put(inner, choices, out);
            }
        }
        Shape::Seq(inner) => {
            for _ in 0..next() % 4 {
                Ordered::put_more(out);
                put(inner, choices, out);
            }
            Ordered::put_end(out);
        }
        Shape::Tuple(parts) => parts.iter().for_each(|part| put(part, choices, out)),
        Shape::Struct { fields, .. } => put_fields(fields, choices, out),
        Shape::Enum { variants, .. } => {
            let variant = &variants[usize::from(next()) % variants.len()];
            Ordered::put_variant(variant.index, out);
            put_fields(&variant.fields, choices, out);
        }
        other => panic!("{other} is no shape of these tests"),
    }
}

fn put_fields(fields: &Fields, choices: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    match fields {
        Fields::Unit | Fields::Unknown => {}
        Fields::Newtype(inner) => put(inner, choices, out),
        Fields::Tuple(parts) => parts.iter().for_each(|part| put(part, choices, out)),
        Fields::Named(fields) => fields.iter().for_each(|(_, part)| put(part, choices, out)),
    }
}

proptest! {
    /// Through what is printed, and as serde writes the type itself.
    #[test]
    fn what_is_printed_is_read_back(key in key()) {
        let (shape, bytes) = (Shape::trace::<Key>(), bytes_of(&key));
        let printed = serde_json::to_string(&ShapedValue::decode_key(&shape, &bytes)?)?;
        prop_assert_eq!(&from_json(&shape, KeyPart::Whole, &printed)?, &bytes);
        prop_assert_eq!(&from_json(&shape, KeyPart::Whole, &serde_json::to_string(&key)?)?, &bytes);
    }

    #[test]
    fn keys_of_all_shapes_come_back(shape in key_shape(), choices in vec(any::<u8>(), 0..60)) {
        let mut bytes = Vec::new();
        put(&shape, &mut choices.into_iter(), &mut bytes);
        let value = ShapedValue::decode_key(&shape, &bytes)?;
        let printed = serde_json::to_string(&value)?;
        prop_assert_eq!(&from_json(&shape, KeyPart::Whole, &printed)?, &bytes, "{}", printed);
        // A whole value is the beginning of itself, where it has one.
        if let Ok(beginning) = from_json(&shape, KeyPart::Beginning, &printed) {
            prop_assert!(bytes.starts_with(&beginning));
        }
    }

    #[test]
    fn hostile_keys_never_panic(shape in shape(), bytes in vec(any::<u8>(), 0..40), text in "[\\[\\]{}\",:0-9a-zA-Z]{0,30}") {
        let _ = from_json(&shape, KeyPart::Whole, &text);
        let _ = from_json(&shape, KeyPart::Beginning, &text);
        let _ = from_text(&shape, KeyPart::Whole, &text);
        let _ = ShapedValue::decode_key(&shape, &bytes);
        let _ = shape.example();
    }
}

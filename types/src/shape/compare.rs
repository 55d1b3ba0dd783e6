//! Two shapes side by side: the first difference, named for the user, and the union of two partial shapes.

use std::cmp::Ordering;

use super::{Fields, Shape, Variant, path::Path};
use crate::{Error, Result};

impl Shape {
    /// The first difference between the shape of the program and that of the snapshot, or `None`.
    ///
    /// What is unknown on one side agrees with everything, and so do the missing variants of an open enum.
    #[must_use]
    pub fn diff(expected: &Self, found: &Self) -> Option<String> {
        diff(expected, found, &mut Path::default()).err()
    }

    /// What both know together.
    ///
    /// # Errors
    /// `IncompatibleState` if they contradict each other.
    pub fn merge(&self, other: &Self) -> Result<Self> {
        match Self::diff(self, other) {
            Some(difference) => Err(Error::incompatible(difference)),
            None => Ok(merge(self, other)),
        }
    }
}

/// `Err` holds the difference, so that `?` stops at the first.
fn diff(expected: &Shape, found: &Shape, path: &mut Path) -> Result<(), String> {
    match (expected, found) {
        (Shape::Unknown, _) | (_, Shape::Unknown) => Ok(()),
        // A sample shows a recursive type unrolled.
        (Shape::Recursive(levels), Shape::Recursive(other)) if levels != other => {
            Err(differ(path, &expected.brief(), &found.brief()))
        }
        (Shape::Recursive(_), _) | (_, Shape::Recursive(_)) => Ok(()),
        (Shape::Option(expected), Shape::Option(found)) => {
            path.within("?", |path| diff(expected, found, path))
        }
        (Shape::Seq(expected), Shape::Seq(found)) => path.within("[]", |path| diff(expected, found, path)),
        (Shape::Map(key, value), Shape::Map(found_key, found_value)) => {
            path.within("{key}", |path| diff(key, found_key, path))?;
            path.within("{value}", |path| diff(value, found_value, path))
        }
        (Shape::Tuple(parts), Shape::Tuple(found_parts)) if parts.len() == found_parts.len() => {
            diff_parts(parts, found_parts, path)
        }
        (Shape::Struct { name, fields }, Shape::Struct { name: found_name, fields: found_fields })
            if name == found_name =>
        {
            diff_fields(fields, found_fields, path)
        }
        (
            Shape::Enum { name, variants, open },
            Shape::Enum { name: found_name, variants: found_variants, open: found_open },
        ) if name == found_name => diff_variants((variants, *open), (found_variants, *found_open), path),
        (expected, found) if expected == found => Ok(()),
        (expected, found) => Err(differ(path, &expected.brief(), &found.brief())),
    }
}

/// A name that was not found out is empty.
fn same_name(expected: &str, found: &str) -> bool {
    expected == found || expected.is_empty() || found.is_empty()
}

fn known_name(left: &str, right: &str) -> String {
    if left.is_empty() { right.into() } else { left.into() }
}

fn differ(path: &Path, expected: &str, found: &str) -> String {
    format!("{}expected {expected}, found {found}", path.prefix())
}

fn diff_parts(expected: &[Shape], found: &[Shape], path: &mut Path) -> Result<(), String> {
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        path.field(&index.to_string(), |path| diff(expected, found, path))?;
    }
    Ok(())
}

fn diff_fields(expected: &Fields, found: &Fields, path: &mut Path) -> Result<(), String> {
    match (expected, found) {
        (Fields::Unknown, _) | (_, Fields::Unknown) | (Fields::Unit, Fields::Unit) => Ok(()),
        (Fields::Newtype(expected), Fields::Newtype(found)) => {
            path.field("0", |path| diff(expected, found, path))
        }
        (Fields::Tuple(expected), Fields::Tuple(found)) if expected.len() == found.len() => {
            diff_parts(expected, found, path)
        }
        (Fields::Named(expected), Fields::Named(found)) => diff_named(expected, found, path),
        (expected, found) => Err(differ(path, &expected.brief(), &found.brief())),
    }
}

fn diff_named(
    expected: &[(String, Shape)],
    found: &[(String, Shape)],
    path: &mut Path,
) -> Result<(), String> {
    let has = |fields: &[(String, Shape)], name: &str| fields.iter().any(|(other, _)| same_name(other, name));
    for (name, _) in expected {
        if !has(found, name) {
            return path.field(name, |path| Err(format!("{}is missing in what was found", path.prefix())));
        }
    }
    for (name, _) in found {
        if !has(expected, name) {
            return path.field(name, |path| Err(format!("{}is not expected but was found", path.prefix())));
        }
    }
    if expected.len() != found.len() {
        return Err(differ(path, &format!("{} fields", expected.len()), &format!("{} fields", found.len())));
    }
    for ((name, expected), (found_name, found)) in expected.iter().zip(found) {
        if !same_name(name, found_name) {
            return path
                .field(name, |path| Err(format!("{}found `{found_name}` in its place", path.prefix())));
        }
        path.field(name, |path| diff(expected, found, path))?;
    }
    Ok(())
}

fn diff_variants(
    (expected, open): (&[Variant], bool),
    (found, found_open): (&[Variant], bool),
    path: &mut Path,
) -> Result<(), String> {
    for (expected, found) in pair(expected, found) {
        match (expected, found) {
            (Some(expected), Some(found)) if same_name(&expected.name, &found.name) => {
                path.variant(&expected.name, |path| diff_fields(&expected.fields, &found.fields, path))?
            }
            (Some(expected), Some(found)) => return Err(differ(path, &titled(expected), &titled(found))),
            (Some(variant), None) if !found_open => {
                return Err(differ(path, &titled(variant), "none in its place"));
            }
            (None, Some(variant)) if !open => {
                return Err(differ(path, "no further variant", &titled(variant)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn titled(variant: &Variant) -> String {
    format!("variant {} `{}`", variant.index, variant.name)
}

/// The variants of both sides in order of their index, those of the same index together.
fn pair<'a>(left: &'a [Variant], right: &'a [Variant]) -> Vec<(Option<&'a Variant>, Option<&'a Variant>)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.index.cmp(&right.index),
        };
        pairs.push((left.next_if(|_| order.is_le()), right.next_if(|_| order.is_ge())));
    }
}

/// The union of two shapes that do not contradict each other.
fn merge(left: &Shape, right: &Shape) -> Shape {
    match (left, right) {
        (Shape::Unknown, known) | (known, Shape::Unknown) => known.clone(),
        (recursive @ Shape::Recursive(_), _) | (_, recursive @ Shape::Recursive(_)) => recursive.clone(),
        (Shape::Option(left), Shape::Option(right)) => Shape::Option(merge(left, right).into()),
        (Shape::Seq(left), Shape::Seq(right)) => Shape::Seq(merge(left, right).into()),
        (Shape::Map(key, value), Shape::Map(other_key, other_value)) => {
            Shape::Map(merge(key, other_key).into(), merge(value, other_value).into())
        }
        (Shape::Tuple(left), Shape::Tuple(right)) => Shape::Tuple(merge_parts(left, right)),
        (Shape::Struct { name, fields }, Shape::Struct { fields: others, .. }) => {
            Shape::Struct { name: name.clone(), fields: merge_fields(fields, others) }
        }
        (
            Shape::Enum { name, variants, open },
            Shape::Enum { variants: other_variants, open: other_open, .. },
        ) => Shape::Enum {
            name: name.clone(),
            variants: pair(variants, other_variants).into_iter().filter_map(merge_variant).collect(),
            open: *open && *other_open,
        },
        (left, _) => left.clone(),
    }
}

fn merge_parts(left: &[Shape], right: &[Shape]) -> Vec<Shape> {
    left.iter().zip(right).map(|(left, right)| merge(left, right)).collect()
}

fn merge_fields(left: &Fields, right: &Fields) -> Fields {
    match (left, right) {
        (Fields::Unknown, known) | (known, Fields::Unknown) => known.clone(),
        (Fields::Newtype(left), Fields::Newtype(right)) => Fields::Newtype(merge(left, right).into()),
        (Fields::Tuple(left), Fields::Tuple(right)) => Fields::Tuple(merge_parts(left, right)),
        (Fields::Named(left), Fields::Named(right)) => Fields::Named(
            left.iter()
                .zip(right)
                .map(|((name, left), (other, right))| (known_name(name, other), merge(left, right)))
                .collect(),
        ),
        (left, _) => left.clone(),
    }
}

fn merge_variant((left, right): (Option<&Variant>, Option<&Variant>)) -> Option<Variant> {
    match (left, right) {
        (Some(left), Some(right)) => {
            let fields = merge_fields(&left.fields, &right.fields);
            Some(Variant { index: left.index, name: known_name(&left.name, &right.name), fields })
        }
        (one, other) => one.or(other).cloned(),
    }
}

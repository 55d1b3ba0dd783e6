//! How values of an older type become those of the type that a program declares: the functions that a user gives, and which of
//! them a stored shape asks for. Restoring writes the migrated values anew (`restore::migrate`); nothing else runs them.
//!
//! Invariant: a stored shape is that of one version at most, or it is refused. So no value is ever read as another type.

use std::{collections::BTreeMap, sync::Arc};

use types::{Bincode, Codec, Error, ErrorKind, Result, Shape};

use crate::Data;

/// Reads the bytes of an older value and makes a `T` of it.
pub type ReadOlder<T> = Arc<dyn Fn(&[u8]) -> Result<T> + Send + Sync>;

/// How values of older types become `T`s, step by step.
///
/// The functions must do the same whenever they are called with the same value, and nothing else: until a checkpoint holds what
/// they made, every restore calls them again, perhaps on another machine.
pub struct Migration<T> {
    /// Oldest first.
    versions: Vec<(Shape, ReadOlder<T>)>,
}

impl<T: Data> Migration<T> {
    /// From the type that `step` takes.
    pub fn from<O: Data>(step: impl Fn(O) -> Result<T> + Send + Sync + 'static) -> Self {
        Self { versions: vec![version(Arc::new(step))] }
    }

    /// And from there, by one more step, to another type. What is stored may be of any of the types before it.
    #[must_use]
    pub fn then<N: Data>(self, step: impl Fn(T) -> Result<N> + Send + Sync + 'static) -> Migration<N> {
        let step = Arc::new(step);
        let on = |(shape, read): (Shape, ReadOlder<T>)| {
            let step = Arc::clone(&step);
            let read: ReadOlder<N> = Arc::new(move |bytes| step(read(bytes)?));
            (shape, read)
        };
        let mut versions: Vec<_> = self.versions.into_iter().map(on).collect();
        versions.push(version(step));
        Migration { versions }
    }

    /// The shape of each older type with what reads it, oldest first.
    #[must_use]
    pub fn into_versions(self) -> Vec<(Shape, ReadOlder<T>)> {
        self.versions
    }

    /// The same for who does not know the type.
    pub(crate) fn into_older(self) -> Vec<Older> {
        let older = |(shape, read): (Shape, ReadOlder<T>)| {
            let recode: Recode = Arc::new(move |bytes, out| Bincode::encode(&read(bytes)?, out));
            Older { shape, recode }
        };
        self.versions.into_iter().map(older).collect()
    }
}

fn version<O: Data, T>(step: Arc<impl Fn(O) -> Result<T> + Send + Sync + 'static>) -> (Shape, ReadOlder<T>) {
    (Shape::trace::<O>(), Arc::new(move |bytes| step(read_whole(bytes)?)))
}

/// Decodes a value, and encodes it again: other bytes mean that it was written by another type, whose shape is the same.
fn read_whole<O: Data>(bytes: &[u8]) -> Result<O> {
    // Its block was whole: no damage can be meant.
    let value: O = Bincode::decode(bytes).map_err(|error| error.with_kind(ErrorKind::IncompatibleState))?;
    let mut again = Vec::with_capacity(bytes.len());
    Bincode::encode(&value, &mut again)?;
    if again != bytes {
        return Err(Error::incompatible(
            "the stored value does not come out of decoding and encoding as it went in: it was written by another type than the \
             one that the migration takes",
        ));
    }
    Ok(value)
}

/// Turns the bytes of an older value into those of the declared type.
pub(crate) type Recode = Arc<dyn Fn(&[u8], &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// An older type of a state, as far as it matters without its types.
#[derive(Clone)]
pub(crate) struct Older {
    pub(crate) shape: Shape,
    pub(crate) recode: Recode,
}

/// The shapes that the states of an operator may also be stored in, by state name, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrations(BTreeMap<String, Vec<Shape>>);

impl Migrations {
    /// No state can be migrated.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn of(states: impl Iterator<Item = (String, Vec<Shape>)>) -> Self {
        Self(states.filter(|(_, shapes)| !shapes.is_empty()).collect())
    }

    /// Those of a state.
    #[must_use]
    pub fn of_state(&self, name: &str) -> &[Shape] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Which of the types that a program knows a stored one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one that it declares.
    Declared,
    /// This one of the older ones, counted from the oldest.
    Older(usize),
}

impl Version {
    /// The version whose shape is `found`. Where none is, the older one, if it is one alone, that differs in the names of types
    /// only: in the program that migrates it, an older type has to have another name.
    ///
    /// # Errors
    /// `IncompatibleState` naming the field, what was expected by each version, and what was found; `place` says of what.
    pub fn of(place: &str, declared: &Shape, older: &[Shape], found: &Shape) -> Result<Self> {
        let Some(difference) = Shape::diff(declared, found) else { return Ok(Self::Declared) };
        let exact = older.iter().rposition(|shape| Shape::diff(shape, found).is_none());
        if let Some(version) = exact.or_else(|| only_alike(older, found)) {
            return Ok(Self::Older(version));
        }
        let mut tried = difference;
        for shape in older.iter().rev() {
            let difference = Shape::diff(&shape.without_type_names(), &found.without_type_names());
            let difference = difference.unwrap_or_else(|| "two of its types are like this".to_owned());
            tried.push_str(&format!("; nor does the migration take it, from {shape}: {difference}"));
        }
        Err(Error::incompatible(format!("{place}: the type has changed: {tried}")))
    }
}

fn only_alike(older: &[Shape], found: &Shape) -> Option<usize> {
    let found = found.without_type_names();
    let is_alike = |shape: &Shape| Shape::diff(&shape.without_type_names(), &found).is_none();
    let mut alike = older.iter().enumerate().filter(|(_, shape)| is_alike(shape)).map(|(version, _)| version);
    let one = alike.next();
    one.filter(|_| alike.next().is_none())
}

/// Whether all versions of a state can be told apart, and stored. The names of their types do not count: a type that is renamed
/// would change its version, and be migrated twice, or never.
///
/// # Errors
/// `InvalidJob` with the shape of two that cannot.
pub fn check_versions(declared: &Shape, older: &[Shape]) -> Result<()> {
    for (nth, shape) in older.iter().enumerate() {
        shape.storable()?;
        let mut newer = older[nth + 1..].iter().chain([declared]).map(Shape::without_type_names);
        let nameless = shape.without_type_names();
        if newer.any(|newer| Shape::diff(&newer, &nameless).is_none()) {
            return Err(Error::invalid_job(format!(
                "two types of its migration look alike, as {shape}, whatever they are called: nobody could tell whether a stored \
                 value was migrated; give a field of one of them another name"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct V1 {
        euros: u32,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct V2 {
        cents: u64,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct V3 {
        cents: u64,
        currency: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "Account")]
    struct Stored {
        euros: u32,
    }

    fn migration() -> Migration<V3> {
        let migration = Migration::from(|old: V1| Ok(V2 { cents: u64::from(old.euros) * 100 }));
        migration.then(|old: V2| Ok(V3 { cents: old.cents, currency: "eur".to_owned() }))
    }

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        Bincode::encode(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn each_version_goes_the_rest_of_the_way() {
        let versions = migration().into_versions();
        let expected = V3 { cents: 700, currency: "eur".to_owned() };
        assert_eq!(versions[0].1(&bytes(&V1 { euros: 7 })).unwrap(), expected);
        assert_eq!(versions[1].1(&bytes(&V2 { cents: 700 })).unwrap(), expected);
        assert!(versions[1].1(&[1, 2, 3]).is_err(), "bytes are left");
        let older = migration().into_older();
        let mut out = vec![9];
        (older[0].recode)(&bytes(&V1 { euros: 7 }), &mut out).unwrap();
        assert_eq!(out[1..], bytes(&expected));
    }

    #[test]
    fn a_stored_shape_is_of_one_version_or_refused() {
        let older: Vec<Shape> = migration().into_versions().into_iter().map(|(shape, _)| shape).collect();
        let of = |found: &Shape| Version::of("state \"account\"", &Shape::trace::<V3>(), &older, found);
        assert_eq!(of(&Shape::trace::<V3>()).unwrap(), Version::Declared);
        assert_eq!(of(&Shape::trace::<V2>()).unwrap(), Version::Older(1));
        assert_eq!(of(&Shape::trace::<V1>()).unwrap(), Version::Older(0));
        assert_eq!(of(&Shape::trace::<Stored>()).unwrap(), Version::Older(0), "another name of the type");
        let error = of(&Shape::trace::<(u8, u8)>()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IncompatibleState);
        for part in ["\"account\"", "V3", "V2", "euros", "a tuple of 2"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn versions_that_look_alike_are_refused() {
        let [v1, v2] = [Shape::trace::<V1>(), Shape::trace::<V2>()];
        check_versions(&v2, std::slice::from_ref(&v1)).unwrap();
        // Another unit under the old name, and what a type was called once.
        let (stored, renamed) = (Shape::trace::<Stored>(), vec![v1.clone(), Shape::trace::<Stored>()]);
        let alike = [
            (&v2, vec![v2.clone()]),
            (&v2, vec![v1.clone(), v1.clone()]),
            (&stored, vec![v1.clone()]),
            (&v2, renamed),
        ];
        for (declared, older) in alike {
            let error = check_versions(declared, &older).unwrap_err();
            assert!(error.message().contains("look alike"), "{error}");
        }
        // Of two that only the names of their types tell apart, the stored one must have one of these names.
        let older = [Shape::trace::<V1>(), Shape::trace::<Stored>()];
        assert_eq!(Version::of("it", &v2, &older, &older[0]).unwrap(), Version::Older(0));
        assert_eq!(Version::of("it", &v2, &older, &older[1]).unwrap(), Version::Older(1));
        #[derive(Serialize, Deserialize)]
        struct Third {
            euros: u32,
        }
        let error = Version::of("it", &v2, &older, &Shape::trace::<Third>()).unwrap_err();
        assert!(error.message().contains("two of its types"), "{error}");
    }
}

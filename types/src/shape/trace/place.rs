//! What tracing knows about one place in a type.

use std::{cell::Cell, fmt};

use super::samples::TRIES;
use crate::shape::{Fields, Shape, Variant};

/// More places than this are not looked at: enough for any type that one keeps in a state.
const MAX_PLACES: usize = 4_000;

/// Ends one pass through the type.
#[derive(Debug)]
pub(super) enum Stop {
    /// The type did not like a value; nobody has taken note of it yet.
    Refused,
    /// All there is to learn from this is noted.
    Noted,
    /// A recursive type needs a value of itself, and it is not known yet which variant ends the recursion.
    NotYet,
}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::Refused
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tracing ended here")
    }
}

impl std::error::Error for Stop {}

/// Counts what was learnt, so that the end is noticed, and the places, so that they stay few.
#[derive(Default)]
pub(super) struct Progress {
    steps: Cell<usize>,
    places: Cell<usize>,
}

impl Progress {
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// Notes that something was learnt.
    fn step(&self) {
        self.steps.set(self.steps.get() + 1);
    }
}

/// The fields of a struct or variant.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Content {
    Unit,
    Newtype,
    Tuple(usize),
    Named(&'static [&'static str]),
}

impl Content {
    fn len(self) -> usize {
        match self {
            Self::Unit => 0,
            Self::Newtype => 1,
            Self::Tuple(len) => len,
            Self::Named(names) => names.len(),
        }
    }
}

/// What a type asked for at a place.
#[derive(Clone, PartialEq)]
pub(super) enum Kind {
    New,
    Leaf(Shape),
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct(&'static str, Content),
    Enum(&'static str, &'static [&'static str]),
    /// What stands in a variant.
    Variant(Content),
    /// A name among the variants behind which there is none: an alias.
    NoVariant,
}

impl Kind {
    /// Whether it is a type with a name to serde.
    pub(super) fn is_named(&self) -> bool {
        matches!(self, Self::Struct(..) | Self::Enum(..))
    }

    /// How many places are inside.
    fn len(&self) -> usize {
        match self {
            Self::New | Self::Leaf(_) | Self::NoVariant => 0,
            Self::Option | Self::Seq => 1,
            Self::Map => 2,
            Self::Tuple(len) => *len,
            Self::Struct(_, content) | Self::Variant(content) => content.len(),
            Self::Enum(_, variants) => variants.len(),
        }
    }
}

/// One place in a type, and those inside it.
pub(super) struct Place {
    kind: Kind,
    pub(super) inner: Vec<Place>,
    /// All that can be found out here is known.
    done: bool,
    /// No value can be made here; then it is done too.
    barren: bool,
    /// Which of the values to show is next.
    turn: usize,
    /// How often the type came here: of several places to choose from, the one least often seen is next.
    pub(super) visits: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { kind: Kind::New, inner: Vec::new(), done: false, barren: false, turn: 0, visits: 0 }
    }
}

impl Place {
    pub(super) fn is_new(&self) -> bool {
        self.kind == Kind::New
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn is_barren(&self) -> bool {
        self.barren
    }

    pub(super) fn turn(&self) -> usize {
        self.turn
    }

    /// Lets a type read this place. If it refuses what it was shown, the next value is shown the next time.
    pub(super) fn explore<T>(
        &mut self,
        progress: &Progress,
        read: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let before = progress.steps();
        self.visits += 1;
        match read(self) {
            Err(Stop::Refused) => {
                if self.done || progress.steps() == before {
                    self.next_turn(progress);
                }
                Err(Stop::Noted)
            }
            result => result,
        }
    }

    fn next_turn(&mut self, progress: &Progress) {
        self.turn += 1;
        progress.step();
        if self.turn >= TRIES {
            self.give_up(progress);
        }
    }

    /// No value is to be had here, and nothing more to be learnt.
    pub(super) fn give_up(&mut self, progress: &Progress) {
        self.barren = true;
        self.finish(progress);
    }

    /// All is known here.
    pub(super) fn finish(&mut self, progress: &Progress) {
        if !self.done {
            self.done = true;
            progress.step();
        }
    }

    /// Notes what the type asks for here.
    ///
    /// # Errors
    /// If it asked for something else before, or there are too many places: nothing can be said of this one then.
    pub(super) fn become_kind(&mut self, kind: Kind, progress: &Progress) -> Result<(), Stop> {
        if self.kind == kind {
            return Ok(());
        }
        let places = progress.places.get() + kind.len();
        if !self.is_new() || places > MAX_PLACES {
            self.kind = Kind::Leaf(Shape::Unknown);
            self.inner.clear();
            self.give_up(progress);
            return Err(Stop::Noted);
        }
        progress.places.set(places);
        progress.step();
        self.inner.resize_with(kind.len(), Self::default);
        self.kind = kind;
        Ok(())
    }

    /// Settles an option, list or map after a pass: `complete` if the type was content with it.
    pub(super) fn settle_elements(&mut self, complete: bool, progress: &Progress) {
        if complete {
            // A type that never asks for an element will not say what it is.
            self.inner.iter_mut().filter(|inner| inner.is_new()).for_each(|inner| inner.finish(progress));
        }
        if self.inner.iter().all(Self::is_done) {
            self.finish(progress);
        }
    }

    /// Settles a struct, tuple or variant after a pass: `complete` if all parts were read in order.
    pub(super) fn settle_parts(&mut self, complete: bool, progress: &Progress) {
        if complete {
            // What a type does not read is not in its bytes: further names are aliases.
            let read = self.inner.iter().take_while(|part| !part.is_new()).count();
            self.inner.truncate(read);
        }
        let by_name =
            matches!(self.kind, Kind::Struct(_, Content::Named(_)) | Kind::Variant(Content::Named(_)));
        let barren = self.first_barren();
        let reached = if by_name { None } else { barren.map(|index| index + 1) };
        if self.inner.iter().take(reached.unwrap_or(usize::MAX)).all(Self::is_done) {
            self.barren |= barren.is_some();
            self.finish(progress);
        }
    }

    /// Settles an enum after a pass that showed the variant `chosen`.
    pub(super) fn settle_variants<T>(
        &mut self,
        chosen: Option<usize>,
        result: &Result<T, Stop>,
        progress: &Progress,
    ) {
        if let Some(variant) =
            chosen.and_then(|index| self.inner.get_mut(index)).filter(|place| place.is_new())
        {
            match result {
                // Read without a look at what it holds: it holds nothing.
                Ok(_) => {
                    let _ = variant.become_kind(Kind::Variant(Content::Unit), progress);
                    variant.finish(progress);
                }
                Err(Stop::Refused) => variant.give_up(progress),
                Err(_) => {}
            }
        }
        if self.inner.iter().all(Self::is_done) {
            self.barren |= self.inner.iter().all(Self::is_barren);
            self.finish(progress);
        }
    }

    /// The first part of which no value can be made: in order, nothing behind it is reached.
    pub(super) fn first_barren(&self) -> Option<usize> {
        self.inner.iter().position(Self::is_barren)
    }

    /// The variant to show: of those not done the one least often seen, else one after the other.
    pub(super) fn choose_variant(&self, turn: usize) -> Option<usize> {
        let indexed = || self.inner.iter().enumerate();
        let open = indexed().filter(|(_, variant)| !variant.done).min_by_key(|(_, variant)| variant.visits);
        if let Some((index, _)) = open {
            return Some(index);
        }
        let fertile: Vec<usize> =
            indexed().filter(|(_, variant)| !variant.barren).map(|(index, _)| index).collect();
        fertile.get(turn % fertile.len().max(1)).copied()
    }

    /// A variant of which a value can be made.
    pub(super) fn finite_variant(&self) -> Option<usize> {
        self.inner.iter().position(|variant| variant.done && !variant.barren)
    }

    /// What is known, as a shape.
    pub(super) fn shape(&self) -> Shape {
        let inner = |index: usize| Box::new(self.inner.get(index).map_or(Shape::Unknown, Self::shape));
        match self.kind {
            Kind::New | Kind::NoVariant | Kind::Variant(_) => Shape::Unknown,
            Kind::Leaf(ref shape) => shape.clone(),
            Kind::Option => Shape::Option(inner(0)),
            Kind::Seq => Shape::Seq(inner(0)),
            Kind::Map => Shape::Map(inner(0), inner(1)),
            Kind::Tuple(_) => Shape::Tuple(self.parts()),
            Kind::Struct(name, content) => Shape::Struct { name: name.into(), fields: self.fields(content) },
            Kind::Enum(name, names) => {
                Shape::Enum { name: name.into(), variants: self.variants(names), open: false }
            }
        }
    }

    fn parts(&self) -> Vec<Shape> {
        self.inner.iter().map(Self::shape).collect()
    }

    fn fields(&self, content: Content) -> Fields {
        match content {
            Content::Unit => Fields::Unit,
            Content::Newtype => {
                Fields::Newtype(self.inner.first().map_or(Shape::Unknown, Self::shape).into())
            }
            Content::Tuple(_) => Fields::Tuple(self.parts()),
            Content::Named(names) => {
                let names = names_of(names, self.inner.len());
                Fields::Named(names.map(Into::into).zip(self.parts()).collect())
            }
        }
    }

    fn variants(&self, names: &'static [&'static str]) -> Vec<Variant> {
        let present: Vec<&Self> = self.inner.iter().filter(|place| place.kind != Kind::NoVariant).collect();
        let names = names_of(names, present.len());
        (0..).zip(names.zip(present)).map(|(index, (name, place))| place.variant(index, name)).collect()
    }

    fn variant(&self, index: u32, name: &str) -> Variant {
        let fields = match self.kind {
            Kind::Variant(content) => self.fields(content),
            _ => Fields::Unknown,
        };
        Variant { index, name: name.into(), fields }
    }
}

/// One name for each of `count` fields or variants. Serde lists aliases among the names and does not say which they
/// are: with aliases, no name is known.
fn names_of(names: &'static [&'static str], count: usize) -> impl Iterator<Item = &'static str> {
    let known = names.len() == count;
    (0..count).map(move |index| names.get(index).filter(|_| known).copied().unwrap_or_default())
}

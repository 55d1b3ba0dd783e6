//! Stands at one place of a type under trace: decides which values it is shown there, and notes what it asks for.

use std::any::type_name;

use serde::de::Visitor;

use super::{
    access::{OneField, Parts},
    place::{Kind, Place, Progress, Stop},
    samples::pick,
};
use crate::shape::{Shape, bytes::MAX_DEPTH};

/// Shows the type one place in it.
pub(super) struct Tracer<'a> {
    pub(super) place: &'a mut Place,
    above: Option<&'a Above<'a>>,
    pub(super) progress: &'a Progress,
    /// Added up over the places around this one, so that a refusal further out changes the values further in.
    turn: usize,
    /// Nothing is to be learnt: the type wants a value of a place further out, and the smallest one will do.
    generate: bool,
}

/// A place around another one.
struct Above<'a> {
    /// The type of the visitor stands for the type that reads: the same one further in is a recursion. It is never
    /// kept beyond that.
    visitor: &'static str,
    /// Whether it is a struct or enum.
    named: bool,
    /// For an enum: a variant of which a value can be made.
    finite: Option<usize>,
    depth: u32,
    outer: Option<&'a Above<'a>>,
}

impl Above<'_> {
    /// This place and those around it, outwards.
    fn outwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |place| place.outer)
    }

    fn find(&self, visitor: &str) -> Option<&Self> {
        self.outwards().find(|place| place.visitor == visitor)
    }

    /// How many places lie between this one and the nearest of the same visitor. Behind a struct or enum only these are
    /// looked for, so that a list of a recursive type does not change how the type itself looks.
    fn recursion(&self, visitor: &str, named: bool) -> Option<u32> {
        let (levels, _) = (0..)
            .zip(self.outwards())
            .take_while(|(_, place)| named || !place.named)
            .find(|(_, place)| place.visitor == visitor)?;
        Some(levels)
    }
}

impl<'a> Tracer<'a> {
    pub(super) fn new(place: &'a mut Place, progress: &'a Progress) -> Self {
        Self { place, above: None, progress, turn: 0, generate: false }
    }

    pub(super) fn again(&mut self) -> Tracer<'_> {
        Tracer {
            place: self.place,
            above: self.above,
            progress: self.progress,
            turn: self.turn,
            generate: self.generate,
        }
    }

    /// A scalar: known as soon as it is asked for.
    pub(super) fn leaf<S: Copy, T>(
        self,
        shape: Shape,
        samples: &[S],
        show: impl FnOnce(S) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.place.become_kind(Kind::Leaf(shape), self.progress)?;
        self.place.finish(self.progress);
        show(pick(samples, self.turn + self.place.turn()))
    }

    /// What no value can be shown of.
    pub(super) fn barren<T>(self, shape: Shape) -> Result<T, Stop> {
        self.place.become_kind(Kind::Leaf(shape), self.progress)?;
        self.place.give_up(self.progress);
        Err(Stop::Noted)
    }

    /// A place with others inside, read by a visitor `V`; `read` is given a tracer that stands inside it.
    pub(super) fn enter<V, T>(
        self,
        kind: Kind,
        read: impl FnOnce(Tracer<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let visitor = type_name::<V>();
        match self.above.and_then(|above| above.recursion(visitor, kind.is_named())) {
            Some(levels) if !self.generate => {
                self.recurse(levels, |tracer| tracer.descend(visitor, kind, read))
            }
            _ => self.descend(visitor, kind, read),
        }
    }

    /// A place that is one further out again: its shape is known, and only a value is missing.
    fn recurse<T>(self, levels: u32, read: impl FnOnce(Tracer<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        self.place.become_kind(Kind::Leaf(Shape::Recursive(levels)), self.progress)?;
        self.place.finish(self.progress);
        let value = read(Tracer {
            place: &mut Place::default(),
            above: self.above,
            progress: &Progress::default(),
            turn: self.turn + self.place.turn(),
            generate: true,
        });
        value.map_err(|stop| if matches!(stop, Stop::NotYet) { stop } else { Stop::Refused })
    }

    fn descend<T>(
        self,
        visitor: &'static str,
        kind: Kind,
        read: impl FnOnce(Tracer<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let depth = self.above.map_or(0, |above| above.depth + 1);
        if depth >= MAX_DEPTH {
            return self.barren(Shape::Unknown);
        }
        let named = kind.is_named();
        self.place.become_kind(kind, self.progress)?;
        let finite = if self.generate {
            self.above.and_then(|above| above.find(visitor)).and_then(|around| around.finite)
        } else {
            self.place.finite_variant()
        };
        let above = Above { visitor, named, finite, depth, outer: self.above };
        let turn = self.turn + self.place.turn();
        read(Tracer {
            place: self.place,
            above: Some(&above),
            progress: self.progress,
            turn,
            generate: self.generate,
        })
    }

    /// Shows the place `index` inside this one.
    pub(super) fn explore<T>(
        &mut self,
        index: usize,
        read: impl FnOnce(Tracer<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let Self { above, progress, turn, generate, .. } = *self;
        let inner = self.place.inner.get_mut(index).ok_or(Stop::Noted)?;
        inner.explore(progress, |place| read(Tracer { place, above, progress, turn, generate }))
    }

    /// How many elements an option, list or map is to have, in order to learn more or to please the type.
    pub(super) fn elements(&self, most: usize) -> usize {
        if self.generate {
            0
        } else if !self.place.inner.iter().all(Place::is_done) {
            1
        } else if self.place.first_barren().is_some() {
            0
        } else {
            self.turn % (most + 1)
        }
    }

    /// Shows all parts in order.
    pub(super) fn parts<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let value = visitor.visit_seq(Parts::new(self.again()));
        self.place.settle_parts(value.is_ok(), self.progress);
        value
    }

    /// Shows all fields in order, or, where one of them cannot be passed, a single one by its name.
    pub(super) fn named<'de, V: Visitor<'de>>(
        mut self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let unknown = self.place.inner.iter().position(|part| !part.is_done());
        let (Some(index), Some(_)) = (unknown, self.place.first_barren()) else {
            return self.parts(visitor);
        };
        let before = self.progress.steps();
        let name = names.get(index).copied().unwrap_or_default();
        let value = visitor.visit_map(OneField::new(self.again(), name, index));
        if let (true, Some(part)) = (self.progress.steps() == before, self.place.inner.get_mut(index)) {
            part.give_up(self.progress);
        }
        self.place.settle_parts(false, self.progress);
        value.map_err(|_| Stop::Noted)
    }

    pub(super) fn choose_variant(&self) -> Result<usize, Stop> {
        if !self.generate {
            return self.place.choose_variant(self.turn).ok_or(Stop::Noted);
        }
        let above = self.above.ok_or(Stop::Noted)?;
        match above.outer.and_then(|outer| outer.find(above.visitor)) {
            Some(_) => above.finite.ok_or(Stop::NotYet),
            None => Ok(self.turn % self.place.inner.len().max(1)),
        }
    }

    /// The tracer of the variant `index`, which is no place of its own among those around what it holds.
    pub(super) fn into_variant(self, index: usize) -> Result<Self, Stop> {
        let place = self.place.inner.get_mut(index).ok_or(Stop::Noted)?;
        place.visits += 1;
        Ok(Self { place, ..self })
    }
}

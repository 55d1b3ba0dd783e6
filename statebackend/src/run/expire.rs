//! What a merge does with state that has expired: it leaves it out, as if it had been removed.
//!
//! Invariant: an entry that has expired still hides what older runs have of its place, which may have a later deadline. So it
//! becomes a tombstone, unless nothing older exists. A list's chunk hides nothing and is cut to the elements that live.

use types::{ExpiryClocks, Result, TimeDomain};

use super::{
    block::Home,
    entry::{Entry, EntryKind, push_entry},
    list_chunk::{elements, push_element},
    schema::Schema,
};
use crate::{declare::StateKind, expiry::deadline_of};

/// What becomes of an entry with a value.
pub(super) enum Verdict {
    /// It lives.
    Stays,
    /// It has expired, whole.
    Expired,
    /// A list's chunk of which elements have: the encoded entry of those that have not.
    Cut(Vec<u8>),
}

/// Which entries have expired.
#[derive(Default)]
pub(super) struct Expiry {
    /// For each state of the merge: whether it expires, in which time, and whether it is a list.
    states: Vec<Option<(TimeDomain, bool)>>,
    clocks: ExpiryClocks,
}

impl Expiry {
    pub(super) fn new(schema: &Schema, clocks: &ExpiryClocks) -> Self {
        let states = schema.states.iter().map(|state| {
            let is_list = state.spec.kind == StateKind::List;
            state.spec.expiry.map(|domain| (domain, is_list))
        });
        Self { states: states.collect(), clocks: clocks.clone() }
    }

    /// Whether entries of this state expire.
    #[inline]
    pub(super) fn concerns(&self, home: Home) -> bool {
        self.states.get(usize::from(home.state)).is_some_and(Option::is_some)
    }

    /// # Errors
    /// `Corrupt` if a value has no deadline.
    pub(super) fn judge(&self, home: Home, entry: &Entry<'_>) -> Result<Verdict> {
        let state = self.states.get(usize::from(home.state)).copied().flatten();
        let (Some((domain, is_list)), EntryKind::Put) = (state, entry.kind) else {
            return Ok(Verdict::Stays);
        };
        let until = self.clocks.at(home.group).of(domain);
        if !is_list {
            let lives = deadline_of(entry.value)? > until;
            return Ok(if lives { Verdict::Stays } else { Verdict::Expired });
        }
        let mut living = Vec::new();
        for element in elements(entry.value) {
            let element = element?;
            if deadline_of(element)? > until {
                push_element(&mut living, |out| {
                    out.extend_from_slice(element);
                    Ok(())
                })?;
            }
        }
        Ok(match living.len() {
            0 => Verdict::Expired,
            all if all == entry.value.len() => Verdict::Stays,
            _ => {
                let mut bytes = Vec::new();
                push_entry(&mut bytes, &Entry { value: &living, ..*entry });
                Verdict::Cut(bytes)
            }
        })
    }

    /// Whether an entry that has expired leaves a tombstone where older runs may have its place.
    pub(super) fn leaves_tombstone(&self, home: Home) -> bool {
        self.states.get(usize::from(home.state)).copied().flatten().is_some_and(|(_, is_list)| !is_list)
    }
}

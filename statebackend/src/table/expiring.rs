//! [`KeyedState`] with a time to live: what time it is for a key group, and dropping what has expired from the tables.
//!
//! Handles pass over what has expired, and runs drop it when they are merged. So dropping it here is for memory alone: it is no
//! change, and leaves nothing to be drained. A hand goes round all cells, by so many as work has been done; with a store behind,
//! cells leave for that instead.

use types::{ExpiryClocks, ExpiryTimes, KeyGroup, Result, TimeDomain, Timestamp};

use super::{KeyedState, keyed_state::TablePlace};
use crate::{
    declare::StateKind,
    expiry::{Hand, deadline_of},
    run::entry::{Entry, EntryKind},
};

/// How many cells the hand looks at for each that was touched: so it comes round before half as many were touched as there are.
const LOOK: u64 = 2;
/// How many it looks at where none was, at each batch.
const LOOK_LEAST: usize = 16;
/// How many at once, so that no step is long.
const LOOK_MOST: usize = 4096;

impl KeyedState {
    /// Whether any state expires in this time: the engine then says how late it is.
    #[must_use]
    pub fn expires(&self, domain: TimeDomain) -> bool {
        self.declared.expires(domain)
    }

    /// It is so late now. Time never goes back; [`Timestamp::MAX`] is passed over, since it says that nothing follows, and not
    /// that time has passed.
    pub fn advance(&mut self, domain: TimeDomain, to: Timestamp) {
        if let Some(clocks) = &mut self.clocks {
            clocks.advance(domain, to);
        }
    }

    /// Until when state has expired, for every key group: what a checkpoint must hold. `None` if no state expires.
    #[must_use]
    pub fn expiry_clocks(&self) -> Option<ExpiryClocks> {
        self.clocks.as_ref().map(|clocks| clocks.to_clocks())
    }

    /// Until when state had expired at the checkpoint that is about to be restored.
    pub fn restore_expiry_clocks(&mut self, restored: &ExpiryClocks) {
        if let Some(clocks) = &mut self.clocks {
            clocks.restore(restored);
        }
    }

    /// Until when state of a key group has expired.
    pub(crate) fn expired_until(&self, domain: TimeDomain, group: KeyGroup) -> Timestamp {
        self.clocks.as_ref().map_or(ExpiryTimes::BEGINNING, |clocks| clocks.at(group)).of(domain)
    }

    /// Whether an entry of a run has expired, whole. A list's chunk is taken as it is: it hides nothing.
    pub(super) fn has_expired(&self, place: TablePlace, group: KeyGroup, entry: &Entry<'_>) -> Result<bool> {
        let Some(state) = self.declared.states.get(place.0) else { return Ok(false) };
        match state.spec.expiry {
            Some(domain) if entry.kind == EntryKind::Put && state.spec.kind != StateKind::List => {
                Ok(deadline_of(entry.value)? <= self.expired_until(domain, group))
            }
            _ => Ok(false),
        }
    }

    /// Lets the hand go on.
    pub(super) fn drop_expired(&mut self) {
        let Self { tables, declared, clocks: Some(clocks), backing: None, .. } = self else { return };
        // What was flipped is taken first; the hand waits where it is.
        if tables.iter().any(|table| table.holds_flipped()) {
            return;
        }
        let touched: u64 = tables.iter().map(|table| table.touched()).sum();
        let work = (touched - clocks.touched) * LOOK;
        clocks.touched = touched;
        let mut budget = usize::try_from(work).unwrap_or(LOOK_MOST).clamp(LOOK_LEAST, LOOK_MOST);
        let mut hand = std::mem::take(&mut clocks.hand);
        // Once round at the most: each key group, and from each table to the next.
        let stops: usize = tables.iter().map(|table| table.group_count() + 1).sum();
        for _ in 0..stops {
            if hand.table >= tables.len() {
                hand = Hand::default();
            }
            let table = &mut tables[hand.table];
            if let Some(domain) = declared.states[hand.table].spec.expiry
                && hand.group < table.group_count()
            {
                let group = clocks.group(hand.group);
                let until = clocks.at(group).of(domain);
                if !table.expire(hand.group, &mut hand, until, &mut budget) {
                    break;
                }
                hand = Hand { table: hand.table, group: hand.group + 1, ..Hand::default() };
            } else {
                hand = Hand { table: hand.table + 1, ..Hand::default() };
            }
        }
        clocks.hand = hand;
    }
}

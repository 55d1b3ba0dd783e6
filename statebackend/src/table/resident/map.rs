//! Maps in front of a store: entries are taken in one by one and leave together with their map.

use types::{Bincode, Codec, Error, KeyBytes, Result};

use super::{CachedSlot, Found, Lack, Need, Outgoing, Stored};
use crate::{
    Data,
    table::{
        intervals::{Interval, Intervals},
        map::{MapCell, MapSlot},
        slot::Place,
        value::survives_decoding,
    },
};

impl<V: Data> MapSlot<V> {
    /// Whether it is unknown if the map has entries.
    fn may_be_empty(&self) -> bool {
        self.partial && self.live == 0 && self.beyond.is_none()
    }

    fn is_first_change(&self, open: Interval) -> bool {
        self.changes.back().is_none_or(|last| last.interval != open)
    }
}

impl<V: Data> CachedSlot for MapSlot<V> {
    const COUNTS_ITEMS: bool = true;
    const ITEM_BYTES: usize = size_of::<(KeyBytes, MapCell<V>)>();

    fn survives_decoding(value: &[u8]) -> Result<bool> {
        survives_decoding::<V>(value)
    }

    fn lack(slot: Option<&Self>, need: Need<'_>, open: Interval) -> Lack {
        let lacks = |sub: &[u8]| slot.is_none_or(|slot| slot.partial && !slot.holds(sub));
        match need {
            Need::Entry(sub) | Need::Change(sub) if lacks(sub) => Lack::Place,
            Need::Change(_) => {
                let unknown = slot.is_some_and(|slot| slot.is_first_change(open) && slot.may_be_empty());
                if unknown { Lack::Beyond } else { Lack::Nothing }
            }
            Need::Clear if slot.is_none_or(Self::may_be_empty) => Lack::Beyond,
            _ => Lack::Nothing,
        }
    }

    fn admit(&mut self, found: Found<'_>, intervals: &mut Intervals) -> Result<()> {
        match found {
            Found::Place(sub, value) => {
                let value = value.map(Bincode::decode).transpose()?;
                self.live += usize::from(value.is_some());
                self.entries.insert(KeyBytes::new(sub), MapCell::clean(value));
                intervals.count_items(1, 0);
            }
            Found::Beyond(beyond) => self.beyond = Some(beyond),
            Found::List(_) | Found::Tail => {
                return Err(Error::internal("a map was given something else than its entries"));
            }
        }
        // A cell is made by the first thing that it is given; one that was cleared lacks nothing and is given nothing.
        self.partial = true;
        Ok(())
    }

    fn holds(&self, sub: &[u8]) -> bool {
        self.entries.contains_key(sub)
    }

    fn drain_all(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        self.drain_all(at, intervals)
    }

    fn recent(&mut self) -> &mut bool {
        &mut self.recent
    }

    fn tell(&mut self, at: Place<'_>, store: &mut Outgoing) -> Result<()> {
        if std::mem::take(&mut self.wiped) {
            store.delete_below(at);
        }
        for (sub, MapCell { value, stored, .. }) in &mut self.entries {
            let value = value.as_ref();
            if stored.lacks(value) {
                store.set(at, sub, value)?;
                *stored = Stored::of(value);
            }
        }
        Ok(())
    }

    fn leave(self, intervals: &mut Intervals) {
        intervals.count_items(0, self.entries.len());
        intervals.bury(self.entries);
    }
}

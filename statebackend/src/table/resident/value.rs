//! Value cells in front of a store: one cell, one place.

use types::{Bincode, Codec, Error, Result};

use super::{CachedSlot, Found, Lack, Need, Outgoing, Stored};
use crate::{
    Data,
    table::{
        intervals::{Interval, Intervals},
        slot::Place,
        value::{ValueSlot, survives_decoding},
    },
};

impl<T: Data> CachedSlot for ValueSlot<T> {
    const COUNTS_ITEMS: bool = false;
    const ITEM_BYTES: usize = 0;

    fn survives_decoding(value: &[u8]) -> Result<bool> {
        survives_decoding::<T>(value)
    }

    fn lack(slot: Option<&Self>, _: Need<'_>, _: Interval) -> Lack {
        if slot.is_some() { Lack::Nothing } else { Lack::Place }
    }

    fn admit(&mut self, found: Found<'_>, _: &mut Intervals) -> Result<()> {
        let Found::Place(_, value) = found else {
            return Err(Error::internal("a value cell was given something else than its place"));
        };
        self.value = value.map(Bincode::decode).transpose()?;
        self.stored = Stored::of(self.value.as_ref());
        Ok(())
    }

    fn drain_all(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        if self.dirty == 0 { Ok(()) } else { self.settle(at, intervals) }
    }

    fn recent(&mut self) -> &mut bool {
        &mut self.recent
    }

    fn tell(&mut self, at: Place<'_>, store: &mut Outgoing) -> Result<()> {
        let value = self.value.as_ref();
        if self.stored.lacks(value) {
            store.set(at, &[], value)?;
            self.stored = Stored::of(value);
        }
        Ok(())
    }

    fn leave(self, _: &mut Intervals) {}
}

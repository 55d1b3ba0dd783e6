//! Lists in front of a store: appending needs nothing of it, everything else needs the whole list.

use types::{Bincode, Codec, Error, Result};

use super::{CachedSlot, Found, Lack, Need, Note, Outgoing};
use crate::{
    Data,
    run::list_chunk::{elements, epoch_of},
    table::{
        intervals::{Interval, Intervals},
        list::ListSlot,
        slot::{Place, Slot},
        value::survives_decoding,
    },
};

impl<T: Data> ListSlot<T> {
    /// Puts the elements of the store in front of those that it does not have. Everything drained must be there.
    fn admit_whole(&mut self, chunks: &[(Vec<u8>, Vec<u8>)], intervals: &mut Intervals) -> Result<()> {
        let mut items = Vec::new();
        for (_, chunk) in chunks {
            for element in elements(chunk) {
                items.push(Bincode::decode(element?)?);
            }
        }
        if let (Some((first, _)), Some((last, _))) = (chunks.first(), chunks.last()) {
            let (open, epoch) = (intervals.open(), intervals.epoch(intervals.open()));
            // The open interval has changed the list already, in a cell that was evicted.
            if epoch_of(last)? == epoch {
                self.since = open;
            }
            if self.since == open {
                self.stale = epoch_of(first)? < epoch;
            }
        }
        let before = self.items.len();
        let stored = items.len();
        items.extend(self.items.drain(self.drained..));
        intervals.count_items(items.len(), before);
        (self.items, self.drained, self.tail_only) = (items, stored, false);
        Ok(())
    }
}

impl<T: Data> CachedSlot for ListSlot<T> {
    const COUNTS_ITEMS: bool = false;
    const ITEM_BYTES: usize = size_of::<T>();
    // Numbers of chunks are not to be used again.
    const NOTE_RESTORED: Option<Note> = Some(|entry, intervals| {
        intervals.begin_after(epoch_of(entry.sub)?);
        Ok(())
    });

    fn survives_decoding(value: &[u8]) -> Result<bool> {
        for element in elements(value) {
            if !survives_decoding::<T>(element?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lack(slot: Option<&Self>, need: Need<'_>, _: Interval) -> Lack {
        match (slot, need) {
            (None, Need::Tail) => Lack::Tail,
            (None, _) => Lack::List,
            (Some(slot), Need::List) if slot.tail_only => Lack::List,
            (Some(_), _) => Lack::Nothing,
        }
    }

    fn admit(&mut self, found: Found<'_>, intervals: &mut Intervals) -> Result<()> {
        match found {
            Found::List(chunks) => self.admit_whole(chunks, intervals),
            Found::Tail => {
                self.tail_only = true;
                Ok(())
            }
            Found::Place(..) | Found::Beyond(_) => {
                Err(Error::internal("a list was given something else than its elements"))
            }
        }
    }

    fn drain_all(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        if self.dirty == 0 { Ok(()) } else { self.drain(at, self.dirty, usize::MAX, intervals).map(drop) }
    }

    fn recent(&mut self) -> &mut bool {
        &mut self.recent
    }

    /// Draining has told it.
    fn tell(&mut self, _: Place<'_>, _: &mut Outgoing) -> Result<()> {
        Ok(())
    }

    fn leave(self, intervals: &mut Intervals) {
        intervals.count_items(0, self.items.len());
    }
}

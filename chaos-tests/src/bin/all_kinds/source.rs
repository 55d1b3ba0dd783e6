//! The events, one after another, by one reader. They end, and the job does not, so that its state can be looked at.

use serde::{Deserialize, Serialize};
use tidegate::{
    engine::api::source::{Boundedness, ReadStatus, Source, SourceContext, SourceOutput, Split, SplitReader},
    prelude::*,
};
pub(crate) use tidegate_chaos_tests::events::Event;

/// Events `0..total`.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) total: u64,
}

/// How far they are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EventSplit {
    next: u64,
}

impl Split for EventSplit {
    fn id(&self) -> String {
        "events".to_owned()
    }
}

pub(crate) struct EventReader {
    next: u64,
    total: u64,
}

impl Source for Events {
    type Out = Event;
    type Split = EventSplit;
    type Reader = EventReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<EventSplit>> {
        Ok(vec![EventSplit { next: 0 }])
    }

    async fn open(&self, split: EventSplit, _context: &SourceContext) -> Result<EventReader> {
        Ok(EventReader { next: split.next, total: self.total })
    }
}

impl SplitReader for EventReader {
    type Out = Event;
    type Split = EventSplit;

    async fn read(&mut self, out: &mut SourceOutput<'_, Event>) -> Result<ReadStatus> {
        while self.next < self.total && out.room() > 0 {
            let event = Event::of(self.next, self.total);
            out.emit_at(event, Timestamp(event.time));
            self.next += 1;
        }
        Ok(if self.next < self.total { ReadStatus::More } else { ReadStatus::End })
    }

    fn position(&self) -> EventSplit {
        EventSplit { next: self.next }
    }
}

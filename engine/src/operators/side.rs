//! The partial batches of an operator's side outputs, whatever their types.

use std::any::Any;

use super::operator::OutBatch;
use crate::record::BatchBuilder;

/// The side outputs of one operator instance, in order of declaration.
pub(crate) type SideBuffers = Vec<Box<dyn SideBuffer>>;

/// A [`BatchBuilder`] of any type.
pub(crate) trait SideBuffer: Send {
    /// What was collected, if anything.
    fn take(&mut self) -> Option<OutBatch>;
    /// For the downcast.
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Send + 'static> SideBuffer for BatchBuilder<T> {
    fn take(&mut self) -> Option<OutBatch> {
        (!self.is_empty()).then(|| OutBatch::new(BatchBuilder::take(self)))
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// What every side output collected.
pub(crate) fn take_all(buffers: &mut SideBuffers) -> Vec<(usize, OutBatch)> {
    let taken = buffers.iter_mut().enumerate().map(|(index, buffer)| Some((index, buffer.take()?)));
    taken.flatten().collect()
}

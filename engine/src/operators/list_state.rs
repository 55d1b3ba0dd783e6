//! Operator states as an operator holds them: lists, and maps that all subtasks have alike; decoded in memory, encoded whole at
//! each barrier.

use std::{any::Any, collections::BTreeMap};

use checkpoint::manifest::{ListElements, ListPart, Redistribution};
use types::{Bincode, Codec, Error, Result, Shape, serde::Serialize};

use crate::{api::data::Data, graph::logical::ListSpec};

/// All list states of one operator instance, in order of declaration.
pub(crate) type Lists = Vec<ListSlot>;

/// One list state.
pub(crate) struct ListSlot {
    pub(crate) spec: ListSpec,
    values: Box<dyn AnyList>,
}

/// The elements, whatever their type.
trait AnyList: Any + Send {
    fn encode(&self) -> Result<ListElements>;
    fn restore(&mut self, element: &[u8]) -> Result<()>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

fn encode(values: impl Iterator<Item = impl Serialize>) -> Result<ListElements> {
    let (mut elements, mut bytes) = (ListElements::new(), Vec::new());
    for value in values {
        bytes.clear();
        Bincode::encode(&value, &mut bytes)?;
        elements.push(&bytes);
    }
    Ok(elements)
}

impl<T: Data> AnyList for Vec<T> {
    fn encode(&self) -> Result<ListElements> {
        encode(self.iter())
    }

    fn restore(&mut self, element: &[u8]) -> Result<()> {
        self.push(Bincode::decode(element)?);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The elements are entries, in the order of their keys.
impl<K: Data + Ord, V: Data> AnyList for BTreeMap<K, V> {
    fn encode(&self) -> Result<ListElements> {
        encode(self.iter())
    }

    fn restore(&mut self, element: &[u8]) -> Result<()> {
        let (key, value) = Bincode::decode(element)?;
        self.insert(key, value);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl ListSlot {
    pub(crate) fn list<T: Data>(name: &str, redistribution: Redistribution) -> Self {
        let spec = ListSpec { name: name.to_owned(), redistribution, shape: Shape::trace::<T>() };
        Self { spec, values: Box::new(Vec::<T>::new()) }
    }

    pub(crate) fn broadcast<K: Data + Ord, V: Data>(name: &str) -> Self {
        let (redistribution, shape) = (Redistribution::Broadcast, Shape::trace::<(K, V)>());
        let spec = ListSpec { name: name.to_owned(), redistribution, shape };
        Self { spec, values: Box::new(BTreeMap::<K, V>::new()) }
    }

    /// The elements as they were declared: a list of them or a map.
    pub(crate) fn elements<C: Any>(&self) -> &C {
        self.values.as_any().downcast_ref().expect("a handle has the type of its declaration")
    }

    /// The same, to change.
    pub(crate) fn elements_mut<C: Any>(&mut self) -> &mut C {
        self.values.as_any_mut().downcast_mut().expect("a handle has the type of its declaration")
    }

    fn part(&self) -> Result<ListPart> {
        Ok(ListPart {
            name: self.spec.name.clone(),
            redistribution: self.spec.redistribution,
            codec: Bincode::ID.to_owned(),
            shape: self.spec.shape.to_bytes(),
            elements: self.values.encode()?,
        })
    }

    fn restore(&mut self, part: &ListPart) -> Result<()> {
        self.spec.accepts(part)?;
        for element in part.elements.iter() {
            let restored = self.values.restore(element);
            restored.map_err(|error| error.context(format!("list state {:?}", self.spec.name)))?;
        }
        Ok(())
    }
}

/// All list states at this moment.
pub(crate) fn snapshot(lists: &[ListSlot]) -> Result<Vec<ListPart>> {
    lists.iter().map(ListSlot::part).collect()
}

/// Gives stored elements back to the lists they belong to.
pub(crate) fn restore(lists: &mut [ListSlot], parts: &[ListPart]) -> Result<()> {
    for part in parts {
        let Some(list) = lists.iter_mut().find(|list| list.spec.name == part.name) else {
            return Err(Error::incompatible(format!(
                "the snapshot holds list state {:?}, which the operator no longer declares: declare it, or drop the \
                 operator's state with --allow-dropped-state",
                part.name
            )));
        };
        list.restore(part)?;
    }
    Ok(())
}

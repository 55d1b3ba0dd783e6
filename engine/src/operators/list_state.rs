//! Operator list states as an operator holds them: decoded in memory, encoded whole at each barrier.

use std::any::Any;

use checkpoint::manifest::{ListPart, Redistribution};
use types::{Bincode, Codec, Error, Result, Shape};

use crate::api::data::{Data, shape_bytes};

/// All list states of one operator instance, in order of declaration.
pub(crate) type Lists = Vec<ListSlot>;

/// One list state.
pub(crate) struct ListSlot {
    pub(crate) name: String,
    redistribution: Redistribution,
    shape: Vec<u8>,
    values: Box<dyn AnyList>,
}

/// The elements, whatever their type.
trait AnyList: Any + Send {
    fn encode(&self) -> Result<Vec<Vec<u8>>>;
    fn restore(&mut self, element: &[u8]) -> Result<()>;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Data> AnyList for Vec<T> {
    fn encode(&self) -> Result<Vec<Vec<u8>>> {
        let encode = |element| {
            let mut bytes = Vec::new();
            Bincode::encode(element, &mut bytes).map(|()| bytes)
        };
        self.iter().map(encode).collect()
    }

    fn restore(&mut self, element: &[u8]) -> Result<()> {
        self.push(Bincode::decode(element)?);
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl ListSlot {
    pub(crate) fn new<T: Data>(name: &str, redistribution: Redistribution) -> Self {
        let shape = shape_bytes::<T>();
        Self { name: name.to_owned(), redistribution, shape, values: Box::new(Vec::<T>::new()) }
    }

    pub(crate) fn elements<T: Data>(&mut self) -> &mut Vec<T> {
        self.values.as_any().downcast_mut().expect("a handle has the type of its declaration")
    }

    fn part(&self) -> Result<ListPart> {
        Ok(ListPart {
            name: self.name.clone(),
            redistribution: self.redistribution,
            codec: Bincode::ID.to_owned(),
            shape: self.shape.clone(),
            elements: self.values.encode()?,
        })
    }

    /// Compares what is stored with what is declared, then takes the elements.
    fn restore(&mut self, part: &ListPart) -> Result<()> {
        if part.codec != Bincode::ID {
            return Err(Error::incompatible(format!(
                "list state {:?} was stored with codec {}, this program uses {}: restore with a program that has it",
                self.name,
                part.codec,
                Bincode::ID
            )));
        }
        let (declared, stored) = (Shape::from_bytes(&self.shape)?, Shape::from_bytes(&part.shape)?);
        if let Some(difference) = Shape::diff(&declared, &stored) {
            return Err(Error::incompatible(format!(
                "the elements of list state {:?} have changed: {difference}; declare it under a new name, or restore \
                 with the program that wrote it",
                self.name
            )));
        }
        for element in &part.elements {
            let restored = self.values.restore(element);
            restored.map_err(|error| error.context(format!("list state {:?}", self.name)))?;
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
        let Some(list) = lists.iter_mut().find(|list| list.name == part.name) else {
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

//! Operator states as an operator holds them: lists, and maps that all subtasks have alike; decoded in memory, encoded whole at
//! each barrier.

use std::{any::Any, collections::BTreeMap};

use checkpoint::manifest::{ListElements, ListPart, Redistribution};
use statebackend::{Migration, Version};
use types::{Bincode, Codec, Error, ErrorKind, Result, Shape, ShapedValue, serde::Serialize};

use crate::{api::data::Data, graph::logical::ListSpec, task::guard};

/// All list states of one operator instance, in order of declaration.
pub(crate) type Lists = Vec<ListSlot>;

/// One list state.
pub(crate) struct ListSlot {
    pub(crate) spec: ListSpec,
    values: Box<dyn AnyList>,
    /// How an element of each older type is taken in, oldest first.
    older: Vec<TakeOlder>,
}

type TakeOlder = Box<dyn Fn(&mut dyn AnyList, &[u8]) -> Result<()> + Send>;

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
        let (shape, older) = (Shape::trace::<T>(), Vec::new());
        let spec = ListSpec { name: name.to_owned(), redistribution, shape, older };
        Self { spec, values: Box::new(Vec::<T>::new()), older: Vec::new() }
    }

    pub(crate) fn broadcast<K: Data + Ord, V: Data>(name: &str) -> Self {
        let (shape, older) = (Shape::trace::<(K, V)>(), Vec::new());
        let spec =
            ListSpec { name: name.to_owned(), redistribution: Redistribution::Broadcast, shape, older };
        Self { spec, values: Box::new(BTreeMap::<K, V>::new()), older: Vec::new() }
    }

    /// A list whose elements may be stored as older types.
    pub(crate) fn migrating<T: Data>(
        name: &str,
        redistribution: Redistribution,
        migration: Migration<T>,
    ) -> Self {
        let mut slot = Self::list::<T>(name, redistribution);
        for (shape, read) in migration.into_versions() {
            slot.spec.older.push(shape);
            slot.older.push(Box::new(move |list, element| {
                elements_mut::<Vec<T>>(list).push(read(element)?);
                Ok(())
            }));
        }
        slot
    }

    /// A map whose values may be stored as older types.
    pub(crate) fn migrating_broadcast<K: Data + Ord, V: Data>(name: &str, migration: Migration<V>) -> Self {
        let mut slot = Self::broadcast::<K, V>(name);
        for (shape, read) in migration.into_versions() {
            slot.spec.older.push(Shape::Tuple(vec![Shape::trace::<K>(), shape]));
            slot.older.push(Box::new(move |map, entry| {
                let mut value = entry;
                let key: K = Bincode::decode_first(&mut value)?;
                elements_mut::<BTreeMap<K, V>>(map).insert(key, read(value)?);
                Ok(())
            }));
        }
        slot
    }

    /// The elements as they were declared: a list of them or a map.
    pub(crate) fn elements<C: Any>(&self) -> &C {
        self.values.as_any().downcast_ref().expect("a handle has the type of its declaration")
    }

    /// The same, to change.
    pub(crate) fn elements_mut<C: Any>(&mut self) -> &mut C {
        elements_mut(&mut *self.values)
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
        let version = self.spec.accepts(part)?;
        for element in part.elements.iter() {
            let restored = match version {
                Version::Declared => self.values.restore(element),
                Version::Older(older) => {
                    let take = &self.older[older];
                    let taken = guard::catch(|| take(&mut *self.values, element));
                    taken.map_err(|error| migration_failed(error, part, element))
                }
            };
            restored.map_err(|error| error.context(format!("list state {:?}", self.spec.name)))?;
        }
        Ok(())
    }
}

fn elements_mut<C: Any>(list: &mut dyn AnyList) -> &mut C {
    list.as_any_mut().downcast_mut().expect("a handle has the type of its declaration")
}

/// Whatever kind of error it is: a restart would come to the same end.
fn migration_failed(error: Error, part: &ListPart, element: &[u8]) -> Error {
    /// Of a long element so many characters say which one it is.
    const SHOWN: usize = 100;
    let read =
        Shape::from_bytes(&part.shape).and_then(|shape| ShapedValue::decode(&shape, &part.codec, element));
    let text = match (part.redistribution, read) {
        (Redistribution::Broadcast, Ok(ShapedValue::Tuple(entry))) if entry.len() == 2 => {
            format!("key {}", entry[0])
        }
        (_, Ok(element)) => format!("element {element}"),
        (_, Err(_)) => "an element".to_owned(),
    };
    let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
    let text: String = text.chars().take(SHOWN).collect();
    error
        .with_kind(ErrorKind::IncompatibleState)
        .context(format!("{text}{more}: its migration"))
        .with_advice("nothing was changed: mend the migration, or start the program that wrote the snapshot")
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

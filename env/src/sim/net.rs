//! The simulated network: byte pipes between processes, under the addresses at which they listen.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;
use types::{Error, Result};

use crate::{Connection, Listener};

/// Bytes on the way in one direction before the writer waits.
const PIPE: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

type Incoming = mpsc::Sender<Box<dyn Connection>>;

#[derive(Default)]
pub(super) struct Network {
    listeners: Mutex<BTreeMap<String, Incoming>>,
}

impl Network {
    pub(super) fn listen(&self, address: &str) -> Result<Listener> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(address).is_some_and(|incoming| !incoming.is_closed()) {
            let in_use = io::ErrorKind::AddrInUse.into();
            return Err(Error::io(format!("cannot listen at {address}"), in_use));
        }
        let (incoming, accepted) = mpsc::channel(BACKLOG);
        listeners.insert(address.to_owned(), incoming);
        Ok(Listener::Simulated(accepted))
    }

    pub(super) fn connect(&self, address: &str) -> Result<Box<dyn Connection>> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = || Error::retryable(format!("cannot connect to {address}: connection refused"));
        let incoming = listeners.get(address).ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(PIPE);
        incoming.try_send(Box::new(far)).map_err(|_| refused())?;
        Ok(Box::new(near))
    }
}

//! A one-way link for messages between JobManager and TaskManager inside one process. Messages are encoded on one side
//! and decoded on the other, so that nothing but bytes is shared: what works here works over a socket.

use std::marker::PhantomData;

use env::{Env, Limits, Message, Receiver, Sender, channel};
use serde::{Serialize, de::DeserializeOwned};
use types::{Bincode, Codec, Error, Result};

/// Messages that may wait in a link. A slow reader holds up its writer, never the memory.
const WAITING: usize = 1024;

/// The writing end.
pub(crate) struct LinkSender<T> {
    bytes: Sender<Message<Vec<u8>>>,
    message: PhantomData<fn(T)>,
}

impl<T> Clone for LinkSender<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), message: PhantomData }
    }
}

/// The reading end.
pub(crate) struct LinkReceiver<T> {
    bytes: Receiver<Message<Vec<u8>>>,
    message: PhantomData<fn() -> T>,
}

/// A new link.
pub(crate) fn link<T>(env: &Env) -> (LinkSender<T>, LinkReceiver<T>) {
    let (sender, receiver) = channel(env, Limits::items(WAITING));
    (
        LinkSender { bytes: sender, message: PhantomData },
        LinkReceiver { bytes: receiver, message: PhantomData },
    )
}

impl<T: Serialize> LinkSender<T> {
    /// Sends a message; waits while the link is full.
    ///
    /// # Errors
    /// `Internal` if the other side is gone or the message cannot be encoded.
    pub(crate) async fn send(&self, message: &T) -> Result<()> {
        let mut bytes = Vec::new();
        Bincode::encode(message, &mut bytes)?;
        self.bytes.send(Message(bytes)).await.map_err(|_| Error::internal("the other side of a link is gone"))
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.bytes.is_closed()
    }
}

impl<T: DeserializeOwned> LinkReceiver<T> {
    /// The next message; `None` when the other side is gone. Cancel-safe.
    ///
    /// # Errors
    /// `Internal` if a message cannot be decoded.
    pub(crate) async fn recv(&mut self) -> Result<Option<T>> {
        match self.bytes.recv().await {
            Some(Message(bytes)) => Bincode::decode(&bytes).map(Some),
            None => Ok(None),
        }
    }
}

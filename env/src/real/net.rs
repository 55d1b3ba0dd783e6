//! TCP.

use tokio::net::{TcpListener, TcpStream};
use types::{Error, Result};

use crate::{Connection, Listener};

pub(super) async fn connect(address: &str) -> Result<Box<dyn Connection>> {
    let failed = |error| Error::io(format!("cannot connect to {address}"), error);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // Frames are written whole: waiting for more would only delay barriers.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(Box::new(stream))
}

pub(super) async fn listen(address: &str) -> Result<Listener> {
    let bound = TcpListener::bind(address).await;
    Ok(Listener::Tcp(bound.map_err(|error| Error::io(format!("cannot listen at {address}"), error))?))
}

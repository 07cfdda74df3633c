//! Messages into an event loop from other threads.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::Stream;
use crate::buffer::{Buf, Class};

/// The sending side; cheap to clone, used by any thread.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<VecDeque<T>>,
    bell: UnixStream,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Sender<T> {
    /// Queues a message and wakes its reader.
    pub fn send(&self, message: T) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        // A full socket means that the reader has wake-ups waiting; a closed one, that it is gone.
        let _rung = (&self.shared.bell).write(&[1]);
    }
}

/// The reading side, moved into the thread that reads.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    bell: UnixStream,
}

/// The same inside its event loop.
#[derive(Debug)]
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
    bell: Stream,
}

/// A queue into an event loop.
pub fn mailbox<T>() -> io::Result<(Sender<T>, Receiver<T>)> {
    let (ring, hear) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    hear.set_nonblocking(true)?;
    let shared = Arc::new(Shared { queue: Mutex::new(VecDeque::new()), bell: ring });
    Ok((Sender { shared: Arc::clone(&shared) }, Receiver { shared, bell: hear }))
}

impl<T> Receiver<T> {
    /// Ties it to this thread's event loop.
    pub fn open(self) -> io::Result<Inbox<T>> {
        Ok(Inbox { shared: self.shared, bell: Stream::new(self.bell.into())? })
    }
}

impl<T> Inbox<T> {
    /// The next message.
    pub async fn next(&mut self) -> io::Result<T> {
        loop {
            let message = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(message) = message {
                return Ok(message);
            }
            self.bell.rd.readable().await?;
            let (read, _buf) = self.bell.rd.read(Buf::new(Class::Head)).await;
            if read? == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

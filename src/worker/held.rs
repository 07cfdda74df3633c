//! Places in limits on what is under way, as a core's connections and requests hold them.

use std::rc::Rc;
use std::sync::Arc;

use crate::snapshot::{Admission, Concurrency};

/// A table as a core has it: who holds a place holds this, so that cores share the table's words and no count of who
/// uses it.
pub(super) type Table = Rc<Arc<Concurrency>>;

/// Something under way that is counted; it is over when this is dropped, whatever has ended it.
#[derive(Debug)]
pub struct Held {
    table: Table,
    place: u32,
}

/// Whether something that goes on is counted.
#[derive(Debug)]
pub enum Counting {
    /// No limit concerns it.
    Unlimited,
    /// It is.
    Counted(Held),
    /// There is no place for its key.
    Full,
}

/// There is as much under way as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtLimit;

impl Held {
    /// One more of a key.
    pub(super) fn take(table: &Table, key: &[u8], limit: u32) -> Result<Counting, AtLimit> {
        match table.take(key, limit) {
            Admission::Counted(place) => Ok(Counting::Counted(Self { table: Rc::clone(table), place })),
            Admission::Uncounted => Ok(Counting::Full),
            Admission::Refused => Err(AtLimit),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.release(self.place);
    }
}

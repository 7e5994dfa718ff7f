//! Faults on demand, so that tests can make a disk fail where they want.

use std::fmt::Debug;
use std::path::Path;

use crate::error::Result;

/// Where a fault can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before bytes are written.
    Write,
    /// Before a file's content is synced.
    Sync,
    /// Before a folder is synced.
    SyncFolder,
    /// Before an upload gets its key.
    Link,
    /// Before a file is opened for reading.
    Read,
}

/// Decides what fails. Called on the I/O threads, so it may also just take long.
pub trait Fault: Send + Sync + Debug {
    /// An error here happens instead of the operation.
    fn at(&self, point: Point, path: &Path) -> Result<()>;
}

/// Nothing fails but what fails by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFault;

impl Fault for NoFault {
    fn at(&self, _: Point, _: &Path) -> Result<()> {
        Ok(())
    }
}

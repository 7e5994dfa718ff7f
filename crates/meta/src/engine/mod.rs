//! Engines: what runs operations. Nothing of a database's own may be known outside of its folder here.

pub(crate) mod postgres;
pub(crate) mod sqlite;

//! What goes into a statement and what comes out, the same for every engine.
//!
//! Used by operations and engines only. Parameters borrow from the operation, so that a manifest's bytes are not
//! copied on their way into the store; results are owned.

use std::fmt;

use wharf_oci::{Digest, RepositoryName, Tag};

use crate::error::{Error, Result};

/// A row's id: 16 bytes, a version 7 UUID made by [`crate::Tx::id`], so that new rows sort last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 16]);

impl Id {
    /// A fresh one that sorts by `at` (milliseconds since 1970).
    pub(crate) fn new(at: i64) -> Id {
        let ms = u64::try_from(at).unwrap_or(0);
        let time =
            uuid::Timestamp::from_unix(uuid::NoContext, ms / 1000, (ms % 1000) as u32 * 1_000_000);
        Id(uuid::Uuid::new_v7(time).into_bytes())
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Id {
        Id(bytes)
    }

    /// The bytes as stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(uuid::Uuid::from_bytes_ref(&self.0), f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub enum Val<'a> {
    /// NULL of whatever type the statement expects.
    Null,
    /// BIGINT.
    Int(i64),
    /// TEXT.
    Text(&'a str),
    /// BYTEA.
    Bytes(&'a [u8]),
}

impl From<i64> for Val<'_> {
    fn from(value: i64) -> Self {
        Val::Int(value)
    }
}

impl From<u32> for Val<'_> {
    fn from(value: u32) -> Self {
        Val::Int(value.into())
    }
}

impl From<u64> for Val<'_> {
    /// Saturates: no store holds 2^63 bytes, but a manifest may claim so.
    fn from(value: u64) -> Self {
        Val::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Val<'_> {
    /// As 0 or 1: the schema has no BOOLEAN, which SQLite lacks.
    fn from(value: bool) -> Self {
        Val::Int(value.into())
    }
}

impl<'a> From<&'a str> for Val<'a> {
    fn from(value: &'a str) -> Self {
        Val::Text(value)
    }
}

impl<'a> From<&'a String> for Val<'a> {
    fn from(value: &'a String) -> Self {
        Val::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Val<'a> {
    fn from(value: &'a [u8]) -> Self {
        Val::Bytes(value)
    }
}

impl<'a> From<&'a Vec<u8>> for Val<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Val::Bytes(value)
    }
}

impl<'a> From<&'a Id> for Val<'a> {
    fn from(value: &'a Id) -> Self {
        Val::Bytes(&value.0)
    }
}

impl<'a> From<&'a Digest> for Val<'a> {
    fn from(value: &'a Digest) -> Self {
        Val::Text(value.as_str())
    }
}

impl<'a> From<&'a RepositoryName> for Val<'a> {
    fn from(value: &'a RepositoryName) -> Self {
        Val::Text(value.as_str())
    }
}

impl<'a> From<&'a Tag> for Val<'a> {
    fn from(value: &'a Tag) -> Self {
        Val::Text(value.as_str())
    }
}

impl<'a, T: Into<Val<'a>>> From<Option<T>> for Val<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Val::Null, Into::into)
    }
}

/// The parameters of a statement: `vals![name, at]` for `$1, $2`.
#[macro_export]
macro_rules! vals {
    ($($value:expr),* $(,)?) => { &[$($crate::Val::from($value)),*] };
}

/// A value of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cell {
    /// NULL, or a value that was already taken.
    #[default]
    Null,
    /// BIGINT.
    Int(i64),
    /// TEXT.
    Text(String),
    /// BYTEA.
    Bytes(Vec<u8>),
}

/// A row of a result. Values are taken out by position, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(Vec<Cell>);

impl Row {
    /// A row of these values.
    pub fn new(cells: Vec<Cell>) -> Row {
        Row(cells)
    }

    /// All its values.
    pub fn into_cells(self) -> Vec<Cell> {
        self.0
    }

    fn take(&mut self, at: usize) -> Cell {
        self.0.get_mut(at).map(std::mem::take).unwrap_or_default()
    }

    /// A BIGINT.
    pub fn int(&mut self, at: usize) -> Result<i64> {
        match self.take(at) {
            Cell::Int(value) => Ok(value),
            other => Err(unexpected(at, "BIGINT", &other)),
        }
    }

    /// A BIGINT or NULL.
    pub fn opt_int(&mut self, at: usize) -> Result<Option<i64>> {
        match self.take(at) {
            Cell::Null => Ok(None),
            Cell::Int(value) => Ok(Some(value)),
            other => Err(unexpected(at, "BIGINT or NULL", &other)),
        }
    }

    /// A BIGINT that counts something.
    pub fn size(&mut self, at: usize) -> Result<u64> {
        let value = self.int(at)?;
        u64::try_from(value)
            .map_err(|_| Error::Corrupt(format!("column {at} holds a negative size")))
    }

    /// A BIGINT used as a truth value.
    pub fn flag(&mut self, at: usize) -> Result<bool> {
        Ok(self.int(at)? != 0)
    }

    /// A TEXT.
    pub fn text(&mut self, at: usize) -> Result<String> {
        match self.take(at) {
            Cell::Text(value) => Ok(value),
            other => Err(unexpected(at, "TEXT", &other)),
        }
    }

    /// A TEXT or NULL.
    pub fn opt_text(&mut self, at: usize) -> Result<Option<String>> {
        match self.take(at) {
            Cell::Null => Ok(None),
            Cell::Text(value) => Ok(Some(value)),
            other => Err(unexpected(at, "TEXT or NULL", &other)),
        }
    }

    /// A BYTEA.
    pub fn bytes(&mut self, at: usize) -> Result<Vec<u8>> {
        match self.take(at) {
            Cell::Bytes(value) => Ok(value),
            other => Err(unexpected(at, "BYTEA", &other)),
        }
    }

    /// A BYTEA or NULL.
    pub fn opt_bytes(&mut self, at: usize) -> Result<Option<Vec<u8>>> {
        match self.take(at) {
            Cell::Null => Ok(None),
            Cell::Bytes(value) => Ok(Some(value)),
            other => Err(unexpected(at, "BYTEA or NULL", &other)),
        }
    }

    /// An id.
    pub fn id(&mut self, at: usize) -> Result<Id> {
        let bytes = self.bytes(at)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| Error::Corrupt(format!("column {at} holds an id of another length")))?;
        Ok(Id(bytes))
    }

    /// A digest.
    pub fn digest(&mut self, at: usize) -> Result<Digest> {
        Digest::parse(&self.text(at)?)
            .map_err(|e| Error::Corrupt(format!("column {at} holds a digest that is none: {e}")))
    }

    /// A digest or NULL.
    pub fn opt_digest(&mut self, at: usize) -> Result<Option<Digest>> {
        let text = self.opt_text(at)?;
        let parsed = text.as_deref().map(Digest::parse).transpose();
        parsed.map_err(|e| Error::Corrupt(format!("column {at} holds a digest that is none: {e}")))
    }

    /// A repository's name.
    pub fn repository(&mut self, at: usize) -> Result<RepositoryName> {
        RepositoryName::parse(&self.text(at)?).map_err(|e| {
            Error::Corrupt(format!(
                "column {at} holds a repository name that is none: {e}"
            ))
        })
    }
}

/// Names the kind of value only: the value itself may be a secret.
fn unexpected(at: usize, wanted: &str, got: &Cell) -> Error {
    let got = match got {
        Cell::Null => "NULL",
        Cell::Int(_) => "BIGINT",
        Cell::Text(_) => "TEXT",
        Cell::Bytes(_) => "BYTEA",
    };
    Error::Corrupt(format!("column {at} should hold {wanted} and holds {got}"))
}

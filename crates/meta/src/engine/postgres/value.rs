//! Parameters and results on the wire. The schema knows BIGINT, TEXT and BYTEA only.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

use crate::error::{Error, Result};
use crate::value::{Cell, Row, Val};

type Boxed = Box<dyn StdError + Sync + Send>;

/// The type that a parameter is announced with, so that the server never has to guess one from a literal beside it.
pub(super) fn type_of(value: &Val<'_>) -> Type {
    match value {
        Val::Null => Type::UNKNOWN,
        Val::Int(_) => Type::INT8,
        Val::Text(_) => Type::TEXT,
        Val::Bytes(_) => Type::BYTEA,
    }
}

impl ToSql for Val<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match self {
            Val::Null => return Ok(IsNull::Yes),
            Val::Int(value) if *ty == Type::INT4 => out.put_i32(i32::try_from(*value)?),
            Val::Int(value) => out.put_i64(*value),
            // PostgreSQL has no NUL in text. What clients send to look something up may hold one: it becomes the next
            // character, which no name holds either and which sorts the same way among names.
            Val::Text(text) if text.contains('\0') => {
                out.put_slice(text.replace('\0', "\u{1}").as_bytes());
            }
            Val::Text(text) => out.put_slice(text.as_bytes()),
            Val::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        self.to_sql(ty, out)
    }
}

impl FromSql<'_> for Cell {
    fn from_sql(ty: &Type, raw: &[u8]) -> Result<Cell, Boxed> {
        Ok(match *ty {
            Type::INT8 => Cell::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Cell::Int(i32::from_sql(ty, raw)?.into()),
            Type::BOOL => Cell::Int(bool::from_sql(ty, raw)?.into()),
            Type::BYTEA => Cell::Bytes(raw.to_vec()),
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN => {
                Cell::Text(std::str::from_utf8(raw)?.to_owned())
            }
            _ => return Err(format!("a column of type {ty}, which no operation may give").into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Cell, Boxed> {
        Ok(Cell::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row as operations see it.
pub(super) fn row(row: &tokio_postgres::Row) -> Result<Row> {
    (0..row.len())
        .map(|at| row.try_get::<_, Cell>(at))
        .collect::<Result<Vec<Cell>, _>>()
        .map(Row::new)
        .map_err(|e| Error::Bug {
            op: "statement".to_owned(),
            reason: e.to_string(),
        })
}

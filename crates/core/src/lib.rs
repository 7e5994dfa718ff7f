//! Under construction.

pub mod access;

//! Shared tests of every engine.

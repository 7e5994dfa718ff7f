//! The words of the registry protocol: digests, names, tags, manifests, ranges, scopes, challenges, error codes.
//!
//! Every other crate speaks in these types, so that a string is checked once, where it enters, and never again.
//! This crate is pure: it does no input or output, awaits nothing, reads no clock and keeps no global state.
//! Item ids such as `UP-21` refer to the protocol checklist in `docs/reference/conformance.md`.

pub mod auth;
pub mod descriptor;
pub mod digest;
pub mod error;
mod json;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod percent;
pub mod range;
pub mod reference;
pub mod referrers;
pub mod tag;
mod text;

pub use auth::{Authorization, Challenge, Scope};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{ErrorCode, ErrorEntry};
pub use manifest::{Edge, EdgeKind, Kind, Limits, Manifest, ManifestError};
pub use name::{NameError, RepositoryName};
pub use range::{ContentRange, RangeRequest, Span};
pub use reference::{Reference, ReferenceError};
pub use referrers::ReferrerDescriptor;
pub use tag::{Tag, TagError};

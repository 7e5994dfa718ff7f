//! Configuration: one documented struct per section, read from a TOML file, the environment and flags.
//!
//! Called by the commands in `cli` and by `app`. Keys are written once, in [`sections`]; everything else here works on
//! their outline. Must never start anything, and never shows a secret.

mod convert;
mod ldap;
pub mod load;
pub(crate) mod nearest;
mod object;
#[cfg(test)]
mod oidc_tests;
pub mod problem;
mod rate;
pub mod reload;
pub mod render;
pub mod section;
pub mod sections;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod value;

pub use ldap::{LdapFilter, LdapUrl};
pub use load::{FlagValue, Inputs, Loaded, Sources, load};
pub use problem::{Problem, Problems, Source};
pub use rate::{ByteRate, RequestRate};
pub use sections::*;
pub use value::{ExternalUrl, HttpUrl, ProxyUrl, RepositoryPrefix, Secret, Size, TrustedProxy};

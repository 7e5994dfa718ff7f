//! Who may do what: principals, roles, grants, passwords and tokens.
//!
//! The server asks twice per request: [`Access::authenticate`] turns credentials into a [`Caller`], and
//! [`Policy::decide`] turns caller, permission and repository into a [`Decision`], before anything is looked up. Both
//! answer from memory once warm. Nothing here knows HTTP, and no secret ever reaches a log, an error or `Debug`.
//! `docs/explanation/access.md` tells the whole model.

mod decide;
mod policy;
mod principal;
mod role;

pub use decide::{Decision, INSUFFICIENT_SCOPE, INVALID_TOKEN, scope_for};
pub use policy::{ADMIN, Grant, GrantError, Policy, Who};
pub use principal::{ANONYMOUS, Caller, Principal, Source};
pub use role::{Permission, Permissions, Role, RoleError};

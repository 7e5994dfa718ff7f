//! The figures, one file each, named after what is done.

mod layer_push;
mod manifest_get;

use super::figure::Figure;

/// All of them, in the order of the issue.
pub(crate) fn all() -> Vec<Figure> {
    vec![manifest_get::figure(), layer_push::figure()]
}

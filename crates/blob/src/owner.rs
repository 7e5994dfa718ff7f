//! Whose place it is: a mark that names the installation, in a bucket or a folder that several processes use.
//!
//! Asked at a start and by `wharf config check --online`. Nothing is written into a place that is not empty and has no mark,
//! nor into one with another mark.

/// Name of the mark.
pub(crate) const MARK: &str = "wharf-installation";

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned {
    /// The place has this installation's mark.
    Ours,
    /// The place is empty.
    Free,
}

/// Why the place cannot be used: one sentence with the key to look at and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OwnerError(pub String);

/// A place for blobs that belongs to one installation.
pub trait Ground: Sync {
    /// Looks whether the place is there, readable, and free or this installation's.
    fn owned_by(
        &self,
        installation: &str,
    ) -> impl Future<Output = Result<Owned, OwnerError>> + Send;

    /// Looks at it on behalf of nobody: whose mark it has, `None` when it is empty.
    fn owner(&self) -> impl Future<Output = Result<Option<String>, OwnerError>> + Send;

    /// Marks a free place as this installation's; of two that try at once, one gets it.
    fn take(&self, installation: &str) -> impl Future<Output = Result<(), OwnerError>> + Send;

    /// Asks whether a place that has this installation's mark may be written to, and changes nothing. `false`: it does not say.
    fn is_writable(
        &self,
        installation: &str,
    ) -> impl Future<Output = Result<bool, OwnerError>> + Send;

    /// What it is, in a word, and the key that names it.
    fn place(&self) -> (&'static str, String);
}

/// Whether it can be a mark: any short word.
pub(crate) fn is_mark(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_no_mark() {
        assert!(is_mark("0b5c6a2e-7d0a-4c0e-9e55-6d1d6f4f2f11") && is_mark("one"));
        assert!(!is_mark("") && !is_mark("<html>") && !is_mark("something that is no mark"));
    }
}

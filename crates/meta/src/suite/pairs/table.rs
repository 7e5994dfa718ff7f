//! How pairs are written down. A page with pairs has a function `look`, which gives what is seen of a run.

macro_rules! pairs {
    ($($name:literal: |$meta:ident, $label:ident| $prepare:expr; $one:expr; $other:expr;)*) => {
        /// Those of this page.
        pub(super) const PAIRS: &[$crate::suite::pairs::Pair] = &[$($crate::suite::pairs::Pair {
            name: $name,
            prepare: |$meta, $label| $crate::suite::pairs::doing(async move { $prepare; String::new() }),
            one: |$meta, $label| $crate::suite::pairs::doing(async move { $one.await }),
            other: |$meta, $label| $crate::suite::pairs::doing(async move { $other.await }),
            seen: |meta, label| $crate::suite::pairs::doing(async move { look(&meta, &label).await.join("\n") }),
        }),*];
    };
}

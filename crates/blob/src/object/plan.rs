//! How large the parts of an upload are.
//!
//! An object store takes ten thousand parts of one object. All have one size, since some stores (R2) take nothing else,
//! as long as the blob's length was announced or stays below 5,000 parts. Beyond that, where nobody could know, each
//! further thousand doubles the size; by the default size of 8 MiB that begins at 39 GiB and ends at 523 GiB.

/// Parts that an object store takes for one object.
pub(super) const PARTS: u64 = 10_000;

/// From this part on sizes grow.
const UNIFORM: u64 = 5_000;

/// Parts between two doublings.
const STEP: u64 = 1_000;

const MIB: u64 = 1 << 20;

/// Size of part `number`, counted from 0, of an upload whose first part has `first` bytes.
pub(super) fn size(first: u64, number: u64) -> u64 {
    match number.checked_sub(UNIFORM) {
        None => first,
        Some(beyond) => first << (1 + beyond / STEP).min(20),
    }
}

/// Size of the first part: `least`, or more when the whole length is known not to fit into uniform parts of that.
pub(super) fn first(least: u64, expected: Option<u64>) -> u64 {
    let needed = expected.unwrap_or(0).div_ceil(UNIFORM);
    least.max(needed.next_multiple_of(MIB))
}

/// The largest blob whose length is not known beforehand.
pub(super) fn most(first: u64) -> u64 {
    (UNIFORM..PARTS).fold(UNIFORM * first, |sum, number| sum + size(first, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_length_gives_uniform_parts_that_suffice() {
        for length in [0, 1, 8 * MIB, 40_000 * MIB, 1 << 40, (1 << 40) + 1] {
            let first = first(8 * MIB, Some(length));
            assert!(first.is_multiple_of(MIB) && first >= 8 * MIB);
            assert!(
                length.div_ceil(first) <= UNIFORM,
                "{length} in parts of {first}"
            );
        }
        assert_eq!(first(8 * MIB, Some(39 << 30)), 8 * MIB);
        assert_eq!(first(8 * MIB, None), 8 * MIB);
    }

    #[test]
    fn an_unknown_length_gives_growing_parts_up_to_the_documented_cap() {
        assert_eq!(size(8 * MIB, UNIFORM - 1), 8 * MIB);
        assert_eq!(size(8 * MIB, UNIFORM), 16 * MIB);
        assert_eq!(size(8 * MIB, PARTS - 1), 256 * MIB);
        assert_eq!(most(8 * MIB) >> 30, 523);
        let sizes = (0..PARTS).map(|number| size(8 * MIB, number));
        assert_eq!(sizes.sum::<u64>(), most(8 * MIB));
    }
}

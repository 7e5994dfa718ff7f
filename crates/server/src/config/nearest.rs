//! Finds the name that somebody probably meant.

/// The candidate that differs least from `text`, if it is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (text.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().flat_map(char::to_lowercase).collect();
    let to: Vec<char> = to.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, left) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, right) in to.iter().enumerate() {
            let mut best = (last[column] + usize::from(left != right))
                .min(last[column + 1] + 1)
                .min(next[column] + 1);
            if row > 0 && column > 0 && *left == to[column - 1] && from[row - 1] == *right {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("lsiten", "listen"), 1);
        assert_eq!(distance("listne", "listen"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("Listen", "listen"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["data", "listen", "external_url"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("external-url", keys), Some("external_url"));
        assert_eq!(nearest("password", keys), None);
        assert_eq!(nearest("x", keys), None);
    }
}

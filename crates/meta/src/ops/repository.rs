//! Repositories: made by the first push, listed bytewise.

use wharf_oci::RepositoryName;

use crate::error::{Error, Result};
use crate::tx::{Counter, Op, ReadOp, Tx};
use crate::vals;
use crate::value::Id;

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its row.
    pub id: Id,
    /// Its name.
    pub name: RepositoryName,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// The repository with a name. Cost: one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// The name.
    pub name: RepositoryName,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<Repository>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, created_at FROM repository WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        row.map(|mut row| {
            Ok(Repository {
                id: row.id(0)?,
                name: self.name.clone(),
                created_at: row.int(1)?,
            })
        })
        .transpose()
    }
}

/// A page of names in bytewise order. Cost: the rows given, and one search for each prefix that is passed through.
#[derive(Clone, Debug)]
pub struct List {
    /// The last name of the page before; it need not exist.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Only repositories within one of these prefixes, as [`RepositoryName::is_within`] means it; `None`: all. The
    /// empty prefix is everything.
    pub within: Option<Vec<String>>,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<String>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let after = self.after.as_deref().unwrap_or("");
        let everything = self
            .within
            .as_ref()
            .is_none_or(|prefixes| prefixes.iter().any(String::is_empty));
        if everything {
            let rows = tx
                .query(
                    "SELECT name FROM repository WHERE name > $1 ORDER BY name LIMIT $2",
                    vals![after, self.limit],
                )
                .await?;
            return rows.into_iter().map(|mut row| row.text(0)).collect();
        }
        let limit = self.limit as usize;
        let mut names = Vec::new();
        for (low, high) in ranges_after(self.within.as_deref(), Some(after)) {
            if names.len() >= limit {
                break;
            }
            let left = (limit - names.len()) as u64;
            let rows = tx
                .query(
                    "SELECT name FROM repository WHERE name >= $1 AND name < $2 ORDER BY name LIMIT $3",
                    vals![&low, &high, left],
                )
                .await?;
            for mut row in rows {
                names.push(row.text(0)?);
            }
        }
        Ok(names)
    }
}

/// [`ranges`] as far as they lie after a name; without prefixes one range of everything.
///
/// A range starts at its low end itself, a page after `after`: one bound, since of two SQLite would follow the first and pass
/// over what lies before the second.
pub(crate) fn ranges_after(
    prefixes: Option<&[String]>,
    after: Option<&str>,
) -> Vec<(String, String)> {
    let after = after.unwrap_or("");
    let mut found = match prefixes {
        Some(prefixes) if !prefixes.iter().any(String::is_empty) => ranges(prefixes),
        // No name holds a `~`, or anything that sorts behind it.
        _ => vec![(String::new(), "~".to_owned())],
    };
    found.retain(|(_, high)| high.as_str() > after);
    for (low, _) in &mut found {
        if low.as_str() <= after && !after.is_empty() {
            *low = format!("{after}\u{1}");
        }
    }
    found
}

/// The half-open ranges of names that are within the prefixes, in order and without overlap.
///
/// "a" holds "a" and "a/…" but not "a-b", which sorts between the two: hence two ranges for each prefix.
fn ranges(prefixes: &[String]) -> Vec<(String, String)> {
    let mut prefixes: Vec<&str> = prefixes.iter().map(|p| p.trim_end_matches('/')).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut ranges = Vec::with_capacity(prefixes.len() * 2);
    for prefix in &prefixes {
        let covered = prefix
            .match_indices('/')
            .any(|(at, _)| prefixes.binary_search(&&prefix[..at]).is_ok());
        if !covered {
            // The least text behind the prefix that PostgreSQL takes; no name holds the character.
            ranges.push(((*prefix).to_owned(), format!("{prefix}\u{1}")));
            // '0' follows '/'.
            ranges.push((format!("{prefix}/"), format!("{prefix}0")));
        }
    }
    ranges.sort_unstable();
    ranges
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Repositories.
    pub repositories: u64,
    /// Live manifests, each counted in every repository that holds it.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Live blobs, each counted once.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Open uploads.
    pub uploads: u64,
}

/// Reads the totals. Cost: one row for each counter and for each change that [`super::counter::Fold`] has not seen.
#[derive(Clone, Copy, Debug)]
pub struct GetTotals;

impl ReadOp for GetTotals {}
impl Op for GetTotals {
    type Out = Totals;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Totals> {
        let mut sums = [0_i64; Counter::ALL.len()];
        for mut row in tx
            .query(
                "SELECT name, value FROM counter UNION ALL \
                 SELECT name, CAST(SUM(delta) AS BIGINT) FROM counter_delta GROUP BY name",
                &[],
            )
            .await?
        {
            let name = row.text(0)?;
            // A newer binary counts more.
            if let Some(counter) = Counter::ALL.into_iter().find(|c| c.as_str() == name) {
                sums[counter.index()] += row.int(1)?;
            }
        }
        let sum = |counter: Counter| u64::try_from(sums[counter.index()]).unwrap_or(0);
        Ok(Totals {
            repositories: sum(Counter::Repositories),
            manifests: sum(Counter::Manifests),
            tags: sum(Counter::Tags),
            blobs: sum(Counter::Blobs),
            blob_bytes: sum(Counter::BlobBytes),
            uploads: sum(Counter::Uploads),
        })
    }
}

/// The row of a repository that may not exist.
pub(crate) async fn find<T: Tx>(tx: &mut T, name: &RepositoryName) -> Result<Option<Id>> {
    let row = tx
        .row("SELECT id FROM repository WHERE name = $1", vals![name])
        .await?;
    row.map(|mut row| row.id(0)).transpose()
}

/// The name of a repository.
pub(crate) async fn name<T: Tx>(tx: &mut T, id: &Id) -> Result<Option<RepositoryName>> {
    let row = tx
        .row("SELECT name FROM repository WHERE id = $1", vals![id])
        .await?;
    row.map(|mut row| row.repository(0)).transpose()
}

/// The row of a repository, made if it does not exist.
pub(crate) async fn ensure<T: Tx>(tx: &mut T, name: &RepositoryName, at: i64) -> Result<Id> {
    if let Some(id) = find(tx, name).await? {
        return Ok(id);
    }
    let id = tx.id(at);
    let made = tx
        .exec(
            "INSERT INTO repository (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
            vals![&id, name, at],
        )
        .await?;
    if made == 1 {
        tx.count(Counter::Repositories, 1).await?;
        return Ok(id);
    }
    // Another transaction made it in between; it is committed, or the insert would have waited.
    find(tx, name)
        .await?
        .ok_or_else(|| Error::Busy("a repository was made and removed at once".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefixes: &[&str]) -> Vec<(String, String)> {
        ranges(&prefixes.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    /// A name is in exactly one range if some prefix holds it, and in none otherwise.
    #[test]
    fn ranges_are_the_prefixes() {
        let sets: [&[&str]; 5] = [
            &["a"],
            &["a", "a/b"],
            &["a-b", "a"],
            &["a/b", "a/b/c", "a/b-c"],
            &["b", "a", "b"],
        ];
        let names = [
            "a", "a-b", "a-b/c", "a/b", "a/b-c", "a/b-c/d", "a/b/c", "a/b/c/d", "a/bc", "a0", "ab",
            "b", "b/a",
        ];
        for set in sets {
            let ranges = of(set);
            assert!(ranges.is_sorted(), "{ranges:?}");
            for name in names {
                let parsed = RepositoryName::parse(name).unwrap();
                let expected = usize::from(set.iter().any(|prefix| parsed.is_within(prefix)));
                let found = ranges
                    .iter()
                    .filter(|(low, high)| low.as_str() <= name && name < high.as_str())
                    .count();
                assert_eq!(found, expected, "{name} in {set:?}");
            }
        }
    }
}

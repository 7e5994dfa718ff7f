//! Tags: names that move (specification §1.8, §1.10).

use wharf_meta::{Meant, ReadOp, tag as rows};
use wharf_oci::{Reference, RepositoryName, Tag};

use crate::access::{TagView, after};
use crate::error::{Error, Result};
use crate::registry::Registry;

/// One page of a listing, in bytewise order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The names on this page.
    pub names: Vec<String>,
    /// Where the next page begins, to be given as `last`, if there may be one: the last name, or a hidden place.
    pub next: Option<String>,
    /// So many names were to be on it at most.
    pub limit: u32,
}

impl Page {
    /// Cuts a listing that was asked for one name more than the page holds.
    pub(crate) fn cut(mut names: Vec<String>, limit: u32) -> Self {
        let more = names.len() > limit as usize;
        names.truncate(limit as usize);
        let next = names.last().filter(|_| more).cloned();
        Self { names, next, limit }
    }
}

/// The repository's tags after `last`, as far as they may be shown (TAGS-1 … TAGS-7). `limit` is clamped to `limits.page`.
pub async fn list(
    registry: &Registry,
    repository: &RepositoryName,
    view: &TagView,
    last: Option<&str>,
    limit: Option<u32>,
) -> Result<Page> {
    let limit = limit
        .unwrap_or(registry.limits.page)
        .min(registry.limits.page);
    let listing = Listing {
        registry,
        repository,
        view,
        limit,
    };
    let page = listing.page(last, |all| all, |part| part, String::as_str);
    let (mut names, mut next) = page.await?;
    // TAGS-3: a page of nothing has no next page.
    if limit == 0 {
        (names, next) = (Vec::new(), None);
    }
    Ok(Page { names, next, limit })
}

/// As [`list`], with where each stands, and where the next page begins.
pub async fn stand(
    registry: &Registry,
    repository: &RepositoryName,
    view: &TagView,
    last: Option<&str>,
    limit: u32,
) -> Result<(Vec<rows::Standing>, Option<String>)> {
    let listing = Listing {
        registry,
        repository,
        view,
        limit,
    };
    let pages = listing.page(
        last,
        rows::Stand,
        rows::StandBetween,
        |one: &rows::Standing| &one.name,
    );
    pages.await
}

/// Tags that are looked at for one page at most; behind that the next page goes on.
const MOST_LOOKED_AT: usize = 10_000;
/// Parts of a listing that are looked at for one page at most.
const MOST_LOOKS: usize = 40;
/// Tags that are looked at at once.
const AT_ONCE: usize = 500;
/// Comparisons of a tag with a pattern that are made at once, so that nobody waits for them for long.
const COMPARED_AT_ONCE: usize = 20_000;

/// A list of the tags that may be shown.
struct Listing<'a> {
    registry: &'a Registry,
    repository: &'a RepositoryName,
    view: &'a TagView,
    limit: u32,
}

impl Listing<'_> {
    /// A page of it, and where the next one begins: by one look at `all` tags, or by looks at a `part` of them.
    async fn page<R, A, P>(
        self,
        last: Option<&str>,
        all: impl Fn(rows::List) -> A,
        part: impl Fn(rows::Between) -> P,
        name: impl Fn(&R) -> &str,
    ) -> Result<(Vec<R>, Option<String>)>
    where
        A: ReadOp<Out = Option<Vec<R>>>,
        P: ReadOp<Out = Option<Vec<R>>>,
    {
        let places = &self.registry.access.places;
        let hidden = last.and_then(|last| places.find(self.repository, last));
        let from = match (hidden, self.view) {
            (Some(place), _) => place,
            (None, TagView::Matching(_)) => last.map(after).unwrap_or_default(),
            (None, TagView::All) => {
                let look = rows::List {
                    repository: self.repository.clone(),
                    after: last.map(str::to_owned),
                    limit: self.limit + 1,
                };
                let found = self.registry.meta.scan(all(look)).await?;
                let mut found = found.ok_or_else(|| Error::NameUnknown(self.repository.clone()))?;
                let more = found.len() > self.limit as usize;
                found.truncate(self.limit as usize);
                let next = found
                    .last()
                    .filter(|_| more)
                    .map(|last| name(last).to_owned());
                return Ok((found, next));
            }
        };
        self.among_others(from, part, name).await
    }

    /// A page of what may be shown among what may not. Where much lies between that must not be shown, it ends early, at a place
    /// that is hidden.
    async fn among_others<R, P>(
        self,
        mut from: String,
        look: impl Fn(rows::Between) -> P,
        name: impl Fn(&R) -> &str,
    ) -> Result<(Vec<R>, Option<String>)>
    where
        P: ReadOp<Out = Option<Vec<R>>>,
    {
        let Self {
            registry,
            repository,
            view,
            limit,
        } = self;
        let unknown = || Error::NameUnknown(repository.clone());
        let (limit, at_once) = (
            limit as usize,
            (COMPARED_AT_ONCE / view.patterns().max(1)).clamp(16, AT_ONCE),
        );
        let (mut found, mut looked_at, mut looks) = (Vec::new(), 0, 0);
        for (start, until) in view.ranges() {
            if until <= from {
                continue;
            }
            from = from.max(start);
            loop {
                if looked_at >= MOST_LOOKED_AT || looks == MOST_LOOKS {
                    return Ok((found, Some(registry.access.places.hide(repository, &from)?)));
                }
                let between = rows::Between {
                    repository: repository.clone(),
                    from: from.clone(),
                    until: until.clone(),
                    limit: at_once as u32,
                };
                let page = registry.meta.scan(look(between)).await?;
                let page = page.ok_or_else(unknown)?;
                looks += 1;
                looked_at += page.len();
                if let Some(last) = page.last() {
                    from = after(name(last));
                }
                let whole = page.len() == at_once;
                found.extend(page.into_iter().filter(|one| view.shows(name(one))));
                if found.len() > limit {
                    found.truncate(limit);
                    let next = found.last().map(|last| name(last).to_owned());
                    return Ok((found, next));
                }
                if !whole {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if looks == 0 {
            // Whether there is such a repository is told in the same way wherever a page begins.
            let between = rows::Between {
                repository: repository.clone(),
                from: String::new(),
                until: String::new(),
                limit: 0,
            };
            let there = registry.meta.scan(look(between)).await?;
            there.ok_or_else(unknown)?;
        }
        Ok((found, None))
    }
}

/// Where the tag stands.
pub async fn show(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<rows::Standing> {
    let look = rows::GetStanding {
        repository: repository.clone(),
        tag: tag.clone(),
    };
    let found = registry.meta.read(look).await?;
    found.ok_or_else(|| unknown(repository, tag))
}

/// As [`delete`], and only if the tag still has this version.
pub async fn delete_at(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    version: impl Into<Meant>,
    actor: &str,
) -> Result<()> {
    let delete = rows::Delete {
        repository: repository.clone(),
        tag: tag.clone(),
        actor: actor.to_owned(),
        at: registry.clock.now_ms(),
    };
    let version = version.into();
    let op = rows::DeleteAt { delete, version };
    match registry.meta.write(op).await? {
        rows::Deleted::Done => Ok(()),
        rows::Deleted::Unknown => Err(unknown(repository, tag)),
        rows::Deleted::Moved => Err(Error::PreconditionFailed),
    }
}

fn unknown(repository: &RepositoryName, tag: &Tag) -> Error {
    Error::ManifestUnknown {
        repository: repository.clone(),
        reference: Reference::Tag(tag.clone()),
    }
}

/// Deletes the tag; the manifest stays reachable by digest (DEL-1).
pub async fn delete(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    actor: &str,
) -> Result<()> {
    let deleted = registry
        .meta
        .write(rows::Delete {
            repository: repository.clone(),
            tag: tag.clone(),
            actor: actor.to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?;
    if deleted {
        Ok(())
    } else {
        Err(unknown(repository, tag))
    }
}

#[cfg(test)]
#[path = "tag_tests.rs"]
mod tests;

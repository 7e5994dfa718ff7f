//! Repositories and tags through the management API: over the network with a context, and for what only the API can do on this
//! machine too.

use serde_json::{Value, json};
use wharf_oci::percent::{encode_path, encode_query};

use super::super::client::{self, Where, text};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::gc::time;
use super::super::human::count;
use super::super::print;
use super::{as_json, sized};
use crate::admin::{Deleted, HistoryView, MoveView, SizeView, UpkeepReply};

/// So many entries a listing has at most.
const LISTED: usize = 100_000;
/// So many entries a page of a listing has at most.
const PAGE: u32 = 1_000;

fn repository_path(repository: &str) -> String {
    format!("/api/v1/repositories/{}", encode_path(repository))
}

fn tag_path(repository: &str, tag: &str) -> String {
    format!(
        "{}/-/tags/{}",
        repository_path(repository),
        encode_query(tag)
    )
}

/// A moment of the API, in milliseconds since 1970.
fn moment(value: &Value) -> i64 {
    client::moment(value).unwrap_or(0)
}

/// `wharf repo list` elsewhere.
pub(super) fn repositories(
    at: &Where,
    size: bool,
    prefixes: bool,
    json: bool,
    within: Option<&str>,
) -> Outcome {
    if prefixes {
        let text = "--prefixes is counted on the registry's own machine: use it there, with --data";
        return Err(Failure::text(Exit::Usage, text));
    }
    let filter = within.map(|within| format!("?within={}", encode_query(within)));
    let path = format!("/api/v1/repositories{}", filter.unwrap_or_default());
    let found = at.client()?.list(&path, LISTED)?;
    let sizes: Vec<SizeView> = found
        .iter()
        .map(|one| SizeView {
            name: text(&one["name"]),
            logical: one["size"].as_u64().unwrap_or(0),
            own: one["own_size"].as_u64().unwrap_or(0),
            blobs: one["blobs"].as_u64().unwrap_or(0),
            at: one["counted_at"]
                .as_str()
                .map(|_| moment(&one["counted_at"])),
        })
        .collect();
    if json {
        return print(&as_json(&sizes));
    }
    if size {
        return print(&sized(&sizes, "repository"));
    }
    let names = sizes.into_iter().map(|row| row.name + "\n");
    print(&names.collect::<String>())
}

/// `wharf repo rm`.
pub(super) fn clear(at: &Where, repository: &str, yes: bool) -> Outcome {
    let client = at.client()?;
    let path = repository_path(repository);
    if !yes {
        let tags = client.list(&format!("{path}/-/tags"), LISTED)?;
        super::super::gc::agree(&format!(
            "Delete {repository} with {} and all manifests?",
            count(tags.len() as u64, "tag")
        ))?;
    }
    let done = client.send("DELETE", &path, None)?;
    let manifests = done["manifests"].as_u64().unwrap_or(0);
    print(&format!(
        "Deleted {} of {repository}; `wharf repo history {repository}` lists what can be restored.\n",
        count(manifests, "manifest")
    ))
}

/// `wharf tag list`.
pub(super) fn tags(at: &Where, repository: &str, json: bool) -> Outcome {
    let path = format!("{}/-/tags", repository_path(repository));
    let tags = at.client()?.list(&path, LISTED)?;
    if json {
        return print(&format!("{:#}\n", Value::from(tags)));
    }
    let widest = tags
        .iter()
        .filter_map(|tag| tag["name"].as_str())
        .map(str::len);
    let width = widest.max().unwrap_or(0).max("TAG".len());
    let mut out = format!("{:<width$}  {:<20}  DIGEST\n", "TAG", "SINCE");
    for tag in &tags {
        out.push_str(&format!(
            "{:<width$}  {:<20}  {}\n",
            text(&tag["name"]),
            time(moment(&tag["moved_at"])),
            text(&tag["digest"])
        ));
    }
    print(&out)
}

/// `wharf tag rm`.
pub(super) fn delete_tags(at: &Where, tags: &[(String, String)]) -> Outcome {
    let client = at.client()?;
    for (repository, tag) in tags {
        client.send("DELETE", &tag_path(repository, tag), None)?;
        print(&format!(
            "Deleted {repository}:{tag}; `wharf tag restore {repository}:{tag}` puts it back.\n"
        ))?;
    }
    Ok(())
}

/// `wharf repo history` and `wharf tag history` elsewhere.
pub(super) fn history(
    at: &Where,
    repository: &str,
    tag: Option<&str>,
    limit: u32,
) -> Result<HistoryView, Failure> {
    let client = at.client()?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (moves, deleted) = match tag {
        Some(tag) => {
            let path = format!("{}/history", tag_path(repository, tag));
            (client.list(&path, limit as usize)?, Vec::new())
        }
        None => {
            let path = format!(
                "{}/-/history?n={}",
                repository_path(repository),
                limit.clamp(1, PAGE)
            );
            let (mut moves, mut deleted) = (Vec::new(), Vec::new());
            let mut after = String::new();
            let limit = limit as usize;
            loop {
                let page = client.get(&format!("{path}{after}"))?;
                moves.extend(list(&page["moves"]));
                deleted.extend(list(&page["deleted"]));
                // Of the one kind there may be few, and many pages of the other.
                let some = !list(&page["deleted"]).is_empty();
                match page["next"].as_str() {
                    Some(next) if moves.len() < limit || some && deleted.len() < limit => {
                        after = format!("&after={}", encode_query(next));
                    }
                    _ => break,
                }
            }
            moves.truncate(limit);
            deleted.truncate(limit);
            (moves, deleted)
        }
    };
    let place = |value: &Value| value.as_str().map(str::to_owned);
    Ok(HistoryView {
        moves: moves
            .iter()
            .map(|one| MoveView {
                tag: text(&one["tag"]),
                version: one["version"].as_i64().unwrap_or(0),
                from: place(&one["from"]),
                to: place(&one["to"]),
                actor: text(&one["actor"]),
                at: moment(&one["at"]),
            })
            .collect(),
        deleted: deleted
            .iter()
            .map(|one| Deleted {
                digest: text(&one["digest"]),
                at: moment(&one["deleted_at"]),
                actor: text(&one["actor"]),
                until: moment(&one["until"]),
            })
            .collect(),
    })
}

/// `wharf tag restore` elsewhere.
pub(super) fn restore_tag(
    at: &Where,
    repository: &str,
    tag: &str,
    version: Option<i64>,
) -> Result<UpkeepReply, Failure> {
    let path = format!("{}/restore", tag_path(repository, tag));
    let body = match version {
        Some(version) => json!({ "version": version }),
        None => json!({}),
    };
    Ok(restored(&at.client()?.send("POST", &path, Some(&body))?))
}

/// `wharf manifest restore` elsewhere.
pub(super) fn restore_manifest(
    at: &Where,
    repository: &str,
    digest: &str,
) -> Result<UpkeepReply, Failure> {
    let path = format!(
        "{}/-/manifests/{}/restore",
        repository_path(repository),
        encode_query(digest)
    );
    Ok(restored(&at.client()?.send("POST", &path, None)?))
}

fn restored(back: &Value) -> UpkeepReply {
    let tags = back["tags"].as_array().into_iter().flatten();
    UpkeepReply::Restored {
        digest: text(&back["digest"]),
        manifest: back["manifest"].as_bool().unwrap_or(false),
        tags: tags.map(text).collect(),
        others: back["others"].as_u64().unwrap_or(0),
    }
}

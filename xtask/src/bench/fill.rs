//! Fills stores through the API, so that every registry holds what a client would have put there.

use anyhow::Result;

use super::client::{Body, Client};
use super::content::{self, MANIFEST, digest, manifest, push_manifest, push_small, small};
use super::load;
use super::site::{Kind, Site};

/// Connections that fill.
const CLIENTS: usize = 16;
/// Tags of one push, Wharf's default limit.
const TAGS_PER_PUSH: u64 = 50;
/// From here on many tags share a manifest where the registry can set them together.
const MANY: u64 = 10_000;

/// The name of the tag with this number; names sort as numbers do.
pub(crate) fn tag(number: u64) -> String {
    format!("v{number:07}")
}

/// The manifest that the tag with this number stands at in small stores.
fn tagged(number: u64) -> Vec<u8> {
    manifest(&small(0, 1024), &small(1, 1024), &format!("n{number}"))
}

/// Pushes what all manifests of [`tagged`] name.
fn parts(client: &mut Client, repository: &str) -> Result<()> {
    push_small(client, repository, &small(0, 1024))?;
    push_small(client, repository, &small(1, 1024))
}

/// Pushes `count` tags.
pub(crate) fn tags(site: &Site, repository: &str, count: u64) -> Result<()> {
    parts(&mut site.client(), repository)?;
    if site.kind == Kind::Wharf && count >= MANY {
        load::all(
            site,
            CLIENTS,
            count.div_ceil(TAGS_PER_PUSH),
            |client, push| {
                let first = push * TAGS_PER_PUSH;
                let names: Vec<String> = (first..(first + TAGS_PER_PUSH).min(count))
                    .map(|n| format!("tag={}", tag(n)))
                    .collect();
                let bytes = tagged(push);
                let path = format!(
                    "/v2/{repository}/manifests/{}?{}",
                    digest(&bytes),
                    names.join("&")
                );
                client
                    .send(
                        "PUT",
                        &path,
                        &[("Content-Type", MANIFEST)],
                        Body::Bytes(&bytes),
                        true,
                    )?
                    .expect(201, "PUT of a manifest with tags")?;
                Ok(())
            },
        )?;
    } else {
        load::all(site, CLIENTS, count, |client, number| {
            push_manifest(client, repository, &tag(number), &tagged(number))
        })?;
    }
    Ok(())
}

/// The same as files for a server of files, those tags only that will be asked for.
pub(crate) fn tag_files(site: &Site, numbers: impl Iterator<Item = u64>) -> Result<()> {
    let dir = site
        .data()
        .join(format!("v2/{}/manifests", content::REPOSITORY));
    std::fs::create_dir_all(&dir)?;
    for number in numbers {
        std::fs::write(dir.join(tag(number)), tagged(number))?;
    }
    Ok(())
}

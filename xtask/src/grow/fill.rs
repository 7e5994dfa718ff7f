//! Writing a store of any size straight into a data folder, through the registry's own operations.

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use wharf_blob::Key;
use wharf_meta::blob::{Content, Mount, Publish};
use wharf_meta::manifest::{EdgeRow, Expect, Put};
use wharf_meta::{Bulk, repository};
use wharf_oci::{Digest, EdgeKind, RepositoryName};

use super::shape::{self, EMPTY, IMAGE, Shape, sha256};

/// The database's file in a data folder.
pub(crate) const DATABASE: &str = "wharf.db";
/// When the first row was made: long ago, so that what a server adds sorts last. Milliseconds since 1970.
const BEGIN: i64 = 1_700_000_000_000;
/// Keeps the pages that every push touches at random in memory, up to a million manifests.
const CACHE_MIB: u32 = 3 * 1024;
/// Tags that one push may move.
const TAGS_AT_ONCE: u64 = 50;

/// Writes a store into a folder that is empty or does not exist.
pub(crate) fn fill(shape: &Shape, folder: &Path) -> Result<()> {
    if folder.join(DATABASE).exists() {
        bail!(
            "{} holds a store already: give another folder",
            folder.display()
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut filler = Filler {
        bulk: Bulk::open(&folder.join(DATABASE), CACHE_MIB)?,
        folder,
        repository: shape::main_repository(),
        at: BEGIN,
        folders: HashSet::new(),
    };
    let start = Instant::now();
    let mut first = None;
    for image in 0..shape.manifests {
        let subject = filler.image(shape, image)?;
        first.get_or_insert(subject);
        if (image + 1) % 100_000 == 0 {
            println!(
                "{} manifests, {:.0} s",
                image + 1,
                start.elapsed().as_secs_f32()
            );
        }
    }
    if let Some(first) = &first {
        filler.referrers(shape, first)?;
        filler.repositories(shape)?;
    }
    filler.bulk.finish()?;
    Ok(())
}

struct Filler<'a> {
    bulk: Bulk,
    folder: &'a Path,
    repository: RepositoryName,
    at: i64,
    /// Folders of blobs that are there.
    folders: HashSet<std::path::PathBuf>,
}

impl Filler<'_> {
    /// An image with its blobs and tags; gives its digest and size.
    fn image(&mut self, shape: &Shape, image: u64) -> Result<(Digest, usize)> {
        let mut blobs = Vec::with_capacity(shape.blobs as usize);
        for bytes in shape.blobs_of(image) {
            let (digest, size) = (sha256(&bytes), bytes.len());
            self.blob(&digest, bytes)?;
            blobs.push((digest, size));
        }
        let bytes = shape.image(&blobs);
        let (digest, size) = (sha256(&bytes), bytes.len());
        let edges = blobs
            .into_iter()
            .enumerate()
            .map(|(at, (target, size))| {
                let kind = if at == 0 {
                    EdgeKind::Config
                } else {
                    EdgeKind::Layer
                };
                edge(kind, target, size)
            })
            .collect();
        let put = Put {
            digest: digest.clone(),
            bytes,
            edges,
            ..self.put()
        };
        // Tag N stands at image N modulo the images; a push moves a bounded number of them.
        let step = usize::try_from(shape.manifests).unwrap_or(usize::MAX);
        let mut tags = (image..shape.tags())
            .step_by(step)
            .map(shape::tag)
            .peekable();
        loop {
            let some = tags.by_ref().take(TAGS_AT_ONCE as usize).collect();
            self.bulk.run(&Put {
                tags: some,
                ..put.clone()
            })?;
            if tags.peek().is_none() {
                return Ok((digest, size));
            }
        }
    }

    fn put(&mut self) -> Put {
        self.at += 1;
        Put {
            repository: self.repository.clone(),
            digest: sha256(b""),
            media_type: IMAGE.to_owned(),
            bytes: Vec::new(),
            edges: Vec::new(),
            pinned: 0,
            // What was just published needs no look.
            check_sizes: false,
            subject: None,
            artifact_type: None,
            referrer_json: None,
            fixed: Vec::new(),
            unmade: Vec::new(),
            tags: Vec::new(),
            expect: Expect::Any,
            actor: "grow".to_owned(),
            at: self.at,
        }
    }

    /// A blob of the main repository: a row, or a file when it is as large as files are here.
    fn blob(&mut self, digest: &Digest, bytes: Vec<u8>) -> Result<()> {
        let size = bytes.len() as u64;
        let content = if bytes.len() < shape::FILE {
            Content::Inline(bytes)
        } else {
            let key = Key::fresh(digest);
            let path = self.folder.join(key.as_str());
            if let Some(parent) = path.parent()
                && self.folders.insert(parent.to_owned())
            {
                fs::create_dir_all(parent)?;
            }
            fs::File::create_new(&path)
                .and_then(|mut file| file.write_all(&bytes))
                .with_context(|| format!("writing {}", path.display()))?;
            Content::Key(key.as_str().to_owned())
        };
        self.bulk.run(&Publish {
            upload: None,
            repository: self.repository.clone(),
            digest: digest.clone(),
            size,
            content,
            instead_of: None,
            actor: "grow".to_owned(),
            at: self.at,
        })?;
        Ok(())
    }

    fn referrers(&mut self, shape: &Shape, subject: &(Digest, usize)) -> Result<()> {
        self.blob(&sha256(EMPTY), EMPTY.to_vec())?;
        for number in 0..shape.referrers {
            let (bytes, kind, descriptor) = shape.referrer(number, subject);
            let put = Put {
                digest: sha256(&bytes),
                bytes,
                edges: vec![edge(EdgeKind::Config, sha256(EMPTY), EMPTY.len())],
                subject: Some(subject.0.clone()),
                artifact_type: Some(kind.to_owned()),
                referrer_json: Some(descriptor),
                ..self.put()
            };
            self.bulk.run(&put)?;
        }
        Ok(())
    }

    fn repositories(&mut self, shape: &Shape) -> Result<()> {
        let held = sha256(&shape.blobs_of(0)[0]);
        for number in 0..shape.repositories {
            self.at += 1;
            let mounted = self.bulk.run(&Mount {
                repository: shape::repository(number),
                from: self.repository.clone(),
                digest: held.clone(),
                actor: "grow".to_owned(),
                at: self.at,
            })?;
            if !mounted {
                bail!("the blob that all repositories share is not there");
            }
        }
        Ok(())
    }
}

fn edge(kind: EdgeKind, target: Digest, size: usize) -> EdgeRow {
    EdgeRow {
        kind,
        target,
        size: size as u64,
        must_exist: false,
        any_store: false,
    }
}

/// What the store says it holds, for a line at the end.
pub(crate) fn totals(folder: &Path) -> Result<repository::Totals> {
    let mut bulk = Bulk::open(&folder.join(DATABASE), 16)?;
    let totals = bulk.run(&repository::GetTotals)?;
    bulk.finish()?;
    Ok(totals)
}

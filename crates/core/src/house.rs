//! A whole registry in a temporary folder, for tests: real rows, real files, a clock that stands, faults on demand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use wharf_blob::fault::Script;
use wharf_blob::{Fs, FsOptions, Key};
use wharf_meta::{Meta, SqliteOptions, blob as rows};
use wharf_oci::{Algorithm, Digest, Reference, RepositoryName};

use crate::access::{Access, AccessOptions, SecretKeys};
use crate::clock::ManualClock;
use crate::error::BodyError;
use crate::upload::Source;
use crate::{ContentRules, Limits, Registry, blob, manifest, upload};

/// More than what lives in the database.
pub(crate) const LARGE: usize = 100_000;

pub(crate) struct House {
    /// `None` when somebody else owns the folder.
    dir: Option<TempDir>,
    folder: PathBuf,
    pub(crate) registry: Registry,
    pub(crate) script: Arc<Script>,
    pub(crate) clock: Arc<ManualClock>,
}

impl House {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut house = Self::open(dir.path()).await;
        house.dir = Some(dir);
        house
    }

    /// A registry on a folder that is there.
    pub(crate) async fn open(folder: &Path) -> Self {
        let (meta, _) = Meta::open(SqliteOptions::new(folder.join("wharf.db"))).unwrap();
        let script = Arc::new(Script::new());
        let blobs = Fs::open(FsOptions {
            fault: Some(script.clone()),
            threads: 2,
            ..FsOptions::new(folder)
        });
        let access = Access::open(
            AccessOptions::default(),
            SecretKeys::of_tests(),
            meta.clone(),
            0,
        )
        .await;
        let clock = Arc::new(ManualClock::at(1_000));
        let registry = Registry::new(
            meta,
            Arc::new(blobs.unwrap()),
            Arc::new(access.unwrap()),
            clock.clone(),
            Limits::default(),
            ContentRules::default(),
        );
        Self {
            dir: None,
            folder: folder.to_owned(),
            registry,
            script,
            clock,
        }
    }

    pub(crate) fn repository() -> RepositoryName {
        RepositoryName::parse("team/app").unwrap()
    }

    /// Pushes a blob of these bytes.
    pub(crate) async fn push(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let mut body = Body(Some(Bytes::copy_from_slice(bytes)));
        let repository = Self::repository();
        upload::monolithic(&self.registry, &repository, "alice", &digest, &mut body)
            .await
            .unwrap();
        digest
    }

    /// Pushes an image of one layer under a tag.
    pub(crate) async fn push_image(&self, tag: &str, layer: &[u8]) -> (Digest, Bytes) {
        let config = self.push(b"{}").await;
        let digest = self.push(layer).await;
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()}],
        });
        let bytes = Bytes::from(manifest.to_string());
        let digest = self.put(manifest.to_string(), tag).await.unwrap();
        (digest, bytes)
    }

    /// Pushes a manifest of these bytes.
    pub(crate) async fn put(&self, manifest: String, tag: &str) -> crate::Result<Digest> {
        self.put_as("application/vnd.oci.image.manifest.v1+json", manifest, tag)
            .await
    }

    /// Pushes a manifest of this media type.
    pub(crate) async fn put_as(
        &self,
        media_type: &str,
        manifest: String,
        reference: &str,
    ) -> crate::Result<Digest> {
        let push = manifest::Push {
            repository: &Self::repository(),
            reference: &Reference::parse(reference).unwrap(),
            content_type: Some(media_type),
            bytes: manifest.into(),
            tags: Vec::new(),
            expect: manifest::Expect::Any,
            actor: "alice",
            caller: None,
        };
        Ok(manifest::push(&self.registry, push).await?.digest)
    }

    /// Runs a job to its end.
    pub(crate) async fn run<J: crate::job::Job>(&self) -> J {
        let mut job = J::default();
        while job.step(&self.registry).await.unwrap() != crate::job::Step::Done {}
        job
    }

    /// Sets how long what nobody needs stays.
    pub(crate) fn rule(&self, change: impl FnOnce(&mut crate::gc::Rules)) {
        let mut rules = crate::gc::Rules::clone(&self.registry.rules.load());
        change(&mut rules);
        self.registry.rules.store(Arc::new(rules));
    }

    /// Whether a client that asks is told that the blob is there.
    pub(crate) async fn has(&self, digest: &Digest) -> bool {
        blob::stat(&self.registry, &Self::repository(), digest)
            .await
            .is_ok()
    }

    pub(crate) async fn content(&self, digest: &Digest) -> Vec<u8> {
        let found = blob::open(&self.registry, &Self::repository(), digest)
            .await
            .unwrap();
        let mut stream = found.content.stream(0..found.content.len());
        let mut out = Vec::new();
        while let Some(piece) = stream.next().await {
            out.extend_from_slice(&piece.unwrap());
        }
        out
    }

    pub(crate) async fn row(&self, digest: &Digest) -> rows::BlobRow {
        let digest = digest.clone();
        let row = self.registry.meta.read(rows::Lookup { digest }).await;
        row.unwrap().expect("a live row")
    }

    pub(crate) async fn key(&self, digest: &Digest) -> Key {
        match self.row(digest).await.place {
            rows::Place::Key(key) => Key::parse(&key).unwrap(),
            place @ rows::Place::Inline(_) => panic!("{place:?}"),
        }
    }

    /// The blob's file.
    pub(crate) async fn file(&self, digest: &Digest) -> PathBuf {
        self.folder.join(self.key(digest).await.as_str())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Bytes that differ by seed.
pub(crate) fn noise(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n * 31 + n / 251) as u8 ^ seed)
        .collect()
}

struct Body(Option<Bytes>);

impl Source for Body {
    fn announced(&self) -> Option<u64> {
        self.0.as_ref().map(|bytes| bytes.len() as u64)
    }

    async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        self.0.take().map(Ok)
    }
}

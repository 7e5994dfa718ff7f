//! The shared suite on the stores of this crate that need no server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutPayload, PutResult};
use tempfile::TempDir;
use wharf_blob::object::Backend;
use wharf_blob::suite::Fixture;
use wharf_blob::{BlobStore, Fs, FsOptions, Mem, Object, UploadId, blob_suite};

struct Folder {
    dir: TempDir,
    shared: bool,
    store: Arc<Fs>,
}

impl Folder {
    fn new(shared: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir, shared);
        Self { dir, shared, store }
    }
}

fn open(dir: &TempDir, shared: bool) -> Arc<Fs> {
    let options = FsOptions {
        threads: 3,
        shared,
        ..FsOptions::new(dir.path())
    };
    Arc::new(Fs::open(options).unwrap())
}

impl Fixture for Folder {
    fn store(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }

    fn restart(&mut self) {
        // A process that is gone does nothing more, while this one may still remove what a dropped writer left. What a test
        // holds on to is not waited for.
        let begun = Instant::now();
        while !self.store.is_quiet() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
        self.store = open(&self.dir, self.shared);
    }
}

struct Memory(Mem);

impl Fixture for Memory {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(self.0.clone())
    }

    // What is in the map is what a restart would find.
    fn restart(&mut self) {}
}

/// Multipart uploads as services do them: completing takes exactly the parts that are named. (The client library's own
/// store in memory takes whatever was sent last.)
#[derive(Debug, Default)]
struct Strict {
    objects: InMemory,
    uploads: Mutex<HashMap<String, HashMap<String, PutPayload>>>,
}

impl Strict {
    fn gone() -> object_store::Error {
        object_store::Error::NotFound {
            path: String::new(),
            source: "NoSuchUpload".into(),
        }
    }
}

#[async_trait::async_trait]
impl MultipartStore for Strict {
    async fn create_multipart(&self, _: &Path) -> object_store::Result<MultipartId> {
        let id = UploadId::random().to_string();
        let mut uploads = self.uploads.lock().unwrap();
        uploads.insert(id.clone(), HashMap::new());
        Ok(id)
    }

    async fn put_part(
        &self,
        _: &Path,
        id: &MultipartId,
        _: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        let content_id = UploadId::random().to_string();
        let mut uploads = self.uploads.lock().unwrap();
        let parts = uploads.get_mut(id).ok_or_else(Self::gone)?;
        parts.insert(content_id.clone(), data);
        Ok(PartId { content_id })
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        let sent = self.uploads.lock().unwrap().remove(id);
        let sent = sent.ok_or_else(Self::gone)?;
        let named = parts.iter().map(|part| &sent[&part.content_id]);
        let all: PutPayload = named.flat_map(PutPayload::iter).cloned().collect();
        self.objects.put(path, all).await
    }

    async fn abort_multipart(&self, _: &Path, id: &MultipartId) -> object_store::Result<()> {
        let removed = self.uploads.lock().unwrap().remove(id);
        removed.map(|_| ()).ok_or_else(Self::gone)
    }
}

/// A bucket in memory, with parts so small that most uploads have many.
struct Bucket {
    bucket: Arc<Strict>,
    part_size: u64,
    store: Object,
}

impl Bucket {
    fn new(part_size: u64) -> Self {
        let bucket = Arc::new(Strict::default());
        let store = over(&bucket, part_size);
        Self {
            bucket,
            part_size,
            store,
        }
    }
}

fn over(bucket: &Arc<Strict>, part_size: u64) -> Object {
    let backend = Backend {
        store: Arc::new(bucket.objects.clone()),
        parts: bucket.clone(),
        signer: None,
    };
    Object::over(backend, "some/where", part_size).unwrap()
}

impl Fixture for Bucket {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(self.store.clone())
    }

    fn restart(&mut self) {
        self.store = over(&self.bucket, self.part_size);
    }

    fn is_remote(&self) -> bool {
        true
    }
}

blob_suite!(fs, Folder::new(false));
blob_suite!(shared_fs, Folder::new(true));
blob_suite!(mem, Memory(Mem::new()));
blob_suite!(object_in_small_parts, Bucket::new(70_001));
blob_suite!(object_in_large_parts, Bucket::new(8 << 20));

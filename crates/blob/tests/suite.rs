//! The shared suite on both stores of this crate.

use std::sync::Arc;

use tempfile::TempDir;
use wharf_blob::suite::Fixture;
use wharf_blob::{BlobStore, Fs, FsOptions, Mem, blob_suite};

struct Folder {
    dir: TempDir,
    store: Arc<Fs>,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        Self { dir, store }
    }
}

fn open(dir: &TempDir) -> Arc<Fs> {
    let options = FsOptions {
        threads: 3,
        ..FsOptions::new(dir.path())
    };
    Arc::new(Fs::open(options).unwrap())
}

impl Fixture for Folder {
    fn store(&self) -> Arc<dyn BlobStore> {
        self.store.clone()
    }

    fn restart(&mut self) {
        self.store = open(&self.dir);
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

blob_suite!(fs, Folder::new());
blob_suite!(mem, Memory(Mem::new()));

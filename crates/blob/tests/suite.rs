//! The shared suite on both stores of this crate.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
        // A process that is gone does nothing more, while this one may still remove what a dropped writer left. What a test
        // holds on to is not waited for.
        let begun = Instant::now();
        while !self.store.is_quiet() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
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

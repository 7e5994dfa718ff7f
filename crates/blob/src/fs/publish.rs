//! Making an upload a blob: a second name for the same file, durable before anybody hears of it.

use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::counts::Counted;
use super::engine::Engine;
use super::failed;
use crate::error::{Error, Result};
use crate::fault::Step;
use crate::key::{Key, UploadId};

impl Engine {
    /// [`Engine::publish`] where it may block.
    pub(super) async fn publish_on_pool(
        self: &Arc<Self>,
        id: &UploadId,
        epoch: i64,
        key: &Key,
    ) -> Result<()> {
        let (engine, id, key) = (self.clone(), *id, key.clone());
        let job = move || engine.publish(&id, epoch, &key);
        self.pool.run(job).await
    }

    /// Gives a finished upload the name `key`. The file's bytes are durable already.
    pub(super) fn publish(&self, id: &UploadId, epoch: i64, key: &Key) -> Result<()> {
        // A writer that was left behind must not write into what is a blob from now on.
        self.fences.take_over(id, |_| {
            // One that has several files was joined when its digest was asked for.
            let upload = self.upload_file(id, epoch, 0);
            let folder = key.folder();
            self.folder(folder)?;
            let renamed = match self.link(&upload, key) {
                Err(Errno::NOENT) if self.exists(&upload)? => {
                    self.forget_folders();
                    self.folder(folder)?;
                    self.link(&upload, key)
                }
                outcome => outcome,
            };
            let renamed = renamed.map_err(|errno| match errno {
                Errno::NOENT => Error::UploadLost,
                errno => failed("publishing", key.as_str())(errno),
            })?;
            self.sync_folder(folder).inspect_err(|_| {
                // Nobody has heard of the key, and nobody may: its name can't be trusted any more.
                let undone = if renamed {
                    rustix::fs::renameat(&self.root, key.as_str(), &self.root, &upload)
                        .map_err(failed("taking back", key.as_str()))
                } else {
                    self.unlink(key.as_str())
                };
                if let Err(error) = undone {
                    tracing::warn!(%key, %error, "an unpublished blob was left behind; `storage verify` lists it");
                }
            })
        })
    }

    /// Links, or renames where the file system has no links. Says whether it renamed.
    fn link(&self, upload: &str, key: &Key) -> rustix::io::Result<bool> {
        let _timed = self.counts.time(Counted::Link);
        let (root, name) = (&self.root, key.as_str());
        let linked = self
            .step(Step::Link, name)
            .and_then(|()| rustix::fs::linkat(root, upload, root, name, AtFlags::empty()));
        match linked {
            Ok(()) => Ok(false),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                match rustix::fs::renameat_with(root, upload, root, name, RenameFlags::NOREPLACE) {
                    // Where that flag is unknown: the key is fresh, so there is nothing to replace.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        rustix::fs::renameat(root, upload, root, name)
                    }
                    outcome => outcome,
                }?;
                Ok(true)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Moves a file that nobody else knows to its final name.
    pub(super) fn rename(&self, from: &str, key: &Key) -> Result<()> {
        let _timed = self.counts.time(Counted::Link);
        let (root, name) = (&self.root, key.as_str());
        let rename = || {
            self.step(Step::Link, name)
                .and_then(|()| rustix::fs::renameat(root, from, root, name))
        };
        match rename() {
            // Somebody removed folders below our feet.
            Err(Errno::NOENT) => {
                self.forget_folders();
                self.folder(key.folder())?;
                rename()
            }
            outcome => outcome,
        }
        .map_err(failed("publishing", name))
    }

    fn exists(&self, path: &str) -> Result<bool> {
        match rustix::fs::statat(&self.root, path, AtFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(failed("looking at", path)(errno)),
        }
    }
}

//! Images that the tests make themselves, as OCI layouts, and the check that a layout is whole.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::run;

/// Media types of what is built here.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An OCI layout with one tagged image or index.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The layout's folder.
    pub(crate) dir: PathBuf,
    /// The tag in its index.
    pub(crate) tag: String,
    /// Digest of the manifest or index that the tag names.
    pub(crate) digest: String,
    /// Whether that is an index.
    pub(crate) index: bool,
}

/// One layer to build: a folder packed as tar.
pub(crate) struct Layer<'a> {
    /// What it holds.
    pub(crate) tree: &'a Path,
    /// Compressed or plain.
    pub(crate) gzip: bool,
}

impl Image {
    /// The layout as text for a command line.
    pub(crate) fn path(&self) -> String {
        self.dir.to_string_lossy().into_owned()
    }

    /// Builds an image for one platform.
    pub(crate) fn build(
        dir: &Path,
        tag: &str,
        layers: &[Layer<'_>],
        entrypoint: &[&str],
    ) -> Result<Image> {
        let store = Store::create(dir)?;
        let manifest = store.image(layers, entrypoint, "amd64")?;
        store.finish(tag, manifest)
    }

    /// Builds an index of several platforms, an index inside it, and a child for no platform, as BuildKit makes them.
    pub(crate) fn build_index(
        dir: &Path,
        tag: &str,
        layers: &[Layer<'_>],
        entrypoint: &[&str],
    ) -> Result<Image> {
        let store = Store::create(dir)?;
        let mut children = Vec::new();
        for arch in ["amd64", "arm64", "riscv64"] {
            let mut child = store.image(layers, entrypoint, arch)?;
            child["platform"] = json!({"os": "linux", "architecture": arch});
            children.push(child);
        }
        let index = store.json(
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}),
            INDEX,
        )?;
        store.finish(tag, index)
    }

    /// Reads the layout that a client wrote: the first entry of its index, everything checked.
    pub(crate) fn read(dir: &Path) -> Result<Image> {
        let index: Value = serde_json::from_slice(
            &std::fs::read(dir.join("index.json"))
                .with_context(|| format!("reading the layout {}", dir.display()))?,
        )?;
        let root = &index["manifests"][0];
        let digest = text(root, "digest")?;
        let seen = check(dir, root)?;
        ensure!(seen > 0, "{} is empty", dir.display());
        let tag = root["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(Image {
            dir: dir.to_path_buf(),
            tag,
            digest,
            index: root["mediaType"] == INDEX,
        })
    }
}

/// Checks a descriptor's content and all that it references; gives how many blobs were read.
fn check(dir: &Path, descriptor: &Value) -> Result<usize> {
    let digest = text(descriptor, "digest")?;
    let path = dir.join("blobs").join(digest.replace(':', "/"));
    let (found, size) = hash_file(&path)?;
    ensure!(found == digest, "{} holds {found}", path.display());
    ensure!(
        descriptor["size"] == size,
        "{digest} is {size} bytes, its descriptor says {}",
        descriptor["size"]
    );
    let mut count = 1;
    let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
    if media_type.contains("manifest") || media_type.contains("index") {
        let manifest: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        for child in references(&manifest) {
            count += check(dir, child)?;
        }
    }
    Ok(count)
}

/// The descriptors that a manifest or index needs.
pub(crate) fn references(manifest: &Value) -> impl Iterator<Item = &Value> {
    let list = |key: &str| {
        manifest[key]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    manifest
        .get("config")
        .into_iter()
        .chain(list("layers"))
        .chain(list("manifests"))
}

/// A string field that has to be there.
pub(crate) fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key]
        .as_str()
        .with_context(|| format!("no text `{key}` in {value}"))?
        .to_owned())
}

/// The sha256 digest of bytes, in its written form.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The sha256 digest and the size of a file.
pub(crate) fn hash_file(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("sha256:".to_owned(), |out, byte| {
        out + &format!("{byte:02x}")
    })
}

/// A layout under construction.
struct Store {
    dir: PathBuf,
}

impl Store {
    fn create(dir: &Path) -> Result<Store> {
        std::fs::create_dir_all(dir.join("blobs/sha256"))
            .with_context(|| format!("creating {}", dir.display()))?;
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Store {
            dir: dir.to_path_buf(),
        })
    }

    /// Takes a finished file in and gives its descriptor.
    fn take(&self, file: &Path, media_type: &str) -> Result<Value> {
        let (digest, size) = hash_file(file)?;
        std::fs::rename(file, self.dir.join("blobs").join(digest.replace(':', "/")))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
    }

    fn json(&self, value: &Value, media_type: &str) -> Result<Value> {
        let file = self.dir.join("new");
        std::fs::write(&file, serde_json::to_vec(value)?)?;
        self.take(&file, media_type)
    }

    fn image(&self, layers: &[Layer<'_>], entrypoint: &[&str], arch: &str) -> Result<Value> {
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in layers {
            let tar = self.dir.join("new.tar");
            run::read(
                Command::new("tar")
                    .args([
                        "--sort=name",
                        "--mtime=@0",
                        "--owner=0",
                        "--group=0",
                        "--numeric-owner",
                        "-cf",
                    ])
                    .arg(&tar)
                    .arg("-C")
                    .arg(layer.tree)
                    .arg("."),
            )?;
            diff_ids.push(hash_file(&tar)?.0);
            let media_type = if layer.gzip {
                run::read(Command::new("gzip").args(["-n", "-1", "-f"]).arg(&tar))?;
                std::fs::rename(self.dir.join("new.tar.gz"), &tar)?;
                "application/vnd.oci.image.layer.v1.tar+gzip"
            } else {
                "application/vnd.oci.image.layer.v1.tar"
            };
            descriptors.push(self.take(&tar, media_type)?);
        }
        let config = json!({
            "architecture": arch, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Entrypoint": entrypoint},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.json(&config, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors});
        self.json(&manifest, MANIFEST)
    }

    fn finish(self, tag: &str, mut root: Value) -> Result<Image> {
        let digest = text(&root, "digest")?;
        let index = root["mediaType"] == INDEX;
        root["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let whole = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]});
        std::fs::write(self.dir.join("index.json"), serde_json::to_vec(&whole)?)?;
        Ok(Image {
            dir: self.dir,
            tag: tag.to_owned(),
            digest,
            index,
        })
    }
}

/// Writes `size` bytes that no compression makes smaller, always the same for a seed.
pub(crate) fn noise(path: &Path, size: u64, seed: u64) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = size;
    while left > 0 {
        // xorshift64*: fast, and far from anything that gzip knows.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bytes = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        let n = left.min(8);
        out.write_all(&bytes[..n as usize])?;
        left -= n;
    }
    out.flush()?;
    Ok(())
}

/// Compiles a static program that prints one line: it runs in an image that holds nothing else.
pub(crate) fn hello(path: &Path, line: &str) -> Result<()> {
    let source = path.with_extension("c");
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(
        &source,
        format!("#include <stdio.h>\nint main(void) {{ puts(\"{line}\"); return 0; }}\n"),
    )?;
    let mut command =
        Command::new(run::find("cc").context("no C compiler: apt-get install build-essential")?);
    run::read(
        command
            .args(["-static", "-Os", "-s", "-o"])
            .arg(path)
            .arg(&source),
    )?;
    std::fs::remove_file(&source)?;
    if run::read(&mut Command::new(path))?.trim() != line {
        bail!("{} does not print its line", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_layout_is_whole_and_a_changed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        noise(&tree.join("a"), 1001, 1).unwrap();
        let layers = [
            Layer {
                tree: &tree,
                gzip: true,
            },
            Layer {
                tree: &tree,
                gzip: false,
            },
        ];
        let built = Image::build_index(&dir.path().join("layout"), "v1", &layers, &["/a"]).unwrap();
        let read = Image::read(&built.dir).unwrap();
        assert_eq!(
            (&read.digest, &read.tag, read.index),
            (&built.digest, &built.tag, true)
        );
        let blob = built.dir.join("blobs").join(built.digest.replace(':', "/"));
        std::fs::write(&blob, "{}").unwrap();
        assert!(
            Image::read(&built.dir)
                .unwrap_err()
                .to_string()
                .contains("holds")
        );
    }

    #[test]
    fn digests_have_their_written_form() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), empty);
    }
}

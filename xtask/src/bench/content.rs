//! What is pushed and pulled: bodies that cost nothing to make, and the manifests of small artifacts.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::client::{Body, Client, Taker};
use super::site::Site;

/// The repository of all figures.
pub(crate) const REPOSITORY: &str = "bench/app";

/// The media type of the manifests.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Large bodies repeat this, with their number in front.
const BLOCK: usize = 1 << 20;

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
});

/// The text of a SHA-256 digest.
pub(crate) fn digest(bytes: &[u8]) -> String {
    shown(Sha256::digest(bytes).as_slice())
}

fn shown(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A large body that is never held whole.
#[derive(Clone)]
pub(crate) struct Large {
    /// Bytes.
    pub(crate) size: u64,
    /// Its digest.
    pub(crate) digest: String,
    first: Arc<Vec<u8>>,
}

impl Large {
    /// The one with this number and size; its digest is worked out once per process.
    pub(crate) fn new(number: u64, size: u64) -> Large {
        static KNOWN: LazyLock<Mutex<HashMap<(u64, u64), Large>>> =
            LazyLock::new(|| Mutex::new(HashMap::new()));
        if let Some(known) = KNOWN.lock().expect("bodies").get(&(number, size)) {
            return known.clone();
        }
        let mut first = NOISE.clone();
        first[..8].copy_from_slice(&number.to_le_bytes());
        let mut large = Large {
            size,
            digest: String::new(),
            first: Arc::new(first),
        };
        let mut hash = Sha256::new();
        let hashed = large.each(&mut |piece| {
            hash.update(piece);
            Ok(())
        });
        hashed.expect("hashing does not fail");
        large.digest = shown(&hash.finalize());
        KNOWN
            .lock()
            .expect("bodies")
            .insert((number, size), large.clone());
        large
    }

    /// Hands its bytes out, piece by piece.
    pub(crate) fn each(&self, take: Taker<'_>) -> std::io::Result<()> {
        let mut left = self.size;
        let mut block: &[u8] = &self.first;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            take(&block[..length])?;
            left -= length as u64;
            block = &NOISE;
        }
        Ok(())
    }

    /// Writes it into a file.
    pub(crate) fn write(&self, file: &std::path::Path) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(file)?;
        self.each(&mut |piece| file.write_all(piece))?;
        Ok(file.sync_all()?)
    }
}

/// A small blob that differs from every other number's.
pub(crate) fn small(number: u64, size: usize) -> Vec<u8> {
    let from = (number as usize).wrapping_mul(64) % (BLOCK - size.min(BLOCK / 2));
    let mut bytes = NOISE[from..from + size].to_vec();
    let text = format!("{number:020}");
    bytes[..20].copy_from_slice(text.as_bytes());
    bytes
}

/// A manifest over a configuration and one layer; `note` makes it unique.
pub(crate) fn manifest(config: &[u8], layer: &[u8], note: &str) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}],"annotations":{{"org.opencontainers.image.version":"{note}"}}}}"#,
        digest(config),
        config.len(),
        digest(layer),
        layer.len()
    )
    .into_bytes()
}

/// Where an upload goes on: the path of a `Location` without scheme and host, with a query added.
pub(crate) fn location(value: &str, query: &str) -> String {
    let path = value
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]))
        .unwrap_or(value);
    if query.is_empty() {
        return path.to_owned();
    }
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{query}")
}

/// Opens an upload and gives its path.
pub(crate) fn open_upload(client: &mut Client, repository: &str) -> Result<String> {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = client
        .send("POST", &path, &[], Body::None, true)?
        .expect(202, "POST of an upload")?;
    Ok(answer.header("location").unwrap_or_default().to_owned())
}

/// Pushes a small blob: POST, then PUT with the bytes.
pub(crate) fn push_small(client: &mut Client, repository: &str, bytes: &[u8]) -> Result<()> {
    let upload = open_upload(client, repository)?;
    let path = location(&upload, &format!("digest={}", digest(bytes)));
    let headers = [("Content-Type", "application/octet-stream")];
    client
        .send("PUT", &path, &headers, Body::Bytes(bytes), true)?
        .expect(201, "PUT of a blob")?;
    Ok(())
}

/// How a large blob is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// POST, then PUT with all bytes and their length.
    Monolithic,
    /// POST, PATCH in chunked transfer encoding, then an empty PUT: what docker does.
    Streamed,
}

/// Pushes a large blob.
pub(crate) fn push_large(
    client: &mut Client,
    repository: &str,
    blob: &Large,
    sending: Sending,
) -> Result<()> {
    let upload = open_upload(client, repository)?;
    let closing = format!("digest={}", blob.digest);
    let headers = [("Content-Type", "application/octet-stream")];
    let pieces = |take: Taker<'_>| blob.each(take);
    match sending {
        Sending::Monolithic => {
            let path = location(&upload, &closing);
            let body = Body::Sized(blob.size, &pieces);
            client
                .send("PUT", &path, &headers, body, true)?
                .expect(201, "PUT of a blob")?;
        }
        Sending::Streamed => {
            let path = location(&upload, "");
            let answer = client
                .send("PATCH", &path, &headers, Body::Chunked(&pieces), true)?
                .expect(202, "PATCH")?;
            let path = location(answer.header("location").unwrap_or(&upload), &closing);
            client
                .send("PUT", &path, &[], Body::None, true)?
                .expect(201, "PUT of a blob")?;
        }
    }
    Ok(())
}

/// Pushes a manifest under a reference.
pub(crate) fn push_manifest(
    client: &mut Client,
    repository: &str,
    reference: &str,
    bytes: &[u8],
) -> Result<()> {
    let path = format!("/v2/{repository}/manifests/{reference}");
    client
        .send(
            "PUT",
            &path,
            &[("Content-Type", MANIFEST)],
            Body::Bytes(bytes),
            true,
        )?
        .expect(201, "PUT of a manifest")?;
    Ok(())
}

/// A token of Wharf for reading and writing [`REPOSITORY`], as the value of `Authorization`.
pub(crate) fn bearer(site: &Site) -> Result<String> {
    use base64::Engine as _;
    let (name, password) = super::site::USER;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    let challenge = site.client().get("/v2/")?;
    let challenge = challenge
        .header("www-authenticate")
        .unwrap_or_default()
        .to_owned();
    let field = |key: &str| {
        let from = challenge.find(&format!("{key}=\""))? + key.len() + 2;
        challenge[from..].split('"').next().map(str::to_owned)
    };
    let realm = field("realm").unwrap_or_default();
    let service = field("service").unwrap_or_default();
    let path = location(
        &realm,
        &format!("service={service}&scope=repository:{REPOSITORY}:pull,push"),
    );
    let mut client = site.client();
    client.authorize(&format!("Basic {basic}"));
    let answer = client.get(&path)?.expect(200, "the token endpoint")?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
    Ok(format!(
        "Bearer {}",
        json["token"].as_str().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_has_its_size_and_digest() {
        let large = Large::new(7, (2 << 20) + 5);
        let mut all = Vec::new();
        large
            .each(&mut |piece| {
                all.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert_eq!(all.len() as u64, large.size);
        assert_eq!(digest(&all), large.digest);
        assert_ne!(large.digest, Large::new(8, large.size).digest);
    }

    #[test]
    fn small_blobs_differ() {
        let all: std::collections::HashSet<_> =
            (0..2000).map(|n| digest(&small(n, 1024))).collect();
        assert_eq!(all.len(), 2000);
        assert_eq!(small(5, 64 << 10).len(), 64 << 10);
    }

    #[test]
    fn locations_lose_their_host() {
        assert_eq!(
            location("http://a:1/v2/x?s=1", "digest=d"),
            "/v2/x?s=1&digest=d"
        );
        assert_eq!(location("/v2/x", "digest=d"), "/v2/x?digest=d");
        assert_eq!(location("/v2/x", ""), "/v2/x");
    }

    #[test]
    fn a_manifest_is_json_and_names_its_parts() {
        let bytes = manifest(b"{}", b"layer", "n1");
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["layers"][0]["digest"], digest(b"layer"));
        assert_eq!(json["config"]["size"], 2);
    }
}

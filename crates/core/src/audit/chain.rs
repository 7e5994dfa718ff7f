//! What of an entry is hashed, and how it is signed.
//!
//! The encoding is canonical: fields in one order, each with its length before it, so that no two different entries encode alike.
//! It begins with its version. The key comes from outside the database (`access/seal.rs`).

use aws_lc_rs::hmac;
use sha2::{Digest as _, Sha256};
use wharf_meta::audit::{EntryRow, HeadRow};

/// What an encoded entry begins with: another encoding begins otherwise.
const VERSION: &[u8] = b"wharf audit entry 1\0";

/// The keys of the log; the first one signs, all of them verify.
pub struct LogKeys(Vec<hmac::Key>);

impl std::fmt::Debug for LogKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogKeys({})", self.0.len())
    }
}

/// All of an entry but its hash and its signature.
pub(super) fn encode(entry: &EntryRow) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    out.extend(entry.seq.to_be_bytes());
    out.extend(entry.at.to_be_bytes());
    for text in [
        &entry.action,
        &entry.principal,
        &entry.credential,
        &entry.address,
        &entry.request,
        &entry.detail,
    ] {
        put(&mut out, text.as_bytes());
    }
    for text in [&entry.repository, &entry.digest, &entry.tag] {
        out.push(u8::from(text.is_some()));
        put(&mut out, text.as_deref().unwrap_or_default().as_bytes());
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_be_bytes());
    out.extend(bytes);
}

/// Of the entry alone.
pub(super) fn content(entry: &EntryRow) -> [u8; 32] {
    Sha256::digest(encode(entry)).into()
}

/// Of the entry as the one that follows another.
pub(super) fn link(before: &[u8], content: &[u8; 32]) -> Vec<u8> {
    let mut text = Vec::with_capacity(before.len() + 40);
    put(&mut text, before);
    text.extend(content);
    Sha256::digest(text).to_vec()
}

fn entry_text(content: &[u8; 32], hash: &[u8]) -> Vec<u8> {
    [b"entry\0", &content[..], hash].concat()
}

fn head_text(head: &HeadRow) -> Vec<u8> {
    let mut text = b"head\0".to_vec();
    for (seq, hash) in [(head.seq, &head.hash), (head.cut_seq, &head.cut_hash)] {
        text.extend(seq.to_be_bytes());
        put(&mut text, hash);
    }
    text
}

impl LogKeys {
    /// These, of which the first one signs.
    pub(crate) fn new(keys: Vec<hmac::Key>) -> Self {
        Self(keys)
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let key = self.0.first();
        key.map_or_else(Vec::new, |key| hmac::sign(key, text).as_ref().to_vec())
    }

    fn verify(&self, text: &[u8], mac: &[u8]) -> bool {
        let mut keys = self.0.iter();
        keys.any(|key| hmac::verify(key, text, mac).is_ok())
    }

    /// Gives an entry its hash behind another one, and its signature.
    pub(super) fn close(&self, entry: &mut EntryRow, before: &[u8]) {
        let content = content(entry);
        entry.hash = link(before, &content);
        entry.mac = self.sign(&entry_text(&content, &entry.hash));
    }

    /// Whether the entry with its hash is what was written.
    pub(super) fn knows(&self, entry: &EntryRow) -> bool {
        self.verify(&entry_text(&content(entry), &entry.hash), &entry.mac)
    }

    /// Signs a head.
    pub(super) fn close_head(&self, head: &mut HeadRow) {
        head.mac = self.sign(&head_text(head));
    }

    /// Whether the head is one that was written.
    pub(super) fn knows_head(&self, head: &HeadRow) -> bool {
        self.verify(&head_text(head), &head.mac)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = EntryRow> {
        let text = || "[a\0é,\"]{0,3}";
        let option = || prop::option::of(text());
        let texts = (text(), text(), text(), text(), text(), text());
        (0..3i64, 0..3i64, texts, option(), option(), option()).prop_map(
            |(
                seq,
                at,
                (action, principal, credential, address, request, detail),
                repository,
                digest,
                tag,
            )| EntryRow {
                seq,
                at,
                action,
                principal,
                credential,
                address,
                request,
                repository,
                digest,
                tag,
                detail,
                hash: Vec::new(),
                mac: Vec::new(),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Small fields over few characters, so that moving a border between two of them is likely.
        #[test]
        fn two_different_entries_never_encode_alike(one in entries(), other in entries()) {
            prop_assert_eq!(one == other, encode(&one) == encode(&other));
        }

        #[test]
        fn moving_text_from_one_field_to_the_next_changes_the_encoding(entry in entries(), moved in "[a-c]{1,3}") {
            let mut one = entry.clone();
            one.action.push_str(&moved);
            let mut other = entry.clone();
            other.principal.insert_str(0, &moved);
            prop_assert_ne!(encode(&one), encode(&other));
            let none = EntryRow { tag: None, ..entry.clone() };
            let empty = EntryRow { tag: Some(String::new()), ..entry };
            prop_assert_ne!(encode(&none), encode(&empty));
        }
    }
}

//! What must hold for any input of the parsers that the network reaches first, and of the whole registry behind HTTP.
//!
//! One function per target, shared by two drivers: `tests/run.rs` mutates the seeds for some seconds on stable Rust as
//! part of `cargo xtask ci`, and `fuzz_targets/` hands them to libFuzzer for as long as one likes (see the README there).
//! A target panics when a property is broken; input that a parser refuses is fine.

mod access;
mod helper;
mod http;
mod oci;
mod people;
mod route;
pub mod seeds;
mod workload;

/// What is under test.
pub struct Target {
    /// Name of the target, of its seed file and of its libFuzzer binary.
    pub name: &'static str,
    /// Checks one input.
    pub check: fn(&[u8]),
    /// Inputs that somebody wrote, one per line as [`seeds`] describes them.
    pub seeds: &'static str,
    /// Inputs that libFuzzer found, in the same form: no two reach the same code.
    pub corpus: &'static str,
}

impl Target {
    /// All inputs to start from.
    pub fn inputs(&self) -> impl Iterator<Item = Vec<u8>> {
        let lines = self.seeds.lines().chain(self.corpus.lines());
        lines.map(seeds::unescape)
    }
}

macro_rules! targets {
    ($($name:literal => $check:path,)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(
            Target {
                name: $name,
                check: $check,
                seeds: include_str!(concat!("../seeds/", $name, ".txt")),
                corpus: include_str!(concat!("../corpus/", $name, ".txt")),
            },
        )*];
    };
}

targets! {
    "authorization" => oci::authorization,
    "challenge" => oci::challenge,
    "claims" => workload::claims,
    "content-range" => oci::content_range,
    "credential-helper" => helper::credential_helper,
    "credential-provider" => workload::credential_provider,
    "digest" => oci::digest,
    "directory" => people::directory,
    "directory-filter" => people::directory_filter,
    "directory-name" => people::directory_name,
    "htpasswd" => access::htpasswd,
    "jwks" => workload::jwks,
    "jwt" => workload::jwt,
    "manifest" => oci::manifest,
    "range" => oci::range,
    "reference" => oci::reference,
    "route" => route::path,
    "sequence" => http::sequence,
    "token" => access::token,
    "typed" => people::typed,
    "wire" => http::wire,
}

/// The target of that name, for libFuzzer's binaries.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a known target")
}

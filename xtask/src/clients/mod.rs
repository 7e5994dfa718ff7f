//! `cargo xtask clients`: installs the real clients that the end-to-end tests drive.
//!
//! Debian packages come from `apt-get`; Go programs are built from the versions pinned in
//! `tests/clients/<name>/go.mod`, Node.js programs likewise; cargo-deny from crates.io. What is already there is not touched, so
//! the task is cheap to repeat. It ends with a table of what is there and what is missing, and why.

mod cargo;
mod debian;
mod go;
mod npm;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

pub(crate) use debian::install as install_packages;

/// Arguments of `cargo xtask clients`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these (a name of the printed table); all when none is given
    names: Vec<String>,
    /// Print what is there without installing anything
    #[arg(long)]
    list: bool,
}

/// Where a client comes from.
enum Source {
    /// Debian package, and the program that it brings.
    Debian {
        package: &'static str,
        program: &'static str,
    },
    /// Go module in `tests/clients/<name>`.
    Go,
    /// Node.js package in `tests/clients/<name>`, and the script that is the program.
    Npm { script: &'static str },
    /// A crate with this version.
    Cargo {
        krate: &'static str,
        version: &'static str,
    },
}

/// One program and where it comes from.
struct Client {
    name: &'static str,
    source: Source,
    /// Why the project needs it.
    purpose: &'static str,
}

const fn debian(package: &'static str, program: &'static str, purpose: &'static str) -> Client {
    Client {
        name: program,
        source: Source::Debian { package, program },
        purpose,
    }
}

const fn go(name: &'static str, purpose: &'static str) -> Client {
    Client {
        name,
        source: Source::Go,
        purpose,
    }
}

/// Every client. Go parts follow the slowest last, so that a first failure shows early.
const CLIENTS: &[Client] = &[
    debian("docker.io", "dockerd", "docker, both image stores"),
    debian("podman", "podman", "push, pull, run"),
    debian("buildah", "buildah", "build, push, pull"),
    debian("skopeo", "skopeo", "copy, sync, inspect, delete, list-tags"),
    debian("containerd", "containerd", "ctr, hosts.toml mirror"),
    debian("runc", "runc", "runs what was pulled"),
    debian("conmon", "conmon", "podman needs it to run"),
    debian("slapd", "slapd", "a directory that people sign in with"),
    debian("ldap-utils", "ldapadd", "fills it"),
    debian("chromium", "chromium", "people's browser"),
    debian("umoci", "umoci", "unpacks what was pulled"),
    debian(
        "nginx-light",
        "nginx",
        "a proxy with TLS in front, and a rival in benchmarks",
    ),
    debian(
        "postgresql",
        "pg_ctlcluster",
        "the metadata store of several replicas",
    ),
    debian(
        "pgbouncer",
        "pgbouncer",
        "a pool of connections before PostgreSQL",
    ),
    debian("wrk", "wrk", "benchmarks: small reads"),
    debian("strace", "strace", "benchmarks: flushes counted and slowed"),
    debian(
        "debootstrap",
        "debootstrap",
        "a real tree of some hundred MiB",
    ),
    debian("curl", "curl", "the tutorial's requests"),
    debian("openssl", "openssl", "certificates of the test servers"),
    debian("iproute2", "ip", "dockerd asks for it"),
    debian("iptables", "iptables", "dockerd asks for it"),
    debian("strace", "strace", "records what reaches the disk"),
    Client {
        name: "cargo-deny",
        source: Source::Cargo {
            krate: "cargo-deny",
            version: "0.20.2",
        },
        purpose: "licences, bans and sources of dependencies",
    },
    go("crane", "go-containerregistry"),
    go("regctl", "regclient"),
    go("oras", "oras-go: artifacts"),
    go("notation", "signatures through referrers"),
    go("helm3", "charts"),
    go("helm4", "charts"),
    go("buildctl", "BuildKit's client"),
    go("buildkitd", "BuildKit's daemon: caches, provenance"),
    go("cosign2", "signatures, attestations"),
    go("cosign3", "signatures, attestations through referrers"),
    go(
        "distribution",
        "the reference registry: to check the tests themselves, and benchmarks",
    ),
    go("etcd", "what a cluster keeps, below kube-apiserver"),
    go("kube-apiserver", "a cluster's service accounts"),
    go("minio", "an S3 server: the registry over a bucket"),
    Client {
        name: "azurite",
        source: Source::Npm {
            script: "dist/src/blob/main.js",
        },
        purpose: "Azure Blob Storage, as Microsoft emulates it",
    },
    Client {
        name: "oidc-provider",
        source: Source::Npm {
            script: "start.mjs",
        },
        purpose: "a certified OpenID provider, and what drives a browser",
    },
];

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    for name in &args.names {
        if !CLIENTS.iter().any(|c| c.name == name) {
            let known: Vec<_> = CLIENTS.iter().map(|c| c.name).collect();
            bail!("no client is called {name}; known: {}", known.join(", "));
        }
    }
    let cache = crate::workspace::clients_dir()?;
    let wanted: Vec<&Client> = CLIENTS
        .iter()
        .filter(|c| args.names.is_empty() || args.names.iter().any(|n| n == c.name))
        .collect();
    if !args.list {
        std::fs::create_dir_all(cache.join("bin"))?;
        let packages: Vec<_> = wanted
            .iter()
            .filter_map(|c| match c.source {
                Source::Debian { package, program } if crate::run::find(program).is_none() => {
                    Some(package)
                }
                _ => None,
            })
            .collect();
        if let Err(error) = install_packages(&packages) {
            eprintln!("{error:#}");
        }
    }
    println!("clients in {}", cache.display());
    let mut missing = Vec::new();
    for client in wanted {
        let start = Instant::now();
        let state = if args.list {
            client.version(&cache)
        } else {
            client.install(&cache)
        };
        match state {
            Ok(version) => {
                let took = start.elapsed().as_secs();
                let took = if took > 1 {
                    format!("  ({took} s)")
                } else {
                    String::new()
                };
                println!(
                    "  {:<13} {:<44} {}{took}",
                    client.name, version, client.purpose
                );
            }
            Err(error) => {
                println!("  {:<13} MISSING: {error:#}", client.name);
                missing.push(client.name);
            }
        }
    }
    if !missing.is_empty() && !args.list {
        bail!(
            "missing: {} (the reason is beside each above)",
            missing.join(", ")
        );
    }
    Ok(())
}

impl Client {
    /// Builds what is out of date; Debian packages were installed together before.
    fn install(&self, cache: &Path) -> Result<String> {
        match self.source {
            Source::Debian { package, program } => debian::version(package, program),
            Source::Go => go::install(self.name, cache),
            Source::Npm { script } => npm::install(self.name, script, cache),
            Source::Cargo { krate, version } => cargo::install(krate, version, cache),
        }
    }

    /// What is there.
    fn version(&self, cache: &Path) -> Result<String> {
        match self.source {
            Source::Debian { package, program } => debian::version(package, program),
            Source::Go => go::version(self.name, cache),
            Source::Npm { .. } => npm::version(self.name, cache),
            Source::Cargo { krate, version } => cargo::version(krate, version, cache),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_that_is_pinned_here_is_listed_and_the_other_way_round() {
        let dir = crate::workspace::root().join("tests/clients");
        let mut pinned: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        pinned.sort();
        let mut listed: Vec<_> = CLIENTS
            .iter()
            .filter(|c| matches!(c.source, Source::Go | Source::Npm { .. }))
            .map(|c| c.name.to_owned())
            .collect();
        listed.sort();
        assert_eq!(pinned, listed);
        for client in CLIENTS {
            let name = client.name;
            if matches!(client.source, Source::Npm { .. }) {
                assert!(
                    dir.join(name).join("package-lock.json").is_file(),
                    "{name} is not pinned"
                );
                assert!(npm::pinned(name).is_ok(), "{name}: no version");
            }
            if !matches!(client.source, Source::Go) {
                continue;
            }
            assert!(
                dir.join(name).join("go.sum").is_file(),
                "{name} has no go.sum: its modules are not pinned"
            );
            assert!(
                go::Pin::read(name).is_ok(),
                "{name}: its go.mod names no tool"
            );
        }
    }
}

//! What values must not be together, and what deserves a warning.
//!
//! Works on values alone: nothing is opened here, so that a configuration can be judged on another machine.
//! [`check_files`] looks at the files it names.

use std::path::Path;
use std::time::Duration;

use wharf_core::access::{ANONYMOUS, Policy, Role};

use super::ldap;
use super::load::Sources;
use super::problem::{Problem, Source};
use super::sections::{AnonymousRole, Challenge, ClientMode, Config, RedirectWhen, StorageKind};
use crate::http::listener::ListenAddr;
use crate::http::tls::Tls;

/// Finds what cannot work.
pub(super) fn validate(
    config: &Config,
    sources: &Sources,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let mut check = Check { sources, problems };
    check.server(config);
    check.tls(config);
    check.access(config);
    check.auth(config);
    check.content(config);
    check.restore(config);
    check.limits(config);
    check.rate_limits(config);
    check.log(config);
    check.storage(config);
    check.metadata(config);
    if passwords_in_the_open(config) {
        warnings.push(Problem {
            at: sources
                .get("server.listen")
                .cloned()
                .unwrap_or(Source::Default),
            what: PLAIN_HTTP.to_owned(),
            help: Some(PLAIN_HTTP_CURE.to_owned()),
        });
    }
}

/// The warning about passwords that anybody on the way can read.
pub const PLAIN_HTTP: &str = "passwords and tokens will cross the network unencrypted: this address is reachable from outside and has no TLS";
/// What to do about it.
pub const PLAIN_HTTP_CURE: &str = "give --tls-cert and --tls-key (or --tls-self-signed in a laboratory); or let a TLS proxy stand in front, \
     and name it in [server] trusted_proxies; or listen on 127.0.0.1";

/// Plain HTTP beyond this machine, and no proxy that is trusted to add TLS.
#[must_use]
pub fn passwords_in_the_open(config: &Config) -> bool {
    let plain = config.tls.cert.is_none() && !config.tls.self_signed;
    plain && config.server.trusted_proxies.is_empty() && !only_local(config)
}

fn only_local(config: &Config) -> bool {
    config.server.listen.iter().all(ListenAddr::is_local)
}

struct Check<'a> {
    sources: &'a Sources,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn refuse(&mut self, path: &str, what: impl Into<String>, help: &str) {
        let at = self.sources.get(path).cloned().unwrap_or(Source::Default);
        self.problems.push(Problem {
            at,
            what: what.into(),
            help: Some(help.to_owned()),
        });
    }

    fn server(&mut self, config: &Config) {
        if config.server.listen.is_empty() {
            self.refuse(
                "server.listen",
                "`server.listen` names no address",
                "name one, such as \"127.0.0.1:5000\"",
            );
        }
        for (index, address) in config.server.listen.iter().enumerate() {
            // Port 0 is a fresh port each time.
            let any_port = matches!(address, ListenAddr::Tcp { port: 0, .. });
            if !any_port && config.server.listen[..index].contains(address) {
                self.refuse(
                    "server.listen",
                    format!("`server.listen` names {address} twice"),
                    "name it once",
                );
            }
            if !any_port && config.server.metrics_listen.as_ref() == Some(address) {
                let what = format!(
                    "`server.metrics_listen` is {address}, where the registry itself listens"
                );
                self.refuse("server.metrics_listen", what, "take another port");
            }
        }
    }

    fn tls(&mut self, config: &Config) {
        let tls = &config.tls;
        match (&tls.cert, &tls.key) {
            (Some(_), None) => {
                self.refuse(
                    "tls.cert",
                    "`tls.cert` is given without `tls.key`",
                    "name the private key too: --tls-key FILE",
                );
            }
            (None, Some(_)) => {
                self.refuse(
                    "tls.key",
                    "`tls.key` is given without `tls.cert`",
                    "name the certificate too: --tls-cert FILE",
                );
            }
            _ => {}
        }
        if tls.self_signed && tls.cert.is_some() {
            let what = "`tls.self_signed` and `tls.cert` exclude each other";
            self.refuse("tls.self_signed", what, "keep one of them");
        }
        self.clients(config);
    }

    fn clients(&mut self, config: &Config) {
        let (tls, clients) = (&config.tls, &config.tls.clients);
        if clients.ca.is_none() {
            for (path, given) in [
                ("tls.clients.crl", !clients.crl.is_empty()),
                ("tls.clients.mode", clients.mode != ClientMode::Optional),
                ("tls.clients.required_at", !clients.required_at.is_empty()),
                ("tls.clients.never_at", !clients.never_at.is_empty()),
                ("tls.clients.user", !clients.users.is_empty()),
            ] {
                if given {
                    let what = format!("`{path}` is given without `tls.clients.ca`");
                    let help =
                        "name the authorities of clients: ca = \"clients.pem\" in [tls.clients]";
                    self.refuse(path, what, help);
                }
            }
        } else if tls.cert.is_none() && !tls.self_signed {
            let what = "`tls.clients.ca` is given, and the registry speaks plain HTTP";
            let help = "name its own certificate in [tls] as well: only TLS shows clients' certificates, and a proxy in front hides them";
            self.refuse("tls.clients.ca", what, help);
        }
        for (path, addresses) in [
            ("tls.clients.required_at", &clients.required_at),
            ("tls.clients.never_at", &clients.never_at),
        ] {
            for address in addresses {
                let listened = config.server.listen.contains(address);
                let twice = path.ends_with("never_at") && clients.required_at.contains(address);
                if !listened {
                    let what = format!("`{path}` names {address}, where nothing listens");
                    self.refuse(path, what, "write it as it stands in `server.listen`");
                } else if twice {
                    let what = format!("{address} is in `required_at` and in `never_at`");
                    self.refuse(path, what, "name it in one of them");
                } else if matches!(address, ListenAddr::Unix { .. }) {
                    let what = format!("`{path}` names {address}, where there is no TLS");
                    self.refuse(path, what, "leave it out");
                }
            }
        }
        if let Err((index, error)) = config.certificate_users() {
            let what = format!("this `[[tls.clients.user]]` cannot be meant: {error}");
            let help = "a rule reads: from = \"email\", matches = \"*@example.com\"";
            self.refuse(&format!("tls.clients.user[{index}]"), what, help);
        }
    }

    fn access(&mut self, config: &Config) {
        let open = "strangers could push or delete: set `allow_open = true` in [access] if that is meant, listen on 127.0.0.1 only, or \
                    take the role `reader`";
        let beyond = !only_local(config) && !config.access.allow_open;
        if beyond && config.access.anonymous > AnonymousRole::Reader {
            let what = format!(
                "`access.anonymous` = \"{}\" beyond this machine is refused",
                config.access.anonymous
            );
            self.refuse("access.anonymous", what, open);
        }
        for (index, grant) in config.access.grants.iter().enumerate() {
            let path = format!("access.grant[{index}]");
            let policy = grant
                .to_core()
                .and_then(|grant| Policy::new(Role::None, Role::None, &[grant]));
            if let Err(error) = policy {
                let help = "a grant reads: who = \"alice\", role = \"writer\", on = \"team/a\"";
                self.refuse(
                    &path,
                    format!("this `[[access.grant]]` cannot be meant: {error}"),
                    help,
                );
            } else if beyond
                && grant.who == ANONYMOUS
                && !grant.role.permissions().within(Role::Reader.permissions())
            {
                let what = format!(
                    "role \"{}\" for anonymous beyond this machine is refused",
                    grant.role
                );
                self.refuse(&path, what, open);
            }
        }
    }

    /// A prefix that no repository can have would silently never apply.
    fn prefix(&mut self, path: &str, list: &str, on: &str) {
        let bare = on.strip_suffix('/').unwrap_or(on);
        let valid = wharf_oci::RepositoryName::parse(bare).is_ok();
        if !on.is_empty() && !valid {
            let what =
                format!("`on` = \"{on}\" in this `[[{list}]]` is no prefix of a repository name");
            self.refuse(path, what, "write it like \"team/a\": lower-case letters, digits, `.`, `_`, `-`, parts separated by `/`");
        }
    }

    fn auth(&mut self, config: &Config) {
        let strangers = config.access.anonymous != AnonymousRole::None
            || config
                .access
                .grants
                .iter()
                .any(|grant| grant.who == ANONYMOUS && grant.role != Role::None);
        if config.auth.challenge == Challenge::Basic && strangers {
            self.refuse(
                "auth.challenge",
                "`auth.challenge` = \"basic\" is refused while anonymous may do anything",
                "clients that are asked for Basic cannot pull anonymously: take \"bearer\", or `anonymous = \"none\"` and no grant for it",
            );
        }
        if config.auth.token_lifetime < Duration::from_secs(60) {
            let what = "`auth.token_lifetime` is under 60s";
            self.refuse(
                "auth.token_lifetime",
                what,
                "clients assume that a token lives for at least 60s",
            );
        }
        if config.auth.push_token_lifetime < config.auth.token_lifetime {
            let what = "`auth.push_token_lifetime` is shorter than `auth.token_lifetime`";
            self.refuse(
                "auth.push_token_lifetime",
                what,
                "pushes take longer than pulls: take at least as much",
            );
        }
        self.oidc(config);
        if config.auth.service.trim().is_empty() {
            self.refuse(
                "auth.service",
                "`auth.service` is empty",
                "take a name, such as \"wharf\"",
            );
        }
        for (index, what, help) in ldap::problems(config) {
            self.refuse(&format!("auth.ldap[{index}]"), what, help);
        }
    }

    fn oidc(&mut self, config: &Config) {
        let mut names = std::collections::HashSet::new();
        for (index, oidc) in config.auth.oidc.iter().enumerate() {
            let path = format!("auth.oidc[{index}]");
            let mut refuse = |what: String, help: &str| {
                self.refuse(&path, format!("{what} in this `[[auth.oidc]]`"), help);
            };
            if !wharf_core::access::is_word(&oidc.name) {
                let what = format!("`name` = {:?} is no name", oidc.name);
                refuse(what, "take a-z, 0-9, `-`, `_` and `.`, such as \"corp\"");
            } else if !names.insert(oidc.name.as_str()) {
                let what = format!("`name` = {:?} is another provider's", oidc.name);
                refuse(what, "accounts belong to a name: give each its own");
            }
            if oidc.client_id.is_empty() {
                refuse(
                    "`client_id` is empty".into(),
                    "the provider says what it is",
                );
            }
            if !oidc.issuer.0.starts_with("https://") && !is_here(&oidc.issuer.0) {
                refuse(
                    format!("`issuer` = {:?} is not https", oidc.issuer.0),
                    "whoever is on the way could sign in as anybody: only a provider on this machine goes without",
                );
            }
            for scope in &oidc.scopes {
                let bad = |c: char| c.is_whitespace() || c.is_control() || "\"\\".contains(c);
                if scope.is_empty() || scope.contains(bad) {
                    let what = format!("`scopes` holds {scope:?}, which is no scope");
                    refuse(what, "write each for itself: [\"profile\", \"email\"]");
                }
            }
            for (key, claim) in [
                ("username_claim", &oidc.username_claim),
                ("groups_claim", &oidc.groups_claim),
            ] {
                if claim.is_empty() {
                    let what = format!("`{key}` is empty");
                    refuse(what, "name a claim of the provider, or leave the key out");
                }
            }
            if oidc.admin_group.as_deref() == Some("") {
                let what = "`admin_group` is empty".to_owned();
                refuse(what, "name a group of the provider, or leave the key out");
            }
            for pattern in &oidc.group_filter {
                if let Err(error) = pattern.parse::<wharf_core::workload::Pattern>() {
                    let what = format!("`group_filter` holds {pattern:?}: {error}");
                    refuse(what, "write it like \"registry-*\"");
                }
            }
            if config.server.external_url.is_none() {
                refuse(
                    "`server.external_url` is missing, and a provider is".into(),
                    "providers send people back to one address only: set server.external_url = \"https://registry.example.com\"",
                );
            }
        }
        let auth = &config.auth;
        for (path, zero) in [
            ("auth.session_lifetime", auth.session_lifetime.is_zero()),
            ("auth.session_idle", auth.session_idle.is_zero()),
            ("auth.terminal_lifetime", auth.terminal_lifetime.is_zero()),
            ("auth.terminal_idle", auth.terminal_idle.is_zero()),
            (
                "auth.session_check",
                auth.session_check < Duration::from_secs(10),
            ),
        ] {
            if zero {
                let what = format!("`{path}` is too short");
                self.refuse(path, what, "take some minutes at least");
            }
        }
    }

    fn content(&mut self, config: &Config) {
        for (index, rule) in config.content.overrides.iter().enumerate() {
            let path = format!("content.override[{index}]");
            if rule.on.is_empty() {
                let what = "`on` in this `[[content.override]]` is empty";
                self.refuse(
                    &path,
                    what,
                    "name a prefix; for every repository, write the keys in [content]",
                );
            }
            self.prefix(&path, "content.override", &rule.on);
        }
    }

    fn restore(&mut self, config: &Config) {
        for (index, rule) in config.restore.overrides.iter().enumerate() {
            let path = format!("restore.override[{index}]");
            if rule.on.is_empty() {
                let what = "`on` in this `[[restore.override]]` is empty";
                self.refuse(
                    &path,
                    what,
                    "name a prefix; for every repository, write `window` in [restore]",
                );
            }
            self.prefix(&path, "restore.override", &rule.on);
        }
    }

    fn rate_limits(&mut self, config: &Config) {
        let table = "rate_limits.override";
        let mut seen = std::collections::HashSet::new();
        for (index, rule) in config.rate_limits.overrides.iter().enumerate() {
            let path = format!("{table}[{index}]");
            let on = rule.on.as_deref().unwrap_or_default();
            self.prefix(&path, table, on);
            let mut refuse = |what: &str, help: &str| {
                self.refuse(&path, format!("this `[[{table}]]` {what}"), help);
            };
            if on.is_empty() && rule.role.is_none() {
                refuse(
                    "names neither `on` nor `role`",
                    "name a prefix, a role or both; for everybody, write the keys in [rate_limits]",
                );
            }
            if rule.role == Some(Role::None) {
                refuse(
                    "is for role \"none\", which everybody has",
                    "leave `role` out, or name one that gives something, such as \"writer\"",
                );
            }
            let set = [
                ("token", rule.token.is_some()),
                ("reads", rule.reads.is_some()),
                ("writes", rule.writes.is_some()),
                ("bytes", rule.bytes.is_some()),
            ];
            let set: Vec<&str> = set
                .iter()
                .filter(|(_, set)| *set)
                .map(|(key, _)| *key)
                .collect();
            if set.is_empty() {
                refuse(
                    "sets no rate",
                    "give it `token`, `reads`, `writes` or `bytes`, such as reads = \"100/s burst 5000\"",
                );
            }
            let bare = on.strip_suffix('/').unwrap_or(on);
            for key in set {
                if !seen.insert((bare, rule.role, key)) {
                    refuse(
                        &format!("sets `{key}` again for the same `on` and `role`"),
                        "keep one of them",
                    );
                }
            }
        }
    }

    fn metadata(&mut self, config: &Config) {
        for (path, time) in [
            (
                "metadata.statement_timeout",
                config.metadata.statement_timeout,
            ),
            ("metadata.lock_timeout", config.metadata.lock_timeout),
        ] {
            if time.is_zero() {
                let what = format!("`{path}` is 0, which the server takes for no limit");
                self.refuse(
                    path,
                    what,
                    "give the time after which a request is told that the database is busy",
                );
            }
        }
        let checked = config.postgres_options().map(|options| options.check());
        if let Some(Err(error)) = checked {
            // The key and the cure are in its one sentence.
            let at = self.sources.get("metadata.url").cloned();
            self.problems.push(Problem {
                at: at.unwrap_or(Source::Default),
                what: error.to_string(),
                help: None,
            });
        }
    }

    fn storage(&mut self, config: &Config) {
        let storage = &config.storage;
        let (s3, gcs, azure) = (&storage.s3, &storage.gcs, &storage.azure);
        let needed: &[(&str, bool)] = match storage.kind {
            StorageKind::Fs => &[],
            StorageKind::S3 => &[("storage.s3.bucket", s3.bucket.is_empty())],
            StorageKind::Gcs => &[("storage.gcs.bucket", gcs.bucket.is_empty())],
            StorageKind::Azure => &[
                ("storage.azure.account", azure.account.is_empty()),
                ("storage.azure.container", azure.container.is_empty()),
            ],
        };
        for (path, _) in needed.iter().filter(|(_, missing)| *missing) {
            let what = format!(
                "`{path}` is missing, and `storage.kind` is \"{}\"",
                storage.kind
            );
            self.refuse(path, what, "name it in the section of the store");
        }
        if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
            self.refuse(
                "storage.s3.access_key_id",
                "`storage.s3.access_key_id` and `storage.s3.secret_access_key` belong together",
                "give both, or neither to take the credentials of the environment or the instance",
            );
        }
        if s3.sse && s3.sse_kms_key.is_some() {
            let what = "`storage.s3.sse` and `storage.s3.sse_kms_key` exclude each other";
            self.refuse("storage.s3.sse", what, "keep one of them");
        }
        if !(5 << 20..=1 << 30).contains(&storage.part_size.0) {
            let what = "`storage.part_size` is not between 5MiB and 1GiB";
            self.refuse(
                "storage.part_size",
                what,
                "object stores take no smaller parts",
            );
        }
        if storage.redirect.when != RedirectWhen::Never && storage.kind == StorageKind::Fs {
            let what =
                "`storage.redirect.when` needs an object store, and `storage.kind` is \"fs\"";
            self.refuse("storage.redirect.when", what, "leave it at \"never\"");
        }
        if storage.folder.is_some() && storage.kind != StorageKind::Fs {
            let what = format!(
                "`storage.folder` is for files, and `storage.kind` is \"{}\"",
                storage.kind
            );
            self.refuse(
                "storage.folder",
                what,
                "leave it out, or set `kind = \"fs\"`",
            );
        }
        let lifetime = storage.redirect.lifetime;
        if lifetime.is_zero() || lifetime > Duration::from_secs(7 * 86_400) {
            let what = "`storage.redirect.lifetime` is not between 1s and 7d";
            self.refuse(
                "storage.redirect.lifetime",
                what,
                "services sign for a week at most",
            );
        }
    }

    fn log(&mut self, config: &Config) {
        if let Err(error) = crate::telemetry::log::parse_level(&config.log.level) {
            let what = format!("`log.level`: {error}");
            self.refuse("log.level", what, "each request is a line of level info");
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        let zero = [
            ("limits.connections", limits.connections == 0),
            (
                "limits.requests_per_connection",
                limits.requests_per_connection == 0,
            ),
            (
                "limits.streams_per_connection",
                limits.streams_per_connection == 0,
            ),
            ("limits.header_time", limits.header_time.is_zero()),
            ("limits.handshake_time", limits.handshake_time.is_zero()),
            ("limits.progress_window", limits.progress_window.is_zero()),
            ("limits.manifest_size", limits.manifest_size.0 == 0),
            ("limits.blob_size", limits.blob_size.0 == 0),
            ("limits.upload_age", limits.upload_age.is_zero()),
            ("limits.password_attempts", limits.password_attempts == 0),
            ("limits.tags_per_push", limits.tags_per_push == 0),
            ("limits.page", limits.page == 0),
            (
                "auth.password_threads",
                config.auth.password_threads == Some(0),
            ),
            ("gc.every", config.gc.every.is_zero()),
            ("server.run", config.server.run.is_empty()),
            ("storage.io_threads", config.storage.io_threads == Some(0)),
        ];
        for (path, _) in zero.iter().filter(|(_, zero)| *zero) {
            self.refuse(
                path,
                format!("`{path}` is 0: nothing would be let through"),
                "take a number above 0",
            );
        }
        if limits.header_size.0 < 16 << 10 {
            let what = "`limits.header_size` is under 16KiB";
            self.refuse(
                "limits.header_size",
                what,
                "tokens of clients need that much",
            );
        }
        if limits.manifest_size.0 > 64 << 20 {
            let what = "`limits.manifest_size` is over 64MiB";
            self.refuse(
                "limits.manifest_size",
                what,
                "manifests are kept in the metadata and held in memory",
            );
        }
        if config.storage.inline_below.0 > 1 << 20 {
            let what = "`storage.inline_below` is over 1MiB";
            self.refuse("storage.inline_below", what, "larger blobs belong in files");
        }
    }
}

/// Finds files that the configuration names and that cannot be read.
#[must_use]
pub fn check_files(config: &Config, sources: &Sources) -> Vec<Problem> {
    let named = [
        ("tls.cert", &config.tls.cert),
        ("tls.key", &config.tls.key),
        ("tls.clients.ca", &config.tls.clients.ca),
        ("access.htpasswd.file", &config.access.htpasswd.file),
        ("metadata.password_file", &config.metadata.password_file),
        ("storage.ca", &config.storage.ca),
        (
            "storage.gcs.service_account",
            &config.storage.gcs.service_account,
        ),
    ];
    let named = named.map(|(path, file)| (path.to_owned(), file.as_deref()));
    let lists = config.tls.clients.crl.iter();
    let lists = lists.map(|file| ("tls.clients.crl".to_owned(), Some(file.as_path())));
    let authorities = config.auth.ldap.iter().enumerate().map(|(index, table)| {
        let path = format!("auth.ldap[{index}]");
        (path, table.ca_file.as_deref())
    });
    let providers = config.auth.oidc.iter().enumerate().map(|(index, table)| {
        let path = format!("auth.oidc[{index}]");
        (path, table.ca_file.as_deref())
    });
    let unread: Vec<Problem> = named
        .into_iter()
        .chain(lists)
        .chain(authorities)
        .chain(providers)
        .filter_map(|(path, file)| Some((path, file?)))
        .filter_map(|(path, file)| {
            let error = readable(file).err()?;
            let at = sources.get(&path).cloned().unwrap_or(Source::Default);
            // Of a table of several only the table has a place.
            let key = if path.ends_with(']') { ".ca_file" } else { "" };
            Some(Problem {
                at,
                what: format!("`{path}{key}`: cannot read {}: {error}", file.display()),
                help: None,
            })
        })
        .collect();
    match unread.is_empty() {
        true => unfit(config, sources).into_iter().collect(),
        false => unread,
    }
}

/// Certificates that can be read, and cannot be used.
fn unfit(config: &Config, sources: &Sources) -> Option<Problem> {
    let tls = &config.tls;
    let own = tls.cert.as_ref().zip(tls.key.as_ref());
    let own = own.map_or(Ok(()), |(cert, key)| Tls::load(cert, key).map(drop));
    let clients = || {
        config
            .client_options()
            .map_or(Ok(()), |options| options.check())
    };
    let (path, error) = match (own, clients()) {
        (Err(error), _) => ("tls.cert", error),
        (_, Err(error)) => ("tls.clients.ca", error),
        _ => return None,
    };
    Some(Problem {
        at: sources.get(path).cloned().unwrap_or(Source::Default),
        what: format!("`{path}`: {error}"),
        help: None,
    })
}

/// Whether a URL leads to this machine.
fn is_here(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn readable(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        Err(std::io::Error::from(std::io::ErrorKind::IsADirectory))
    } else {
        Ok(())
    }
}

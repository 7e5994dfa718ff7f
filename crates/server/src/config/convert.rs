//! From configuration to the options of the parts. The only place that knows both.

use std::sync::Arc;
use std::time::Duration;

use wharf_blob::fs::Folder;
use wharf_core::access::{self, AccessOptions, GrantError, Password, RateRules, Rights, Who};
use wharf_core::gc::{Rules, Windows};
use wharf_core::oidc::OidcSettings;
use wharf_core::session::SessionRules;
use wharf_core::terminal::TerminalRules;
use wharf_core::{Clock, ContentRule, ContentRules, Limits as CoreLimits};
use wharf_meta::{PostgresOptions, Synchronous as MetaSynchronous};

use super::sections::{
    AnonymousRole, CertificateName, Challenge, ClientMode, Config, ContentOverride, Grant, Ldap,
    LogFormat, Onboarding, Part, ProviderLogout, ProviderPrompt, StorageKind, Synchronous,
};
use crate::app::ldap::LdapOptions;
use crate::app::{AppOptions, Blobs, DataOptions, Upkeep};
use crate::http::limits::{Limits as HttpLimits, Progress};
use crate::http::tls::{Ask, AskAt, ClientOptions};
use crate::http::{ListenAddr, TrustedProxies};
use crate::telemetry::Metrics;

impl From<AnonymousRole> for access::Role {
    fn from(role: AnonymousRole) -> Self {
        match role {
            AnonymousRole::None => Self::None,
            AnonymousRole::Reader => Self::Reader,
            AnonymousRole::Writer => Self::Writer,
            AnonymousRole::Maintainer => Self::Maintainer,
        }
    }
}

impl From<LogFormat> for crate::telemetry::log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Auto => Self::Auto,
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

impl Grant {
    /// The grant as `core` knows it.
    ///
    /// # Errors
    /// When `who` cannot be a user's name.
    pub fn to_core(&self) -> Result<access::Grant, GrantError> {
        Ok(access::Grant {
            who: Who::parse(&self.who)?,
            role: self.role,
            on: self.on.clone(),
        })
    }
}

/// In words, in an order of its own.
fn listed(all: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = all.collect();
    all.sort_unstable();
    match all.is_empty() {
        true => "unset".to_owned(),
        false => all.join(", "),
    }
}

impl Config {
    /// What everybody may do: live.
    ///
    /// # Errors
    /// A grant that validation would have refused.
    pub fn rights(&self) -> Result<Rights, GrantError> {
        Ok(Rights {
            anonymous: self.access.anonymous.into(),
            // Without a file there are no such users, and lists of rights name none.
            htpasswd: match self.access.htpasswd.file {
                Some(_) => self.access.htpasswd.role,
                None => access::Role::None,
            },
            grants: self
                .access
                .grants
                .iter()
                .map(Grant::to_core)
                .collect::<Result<_, _>>()?,
            providers: (self.auth.oidc.iter())
                .map(|oidc| access::Provider {
                    name: oidc.name.clone(),
                    issuer: oidc.issuer.0.clone(),
                    admin_group: oidc.admin_group.clone(),
                    section: "[[auth.oidc]] admin_group",
                })
                .chain(self.auth.ldap.iter().map(|ldap| access::Provider {
                    name: ldap.name.clone(),
                    // A directory has only itself.
                    issuer: String::new(),
                    admin_group: ldap.admin_group.clone(),
                    section: "[[auth.ldap]] admin_group",
                }))
                .collect(),
        })
    }

    /// Whose certificates are users': live.
    ///
    /// # Errors
    /// A rule that cannot be meant, by its index, and why.
    pub fn certificate_users(&self) -> Result<Vec<access::CertificateUser>, (usize, String)> {
        let rules = self.tls.clients.users.iter().enumerate();
        rules
            .map(|(index, rule)| {
                let from = match rule.from {
                    CertificateName::Email => access::NameKind::Email,
                    CertificateName::Uri => access::NameKind::Uri,
                    CertificateName::Dns => access::NameKind::Dns,
                    CertificateName::Cn => access::NameKind::CommonName,
                };
                let user = rule.user.as_deref().unwrap_or_default();
                access::CertificateUser::new(from, &rule.matches, user)
                    .map_err(|error| (index, error))
            })
            .collect()
    }

    /// Whose certificates connections are made with, if clients are asked for any.
    #[must_use]
    pub fn client_options(&self) -> Option<ClientOptions> {
        let clients = &self.tls.clients;
        let at = |all: &[ListenAddr], ask| {
            let one = |address: &ListenAddr| AskAt {
                address: address.clone(),
                ask,
            };
            all.iter().map(one).collect::<Vec<_>>()
        };
        Some(ClientOptions {
            authorities: clients.ca.clone()?,
            revoked: clients.crl.clone(),
            ask: match clients.mode {
                ClientMode::Optional => Ask::Optional,
                ClientMode::Required => Ask::Required,
            },
            at: [
                at(&clients.required_at, Ask::Required),
                at(&clients.never_at, Ask::Never),
            ]
            .concat(),
        })
    }

    /// The providers with which people sign in.
    #[must_use]
    pub fn oidc_settings(&self) -> Vec<OidcSettings> {
        let all = self.auth.oidc.iter();
        all.map(|oidc| OidcSettings {
            name: oidc.name.clone(),
            title: oidc.title.clone().unwrap_or_else(|| oidc.name.clone()),
            issuer: oidc.issuer.0.clone(),
            client_id: oidc.client_id.clone(),
            client_secret: (oidc.client_secret.as_ref())
                .map(|secret| Password::new(secret.expose())),
            scopes: oidc.scopes.clone(),
            prompt: (oidc.prompt != ProviderPrompt::Usual).then(|| oidc.prompt.to_string()),
            username_claim: oidc.username_claim.clone(),
            groups_claim: oidc.groups_claim.clone(),
            admin_group: oidc.admin_group.clone(),
            group_filter: (oidc.group_filter.iter())
                .filter_map(|pattern| pattern.parse().ok())
                .collect(),
            onboards: oidc.onboarding == Onboarding::Auto,
            leaves: oidc.logout == ProviderLogout::Provider,
            // A file that cannot be read vouches for nobody; validation tells of it.
            authority: (oidc.ca_file.as_ref()).map_or_else(String::new, |file| {
                std::fs::read_to_string(file).unwrap_or_else(|_| "unreadable".to_owned())
            }),
        })
        .collect()
    }

    /// How access works.
    ///
    /// # Errors
    /// A grant that validation would have refused.
    pub fn access_options(&self) -> Result<AccessOptions, GrantError> {
        let defaults = AccessOptions::default();
        Ok(AccessOptions {
            rights: self.rights()?,
            htpasswd: self.access.htpasswd.file.clone(),
            service: self.auth.service.clone(),
            identity_tokens: self.auth.identity_tokens,
            token_lifetime: self.auth.token_lifetime,
            push_token_lifetime: self.auth.push_token_lifetime,
            upload_grace: self.auth.upload_grace,
            longest_lifetime: self.auth.longest_lifetime,
            key_rotation: self.auth.key_rotation,
            password_threads: self
                .auth
                .password_threads
                .map_or(defaults.password_threads, |threads| threads as usize),
            password_attempts: self.limits.password_attempts as usize,
            rates: self.rate_rules(),
            certificates: self.certificate_users().unwrap_or_default(),
            clock: defaults.clock,
            fetch: defaults.fetch,
            oidc: self.oidc_settings(),
            web: defaults.web,
            sessions: SessionRules {
                lifetime: self.auth.session_lifetime,
                idle: self.auth.session_idle,
                check: self.auth.session_check,
            },
            terminals: TerminalRules {
                lifetime: self.auth.terminal_lifetime,
                idle: self.auth.terminal_idle,
            },
        })
    }

    /// How often clients may ask: live.
    #[must_use]
    pub fn rate_rules(&self) -> RateRules {
        let rates = &self.rate_limits;
        if !rates.enabled {
            return RateRules::OFF;
        }
        let overrides = rates.overrides.iter().map(|rule| access::RateOverride {
            on: bare(rule.on.as_deref().unwrap_or_default()).to_owned(),
            role: rule.role,
            token: rule.token.map(|rate| rate.0),
            reads: rule.reads.map(|rate| rate.0),
            writes: rule.writes.map(|rate| rate.0),
            bytes: rule.bytes.map(|rate| rate.0),
        });
        RateRules {
            sign_in: rates.sign_in.0,
            token: rates.token.0,
            reads: rates.reads.0,
            writes: rates.writes.0,
            bytes: rates.bytes.0,
            overrides: overrides.collect(),
        }
    }

    /// What manifests must satisfy: live.
    #[must_use]
    pub fn content_rules(&self) -> ContentRules {
        let default = ContentRule {
            require_blobs: self.content.require_blobs,
            require_children: self.content.require_children,
            check_sizes: self.content.check_sizes,
        };
        let overrides = &self.content.overrides;
        ContentRules {
            default,
            overrides: overrides
                .iter()
                .map(|rule| (bare(&rule.on).to_owned(), resolve(default, overrides, rule)))
                .collect(),
        }
    }

    /// How long what nobody needs stays: live.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Rules {
            grace: millis(self.gc.grace),
            restore: Windows {
                default: millis(self.restore.window),
                overrides: self
                    .restore
                    .overrides
                    .iter()
                    .map(|rule| (bare(&rule.on).to_owned(), millis(rule.window)))
                    .collect(),
            },
            untagged: self.gc.untagged.map(millis),
            scrub: millis(self.scrub.period),
            events: millis(self.events.keep),
            audit: wharf_core::audit::Rules {
                keep: millis(self.audit.keep),
                reads: self.audit.reads,
            },
        }
    }

    /// Sizes and times that bound what one request can take.
    #[must_use]
    pub fn core_limits(&self) -> CoreLimits {
        CoreLimits {
            manifest_size: self.limits.manifest_size.0,
            blob_size: self.limits.blob_size.0,
            inline_below: self.storage.inline_below.0,
            upload_age_ms: i64::try_from(self.limits.upload_age.as_millis()).unwrap_or(i64::MAX),
            tags_per_push: self.limits.tags_per_push as usize,
            page: self.limits.page,
        }
    }

    /// What one connection can take.
    #[must_use]
    pub fn http_limits(&self) -> HttpLimits {
        let limits = &self.limits;
        HttpLimits {
            connections: limits.connections as usize,
            requests_per_connection: limits.requests_per_connection.into(),
            header_size: usize::try_from(limits.header_size.0).unwrap_or(usize::MAX),
            header_time: limits.header_time,
            handshake_time: limits.handshake_time,
            keep_alive: limits.idle_time,
            body_progress: Progress {
                bytes_per_second: limits.progress_rate.0,
                window: limits.progress_window,
            },
            h2_streams: limits.streams_per_connection,
            ..HttpLimits::default()
        }
    }

    /// The data folder and how to open it.
    #[must_use]
    pub fn data_options(&self) -> DataOptions {
        let defaults = DataOptions::new(&self.server.data);
        DataOptions {
            lock_wait: self.data.lock_wait,
            synchronous: match self.metadata.synchronous {
                Synchronous::Full => MetaSynchronous::Full,
                Synchronous::Normal => MetaSynchronous::Normal,
            },
            io_threads: self
                .storage
                .io_threads
                .map_or(0, |threads| threads as usize),
            postgres: self.postgres_options(),
            secret_key: self
                .access
                .secret_key
                .as_ref()
                .map(|key| Password::new(key.expose())),
            blobs: match (self.object_options(), &self.storage.folder) {
                (Some(bucket), _) => Blobs::Bucket(Box::new(bucket)),
                (None, Some(folder)) => Blobs::Folder(Folder::new(folder, "storage.folder")),
                (None, None) => Blobs::Data,
            },
            ..defaults
        }
    }

    /// The settings that all replicas over one store must share, for them to compare. No secrets.
    #[must_use]
    pub fn shared_settings(&self) -> std::collections::BTreeMap<String, String> {
        let url = self.server.external_url.as_ref().map(ToString::to_string);
        let storage = &self.storage;
        let providers = self.oidc_settings().into_iter();
        let providers = providers.map(|one| format!("{} at {}", one.name, one.issuer));
        let mut settings = std::collections::BTreeMap::from([
            (
                "server.external_url".to_owned(),
                url.unwrap_or_else(|| "unset".to_owned()),
            ),
            ("storage.kind".to_owned(), storage.kind.to_string()),
            // A replica refuses tokens of another service, and ends the sessions of a provider that it does not have.
            ("auth.service".to_owned(), self.auth.service.clone()),
            ("auth.oidc".to_owned(), listed(providers)),
        ]);
        let mut set = |key: &str, value: &str| settings.insert(key.to_owned(), value.to_owned());
        match storage.kind {
            StorageKind::Fs => {
                let place = match &storage.folder {
                    // The folder's own mark tells whether it is the same.
                    Some(_) => "set".to_owned(),
                    None => format!(
                        "unset, so that blobs lie in {} on {}",
                        self.server.data.display(),
                        rustix::system::uname().nodename().to_string_lossy()
                    ),
                };
                set("storage.folder", &place);
                return settings;
            }
            StorageKind::S3 => set("storage.s3.bucket", &storage.s3.bucket),
            StorageKind::Gcs => set("storage.gcs.bucket", &storage.gcs.bucket),
            StorageKind::Azure => set("storage.azure.container", &storage.azure.container),
        };
        set("storage.prefix", storage.prefix.trim_matches('/'));
        settings
    }

    /// The database of `metadata.url`, if there is one.
    #[must_use]
    pub fn postgres_options(&self) -> Option<PostgresOptions> {
        let metadata = &self.metadata;
        let url = metadata.url.as_ref()?;
        Some(PostgresOptions {
            password_file: metadata.password_file.clone(),
            connections: metadata.connections,
            prepared: metadata.prepared_statements,
            statement_timeout: metadata.statement_timeout,
            lock_timeout: metadata.lock_timeout,
            ..PostgresOptions::new(url.expose())
        })
    }

    /// What the registry is made of.
    ///
    /// # Errors
    /// A grant that validation would have refused.
    pub fn app_options(
        &self,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<AppOptions, GrantError> {
        Ok(AppOptions {
            access: self.access_options()?,
            directories: self.directories(),
            limits: self.core_limits(),
            content: self.content_rules(),
            rules: self.rules(),
            upkeep: self.server.run.contains(&Part::Jobs).then_some(Upkeep {
                collect_every: self.gc.every,
            }),
            external_url: self.server.external_url.as_ref().map(ToString::to_string),
            basic_challenge: self.auth.challenge == Challenge::Basic,
            redirect: self.redirect_rule(),
            clock,
            metrics,
        })
    }

    /// The directories that people sign in with.
    #[must_use]
    pub fn directories(&self) -> Vec<LdapOptions> {
        let open = |table: &Ldap| LdapOptions {
            settings: table.settings(),
            onboards: table.onboarding == Onboarding::Auto,
        };
        self.auth.ldap.iter().map(open).collect()
    }

    /// Whose word about clients counts.
    #[must_use]
    pub fn trusted_proxies(&self) -> TrustedProxies {
        let entries: Vec<_> = self
            .server
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect();
        // What was parsed and printed parses again; trusting nobody is the safe side.
        TrustedProxies::parse(&entries).unwrap_or_default()
    }
}

fn bare(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

/// What holds below an override's prefix: each key from the longest prefix that sets it.
fn resolve(
    default: ContentRule,
    overrides: &[ContentOverride],
    rule: &ContentOverride,
) -> ContentRule {
    let mut around: Vec<_> = overrides
        .iter()
        .filter(|outer| {
            let rest = bare(&rule.on).strip_prefix(bare(&outer.on));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .collect();
    around.sort_by_key(|outer| bare(&outer.on).len());
    around.into_iter().fold(default, |rule, next| ContentRule {
        require_blobs: next.require_blobs.unwrap_or(rule.require_blobs),
        require_children: next.require_children.unwrap_or(rule.require_children),
        check_sizes: next.check_sizes.unwrap_or(rule.check_sizes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_oci::RepositoryName;

    #[test]
    fn defaults_are_those_of_the_parts() {
        let config = Config::default();
        let (ours, mut theirs) = (config.access_options().unwrap(), AccessOptions::default());
        // A role without a file is nobody's.
        assert!(ours.htpasswd.is_none());
        theirs.rights.htpasswd = access::Role::None;
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(config.http_limits(), HttpLimits::default());
        assert_eq!(
            format!("{:?}", config.core_limits()),
            format!("{:?}", CoreLimits::default())
        );
        assert_eq!(config.content_rules().default, ContentRule::default());
        assert_eq!(config.rules(), Rules::default());
        assert_eq!(
            config.data_options().lock_wait,
            DataOptions::new("x").lock_wait
        );
    }

    #[test]
    fn an_override_keeps_what_an_outer_one_sets() {
        let mut config = Config::default();
        config.content.overrides = vec![
            ContentOverride {
                on: "a/b".into(),
                require_children: Some(true),
                ..ContentOverride::default()
            },
            ContentOverride {
                on: "a/".into(),
                require_blobs: Some(false),
                ..ContentOverride::default()
            },
            ContentOverride {
                on: "ab".into(),
                check_sizes: Some(false),
                ..ContentOverride::default()
            },
        ];
        let rules = config.content_rules();
        let of = |name: &str| rules.of(&RepositoryName::parse(name).unwrap());
        assert_eq!(
            of("a/x"),
            ContentRule {
                require_blobs: false,
                ..ContentRule::default()
            }
        );
        let both = ContentRule {
            require_blobs: false,
            require_children: true,
            ..ContentRule::default()
        };
        assert_eq!(of("a/b/c"), both);
        assert_eq!(
            of("ab"),
            ContentRule {
                check_sizes: false,
                ..ContentRule::default()
            }
        );
        assert_eq!(of("abc"), ContentRule::default());
    }
}

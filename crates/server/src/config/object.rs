//! `[storage]` as the blob store and the distribution API know it.

use wharf_blob::object::{Azure, Client, Credentials, Encryption, Gcs, ObjectOptions, S3, Service};

use super::sections::{Config, RedirectWhen, StorageKind};
use super::value::HttpUrl;
use crate::http::TrustedProxies;
use crate::v2::RedirectRule;

fn url(key: &Option<HttpUrl>) -> Option<String> {
    key.as_ref().map(|url| url.0.clone())
}

impl Config {
    /// The bucket, unless blobs are files.
    #[must_use]
    pub fn object_options(&self) -> Option<ObjectOptions> {
        let storage = &self.storage;
        let service = match storage.kind {
            StorageKind::Fs => return None,
            StorageKind::S3 => {
                let s3 = &storage.s3;
                let pair = s3.access_key_id.as_ref().zip(s3.secret_access_key.as_ref());
                Service::S3(S3 {
                    bucket: s3.bucket.clone(),
                    endpoint: url(&s3.endpoint),
                    public_endpoint: url(&s3.public_endpoint),
                    region: s3.region.clone(),
                    path_style: s3.path_style,
                    credentials: pair.map_or(Credentials::Chain, |(id, secret)| {
                        Credentials::Static {
                            access_key_id: id.clone(),
                            secret_access_key: secret.expose().to_owned(),
                        }
                    }),
                    encryption: match (&s3.sse_kms_key, s3.sse) {
                        (Some(key), _) => Encryption::Kms(key.clone()),
                        (None, true) => Encryption::S3,
                        (None, false) => Encryption::Bucket,
                    },
                    checksum: s3.checksum,
                })
            }
            StorageKind::Gcs => Service::Gcs(Gcs {
                bucket: storage.gcs.bucket.clone(),
                endpoint: url(&storage.gcs.endpoint),
                service_account: storage.gcs.service_account.clone(),
                anonymous: storage.gcs.anonymous,
            }),
            StorageKind::Azure => Service::Azure(Azure {
                account: storage.azure.account.clone(),
                container: storage.azure.container.clone(),
                access_key: storage
                    .azure
                    .access_key
                    .as_ref()
                    .map(|key| key.expose().to_owned()),
                endpoint: url(&storage.azure.endpoint),
            }),
        };
        Some(ObjectOptions {
            service,
            prefix: storage.prefix.trim_matches('/').to_owned(),
            part_size: storage.part_size.0,
            client: Client {
                ca: storage.ca.clone(),
                proxy: storage.proxy.as_ref().map(|url| url.0.expose().to_owned()),
                hasty: false,
            },
        })
    }

    /// When clients are sent to the object store.
    #[must_use]
    pub fn redirect_rule(&self) -> RedirectRule {
        let redirect = &self.storage.redirect;
        // What was parsed and printed parses again.
        let networks = |list: &[super::TrustedProxy]| {
            let entries: Vec<_> = list.iter().map(ToString::to_string).collect();
            (!entries.is_empty()).then(|| TrustedProxies::parse(&entries).unwrap_or_default())
        };
        RedirectRule {
            from: match redirect.when {
                RedirectWhen::Never => None,
                RedirectWhen::Large => Some(redirect.min_size.0),
                RedirectWhen::Always => Some(0),
            },
            lifetime: redirect.lifetime,
            allowed: networks(&redirect.allowed_networks),
            denied: networks(&redirect.denied_networks),
            repositories: redirect
                .repositories
                .iter()
                .map(|prefix| prefix.0.clone())
                .collect(),
        }
    }
}

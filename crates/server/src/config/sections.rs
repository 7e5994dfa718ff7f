//! Every key of the configuration with its documentation and its default, and nowhere else.
//!
//! Read by: the loader, `wharf config show|defaults`, the flags of `wharf serve` and the generated page
//! `docs/reference/configuration.md`. A line reads: name, type, default, when a change takes effect (`live` by a
//! reload, or after a `restart`), then flag, environment name and the like.

mod auth;

use std::path::PathBuf;
use std::time::Duration;

use wharf_core::access::{RateRules, Role};

pub use self::auth::*;
use super::rate::{ByteRate, RequestRate};
use super::section::section;
use super::value::{
    ExternalUrl, HttpUrl, ProxyUrl, RepositoryPrefix, Secret, Size, TrustedProxy, choice,
};
use crate::http::listener::ListenAddr;

section! {
    /// The whole configuration of Wharf.
    pub struct Config {
        section server: Server;
        section tls: Tls;
        section limits: Limits;
        section rate_limits: RateLimits;
        section access: Access;
        section auth: Auth;
        section content: Content;
        section storage: Storage;
        section gc: Gc;
        section restore: Restore;
        section scrub: Scrub;
        section events: Events;
        section audit: Audit;
        section metadata: Metadata;
        section data: Data;
        section log: Log;
        section metrics: Metrics;
    }
}

choice! {
    /// A part of the work of a registry.
    pub enum Part {
        /// Answers requests.
        Web = "web",
        /// Cleans up and repairs.
        Jobs = "jobs",
    }
}

section! {
    /// Where the data lies and at which addresses the registry answers.
    pub struct Server {
        /// Folder that holds everything Wharf keeps: metadata, blobs, unfinished uploads, the admin socket. It is made
        /// at the first start. One process at a time uses it.
        data: PathBuf = PathBuf::from("./wharf-data") => restart.flag("data", "FOLDER");
        /// Addresses to listen on, HTTP/1.1 and HTTP/2 alike. `:5000` means every address of this machine.
        listen: Vec<ListenAddr> = vec![ListenAddr::Tcp { host: "127.0.0.1".to_owned(), port: 5000 }] => restart.flag("listen", "ADDRESS");
        /// Address under which clients reach this registry. When set, upload locations and the token realm are absolute
        /// URLs with it; otherwise locations are relative and the realm follows the request's host.
        external_url: Option<ExternalUrl> = None => restart.flag("external-url", "URL");
        /// Address for `/metrics` and the probes alone, without authentication and without TLS. When unset, `/metrics`
        /// is served on the main addresses, to an admin only.
        metrics_listen: Option<ListenAddr> = None => restart.flag("metrics-listen", "ADDRESS");
        /// Proxies whose `Forwarded` and `X-Forwarded-*` headers are believed. From anybody else these headers are
        /// ignored.
        trusted_proxies: Vec<TrustedProxy> = Vec::new() => restart;
        /// What this process does: `web` answers requests, `jobs` cleans up and repairs. Each at least somewhere.
        run: Vec<Part> = vec![Part::Web, Part::Jobs] => restart.flag("run", "PARTS");
        /// Time between `/readyz` turning negative and the addresses being closed at a shutdown. Behind a load balancer
        /// it should exceed the time which that needs to notice.
        shutdown_delay: Duration = Duration::ZERO => restart;
        /// Time that running requests get to finish at a shutdown. Uploads cut off after it can be resumed.
        shutdown_grace: Duration = Duration::from_secs(30) => restart;
    }
}

section! {
    /// Certificates. Without any of these keys the registry speaks plain HTTP. Changed files are noticed and used for
    /// new connections without a restart.
    pub struct Tls {
        /// PEM file with the certificate, followed by its intermediates.
        cert: Option<PathBuf> = None => restart.flag("tls-cert", "FILE");
        /// PEM file with the certificate's private key.
        key: Option<PathBuf> = None => restart.flag("tls-key", "FILE");
        /// Makes a certificate of its own in the data folder and prints its fingerprint: for laboratories. `wharf trust`
        /// prints what clients need to trust it.
        self_signed: bool = false => restart.flag("tls-self-signed", "BOOL");
        section clients: ClientCertificates;
    }
}

choice! {
    /// Whether clients show a certificate.
    pub enum ClientMode {
        /// They may.
        Optional = "optional",
        /// Without a good one there is no connection.
        Required = "required",
    }
}

section! {
    /// Clients that show certificates of their own (mTLS), with `tls.cert` or `tls.self_signed`. A certificate says who a request comes
    /// from where it carries no user, password or token: a user by `[[tls.clients.user]]`, or a workload by rules that
    /// `wharf workload trust certificate` writes. One that says neither only opens the connection. Changed files are noticed, and
    /// count for connections that are open already.
    pub struct ClientCertificates {
        /// PEM file with the authorities of clients; nobody else's certificates are accepted, the system's authorities neither. Unset:
        /// clients are asked for nothing.
        ca: Option<PathBuf> = None => restart;
        /// PEM files with what these authorities revoked (X509 CRL). With any, there must be one of each authority.
        crl: Vec<PathBuf> = Vec::new() => restart;
        /// Whether clients must show a certificate.
        mode: ClientMode = ClientMode::Optional => restart;
        /// Addresses of `server.listen` where they must, whatever `mode` says.
        required_at: Vec<ListenAddr> = Vec::new() => restart;
        /// Addresses of `server.listen` where they are not asked, whatever `mode` says: for probes, say.
        never_at: Vec<ListenAddr> = Vec::new() => restart;
        tables users = "user": CertificateUser;
    }
}

choice! {
    /// Which of a certificate's names is meant.
    pub enum CertificateName {
        /// An e-mail address of the alternative names.
        Email = "email",
        /// A URI of the alternative names.
        Uri = "uri",
        /// A host name of the alternative names.
        Dns = "dns",
        /// The subject's common name.
        Cn = "cn",
    }
}

section! {
    /// Whose certificate it is, by one of its names. A certificate that is two users' is nobody's.
    pub struct CertificateUser {
        /// Which name counts.
        from: CertificateName = CertificateName::Email => live.required();
        /// Its form, with a star where the user's name is: `*@example.com`; or the whole name.
        matches: String = String::new() => live.required();
        /// The user, for a whole name.
        user: Option<String> = None => live;
    }
}

section! {
    /// How much of anything a client may take. Slow and vanished clients cost a bounded amount of memory.
    pub struct Limits {
        /// Open connections per address; further ones wait until one ends. At most half of the files that the system lets
        /// the process have open (`ulimit -Hn`): the other half is for what connections ask for.
        connections: u32 = 10_000 => restart;
        /// Requests on one connection, after which the client is asked to open another.
        requests_per_connection: u32 = 10_000 => restart;
        /// Requests at the same time on one HTTP/2 connection.
        streams_per_connection: u32 = 128 => restart;
        /// Size of a request's line and headers together.
        header_size: Size = Size::kib(32) => restart;
        /// Time for a request's line and headers to arrive.
        header_time: Duration = Duration::from_secs(30) => restart;
        /// Time for a TLS handshake, or for the first byte on a plain connection.
        handshake_time: Duration = Duration::from_secs(15) => restart;
        /// Time that a connection may stay open between requests. Longer than the 90s of Go's clients, so that they
        /// close idle connections and no request is lost on the way.
        idle_time: Duration = Duration::from_secs(120) => restart;
        /// Bytes per second that a body, sent or received, must at least make on average over `progress_window`. There
        /// is no limit on the whole time of a request.
        progress_rate: Size = Size(1024) => restart;
        /// Time over which `progress_rate` is averaged.
        progress_window: Duration = Duration::from_secs(60) => restart;
        /// Size of a manifest.
        manifest_size: Size = Size::mib(4) => restart;
        /// Size of a blob.
        blob_size: Size = Size::gib(1024) => restart;
        /// Age at which an upload that nobody continues is removed.
        upload_age: Duration = Duration::from_secs(7 * 86_400) => restart;
        /// Tags that one push of a manifest may set.
        tags_per_push: u32 = 50 => restart;
        /// Entries on one page of tags, repositories or referrers.
        page: u32 = 1000 => restart;
        /// Password checks under way at the same time, waiting ones included; more are refused with 429.
        password_attempts: u32 = 64 => restart;
    }
}

section! {
    /// How often a client may ask. Requests are counted by principal and address together, so that a client which asks too
    /// often slows down nobody else; each replica counts for itself. Above the rate clients get 429 and are told when to come back.
    pub struct RateLimits {
        /// Whether anything is limited at all.
        enabled: bool = true => live;
        /// Passwords to check, and invitations to accept, from one address; passwords that were right a moment ago, robots' secrets and
        /// tokens are no part of it.
        sign_in: RequestRate = RequestRate(RateRules::default().sign_in) => live;
        /// Requests for tokens.
        token: RequestRate = RequestRate(RateRules::default().token) => live;
        /// Requests of `/v2` and `/api/v1` that change nothing.
        reads: RequestRate = RequestRate(RateRules::default().reads) => live;
        /// All others of them.
        writes: RequestRate = RequestRate(RateRules::default().writes) => live;
        /// Bytes of bodies, pushed and pulled. What is under way is never cut off: the next request is refused, until the rate has
        /// caught up with what has passed.
        bytes: ByteRate = ByteRate(RateRules::default().bytes) => live;
        tables overrides = "override": RateOverride;
    }
}

section! {
    /// Other rates for some repositories, some roles, or both. Of several that set a key, the one with the longest prefix decides,
    /// and then the one with the strongest role. What is counted for an override is counted apart from everything else.
    pub struct RateOverride {
        /// Prefix of repository names on `/` borders. Unset: wherever, `/api/v1` too.
        on: Option<String> = None => live;
        /// For whoever has at least the rights of this built-in role there, by whatever role: one that was made with `wharf role set`
        /// counts by what it is made of, and has no name here, since it can change or go while this stays. Unset: for everybody.
        role: Option<Role> = None => live;
        /// As in `[rate_limits]`. With `on` for whoever has the role there, or without `role` may pull there: a token can be for many
        /// repositories.
        token: Option<RequestRate> = None => live;
        /// As in `[rate_limits]`.
        reads: Option<RequestRate> = None => live;
        /// As in `[rate_limits]`.
        writes: Option<RequestRate> = None => live;
        /// As in `[rate_limits]`.
        bytes: Option<ByteRate> = None => live;
    }
}

choice! {
    /// What people without credentials may do.
    pub enum AnonymousRole {
        /// Nothing.
        None = "none",
        /// Pull and list.
        Reader = "reader",
        /// And push, mount, cancel uploads.
        Writer = "writer",
        /// And delete.
        Maintainer = "maintainer",
    }
}

section! {
    /// Who may do what. Roles add up: the strongest that applies decides.
    pub struct Access {
        /// Role of everybody without credentials, in all repositories. More than `reader` at addresses beyond this
        /// machine needs `allow_open`.
        anonymous: AnonymousRole = AnonymousRole::None => live.flag("anonymous", "ROLE");
        /// Confirms that strangers may push or delete.
        allow_open: bool = false => live;
        /// Password of the user `admin`, taken at the first start only. Without it a random one is made.
        admin_password: Option<Secret> = None => restart.env("WHARF_ADMIN_PASSWORD").secret();
        /// Key that seals the secrets in the database, such as the keys that sign tokens: 32 bytes in base64, as
        /// `openssl rand -base64 32` makes them. Of several lines the first one seals and all of them open. Replicas need the same.
        /// Unset: `secret.key` in the data folder, which the first start makes. It is in no backup.
        secret_key: Option<Secret> = None => restart.secret();
        section htpasswd: Htpasswd;
        tables grants = "grant": Grant;
    }
}

section! {
    /// Users from an htpasswd file. It is read again when it changes.
    pub struct Htpasswd {
        /// File with users and their passwords, as `htpasswd -B` writes it (bcrypt).
        file: Option<PathBuf> = None => restart.flag("htpasswd", "FILE");
        /// Role of each of its users in all repositories; `none` when `[[access.grant]]` alone shall decide.
        role: Role = Role::Writer => live;
    }
}

section! {
    /// A role for one user, or for everybody without credentials, in some repositories.
    pub struct Grant {
        /// Name of the user, or `anonymous`.
        who: String = String::new() => live.required();
        /// What they may do.
        role: Role = Role::None => live.required();
        /// Prefix of repository names on `/` borders: `team/a` means itself and everything below. Unset means every
        /// repository.
        on: Option<String> = None => live;
    }
}

section! {
    /// What a pushed manifest must refer to.
    pub struct Content {
        /// Refuses an image whose config or layers are not in its repository.
        require_blobs: bool = true => live;
        /// Refuses an index with a manifest that is not in its repository. Off, because indexes that list more platforms
        /// than were copied are common.
        require_children: bool = false => live;
        /// Refuses a manifest that states another size for a blob than it has.
        check_sizes: bool = true => live;
        tables overrides = "override": ContentOverride;
    }
}

section! {
    /// Other rules for some repositories. The longest prefix that sets a key decides.
    pub struct ContentOverride {
        /// Prefix of repository names on `/` borders.
        on: String = String::new() => live.required();
        /// As in `[content]`.
        require_blobs: Option<bool> = None => live;
        /// As in `[content]`.
        require_children: Option<bool> = None => live;
        /// As in `[content]`.
        check_sizes: Option<bool> = None => live;
    }
}

choice! {
    /// What keeps the blobs.
    pub enum StorageKind {
        /// Files in the data folder.
        Fs = "fs",
        /// A bucket behind the S3 protocol: Amazon's, MinIO, Ceph, R2 and others.
        S3 = "s3",
        /// A bucket of Google Cloud Storage.
        Gcs = "gcs",
        /// A container of Azure Blob Storage.
        Azure = "azure",
    }
}

section! {
    /// How bytes are kept.
    pub struct Storage {
        /// What keeps the blobs: `fs` for files in the data folder, or an object store, which its own section describes.
        /// The metadata stays where `[metadata]` says. Changing it moves nothing that is already stored.
        kind: StorageKind = StorageKind::Fs => restart;
        /// Folder for the blobs with `kind = "fs"`. It must be there, and empty at the first start. With `metadata.url`, any number of
        /// replicas use it, on a file system that is coherent between their hosts, such as CephFS; NFS is not. Unset: the data
        /// folder, which one process uses.
        folder: Option<PathBuf> = None => restart;
        /// Blobs smaller than this are kept beside the metadata instead of in files of their own: one durable write
        /// instead of three, and a larger database. Changing it moves nothing that is already stored.
        inline_below: Size = Size::kib(80) => restart;
        /// Threads that read, and as many that write files, at most: they start when they are needed. Unset: twice the
        /// number of processors, at least 16.
        io_threads: Option<u32> = None => restart;
        /// Size of the parts in which a blob goes to an object store; an upload takes twice this in memory. A blob whose
        /// length the client announces gets larger parts when it needs them. Without that, parts grow from the 5,000th on:
        /// with 8MiB, a blob may have 523GiB.
        part_size: Size = Size::mib(8) => restart;
        /// Path in the bucket below which everything lies. Two installations in one bucket need one each.
        prefix: String = String::new() => restart;
        /// PEM file with certificate authorities to trust for the object store, beside the system's.
        ca: Option<PathBuf> = None => restart;
        /// URL of a proxy through which the object store is reached; it may hold a user and a password.
        proxy: Option<ProxyUrl> = None => restart.secret();
        section s3: S3;
        section gcs: Gcs;
        section azure: Azure;
        section redirect: Redirect;
    }
}

section! {
    /// The bucket for `storage.kind = "s3"`.
    pub struct S3 {
        /// Name of the bucket. It must be there, and empty at the first start.
        bucket: String = String::new() => restart;
        /// URL of the service; unset: Amazon's for the region.
        endpoint: Option<HttpUrl> = None => restart;
        /// URL under which clients reach the service, for redirects. Unset: `endpoint`.
        public_endpoint: Option<HttpUrl> = None => restart;
        /// Region of the bucket. Unset: what `AWS_REGION` says, or `us-east-1`, which most other services take for theirs.
        region: Option<String> = None => restart;
        /// Puts the bucket into the path instead of the host name, as most services want it that are not Amazon's.
        path_style: bool = false => restart;
        /// Access key. Unset: the credentials of the environment (`AWS_ACCESS_KEY_ID`), of a web identity
        /// (`AWS_WEB_IDENTITY_TOKEN_FILE`), of the container, or of the instance, in this order.
        access_key_id: Option<String> = None => restart;
        /// Its secret.
        secret_access_key: Option<Secret> = None => restart.secret();
        /// Has the service encrypt objects with keys that it manages (SSE-S3).
        sse: bool = false => restart;
        /// Has the service encrypt objects with this key of its key service (SSE-KMS).
        sse_kms_key: Option<String> = None => restart;
        /// Sends a CRC-64/NVME checksum with all bytes, which the service verifies and keeps. Not every service knows it.
        checksum: bool = false => restart;
    }
}

section! {
    /// The bucket for `storage.kind = "gcs"`.
    pub struct Gcs {
        /// Name of the bucket. It must be there, and empty at the first start.
        bucket: String = String::new() => restart;
        /// URL of the service; unset: Google's.
        endpoint: Option<HttpUrl> = None => restart;
        /// JSON file of a service account. Unset: the application's default credentials, or the instance's.
        service_account: Option<PathBuf> = None => restart;
        /// Sends no credentials: for emulators.
        anonymous: bool = false => restart;
    }
}

section! {
    /// The container for `storage.kind = "azure"`.
    pub struct Azure {
        /// Name of the storage account.
        account: String = String::new() => restart;
        /// Name of the container. It must be there, and empty at the first start.
        container: String = String::new() => restart;
        /// Key of the account. Unset: a workload's or the instance's identity.
        access_key: Option<Secret> = None => restart.secret();
        /// URL of the service; unset: Azure's for the account.
        endpoint: Option<HttpUrl> = None => restart;
    }
}

choice! {
    /// When a blob's client is sent to the object store.
    pub enum RedirectWhen {
        /// All bytes go through this server.
        Never = "never",
        /// For blobs of `min_size` and more.
        Large = "large",
        /// For every blob that is in the object store.
        Always = "always",
    }
}

section! {
    /// Sends clients that read a blob to the object store, by an answer of 307 with a URL that is valid for a while. Only
    /// for GET of blobs: HEAD and manifests are always answered here. Clients must be able to reach the store.
    pub struct Redirect {
        /// When: `never`, `large` or `always`. What lies beside the metadata is never redirected.
        when: RedirectWhen = RedirectWhen::Never => restart;
        /// Least size for `large`.
        min_size: Size = Size::mib(1) => restart;
        /// Time in which a client must begin to read.
        lifetime: Duration = Duration::from_secs(20 * 60) => restart;
        /// Networks of clients that are redirected. Empty means all. Behind a proxy the client's address is the one that it
        /// forwards, if `server.trusted_proxies` names the proxy; else the proxy's own. `unix` stands for Unix sockets on which
        /// no address was forwarded.
        allowed_networks: Vec<TrustedProxy> = Vec::new() => restart;
        /// Networks of clients that are not, whatever `allowed_networks` says. With this set, a client whose address is not
        /// known, on a Unix socket, is not redirected either, unless `allowed_networks` has `unix`.
        denied_networks: Vec<TrustedProxy> = Vec::new() => restart;
        /// Prefixes of the repositories whose blobs are redirected, on `/` borders. Empty means all.
        repositories: Vec<RepositoryPrefix> = Vec::new() => restart;
    }
}

section! {
    /// How what nobody needs goes. It goes while the registry serves.
    pub struct Gc {
        /// Time for which a blob stays that no manifest refers to: pushed and not used, or no longer used. A push must be
        /// finished within it. In its last hour the blob is answered as unknown, so that clients send it again.
        grace: Duration = Duration::from_secs(86_400) => live;
        /// Time for which a manifest stays that has no tag, is in no index, and is about no manifest that is there. It can be
        /// restored then. Unset: it stays for good, since it can be pulled by its digest.
        untagged: Option<Duration> = None => live;
        /// Time between two looks for what can go.
        every: Duration = Duration::from_secs(60) => restart;
    }
}

section! {
    /// How deleted manifests and tags can be brought back.
    pub struct Restore {
        /// Time for which a deleted manifest can be restored with all its layers, which take their room as long.
        window: Duration = Duration::from_secs(7 * 86_400) => live;
        tables overrides = "override": RestoreOverride;
    }
}

section! {
    /// Another time for some repositories. The longest prefix decides. A change counts for what is deleted after it.
    pub struct RestoreOverride {
        /// Prefix of repository names on `/` borders.
        on: String = String::new() => live.required();
        /// As in `[restore]`.
        window: Duration = Duration::from_secs(7 * 86_400) => live.required();
    }
}

section! {
    /// How stored bytes are read again, so that damage is found while it can be healed.
    pub struct Scrub {
        /// Time in which every blob is read once; `0s`: never.
        period: Duration = Duration::from_secs(30 * 86_400) => live;
    }
}

section! {
    /// The record of what happened, which other parts read.
    pub struct Events {
        /// Time for which events are kept. A reader that is late keeps them for as long again.
        keep: Duration = Duration::from_secs(30 * 86_400) => live;
    }
}

section! {
    /// The audit log: every change, sign-in and refusal, in a chain that shows when somebody tampered with it.
    pub struct Audit {
        /// Time for which entries are kept; `0s`: for good.
        keep: Duration = Duration::from_secs(400 * 86_400) => live;
        /// Record reading, too: each manifest and blob that somebody gets. Equal ones within a minute are counted in one entry.
        reads: bool = false => live;
    }
}

choice! {
    /// How hard the metadata's writes are pressed onto the disk.
    pub enum Synchronous {
        /// Each answer of success survives a power loss.
        Full = "full",
        /// The last moments before a power loss may be forgotten.
        Normal = "normal",
    }
}

section! {
    /// How the metadata is kept.
    pub struct Metadata {
        /// `full`: each answer of success survives a power loss. `normal`: the last moments before one may be forgotten,
        /// nothing is damaged.
        synchronous: Synchronous = Synchronous::Full => restart;
        /// PostgreSQL database to keep the metadata in, so that several replicas can share it:
        /// `postgres://USER@HOST:PORT/DATABASE`. Several hosts are separated by commas, with `target_session_attrs=read-write`
        /// among the parameters. `sslmode` is `disable`, `prefer`, `require`, `verify-ca` or `verify-full`; `sslrootcert`,
        /// `sslcert` and `sslkey` name PEM files. Unset: SQLite, in the data folder.
        url: Option<Secret> = None => restart.env("WHARF_METADATA_URL").secret();
        /// File whose first line is the database user's password; read at each connection.
        password_file: Option<PathBuf> = None => restart;
        /// Connections to PostgreSQL for transactions, at most. Two more are shared by all point reads.
        connections: u32 = 16 => restart;
        /// Whether statements are prepared by name on PostgreSQL. Turn it off behind a PgBouncer in transaction mode, unless
        /// that is 1.21 or newer with `max_prepared_statements`, and allows the startup parameter `options`.
        prepared_statements: bool = true => restart;
        /// Time that PostgreSQL may work on one statement.
        statement_timeout: Duration = Duration::from_secs(15) => restart;
        /// Time that a statement may wait for a row which another transaction holds.
        lock_timeout: Duration = Duration::from_secs(5) => restart;
    }
}

section! {
    /// The data folder.
    pub struct Data {
        /// Time to wait for another process that still uses the data folder.
        lock_wait: Duration = Duration::from_secs(30) => restart;
    }
}

choice! {
    /// What log lines look like.
    pub enum LogFormat {
        /// `human` on a terminal, `json` otherwise.
        Auto = "auto",
        /// For people.
        Human = "human",
        /// One JSON object per line.
        Json = "json",
    }
}

section! {
    /// What is logged, to standard error.
    pub struct Log {
        /// What lines look like; `auto` means `human` on a terminal and `json` otherwise.
        format: LogFormat = LogFormat::Auto => restart;
        /// How much: `error`, `warn`, `info`, `debug` or `trace`, or directives per module such as
        /// `info,wharf::http=debug`. Each request is a line of level `info` and target `wharf::request`.
        level: String = "info".to_owned() => live;
    }
}

section! {
    /// What is measured.
    pub struct Metrics {
        /// Adds the repository's name to the counters of requests, and shows disk use by the first part of names on
        /// `server.metrics_listen` too. Everybody who may read `/metrics` sees the names, on that address without a password. Each
        /// costs memory here and in Prometheus: at most 1000 are told apart, the rest is counted as `other`.
        repository_label: bool = false => restart;
    }
}

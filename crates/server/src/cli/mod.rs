//! The command line: what can be said, and which module does it.
//!
//! Called by `main.rs` alone. Commands end with an [`Exit`] code. Nothing here knows how a registry works: that is in
//! `app` and `wharf_core`.

mod access;
mod apply;
mod audit;
mod banner;
mod client;
mod completions;
mod config;
mod credential_provider;
mod exit;
mod flags;
mod gc;
mod history;
mod human;
mod identity;
mod job;
mod ldap;
mod metadata;
mod offline;
mod page;
mod pull_secret;
mod serve;
mod status;
mod storage;
mod trust;
mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use self::exit::{Exit, Failure, Outcome};
use self::flags::{ConfigFlags, DataFlags};

const EXAMPLES: &str = "\
Examples:
  wharf serve                                  A registry at 127.0.0.1:5000, data in ./wharf-data
  wharf serve --listen :5000 --tls-self-signed For other machines too, with a certificate of its own
  wharf serve --config /etc/wharf/wharf.toml   As the file says; `wharf config defaults` prints one
  wharf admin reset-password                   The password is lost
  wharf backup create /mnt/backup              While it serves; again later adds what is new
  wharf login registry.example.com             Manage a registry from another machine
  wharf tag list team/app                      The tags of a repository, and where they stand

Next steps once it runs:
  docker login 127.0.0.1:5000 -u admin
  docker tag my-image 127.0.0.1:5000/my-image
  docker push 127.0.0.1:5000/my-image";

/// A container registry in one binary
///
/// Keeps container images and every other OCI artifact: charts, signatures, SBOMs, models, plain files. `wharf serve`
/// needs nothing: it makes its data folder, an administrator and a password.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the registry
    ///
    /// Flags win over environment variables (WHARF__SECTION__KEY), these over the configuration file, that over the
    /// defaults. Everything that has no flag is set in the file or the environment; see `wharf config defaults`.
    ///
    /// SIGTERM or SIGINT stop it: running requests are finished first; a second signal stops it at once. SIGHUP reads
    /// the configuration again.
    Serve(ConfigFlags),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show how the registry is, and which replicas serve from the same store
    Status(DataFlags),
    /// Manage the administrator
    #[command(subcommand)]
    Admin(AdminCommand),
    Grant(access::GrantArgs),
    Revoke(access::RevokeArgs),
    /// Ask who may do what, and why
    #[command(subcommand)]
    Access(access::RightsCommand),
    Apply(apply::ApplyArgs),
    /// Read and check the audit log: who did what, and what was refused
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Manage groups of users and robots
    #[command(subcommand)]
    Group(access::GroupCommand),
    /// Manage namespaces: who may pull from them without a grant
    #[command(subcommand)]
    Namespace(access::NamespaceCommand),
    /// Manage roles beside those that are built in
    #[command(subcommand)]
    Role(access::RoleCommand),
    /// Make, change and remove local users
    #[command(subcommand)]
    User(identity::UserCommand),
    /// Make, rotate and remove robots: names and secrets for programs
    #[command(subcommand)]
    Robot(identity::RobotCommand),
    /// Let machines sign in with the tokens that their cluster or CI service gives them
    #[command(subcommand)]
    Workload(workload::WorkloadCommand),
    CredentialProvider(credential_provider::ProviderArgs),
    /// See how people of an LDAP directory sign in
    #[command(subcommand)]
    Ldap(ldap::LdapCommand),
    /// Give users API tokens, and end them
    #[command(subcommand)]
    Token(identity::TokenCommand),
    /// List and end sessions of people in browsers and terminals
    #[command(subcommand)]
    Session(identity::SessionCommand),
    /// Make and rotate secrets with which clusters pull
    #[command(subcommand)]
    PullSecret(pull_secret::PullSecretCommand),
    /// Back up the registry, check or restore a backup
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Check what is stored
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Move the metadata to another database
    #[command(subcommand)]
    Metadata(metadata::MetadataCommand),
    Login(client::context::LoginArgs),
    Logout(client::context::LogoutArgs),
    /// Choose the registry that commands talk to
    #[command(subcommand)]
    Context(client::context::ContextCommand),
    /// Show who one is to the registry
    Whoami {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: client::Where,
    },
    /// Look at repositories, and at what was deleted in them
    #[command(subcommand)]
    Repo(history::RepoCommand),
    /// Look at what happened to tags, and bring them back
    #[command(subcommand)]
    Tag(history::TagCommand),
    /// Bring deleted manifests back
    #[command(subcommand)]
    Manifest(history::ManifestCommand),
    /// See and run the collection of what nothing needs
    #[command(subcommand)]
    Gc(gc::GcCommand),
    /// See and steer work in the background
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Print what a client needs to trust a self-signed certificate
    Trust(TrustArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    ///
    /// Names of contexts are completed too. For bash: wharf completions bash > /etc/bash_completion.d/wharf
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the page docs/reference/cli.md
    #[command(hide = true)]
    Reference,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether `wharf serve` would start with this configuration
    ///
    /// Reads file, environment and flags, and the files that they name. Warnings do not make it fail.
    Check {
        /// Ask the database, the object store and LDAP directories, too, whether they can be used; nothing is written
        #[arg(long)]
        online: bool,
        #[command(flatten)]
        flags: ConfigFlags,
    },
    /// Print every value and where it comes from
    ///
    /// The output is TOML. Secrets are hidden.
    Show(ConfigFlags),
    /// Print a configuration file with every key, its default and its documentation
    Defaults,
    /// Print the page docs/reference/configuration.md
    #[command(hide = true)]
    Reference,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Give the user `admin` a new password
    ///
    /// Prints a random one, unless --password-file gives one. Works on a running registry, without a restart, and on a
    /// stopped one. What was signed in with the old password is signed out.
    ResetPassword {
        #[command(flatten)]
        flags: DataFlags,
        /// File that holds the new password; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Begin anew when the secret key is lost
    ///
    /// Forgets the secrets in the database that only the lost key opens: the keys that sign tokens. The next start seals with
    /// the key that it has, and whoever holds a token signs in again; passwords stay. Nothing may serve meanwhile. Without the
    /// key that sealed them, and without this command, nothing is served.
    ForgetSecrets(DataFlags),
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Back the registry up into a folder
    ///
    /// Works while it serves, and on a stopped registry. A folder that holds an older backup of the same registry gets
    /// what is new; blobs are hard links where the file system allows it. The backup holds password hashes and sealed
    /// signing keys, but neither the configuration, certificates nor the secret key that opens them.
    Create {
        /// New or empty, or an older backup
        folder: PathBuf,
        /// Leave the blobs where they are: for a bucket that is safe by itself
        ///
        /// What is deleted after this backup keeps its blobs for `restore.window`, so that long it can be restored whole.
        #[arg(long)]
        metadata_only: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Check a backup byte by byte
    Verify {
        /// The backup
        folder: PathBuf,
    },
    /// Make a data folder out of a backup
    Restore {
        /// The backup
        folder: PathBuf,
        #[command(flatten)]
        flags: DataFlags,
    },
}

#[derive(Debug, Subcommand)]
enum StorageCommand {
    /// Check that the stored bytes are those that the metadata promises
    ///
    /// Works on a running registry and on a stopped one. Looks at presence and size of every blob; --deep reads and
    /// hashes every byte. Nothing is deleted, but what is damaged is answered as unknown from then on, so that pushing
    /// the same content again heals it. Ends with 4 when something is damaged.
    Verify {
        /// Read and hash every byte
        #[arg(long)]
        deep: bool,
        /// Only list what is known to be damaged and was not pushed again yet
        #[arg(long, conflicts_with = "deep")]
        list: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Find bytes that the metadata does not know, and make them blobs again
    ///
    /// For the time after a restore of metadata that is older than the blob store: what was pushed since is there, and
    /// nothing names it. Hashes every object or file without a row and lists digest, size and key; with --repository, each
    /// becomes a blob of that repository, as if it had just been pushed, so that pushing the manifests again uploads nothing.
    /// What no manifest needs then goes after the usual grace. Works on a running registry and on a stopped one.
    Reindex {
        /// Let this repository hold what is found; may be given several times
        #[arg(long, value_name = "NAME")]
        repository: Vec<String>,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Copy all blobs into another store
    ///
    /// Into the one that the configuration --to names in its [storage] section: from files into a bucket, or back, or
    /// into another bucket. Works on a running registry and on a stopped one. What is there already is not copied again, so
    /// run it once while the registry serves, once more when it is stopped, and then start it with the new configuration.
    /// Every byte is hashed on the way; ends with 4 when blobs are damaged and were left out.
    Copy {
        /// Configuration of the store to copy to
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        flags: ConfigFlags,
    },
}

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TrustClient {
    /// Docker Engine
    Docker,
    /// containerd, and so Kubernetes and nerdctl
    Containerd,
    /// Podman, Buildah, Skopeo and CRI-O
    Podman,
}

/// Print what a client needs to trust a self-signed certificate
///
/// Takes the certificate from --authority, or else asks HOST for it: then compare the fingerprint with the one that
/// `wharf serve` printed. The output is a shell script; read it, then run it on the client's machine.
#[derive(Debug, Args)]
struct TrustArgs {
    /// Which client
    client: TrustClient,
    /// The registry as clients name it, such as registry.example.com:5000
    host: String,
    /// Certificate file of the authority, tls/authority.pem in the data folder
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line, its first word being the program's name.
///
/// Under the name of a kubelet's plugin the program is that plugin.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.into_iter().collect();
    if credential_provider::is_called(words.first()) {
        words.insert(1, "credential-provider".into());
    }
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors with the exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Serve(flags) => serve::run(&flags.inputs()),
        Command::Config(ConfigCommand::Check { online, flags }) => {
            config::check(&flags.inputs(), online)
        }
        Command::Config(ConfigCommand::Show(flags)) => config::show(&flags.inputs()),
        Command::Config(ConfigCommand::Defaults) => print(&crate::config::render::defaults()),
        Command::Config(ConfigCommand::Reference) => print(&crate::config::render::reference()),
        Command::Admin(AdminCommand::ResetPassword {
            flags,
            password_file,
        }) => storage::reset_password(&flags.inputs(), password_file.as_deref()),
        Command::User(command) => identity::user(&command),
        Command::Robot(command) => identity::robot(&command),
        Command::Token(command) => identity::token(&command),
        Command::Session(command) => identity::session(&command),
        Command::Ldap(command) => ldap::run(&command),
        Command::Workload(command) => workload::run(&command),
        Command::PullSecret(command) => pull_secret::run(&command),
        Command::CredentialProvider(args) => credential_provider::run(args),
        Command::Admin(AdminCommand::ForgetSecrets(flags)) => {
            storage::forget_secrets(&flags.inputs())
        }
        Command::Backup(BackupCommand::Create {
            folder,
            metadata_only,
            flags,
        }) => storage::backup(&flags.inputs(), &folder, metadata_only),
        Command::Backup(BackupCommand::Verify { folder }) => storage::verify_backup(&folder),
        Command::Backup(BackupCommand::Restore { folder, flags }) => {
            storage::restore(&flags.inputs(), &folder)
        }
        Command::Storage(StorageCommand::Verify {
            list: true, flags, ..
        }) => gc::damaged(&flags.inputs()),
        Command::Storage(StorageCommand::Verify { deep, flags, .. }) => {
            storage::verify(&flags.inputs(), deep)
        }
        Command::Grant(args) => access::grant(&args),
        Command::Revoke(args) => access::revoke(&args),
        Command::Access(command) => access::rights(&command),
        Command::Apply(args) => apply::run(&args),
        Command::Audit(command) => audit::run(&command),
        Command::Group(command) => access::group(&command),
        Command::Namespace(command) => access::namespace(&command),
        Command::Role(command) => access::role(&command),
        Command::Metadata(command) => metadata::run(command),
        Command::Login(args) => client::context::login(args),
        Command::Logout(args) => client::context::logout(&args),
        Command::Context(command) => client::context::run(&command),
        Command::Whoami { json, at } => history::whoami(&at, json),
        Command::Repo(command) => history::repo(&command),
        Command::Tag(command) => history::tag(&command),
        Command::Manifest(command) => history::manifest(&command),
        Command::Gc(command) => gc::run(&command),
        Command::Job(command) => job::run(&command),
        Command::Status(flags) => status::run(&flags),
        Command::Storage(StorageCommand::Reindex { repository, flags }) => {
            storage::reindex(&flags.inputs(), repository)
        }
        Command::Storage(StorageCommand::Copy { to, flags }) => storage::copy(&flags.inputs(), &to),
        Command::Trust(TrustArgs {
            client,
            host,
            authority,
        }) => trust::run(client, &host, authority.as_deref()),
        Command::Version => print(&format!("wharf {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wharf", &mut out);
            let script = String::from_utf8_lossy(&out);
            print(&completions::with_contexts(shell, &script))
        }
        Command::Reference => print(&page::reference()),
    }
}

/// Writes to standard output. A reader that went away, as in `wharf config defaults | head`, is no failure.
fn print(text: &str) -> Outcome {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::text(
            Exit::Failure,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

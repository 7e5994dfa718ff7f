//! `wharf credential-provider`: the plugin that kubelets run before they pull, and what goes with it on a node.
//!
//! Also what the program is when it is called `wharf-credential-provider`, or by a longer name that begins so: a kubelet finds a
//! plugin by its file's name. Starts nothing and asks nobody: a kubelet waits for it.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure, Outcome};
use super::print;
use crate::credential_provider::{self as provider, Entry, LARGEST_REQUEST, Options, USER, node};

/// Answer a kubelet that asks for credentials before it pulls
///
/// Reads a CredentialProviderRequest (v1) on standard input and writes a CredentialProviderResponse: for the image's registry, with the
/// token of the pod's service account as the password. No secret is kept on the node. Kubelets run it as wharf-credential-provider,
/// which is this same program under another name. Ends with 1 and words on standard error when there can be no answer.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  wharf credential-provider node-config --registry registry.example.com > credential-provider.yaml
  wharf credential-provider cluster-role --audience wharf | kubectl apply -f -"
)]
pub(super) struct ProviderArgs {
    #[command(subcommand)]
    command: Option<ProviderCommand>,
    /// Answer for this registry, or a path of it, alone: HOST, HOST:PORT, HOST/PATH; * for any text within a label [may be repeated]
    /// [default: whichever the image names]
    #[arg(long, value_name = "HOST")]
    registry: Vec<Entry>,
    /// The token has to be for this audience, or there is an error [may be repeated]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// The name that goes with the token; Wharf takes any
    #[arg(long, value_name = "NAME", default_value = USER)]
    username: String,
    /// Fail when there is no token, as for static pods, instead of answering with no credentials
    #[arg(long)]
    require_token: bool,
}

#[derive(Debug, Subcommand)]
enum ProviderCommand {
    /// Print the kubelet's CredentialProviderConfig, and where to put what
    NodeConfig {
        /// The registry, or a path of it: HOST, HOST:PORT, HOST/PATH; * for any text within a label [may be repeated]
        #[arg(long, value_name = "HOST", required = true)]
        registry: Vec<Entry>,
        /// For whom the tokens are: the registry's name (auth.service), or what `wharf workload trust` was told
        #[arg(long, default_value = "wharf")]
        audience: String,
        /// What the program is called on nodes; a provider has one audience, so each further one needs a name of its own that begins so
        #[arg(long, value_name = "PROGRAM", default_value = node::NAME)]
        name: String,
        /// Where the program lies on nodes
        #[arg(
            long,
            value_name = "FOLDER",
            default_value = "/usr/libexec/kubelet-plugins/credential-provider"
        )]
        bin_dir: String,
        /// Where the configuration lies on nodes
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/kubernetes/credential-provider.yaml"
        )]
        file: String,
        /// The name that goes with the token
        #[arg(long, value_name = "NAME", default_value = USER)]
        username: String,
        /// Do not ask for pods without a service account, as static ones; without this they pull as anybody
        #[arg(long)]
        require_service_account: bool,
    },
    /// Print the role that lets nodes ask for tokens for an audience, for `kubectl apply -f -`
    ClusterRole {
        /// For whom the tokens are
        #[arg(long, default_value = "wharf")]
        audience: String,
    },
}

/// Whether the program was called by the plugin's name.
pub(super) fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.and_then(OsStr::to_str)
        .is_some_and(|name| name.starts_with(node::NAME))
}

pub(super) fn run(args: ProviderArgs) -> Outcome {
    match args.command {
        None => answer(Options {
            entries: args.registry,
            user: args.username,
            audiences: args.audience,
            needs_token: args.require_token,
        }),
        Some(ProviderCommand::ClusterRole { audience }) => print(&node::cluster_role(&audience)),
        Some(ProviderCommand::NodeConfig {
            registry,
            audience,
            name,
            bin_dir,
            file,
            username,
            require_service_account,
        }) => {
            for (flag, text) in [
                ("--name", &name),
                ("--bin-dir", &bin_dir),
                ("--file", &file),
                ("--audience", &audience),
            ] {
                if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(Failure::text(
                        Exit::Usage,
                        format!("{flag} {text:?}: write a name without spaces"),
                    ));
                }
            }
            if !name.starts_with(node::NAME) || name.contains('/') {
                let text = format!(
                    "--name {name}: the program is what its name says, so the name begins with {}",
                    node::NAME
                );
                return Err(Failure::text(Exit::Usage, text));
            }
            print(&node::config(&node::Node {
                entries: registry,
                audience,
                name,
                folder: bin_dir,
                file,
                user: username,
                needs_account: require_service_account,
            }))
        }
    }
}

fn answer(options: Options) -> Outcome {
    let input = std::io::stdin().lock();
    if input.is_terminal() {
        let text = "kubelets write a CredentialProviderRequest to standard input, and here is a terminal; `wharf credential-provider \
                    node-config` prints what a node needs";
        return Err(Failure::text(Exit::Usage, text));
    }
    let mut request = Vec::new();
    let read = input
        .take(LARGEST_REQUEST as u64 + 1)
        .read_to_end(&mut request);
    read.map_err(|error| {
        Failure::text(
            Exit::Failure,
            format!("cannot read standard input: {error}"),
        )
    })?;
    let now = jiff::Timestamp::now().as_second();
    let answered = provider::answer(&request, &options, now);
    print(&answered.map_err(|refused| Failure::new(Exit::Failure, refused))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_decides() {
        let is = |name: &str| is_called(Some(&name.into()));
        assert!(
            is("/usr/libexec/wharf-credential-provider") && is("wharf-credential-provider-two")
        );
        assert!(!is("wharf") && !is("/wharf-credential-provider/wharf") && !is(""));
        assert!(!is_called(None));
    }
}

//! `wharf trust`: what a client needs to trust a registry whose certificate nobody else vouches for.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::Exit;

/// The command with one subcommand for each client.
pub(super) fn command() -> Command {
    let client = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .arg(
                Arg::new("host")
                    .value_name("HOST")
                    .required(true)
                    .help("The registry as images name it, with its port: reg.example:5000"),
            )
            .arg(
                Arg::new("authority")
                    .long("authority")
                    .value_name("FILE")
                    .default_value("wharf-data/tls/authority.pem")
                    .value_parser(value_parser!(PathBuf))
                    .help("The certificate to trust: what serve --tls-self-signed made, or your own authority's"),
            )
    };
    Command::new("trust")
        .about("Print what a client needs to trust the registry's own certificate")
        .subcommand_required(true)
        .subcommand(client("docker", "For the Docker Engine"))
        .subcommand(client(
            "containerd",
            "For containerd, and so for Kubernetes",
        ))
        .subcommand(client("podman", "For podman, buildah, skopeo and CRI-O"))
}

pub(super) fn run(matches: &ArgMatches) -> Exit {
    let Some((client, matches)) = matches.subcommand() else {
        return Exit::Usage;
    };
    let (Some(host), Some(authority)) = (
        matches.get_one::<String>("host"),
        matches.get_one::<PathBuf>("authority"),
    ) else {
        return Exit::Usage;
    };
    // The host becomes part of paths that a person pastes into a root shell.
    if !host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
    {
        eprintln!("error: {host:?} is not a host with a port, such as reg.example:5000");
        return Exit::Usage;
    }
    let certificate = match std::fs::read_to_string(authority) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => text,
        Ok(_) => {
            eprintln!("error: {} holds no certificate in PEM", authority.display());
            return Exit::Failed;
        }
        Err(error) => {
            eprintln!(
                "error: {}: {error}; wharf serve --tls-self-signed makes it in <data>/tls, or name yours with --authority",
                authority.display()
            );
            return Exit::Failed;
        }
    };
    print!("{}", steps(client, host, certificate.trim_end()));
    Exit::Done
}

/// Shell commands that can be pasted on the client's machine, as root.
fn steps(client: &str, host: &str, certificate: &str) -> String {
    let write = |path: &str, content: &str| {
        format!("mkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'EOF'\n{content}\nEOF\n")
    };
    match client {
        "docker" => format!(
            "# On the machine of the Docker Engine, as root. No restart is needed.\n{}",
            write(&format!("/etc/docker/certs.d/{host}/ca.crt"), certificate)
        ),
        "containerd" => {
            let folder = format!("/etc/containerd/certs.d/{host}");
            let hosts = format!(
                "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n  ca = \"{folder}/ca.crt\""
            );
            format!(
                "# On each node, as root. containerd reads this folder when its configuration has config_path =\n\
                 # \"/etc/containerd/certs.d\" for registries; then no restart is needed.\n{}{}",
                write(&format!("{folder}/ca.crt"), certificate),
                write(&format!("{folder}/hosts.toml"), &hosts)
            )
        }
        _ => format!(
            "# On the machine of podman, buildah, skopeo or CRI-O, as root. Nothing needs a restart.\n{}",
            write(
                &format!("/etc/containers/certs.d/{host}/ca.crt"),
                certificate
            )
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_certificate_where_it_looks() {
        for (client, path) in [
            ("docker", "/etc/docker/certs.d/reg:5000/ca.crt"),
            ("containerd", "/etc/containerd/certs.d/reg:5000/hosts.toml"),
            ("podman", "/etc/containers/certs.d/reg:5000/ca.crt"),
        ] {
            let text = steps(client, "reg:5000", "CERTIFICATE");
            assert!(
                text.contains(path) && text.contains("CERTIFICATE"),
                "{text}"
            );
        }
    }
}

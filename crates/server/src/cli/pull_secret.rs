//! `wharf pull-secret`: a robot that only reads, as a manifest for Kubernetes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::flags::DataFlags;
use super::gc::time;
use super::identity::{ask, ask_of, span, unexpected};
use super::print;
use crate::admin::{Hidden, Identity, IdentityReply, RobotView};
use crate::config::{Config, load};

/// What the names of these robots begin with.
const PREFIX: &str = "pull-";
/// So long before its end a secret should be replaced, in ms.
const NEAR: i64 = 14 * 86_400_000;

/// What can be done with pull secrets.
#[derive(Debug, Subcommand)]
pub(super) enum PullSecretCommand {
    /// Make a robot for a cluster and print a manifest with its secret, for `kubectl apply -f -`
    Create {
        /// The namespace of the registry that it belongs to, such as team/a
        #[arg(long)]
        namespace: String,
        /// What it may pull, in the namespace [default: all of the namespace]
        #[arg(long)]
        repository: Option<String>,
        /// What to call it; the robot is NAMESPACE+pull-NAME, the manifest wharf-pull-NAME
        #[arg(long, default_value = "cluster")]
        name: String,
        /// How long it lives, such as 90d; at most auth.longest_lifetime [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// Network from which it may come, such as 10.0.0.0/8 [may be repeated]
        #[arg(long, value_name = "CIDR")]
        from: Vec<String>,
        /// Host and port as images name them, such as registry.example.com; server.external_url otherwise
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Replace a pull secret and print the manifest with the new one; the old one goes on for the time of --overlap
    Rotate {
        /// The namespace of the registry that it belongs to
        #[arg(long)]
        namespace: String,
        /// What it is called
        #[arg(long, default_value = "cluster")]
        name: String,
        /// How long the old secret goes on
        #[arg(long, value_name = "DURATION", value_parser = span, default_value = "7d")]
        overlap: i64,
        /// How long it lives from now on, such as 90d [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// Host and port as images name them; server.external_url otherwise
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// List pull secrets, and which are near their end
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
        #[command(flatten)]
        flags: DataFlags,
    },
}

pub(super) fn run(command: &PullSecretCommand) -> Outcome {
    match command {
        PullSecretCommand::Create {
            namespace,
            repository,
            name,
            expires,
            from,
            host,
            flags,
        } => {
            let config = load(&flags.inputs())?.config;
            let host = host_of(&config, host.as_deref())?;
            let create = Identity::RobotCreate {
                name: robot(namespace, name),
                lifetime: *expires,
                networks: from.join(","),
                reads: Some(match repository {
                    Some(repository) => repository.clone(),
                    None => namespace.trim_end_matches('/').to_owned(),
                }),
            };
            made(ask_of(&config, create)?, name, &host)
        }
        PullSecretCommand::Rotate {
            namespace,
            name,
            overlap,
            expires,
            host,
            flags,
        } => {
            let config = load(&flags.inputs())?.config;
            let host = host_of(&config, host.as_deref())?;
            let rotate = Identity::RobotRotate {
                name: robot(namespace, name),
                overlap: *overlap,
                lifetime: *expires,
            };
            made(ask_of(&config, rotate)?, name, &host)
        }
        PullSecretCommand::List { namespace, flags } => {
            let namespace = namespace.clone();
            match ask(&flags.inputs(), Identity::RobotList { namespace })? {
                IdentityReply::Robots(robots) => {
                    let now = jiff::Timestamp::now().as_millisecond();
                    print(&listed(&robots, now))
                }
                other => Err(unexpected(other)),
            }
        }
    }
}

fn robot(namespace: &str, name: &str) -> String {
    format!("{}+{PREFIX}{name}", namespace.trim_end_matches('/'))
}

/// How images name this registry: what a kubelet compares with.
fn host_of(config: &Config, given: Option<&str>) -> Result<String, Failure> {
    let url = config.server.external_url.as_ref().map(ToString::to_string);
    let host = given.map(str::to_owned).or(url);
    let host = host.as_deref().map(|url| {
        let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
        bare.split('/').next().unwrap_or_default().to_owned()
    });
    host.filter(|host| !host.is_empty()).ok_or_else(|| {
        Failure::text(
            Exit::Usage,
            "a manifest names the registry as images do: give --host registry.example.com, or set server.external_url",
        )
    })
}

fn made(reply: IdentityReply, name: &str, host: &str) -> Outcome {
    let IdentityReply::Secret {
        principal,
        secret: Hidden(secret),
        expires_at,
        ..
    } = reply
    else {
        return Err(unexpected(reply));
    };
    eprintln!(
        "The robot {principal}, good until {}. The secret is shown only now.",
        time(expires_at)
    );
    print(&manifest(name, host, &principal, &secret, expires_at))
}

/// A Secret of type `kubernetes.io/dockerconfigjson`. Every value is quoted as JSON is, which is YAML too.
fn manifest(name: &str, host: &str, robot: &str, secret: &str, expires_at: i64) -> String {
    let auth = STANDARD.encode(format!("{robot}:{secret}"));
    let config = json!({"auths": {host: {"username": robot, "password": secret, "auth": auth}}});
    let name = json!(format!("wharf-{PREFIX}{name}"));
    let (robot, expires) = (json!(robot), json!(time(expires_at)));
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  annotations:\n    wharf/robot: {robot}\n    wharf/expires: \
         {expires}\ntype: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: {}\n",
        STANDARD.encode(config.to_string())
    )
}

fn listed(robots: &[RobotView], now: i64) -> String {
    let mut text = format!("{:<40}{:<22}{:<40}STATE\n", "ROBOT", "ENDS", "LAST USED");
    let is_pull = |robot: &&RobotView| {
        let name = robot.name.rsplit_once('+').map(|(_, name)| name);
        name.is_some_and(|name| name.starts_with(PREFIX))
    };
    for robot in robots.iter().filter(is_pull) {
        let end = robot.expires_at.unwrap_or(i64::MAX);
        let state = match robot.disabled_at {
            Some(_) => "locked out",
            None if end <= now => "ended; rotate it",
            None if end - now < NEAR => "near its end; rotate it",
            None => "good",
        };
        let used = robot
            .secrets
            .iter()
            .filter_map(|secret| secret.used.as_ref());
        let used = match used.max() {
            None => "never".to_owned(),
            Some((at, address)) => format!("{} from {address}", time(*at)),
        };
        text.push_str(&format!(
            "{:<40}{:<22}{used:<40}{state}\n",
            robot.name,
            time(end)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kubelet does: the data field, the JSON in it, the entry of the registry's host, and of that `auth` before the
    /// others.
    #[test]
    fn a_manifest_is_read_the_way_a_kubelet_reads_it() {
        let text = manifest(
            "cluster",
            "registry.example.com:5000",
            "team/a+pull-cluster",
            "wharf_robot_x_y",
            0,
        );
        let field = |name: &str| {
            let start = format!("  {name}: ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("{name} in {text}"))
                .to_owned()
        };
        assert!(text.starts_with("apiVersion: v1\nkind: Secret\n"));
        assert!(text.contains("\ntype: kubernetes.io/dockerconfigjson\n"));
        assert_eq!(field("name"), "\"wharf-pull-cluster\"");
        let config = STANDARD.decode(field(".dockerconfigjson")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let entry = &config["auths"]["registry.example.com:5000"];
        let auth = STANDARD.decode(entry["auth"].as_str().unwrap()).unwrap();
        assert_eq!(auth, b"team/a+pull-cluster:wharf_robot_x_y");
        assert_eq!(
            (&entry["username"], &entry["password"]),
            (&json!("team/a+pull-cluster"), &json!("wharf_robot_x_y"))
        );
    }

    #[test]
    fn what_is_near_its_end_is_told() {
        let robot = |name: &str, end: i64, disabled: bool| RobotView {
            name: name.into(),
            expires_at: Some(end),
            disabled_at: disabled.then_some(0),
            networks: String::new(),
            secrets: Vec::new(),
        };
        let now = 1_000_000;
        let text = listed(
            &[
                robot("a+pull-x", now, false),
                robot("b+pull-x", now + NEAR - 1, false),
                robot("c+pull-x", now + NEAR, false),
                robot("d+pull-x", now + NEAR, true),
                robot("e+ci", now, false),
            ],
            now,
        );
        let states: Vec<_> = text
            .lines()
            .skip(1)
            .map(|line| line.rsplit_once("  ").unwrap().1)
            .collect();
        assert_eq!(
            states,
            [
                "ended; rotate it",
                "near its end; rotate it",
                "good",
                "locked out"
            ]
        );
    }
}

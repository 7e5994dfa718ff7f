//! `wharf pull-secret`: a robot that only reads, as a manifest for Kubernetes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, Where, moment, text};
use super::exit::{Exit, Failure, Outcome};
use super::gc::time;
use super::identity::{make, robots, rotate, span, used};
use super::print;

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
        /// Host and port as images name them, such as registry.example.com; otherwise that of the context, or server.external_url
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        at: Where,
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
        /// Host and port as images name them; otherwise that of the context, or server.external_url
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// List pull secrets, and which are near their end
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
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
            at,
        } => {
            let client = at.client()?;
            let host = host_of(&client, host.as_deref())?;
            let roles = [("reader".to_owned(), repository.clone())];
            let robot = robot(namespace, name);
            let secret = make(&client, &robot, *expires, from, &roles)?;
            made(&secret, name, &host)
        }
        PullSecretCommand::Rotate {
            namespace,
            name,
            overlap,
            expires,
            host,
            at,
        } => {
            let client = at.client()?;
            let host = host_of(&client, host.as_deref())?;
            let secret = rotate(&client, &robot(namespace, name), *overlap, *expires)?;
            made(&secret, name, &host)
        }
        PullSecretCommand::List {
            namespace,
            json,
            at,
        } => {
            let robots = robots(&at.client()?, namespace.as_deref())?;
            let robots: Vec<Value> = robots.into_iter().filter(is_pull_secret).collect();
            let now = jiff::Timestamp::now().as_millisecond();
            match json {
                true => print(&super::client::as_json(&Value::from(robots))),
                false => print(&listed(&robots, now)),
            }
        }
    }
}

fn robot(namespace: &str, name: &str) -> String {
    format!("{}+{PREFIX}{name}", namespace.trim_end_matches('/'))
}

fn is_pull_secret(robot: &Value) -> bool {
    let name = robot["name"].as_str().unwrap_or_default();
    let name = name.rsplit_once('+').map(|(_, name)| name);
    name.is_some_and(|name| name.starts_with(PREFIX))
}

/// How images name this registry: what a kubelet compares with.
fn host_of(client: &Client, given: Option<&str>) -> Result<String, Failure> {
    let host = given.map(str::to_owned).or_else(|| client.url());
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

fn made(secret: &Value, name: &str, host: &str) -> Outcome {
    let robot = text(&secret["principal"]);
    let expires_at = moment(&secret["expires_at"]).unwrap_or(0);
    eprintln!(
        "The robot {robot}, good until {}. The secret is shown only now.",
        time(expires_at)
    );
    let secret = text(&secret["secret"]);
    print(&manifest(name, host, &robot, &secret, expires_at))
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

fn listed(robots: &[Value], now: i64) -> String {
    let mut out = format!("{:<40}{:<22}{:<40}STATE\n", "ROBOT", "ENDS", "LAST USED");
    for robot in robots {
        let end = moment(&robot["expires_at"]).unwrap_or(i64::MAX);
        let state = match moment(&robot["disabled_at"]) {
            Some(_) => "locked out",
            None if end <= now => "ended; rotate it",
            None if end - now < NEAR => "near its end; rotate it",
            None => "good",
        };
        let secrets = robot["secrets"].as_array().into_iter().flatten();
        let last = secrets.max_by_key(|secret| moment(&secret["used_at"]));
        out.push_str(&format!(
            "{:<40}{:<22}{:<40}{state}\n",
            text(&robot["name"]),
            time(end),
            last.map_or_else(|| "never".to_owned(), used)
        ));
    }
    out
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
        let config: Value = serde_json::from_slice(&config).unwrap();
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
        let moment = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
        let robot = |name: &str, end: i64, disabled: bool| {
            let disabled = disabled.then(|| moment(0));
            json!({ "name": name, "expires_at": moment(end), "disabled_at": disabled, "secrets": [] })
        };
        let now = 1_000_000;
        let mut robots = vec![
            robot("a+pull-x", now, false),
            robot("b+pull-x", now + NEAR - 1, false),
            robot("c+pull-x", now + NEAR, false),
            robot("d+pull-x", now + NEAR, true),
            robot("e+ci", now, false),
        ];
        robots.retain(is_pull_secret);
        let text = listed(&robots, now);
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

//! `wharf workload trust`: from the words of a cluster or a CI service to an issuer, a rule and a grant.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use wharf_oci::percent::encode_query;

use super::super::access::place;
use super::super::client::{Client, Where, text};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::print;
use super::{LISTED, path};

/// What GitHub's tokens say as `iss`.
const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// What GitLab's tokens say as `iss`.
const GITLAB: &str = "https://gitlab.com";

/// Whose tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TrustCommand {
    /// Service accounts of a Kubernetes cluster
    ///
    /// Bound tokens alone: with an end, and with the service account's namespace and name. Legacy tokens are refused.
    #[command(after_help = "Examples:
  wharf workload trust kubernetes --issuer https://oidc.example.com/cluster --namespace prod --service-account default reader on team/a
  wharf workload trust kubernetes --issuer https://kubernetes.default.svc.cluster.local --jwks-file keys.json --namespace ci --service-account builder writer on team/a
  wharf workload trust kubernetes --issuer https://kubernetes.default.svc --token-review https://10.0.0.1:6443 --authority ca.crt --bearer-file reviewer --namespace prod reader on team/a")]
    Kubernetes {
        /// What the cluster's tokens say as `iss` (kube-apiserver's --service-account-issuer)
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The service account's namespace [may be repeated]
        #[arg(long, value_name = "NAMESPACE", required = true)]
        namespace: Vec<String>,
        /// The service account; without it, all of the namespace [may be repeated]
        #[arg(long, value_name = "NAME")]
        service_account: Vec<String>,
        /// Ask the cluster at this address (its kube-apiserver) about each token, instead of having its keys: for clusters that publish
        /// none, and to notice within a minute that a pod or an account is gone. --bearer-file holds a token of an account with the
        /// ClusterRole system:auth-delegator
        #[arg(long, value_name = "URL", conflicts_with_all = ["jwks_url", "jwks_file"])]
        token_review: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// GitHub Actions
    ///
    /// Repositories and owners are asked for by their ids, since names can be given to others; `gh api repos/OWNER/NAME` shows both as
    /// `id` and `owner.id`. Runs that strangers can begin, as for pull requests, get nothing unless --event names them.
    #[command(after_help = "Examples:
  wharf workload trust github --repository-id 74 --ref refs/heads/main writer on team/a
  wharf workload trust github --owner-id 7 reader on base")]
    Github {
        /// What the tokens say as `iss`; of GitHub Enterprise Server https://HOST/_services/token
        #[arg(long, value_name = "URL", default_value = GITHUB)]
        issuer: String,
        /// The repository's id [may be repeated]
        #[arg(long, value_name = "ID", required_unless_present = "owner_id")]
        repository_id: Vec<String>,
        /// The owner's id: all of its repositories [may be repeated]
        #[arg(long, value_name = "ID")]
        owner_id: Vec<String>,
        /// The repository as OWNER/NAME as well, in either form of `sub`
        #[arg(long, value_name = "OWNER/NAME")]
        repository: Option<String>,
        /// Runs on this ref, as refs/heads/main or refs/tags/v* [may be repeated]
        #[arg(long = "ref", value_name = "REF")]
        reference: Vec<String>,
        /// Runs in this environment [may be repeated]
        #[arg(long, value_name = "NAME")]
        environment: Vec<String>,
        /// Runs that this event began, and no others; the only way to let in what strangers can begin, as pull_request [may be repeated]
        #[arg(long, value_name = "EVENT")]
        event: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// GitLab CI
    ///
    /// Projects and groups are asked for by their ids, since names can be given to others. Only runs on protected branches and tags,
    /// unless --any-ref is given; those for merge requests get nothing unless --source names them.
    #[command(after_help = "Examples:
  wharf workload trust gitlab --issuer https://gitlab.example.com --project-id 42 writer on team/a")]
    Gitlab {
        /// What the tokens say as `iss`: the instance's address
        #[arg(long, value_name = "URL", default_value = GITLAB)]
        issuer: String,
        /// The project's id [may be repeated]
        #[arg(long, value_name = "ID", required_unless_present = "namespace_id")]
        project_id: Vec<String>,
        /// The group's id: all of its own projects [may be repeated]
        #[arg(long, value_name = "ID")]
        namespace_id: Vec<String>,
        /// Runs on this branch or tag, as main or v* [may be repeated]
        #[arg(long = "ref", value_name = "REF")]
        reference: Vec<String>,
        /// Runs on branches and tags that are not protected, too
        #[arg(long)]
        any_ref: bool,
        /// Runs that began in this way, and no others; the only way to let in merge_request_event [may be repeated]
        #[arg(long, value_name = "SOURCE")]
        source: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Client certificates, of authorities that `tls.clients.ca` of the configuration names
    ///
    /// Hosts and services that show a certificate are principals named after it, as dns:build-7.example.com. One that two such rules of
    /// different kinds match is refused. Certificates of people are users', by [[tls.clients.user]] of the configuration.
    #[command(after_help = "Examples:
  wharf workload trust certificate --dns 'build-*.example.com' writer on team/a
  wharf workload trust certificate --uri 'spiffe://example.org/ns/prod/sa/*' reader on team/a")]
    Certificate {
        /// A host name of the certificate; * for any text [may be repeated]
        #[arg(long, value_name = "NAME", required_unless_present_any = ["uri", "email", "cn"])]
        dns: Vec<String>,
        /// A URI of the certificate, as of SPIFFE; * for any text without / [may be repeated]
        #[arg(long, value_name = "URI", conflicts_with = "dns")]
        uri: Vec<String>,
        /// An e-mail address of the certificate; * for any text [may be repeated]
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["dns", "uri"])]
        email: Vec<String>,
        /// The common name of the certificate's subject; * for any text without / [may be repeated]
        #[arg(long, value_name = "NAME", conflicts_with_all = ["dns", "uri", "email"])]
        cn: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Any other issuer of OpenID Connect tokens
    #[command(after_help = "Examples:
  wharf workload trust oidc --issuer https://ci.example.com --as ci --claim sub=job:deploy writer on team/a")]
    Oidc {
        /// What the tokens say as `iss`
        #[arg(long, value_name = "URL")]
        issuer: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What is the same for all.
#[derive(Debug, Args)]
pub(in crate::cli) struct Common {
    /// What the issuer is called here: principals' names begin with it [default: the kind]
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
    /// What the rule is called [default: made of what it asks for]
    #[arg(long, value_name = "RULE")]
    name: Option<String>,
    /// A claim that must be so as well: CLAIM=VALUE, or CLAIM~PATTERN with * for any text without / and ** for any text; the same
    /// claim again allows one more value [may be repeated]
    #[arg(long = "claim", value_name = "CLAIM=VALUE")]
    claims: Vec<String>,
    /// For whom the tokens have to be [may be repeated] [default: the registry's name]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// Where the issuer's keys are, if not where its discovery document says
    #[arg(long, value_name = "URL", conflicts_with = "jwks_file")]
    jwks_url: Option<String>,
    /// The issuer's keys themselves (`kubectl get --raw /openid/v1/jwks`), for issuers that the registry cannot reach
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for where the keys are, or for the cluster that is asked
    #[arg(long, visible_alias = "ca-file", value_name = "FILE")]
    authority: Option<PathBuf>,
    /// File with a bearer token with which the keys are fetched, or the cluster is asked
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// Put whoever the rule matches into this group [may be repeated]
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// What the rule is granted; without it, nothing yet
    #[arg(value_name = "ROLE")]
    role: Option<String>,
    /// The namespace, after the word `on`
    #[arg(value_name = "on NAMESPACE", num_args = 0..=2)]
    place: Vec<String>,
    #[command(flatten)]
    at: Where,
}

/// What a rule asks for, in the order in which it was said.
#[derive(Default)]
struct Conditions(Vec<(String, Vec<String>, Vec<String>)>);

impl Conditions {
    fn entry(&mut self, claim: &str) -> &mut (String, Vec<String>, Vec<String>) {
        let at = self.0.iter().position(|one| one.0 == claim);
        let at = at.unwrap_or_else(|| {
            self.0.push((claim.to_owned(), Vec::new(), Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn values(&mut self, claim: &str, values: &[String]) {
        if !values.is_empty() {
            self.entry(claim).1.extend_from_slice(values);
        }
    }

    /// Values, and patterns where there is a star or a question mark.
    fn either(&mut self, claim: &str, texts: &[String]) {
        for text in texts {
            match text.contains(['*', '?']) {
                true => self.entry(claim).2.push(text.clone()),
                false => self.entry(claim).1.push(text.clone()),
            }
        }
    }

    /// CLAIM=VALUE or CLAIM~PATTERN, by which of both signs comes first.
    fn said(&mut self, text: &str) -> Result<(), Failure> {
        let at = text
            .find(['=', '~'])
            .filter(|at| *at > 0 && at + 1 < text.len());
        let Some(at) = at else {
            return Err(wrong(format!(
                "--claim {text}: write CLAIM=VALUE or CLAIM~PATTERN"
            )));
        };
        let (claim, value) = (&text[..at], text[at + 1..].to_owned());
        match text.as_bytes()[at] {
            b'=' => self.entry(claim).1.push(value),
            _ => self.entry(claim).2.push(value),
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let one = |(claim, values, patterns): &(String, Vec<String>, Vec<String>)| json!({"claim": claim, "in": values, "glob": patterns});
        self.0.iter().map(one).collect()
    }
}

fn wrong(text: String) -> Failure {
    Failure::text(Exit::Usage, text)
}

/// What is asked for, apart from what is the same for all.
struct Asked<'a> {
    kind: &'static str,
    /// What the issuer is called unless something else is said.
    called: &'static str,
    issuer: &'a str,
    /// What the rule is called after.
    words: Vec<String>,
    conditions: Conditions,
    /// The cluster that is asked about tokens.
    token_review: Option<&'a str>,
    common: &'a Common,
}

pub(super) fn run(command: &TrustCommand) -> Outcome {
    trust(asked(command)?)
}

fn asked(command: &TrustCommand) -> Result<Asked<'_>, Failure> {
    let mut conditions = Conditions::default();
    let mut asked = match command {
        TrustCommand::Kubernetes {
            issuer,
            namespace,
            service_account,
            token_review,
            common,
        } => {
            conditions.either("kubernetes.io.namespace", namespace);
            conditions.either("kubernetes.io.serviceaccount.name", service_account);
            Asked {
                kind: "kubernetes",
                called: "kubernetes",
                issuer,
                words: [&namespace[..], service_account].concat(),
                conditions,
                token_review: token_review.as_deref(),
                common,
            }
        }
        TrustCommand::Github {
            issuer,
            repository_id,
            owner_id,
            repository,
            reference,
            environment,
            event,
            common,
        } => {
            conditions.values("repository_id", repository_id);
            conditions.values("repository_owner_id", owner_id);
            if let Some(repository) = repository {
                for pattern in subjects(repository)? {
                    conditions.entry("sub").2.push(pattern);
                }
            }
            conditions.either("ref", reference);
            conditions.values("environment", environment);
            conditions.values("event_name", event);
            let named = repository.clone().map_or_else(Vec::new, |name| vec![name]);
            Asked {
                kind: "github",
                called: "github",
                issuer,
                words: [&named[..], repository_id, owner_id, environment, event].concat(),
                conditions,
                token_review: None,
                common,
            }
        }
        TrustCommand::Gitlab {
            issuer,
            project_id,
            namespace_id,
            reference,
            any_ref,
            source,
            common,
        } => {
            conditions.values("project_id", project_id);
            conditions.values("namespace_id", namespace_id);
            if !any_ref {
                conditions.values("ref_protected", &["true".to_owned()]);
            }
            conditions.either("ref", reference);
            conditions.values("pipeline_source", source);
            Asked {
                kind: "gitlab",
                called: "gitlab",
                issuer,
                words: [&project_id[..], namespace_id, source].concat(),
                conditions,
                token_review: None,
                common,
            }
        }
        TrustCommand::Certificate {
            dns,
            uri,
            email,
            cn,
            common,
        } => {
            no_tokens(common)?;
            let given = [("dns", dns), ("uri", uri), ("email", email), ("cn", cn)];
            let given = given.into_iter().find(|(_, names)| !names.is_empty());
            let (claim, names) = given.unwrap_or(("dns", dns));
            conditions.either(claim, names);
            Asked {
                kind: "certificate",
                called: claim,
                issuer: "",
                words: names.clone(),
                conditions,
                token_review: None,
                common,
            }
        }
        TrustCommand::Oidc { issuer, common } => {
            if common.claims.is_empty() {
                return Err(wrong(
                    "name at least one claim, such as --claim sub=job:deploy".into(),
                ));
            }
            Asked {
                kind: "oidc",
                called: "oidc",
                issuer,
                words: Vec::new(),
                conditions,
                token_review: None,
                common,
            }
        }
    };
    for claim in &asked.common.claims {
        asked.conditions.said(claim)?;
    }
    Ok(asked)
}

/// Certificates have none of what tokens have.
fn no_tokens(common: &Common) -> Result<(), Failure> {
    for (flag, given) in [
        ("--audience", !common.audience.is_empty()),
        ("--jwks-url", common.jwks_url.is_some()),
        ("--jwks-file", common.jwks_file.is_some()),
        ("--authority", common.authority.is_some()),
        ("--bearer-file", common.bearer_file.is_some()),
    ] {
        if given {
            let text = "certificates have no keys and audiences; their authorities stand in the configuration, as tls.clients.ca";
            return Err(wrong(format!("{flag}: {text}")));
        }
    }
    Ok(())
}

/// Both forms of GitHub's `sub`, without ids and with them.
fn subjects(repository: &str) -> Result<[String; 2], Failure> {
    let fits = |part: &str| !part.is_empty() && !part.contains(['/', '*', '?', '@', ':']);
    match repository.split_once('/') {
        Some((owner, name)) if fits(owner) && fits(name) => Ok([
            format!("repo:{owner}/{name}:**"),
            format!("repo:{owner}@*/{name}@*:**"),
        ]),
        _ => Err(wrong(format!(
            "--repository {repository}: write OWNER/NAME"
        ))),
    }
}

/// A name made of words: what it may not hold becomes a dash.
fn called(kind: &str, words: &[String]) -> String {
    let words = words.iter().map(|word| {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
            _ => '-',
        };
        word.chars().map(plain).collect::<String>()
    });
    let mut name: Vec<String> = vec![kind.to_owned()];
    name.extend(words);
    name.join("-")
}

fn trust(asked: Asked<'_>) -> Outcome {
    let common = asked.common;
    let issuer = common
        .called
        .clone()
        .unwrap_or_else(|| asked.called.to_owned());
    let rule = match (&common.name, asked.words.is_empty()) {
        (Some(name), _) => name.clone(),
        (None, true) => return Err(wrong("--name: say what the rule shall be called".into())),
        (None, false) => called(&issuer, &asked.words),
    };
    let on = place(&common.place)?;
    let client = common.at.client()?;
    let body = settings(&client, &issuer, &asked)?;
    let known = client.list("/api/v1/workload/rules", LISTED)?;
    let known = known.iter().find(|one| text(&one["name"]) == rule);
    let wanted = json!({"issuer": issuer, "conditions": asked.conditions.json()});
    if let Some(known) = known
        && common.name.is_none()
        && !same(&known["conditions"], &wanted["conditions"])
    {
        return Err(wrong(format!(
            "there is a rule {rule} already that asks for something else; name this one with --name, or name {rule} to change it"
        )));
    }
    client.send("PUT", &path(&issuer, true), Some(&body))?;
    client.send("PUT", &path(&rule, false), Some(&wanted))?;
    let who = format!("workload:{rule}");
    for group in &common.group {
        let place = format!(
            "/api/v1/groups/{}/members/{}",
            encode_query(group),
            encode_query(&who)
        );
        client.send("PUT", &place, None)?;
    }
    let shown = client.get(&path(&issuer, true))?;
    let mut told = match asked.kind {
        "certificate" => format!("Clients with certificates that match rule {rule} are let in.\n"),
        _ => format!(
            "Tokens of {} for {} that match rule {rule} sign in.\n",
            asked.issuer,
            super::texts(&shown["audiences"]).join(" or "),
        ),
    };
    match &common.role {
        Some(role) => {
            let body = json!({"who": who, "role": role, "on": on, "networks": []});
            client.send("POST", "/api/v1/bindings", Some(&body))?;
            let place = if on.is_empty() {
                "everywhere".to_owned()
            } else {
                format!("on {on}")
            };
            told.push_str(&format!("They have the role {role} {place}.\n"));
        }
        None if common.group.is_empty() => {
            told.push_str(&format!(
                "Grant them something: wharf grant {who} reader on team/a\n"
            ));
        }
        None => {}
    }
    told.push_str(match asked.kind {
        "certificate" => "Look at a certificate: wharf workload test --certificate-file FILE\n",
        _ => "Look at a token: wharf workload test --token-file FILE\n",
    });
    print(&told)
}

/// Whether two lists of conditions ask for the same.
fn same(known: &Value, wanted: &Value) -> bool {
    let read = |list: &Value| -> Vec<(String, Vec<String>, Vec<String>)> {
        let list = list.as_array().into_iter().flatten();
        list.map(|one| {
            (
                text(&one["claim"]),
                super::texts(&one["in"]),
                super::texts(&one["glob"]),
            )
        })
        .collect()
    };
    read(known) == read(wanted)
}

/// The issuer as it shall be: as it is where it is known, with what was said now.
fn settings(client: &Client, name: &str, asked: &Asked<'_>) -> Result<Value, Failure> {
    let common = asked.common;
    let known = super::issuers(client)?;
    let known = known.into_iter().find(|one| text(&one["name"]) == name);
    let mut body = Map::new();
    if let Some(Value::Object(mut known)) = known {
        let (kind, address) = (text(&known["kind"]), text(&known["issuer"]));
        if kind != asked.kind || address != asked.issuer {
            return Err(wrong(format!(
                "issuer {name} is {kind} at {address} already; give this one another name with --as"
            )));
        }
        for key in [
            "audiences",
            "algorithms",
            "jwks_url",
            "jwks",
            "token_review",
            "authority",
            "leeway",
            "longest_life",
            "session",
            "principal",
        ] {
            if let Some(value) = known.remove(key) {
                body.insert(key.to_owned(), value);
            }
        }
    }
    body.insert("kind".into(), asked.kind.into());
    if asked.kind == "certificate" && !body.contains_key("principal") {
        body.insert("principal".into(), format!("{{{}}}", asked.called).into());
    }
    body.insert("issuer".into(), asked.issuer.into());
    if !common.audience.is_empty() {
        body.insert("audiences".into(), common.audience.clone().into());
    }
    let read = |flag: &str, file: &PathBuf| {
        let read = std::fs::read_to_string(file);
        read.map_err(|error| wrong(format!("{flag} {}: {error}", file.display())))
    };
    if let Some(server) = asked.token_review {
        body.remove("jwks");
        body.remove("jwks_url");
        body.insert("token_review".into(), server.into());
    }
    if let Some(url) = &common.jwks_url {
        body.remove("jwks");
        body.remove("token_review");
        body.insert("jwks_url".into(), url.as_str().into());
    }
    if let Some(file) = &common.jwks_file {
        let keys = serde_json::from_str::<Value>(&read("--jwks-file", file)?);
        let keys =
            keys.map_err(|error| wrong(format!("--jwks-file {}: {error}", file.display())))?;
        body.remove("jwks_url");
        body.remove("token_review");
        body.insert("jwks".into(), keys);
    }
    if let Some(file) = &common.authority {
        body.insert("authority".into(), read("--authority", file)?.into());
    }
    if let Some(file) = &common.bearer_file {
        body.insert("bearer".into(), read("--bearer-file", file)?.trim().into());
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use wharf_core::workload::{Kind, RuleSettings};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: TrustCommand,
    }

    fn rule(line: &str) -> Result<(String, RuleSettings), String> {
        let words = std::iter::once("trust").chain(line.split(' '));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let asked = asked(&line.command).map_err(|failure| failure.error.to_string())?;
        let json = json!({"conditions": asked.conditions.json()});
        let settings: RuleSettings =
            serde_json::from_value(json).map_err(|error| error.to_string())?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == asked.kind);
        settings
            .check(kind.unwrap())
            .map_err(|error| error.to_string())?;
        Ok((called(asked.kind, &asked.words), settings))
    }

    fn matches(line: &str, kind: Kind, claims: &Value) -> bool {
        let (_, rule) = rule(line).unwrap();
        rule.unmet(kind, claims.as_object().unwrap()).is_empty()
    }

    #[test]
    fn a_cluster_s_service_accounts() {
        let line = "kubernetes --issuer https://a.example --namespace prod --service-account default reader on team/a";
        assert_eq!(rule(line).unwrap().0, "kubernetes-prod-default");
        let token = |namespace: &str, name: &str| json!({"kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name}}});
        assert!(matches(line, Kind::Kubernetes, &token("prod", "default")));
        assert!(!matches(line, Kind::Kubernetes, &token("prod", "other")));
        assert!(!matches(line, Kind::Kubernetes, &token("dev", "default")));
        assert!(
            rule("kubernetes --issuer https://a.example reader").is_err(),
            "a namespace is needed"
        );
    }

    /// Spec: OIDC-1, OIDC-2.
    #[test]
    fn both_forms_of_a_repository_and_no_pull_request() {
        let token = |sub: &str, id: &str, event: &str| json!({"sub": sub, "repository_id": id, "event_name": event, "ref": "refs/heads/main"});
        let line =
            "github --repository-id 74 --repository acme/app --ref refs/heads/main writer on acme";
        for sub in [
            "repo:acme/app:ref:refs/heads/main",
            "repo:acme@7/app@74:ref:refs/heads/main",
        ] {
            assert!(
                matches(line, Kind::Github, &token(sub, "74", "push")),
                "{sub}"
            );
            assert!(
                !matches(line, Kind::Github, &token(sub, "75", "push")),
                "{sub}"
            );
            assert!(
                !matches(line, Kind::Github, &token(sub, "74", "pull_request")),
                "{sub}"
            );
        }
        for sub in [
            "repo:acme/app2:ref:x",
            "repo:acme/evil/app:x",
            "repo:acme@7/app@74",
            "repo:acme@7/x/app@74:x",
        ] {
            assert!(
                !matches(line, Kind::Github, &token(sub, "74", "push")),
                "{sub}"
            );
        }
        let open = "github --repository-id 74 --event pull_request reader on acme";
        assert!(matches(
            open,
            Kind::Github,
            &token("x", "74", "pull_request")
        ));
        assert!(rule("github writer on acme").is_err(), "an id is needed");
        assert!(rule("github --repository-id 74 --repository acme/* reader").is_err());
    }

    #[test]
    fn a_project_on_protected_refs() {
        let token = |protected: &str, source: &str| json!({"project_id": "42", "ref": "main", "ref_protected": protected, "pipeline_source": source});
        let line = "gitlab --project-id 42 writer on acme";
        assert!(matches(line, Kind::Gitlab, &token("true", "push")));
        assert!(!matches(line, Kind::Gitlab, &token("false", "push")));
        assert!(!matches(
            line,
            Kind::Gitlab,
            &token("true", "merge_request_event")
        ));
        let any = "gitlab --project-id 42 --any-ref --source merge_request_event reader on acme";
        assert!(matches(
            any,
            Kind::Gitlab,
            &token("false", "merge_request_event")
        ));
        assert!(rule("gitlab --ref main reader").is_err(), "an id is needed");
    }

    #[test]
    fn certificates_by_one_of_their_names() {
        let line = "certificate --dns build-*.example.com --claim ou=ci writer on team/a";
        let token = |dns: Value, ou: &str| json!({"dns": dns, "ou": ou});
        let good = json!("build-7.example.com");
        assert!(matches(line, Kind::Certificate, &token(good.clone(), "ci")));
        assert!(!matches(line, Kind::Certificate, &token(good, "dev")));
        assert!(!matches(
            line,
            Kind::Certificate,
            &token(json!("build-7.example.com.evil.org"), "ci")
        ));
        assert_eq!(
            rule("certificate --dns a.example reader").unwrap().0,
            "certificate-a.example"
        );
        for bad in [
            "certificate writer on team/a",
            "certificate --dns a --uri b writer",
            "certificate --dns a --audience b writer",
            "certificate --dns a --jwks-url https://b writer",
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn claims_as_they_are_said() {
        let line = "oidc --issuer https://a.example --claim sub=a=b --claim sub=c --claim path~acme/* reader";
        let (_, read) = rule(line).unwrap();
        let told = serde_json::to_value(&read.conditions).unwrap();
        assert_eq!(
            told,
            json!([{"claim": "sub", "in": ["a=b", "c"]}, {"claim": "path", "glob": ["acme/*"]}])
        );
        for bad in [
            "--claim sub",
            "--claim =x",
            "--claim sub=",
            "--claim ~x",
            "",
        ] {
            let line = format!("oidc --issuer https://a.example {bad} reader");
            assert!(rule(&line.replace("  ", " ")).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_made_of_what_fits() {
        let words = ["Acme/App".to_owned(), "refs/tags/v*".to_owned()];
        assert_eq!(called("github", &words), "github-acme-app-refs-tags-v-");
    }
}

//! `wharf workload`: machines sign in with the tokens that their cluster or CI service gives them.
//!
//! All through the management API, on this machine over the socket and elsewhere with a context.

mod trust;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

pub(super) use self::trust::TrustCommand;
use super::access::columns;
use super::client::{Client, Where, as_json, text};
use super::exit::{Exit, Failure, Outcome};
use super::print;

/// So many entries a list has at most.
const LISTED: usize = 100_000;
/// Largest token file, in bytes.
const LARGEST: u64 = 64 << 10;

/// What can be done with workloads.
#[derive(Debug, Subcommand)]
pub(super) enum WorkloadCommand {
    /// Let tokens of a cluster or a CI service sign in, by a rule on what they say
    ///
    /// Writes whose tokens are trusted, unless that is known, a rule on them, and what it is granted. It counts at once, and within
    /// five seconds on other replicas. What is granted to a rule later is granted to workload:RULE; all rules that match a token add
    /// up.
    #[command(subcommand)]
    Trust(Box<TrustCommand>),
    /// List whose tokens are trusted, and the rules on them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Show a rule, or with --issuer whose tokens are trusted
    Show {
        /// The rule's name, or the issuer's
        name: String,
        /// It is an issuer
        #[arg(long)]
        issuer: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Remove a rule with all that it was granted, or with --issuer an issuer that has no rules
    ///
    /// Whoever came in by it is out from the next request on.
    #[command(visible_alias = "rm")]
    Remove {
        /// The rule's name, or the issuer's
        name: String,
        /// It is an issuer
        #[arg(long)]
        issuer: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Say what becomes of a token or a certificate: which rules match it, and why others do not
    ///
    /// The token is never printed, and nobody is signed in. Ends with 1 when it would be refused.
    Test {
        /// File that holds the token; - for standard input
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "certificate_file"
        )]
        token_file: Option<PathBuf>,
        /// File that holds a client's certificate (PEM)
        #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
        certificate_file: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
}

fn path(name: &str, issuer: bool) -> String {
    let what = if issuer { "issuers" } else { "rules" };
    format!("/api/v1/workload/{what}/{}", encode_query(name))
}

fn issuers(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list("/api/v1/workload/issuers", LISTED)
}

fn rules(client: &Client) -> Result<Vec<Value>, Failure> {
    client.list("/api/v1/workload/rules", LISTED)
}

pub(super) fn run(command: &WorkloadCommand) -> Outcome {
    match command {
        WorkloadCommand::Trust(command) => trust::run(command),
        WorkloadCommand::List { json, at } => {
            let client = at.client()?;
            let (issuers, rules) = (issuers(&client)?, rules(&client)?);
            match () {
                () if *json => print(&as_json(&json!({"issuers": issuers, "rules": rules}))),
                () if issuers.is_empty() => {
                    print("No tokens are trusted; `wharf workload trust` begins with them.\n")
                }
                () => print(&listed(&issuers, &rules)),
            }
        }
        WorkloadCommand::Show { name, issuer, at } => {
            print(&as_json(&at.client()?.get(&path(name, *issuer))?))
        }
        WorkloadCommand::Remove { name, issuer, at } => {
            at.client()?.send("DELETE", &path(name, *issuer), None)?;
            print("Done.\n")
        }
        WorkloadCommand::Test {
            token_file,
            certificate_file,
            json,
            at,
        } => {
            let (what, body) = match (token_file, certificate_file) {
                (_, Some(file)) => {
                    let text = held("--certificate-file", file)?;
                    ("certificate", json!({ "certificate": text }))
                }
                (Some(file), None) => ("token", json!({ "token": held("--token-file", file)? })),
                (None, None) => return Err(Failure::text(Exit::Usage, "give --token-file FILE")),
            };
            let told = at
                .client()?
                .send("POST", "/api/v1/workload/test", Some(&body))?;
            match json {
                true => print(&as_json(&told))?,
                false => print(&tested(&told, what))?,
            }
            match told["accepted"].as_bool() {
                Some(true) => Ok(()),
                _ => Err(Failure::text(
                    Exit::Failure,
                    format!("the {what} would sign in nobody"),
                )),
            }
        }
    }
}

/// What a file holds, without what stands around it.
fn held(flag: &str, file: &Path) -> Result<String, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::text(Exit::Usage, format!("{flag} {}: {error}", file.display()))
    };
    let mut read = String::new();
    let done = match file.as_os_str() == "-" {
        true => std::io::stdin()
            .lock()
            .take(LARGEST)
            .read_to_string(&mut read),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut read))
        }
    };
    done.map_err(|error| bad(&error))?;
    match read.trim() {
        "" => Err(bad(&"it is empty")),
        text => Ok(text.to_owned()),
    }
}

/// Texts of a list of the answer.
fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

fn listed(issuers: &[Value], rules: &[Value]) -> String {
    let row = |one: &Value| {
        let keys = match one["token_review"].as_str() {
            Some(server) => format!("asks {server}"),
            None => one["keys"].to_string(),
        };
        let keys = match one["keys_error"].as_str() {
            Some(error) => format!("{keys}, and now: {error}"),
            None => keys,
        };
        [
            text(&one["name"]),
            text(&one["kind"]),
            text(&one["issuer"]),
            texts(&one["audiences"]).join(", "),
            keys,
        ]
    };
    let rows: Vec<_> = issuers.iter().map(row).collect();
    let mut told = columns(["ISSUER", "KIND", "ADDRESS", "AUDIENCES", "KEYS"], &rows);
    let row = |one: &Value| {
        let conditions = one["conditions"].as_array().into_iter().flatten();
        let conditions: Vec<String> = conditions.map(condition).collect();
        let bindings = one["bindings"].as_array().into_iter().flatten();
        let bindings = bindings.map(|one| match text(&one["on"]) {
            on if on.is_empty() => text(&one["role"]),
            on => format!("{} on {on}", text(&one["role"])),
        });
        let bindings: Vec<String> = bindings.collect();
        [
            text(&one["name"]),
            text(&one["issuer"]),
            conditions.join(", "),
            bindings.join(", "),
        ]
    };
    if !rules.is_empty() {
        let rows: Vec<_> = rules.iter().map(row).collect();
        told.push('\n');
        told.push_str(&columns(
            ["RULE", "ISSUER", "TOKENS WITH", "GRANTED"],
            &rows,
        ));
    }
    told
}

fn condition(condition: &Value) -> String {
    let (values, patterns) = (texts(&condition["in"]), texts(&condition["glob"]));
    let values = values.iter().map(|value| format!("={value}"));
    let all: Vec<String> = values
        .chain(patterns.iter().map(|one| format!("~{one}")))
        .collect();
    format!("{}{}", text(&condition["claim"]), all.join("|"))
}

fn tested(told: &Value, what: &str) -> String {
    let mut out = String::new();
    for step in told["steps"].as_array().into_iter().flatten() {
        match step["wrong"].as_str() {
            None => out.push_str(&format!("good   {}\n", text(&step["what"]))),
            Some(wrong) => out.push_str(&format!("wrong  {}: {wrong}\n", text(&step["what"]))),
        }
    }
    for rule in told["rules"].as_array().into_iter().flatten() {
        let name = text(&rule["rule"]);
        match rule["matches"].as_bool() {
            Some(true) => out.push_str(&format!("rule {name}: matches\n")),
            _ => {
                out.push_str(&format!("rule {name}: does not match\n"));
                for why in texts(&rule["unmet"]) {
                    out.push_str(&format!("  {why}\n"));
                }
            }
        }
    }
    if let Some(principal) = told["principal"].as_str() {
        out.push_str(&format!("The {what} signs in as {principal}.\n"));
    }
    out
}

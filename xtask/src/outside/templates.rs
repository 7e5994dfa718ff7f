//! The templates for CI services, `docs/templates`: their shell steps, run as they stand, in the environment that the service gives a
//! job: with a token that our key signed in the place of theirs, and with a key of our own where cosign would ask others to sign.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Outside, Registry};
use crate::e2e::Step;
use crate::{run, workspace};

/// What a runner shows to get a token.
const RUNNER: &str = "the-runners-token";
/// Where templates push to.
const EXAMPLE: &str = "registry.example.com";

/// A CI service.
struct Service {
    name: &'static str,
    template: &'static str,
    /// How its shell steps begin.
    opens: &'static str,
    /// What trusts it, besides what is the same for all.
    trust: &'static [&'static str],
    /// What its tokens say, and what those say that must get nothing.
    says: fn() -> (Value, Value),
    /// What it sets for a job; `{token}` and `{url}` are the token and where one is asked for.
    environment: &'static [(&'static str, &'static str)],
}

const SERVICES: [Service; 4] = [
    Service {
        name: "GitHub Actions",
        template: "github-actions.yml",
        opens: "run: |",
        trust: &[
            "github",
            "--repository-id",
            "74",
            "--ref",
            "refs/heads/main",
        ],
        says: || {
            let says = |event: &str| {
                json!({
                    "iss": "https://token.actions.githubusercontent.com", "sub": "repo:acme@7/app@74:ref:refs/heads/main", "aud": "wharf",
                    "repository": "acme/app", "repository_id": "74", "repository_owner_id": "7", "event_name": event, "ref": "refs/heads/main",
                })
            };
            (says("push"), says("pull_request"))
        },
        environment: &[
            ("GITHUB_SHA", "0a1b2c"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", RUNNER),
            (
                "ACTIONS_ID_TOKEN_REQUEST_URL",
                "{url}/token?api-version=2.0",
            ),
            ("AUDIENCE", "wharf"),
        ],
    },
    Service {
        name: "GitLab CI",
        template: "gitlab-ci.yml",
        opens: "- |",
        trust: &[
            "gitlab",
            "--issuer",
            "https://gitlab.example.com",
            "--project-id",
            "42",
        ],
        says: || {
            let says = |protected: &str| {
                json!({
                    "iss": "https://gitlab.example.com", "sub": "project_path:acme/app:ref_type:branch:ref:main", "aud": "wharf",
                    "project_id": "42", "project_path": "acme/app", "ref": "main", "ref_protected": protected, "pipeline_source": "push",
                })
            };
            (says("true"), says("false"))
        },
        environment: &[("CI_COMMIT_SHA", "0a1b2c"), ("WHARF_TOKEN", "{token}")],
    },
    Service {
        name: "Jenkins",
        template: "Jenkinsfile",
        opens: "sh '''",
        trust: &[
            "oidc",
            "--issuer",
            "https://jenkins.example.com/oidc",
            "--as",
            "jenkins",
            "--claim",
            "sub=https://jenkins.example.com/job/app/",
        ],
        says: || {
            let says = |job: &str| {
                json!({
                    "iss": "https://jenkins.example.com/oidc", "sub": format!("https://jenkins.example.com/job/{job}/"), "aud": "wharf",
                })
            };
            (says("app"), says("other"))
        },
        environment: &[("GIT_COMMIT", "0a1b2c"), ("WHARF_TOKEN", "{token}")],
    },
    Service {
        name: "Azure Pipelines",
        template: "azure-pipelines.yml",
        opens: "bash: |",
        trust: &[
            "oidc",
            "--issuer",
            "https://vstoken.dev.azure.com/0f",
            "--as",
            "azure",
            "--audience",
            "api://AzureADTokenExchange",
            "--claim",
            "sub=sc://acme/app/registry",
        ],
        says: || {
            let says = |connection: &str| {
                json!({
                    "iss": "https://vstoken.dev.azure.com/0f", "sub": format!("sc://acme/app/{connection}"), "aud": "api://AzureADTokenExchange",
                })
            };
            (says("registry"), says("other"))
        },
        environment: &[
            ("BUILD_SOURCEVERSION", "0a1b2c"),
            ("SYSTEM_ACCESSTOKEN", RUNNER),
            ("SYSTEM_OIDCREQUESTURI", "{url}/token"),
            ("SERVICE_CONNECTION", "00000000-0000-0000-0000-000000000000"),
        ],
    },
];

/// The shell steps of a template: what stands deeper below a line that ends so.
fn steps(text: &str, opens: &str) -> Vec<String> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut found: Vec<String> = Vec::new();
    let mut within = None;
    for line in text.lines() {
        match within {
            Some(at) if line.trim().is_empty() || depth(line) > at => {
                if let Some(step) = found.last_mut() {
                    step.push_str(line.trim_start());
                    step.push('\n');
                }
            }
            _ => {
                within = None;
                if line.trim_end().ends_with(opens) && !line.trim_start().starts_with('#') {
                    within = Some(depth(line));
                    found.push(String::new());
                }
            }
        }
    }
    found
}

/// A key that signs in the place of the services'.
struct Key {
    file: String,
    jwks: Value,
}

impl Key {
    fn new(step: &Step) -> Result<Self> {
        let file = step.file("../issuer.pem");
        run::read(Command::new("openssl").args(["genrsa", "-out", &file, "2048"]))?;
        let told =
            run::read(Command::new("openssl").args(["rsa", "-in", &file, "-noout", "-modulus"]))?;
        let digits = told.trim().strip_prefix("Modulus=").context("a modulus")?;
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
        let jwk = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k", "n": URL_SAFE_NO_PAD.encode(bytes), "e": "AQAB"});
        Ok(Self {
            file,
            jwks: json!({"keys": [jwk]}),
        })
    }

    fn sign(&self, step: &Step, mut claims: Value) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        claims["iat"] = now.into();
        claims["exp"] = (now + 600).into();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!(
            "{}.{}",
            part(&json!({"alg": "RS256", "typ": "JWT", "kid": "k"})),
            part(&claims)
        );
        let (text, signed) = (step.write("message", &message)?, step.file("signature"));
        run::read(Command::new("openssl").args([
            "dgst", "-sha256", "-sign", &self.file, "-out", &signed, &text,
        ]))?;
        Ok(format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(std::fs::read(&signed)?)
        ))
    }
}

/// Answers like a service's endpoint for tokens, to whoever shows the runner's token and asks for what the template has to ask for.
fn endpoint(token: &str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let body = json!({"value": token, "oidcToken": token, "count": 1}).to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = String::new();
            let mut lines = BufReader::new(&stream);
            while lines.read_line(&mut head).is_ok_and(|read| read > 2) {}
            let shown = head.contains(&format!("Bearer {RUNNER}\r\n"));
            let asked = head.starts_with("GET /token?api-version=2.0&audience=wharf ")
                || head.starts_with("POST /token?api-version=7.1&serviceConnectionId=00000000-0000-0000-0000-000000000000 ");
            let status = if shown && asked {
                "200 OK"
            } else {
                "403 Forbidden"
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(url)
}

/// What a runner has: programs, a registry that is known by plain HTTP here, something to build.
fn runner(step: &mut Step, registry: &Registry) -> Result<()> {
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n",
        step.file("run/store"),
        step.file("store")
    );
    let insecure = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    );
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    for (variable, name, text) in [
        ("CONTAINERS_STORAGE_CONF", "storage.conf", &*storage),
        ("CONTAINERS_REGISTRIES_CONF", "registries.conf", &insecure),
        ("", "home/.config/containers/policy.json", policy),
    ] {
        let file = step.write(name, text)?;
        if !variable.is_empty() {
            step.set(variable, &file);
        }
    }
    step.set("BUILDAH_ISOLATION", "chroot");
    step.set("COSIGN_PASSWORD", "");
    step.write("work/Containerfile", "FROM scratch\nCOPY hello /hello\n")?;
    step.write("work/hello", "hello\n")?;
    // Nothing of others is asked to sign, and nothing is told to a log of others.
    let cosign = run::find("cosign3").context("no cosign3: cargo xtask clients cosign3")?;
    let wrapper = format!(
        "#!/bin/sh\ncommand=$1\nshift\nexec {} \"$command\" --tlog-upload=false --use-signing-config=false --allow-http-registry \"$@\"\n",
        cosign.display()
    );
    let wrapper = step.write("bin/cosign", &wrapper)?;
    run::read(Command::new("chmod").args(["+x", &wrapper]))?;
    step.ok_command({
        let mut command = step.command("cosign3", ["generate-key-pair"]);
        command.current_dir(step.path("work"));
        command
    })?;
    let path = std::env::var("PATH").unwrap_or_default();
    step.set("PATH", &format!("{}:{path}", step.file("bin")));
    step.set("COSIGN_KEY", &step.file("work/cosign.key"));
    step.set("REGISTRY", &registry.address);
    step.set("IMAGE", &format!("{}/team/a/app", registry.address));
    Ok(())
}

/// Runs the steps in order, each in a shell of its own as services do; gives how many went well.
fn job(
    step: &mut Step,
    service: &Service,
    steps: &[String],
    token: &str,
) -> Result<(usize, String)> {
    let url = endpoint(token)?;
    for (name, value) in service.environment {
        step.set(
            name,
            &value.replace("{token}", token).replace("{url}", &url),
        );
    }
    for (at, script) in steps.iter().enumerate() {
        let mut command = step.command(
            "bash",
            ["--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        );
        command.current_dir(step.path("work"));
        let ended = step.run(command)?;
        if ended.code != Some(0) {
            return Ok((at, ended.err));
        }
    }
    Ok((steps.len(), String::new()))
}

/// The tests.
pub(super) fn run(outside: &mut Outside) -> Result<()> {
    let registry = outside.registry("ci", "")?;
    let wharf = outside.wharf.clone();
    for service in &SERVICES {
        // Spec: OIDC-1, OIDC-2, OIDC-3.
        outside.step(
            &format!(
                "the template for {} signs in, builds, pushes and signs",
                service.name
            ),
            |step| {
                let text = std::fs::read_to_string(
                    workspace::root()
                        .join("docs/templates")
                        .join(service.template),
                )?;
                ensure!(
                    text.contains(EXAMPLE)
                        && !text.contains("secrets.")
                        && !text.to_lowercase().contains("password:"),
                    "a secret in a template"
                );
                let steps = steps(&text, service.opens);
                ensure!(
                    (3..=4).contains(&steps.len()),
                    "{} steps in {}",
                    steps.len(),
                    service.template
                );
                let key = Key::new(step)?;
                let jwks = step.write("keys.json", &key.jwks.to_string())?;
                let trust = ["workload", "trust"].iter().chain(service.trust);
                let trust = trust.copied().chain([
                    "--jwks-file",
                    &jwks,
                    "--data",
                    &registry.data,
                    "writer",
                    "on",
                    "team/a",
                ]);
                step.ok(&wharf, trust.collect::<Vec<_>>())?;
                runner(step, &registry)?;
                let (good, other) = (service.says)();
                let stranger = key.sign(step, other)?;
                let (done, told) = job(step, service, &steps, &stranger)?;
                ensure!(
                    done == 1 && told.to_lowercase().contains("unauthorized")
                        || told.contains("invalid username"),
                    "after {done} steps: {told}"
                );
                let token = key.sign(step, good)?;
                let (done, told) = job(step, service, &steps, &token)?;
                ensure!(done == steps.len(), "step {done}: {told}");
                let digest = std::fs::read_to_string(step.path("work/image.digest"))?;
                let image = format!("{}/team/a/app@{}", registry.address, digest.trim());
                step.ok(
                    "cosign3",
                    [
                        "verify",
                        "--key",
                        &step.file("work/cosign.pub"),
                        "--insecure-ignore-tlog",
                        "--allow-http-registry",
                        &image,
                    ],
                )
                .map(drop)
            },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_its_steps_in_order() {
        for service in &SERVICES {
            let file = workspace::root()
                .join("docs/templates")
                .join(service.template);
            let found = steps(&std::fs::read_to_string(file).unwrap(), service.opens);
            let all = found.join("\n");
            let at = |word: &str| {
                all.find(word)
                    .unwrap_or_else(|| panic!("{}: no {word}", service.name))
            };
            assert!(at("buildah build") < at("buildah login"), "{all}");
            assert!(
                at("buildah login") < at("buildah push") && at("buildah push") < at("cosign sign"),
                "{all}"
            );
            assert!(
                !all.contains("displayName") && !all.contains("'''"),
                "{all}"
            );
        }
    }
}

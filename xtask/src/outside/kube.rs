//! A real kube-apiserver over etcd: its service accounts' tokens, its discovery, its TokenReview, and what kubelets get for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use wharf_meta::test_server::free_port;

use super::{Outside, Registry};
use crate::e2e::Step;
use crate::e2e::process::Daemon;
use crate::e2e::site::{answers, certificates};
use crate::run;

/// May do everything in the cluster.
const ADMIN: &str = "the-administrators-token";
/// A kubelet's: of the node n1.
const NODE: &str = "the-nodes-token";
/// What is pulled.
const APP: &str = "team/a/app";
/// Longest wait for what the registry notices a minute later.
const PATIENCE: Duration = Duration::from_secs(120);

fn program(name: &str) -> Result<PathBuf> {
    run::find(name).with_context(|| format!("no {name}: cargo xtask clients {name}"))
}

/// A cluster's control plane, as far as it is needed.
struct Cluster {
    url: String,
    ca: String,
    dir: PathBuf,
    store: String,
    apiserver: Option<Daemon>,
    _etcd: Daemon,
}

impl Cluster {
    fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let ca = certificates(dir)?;
        let tokens = format!(
            "{ADMIN},admin,1,\"system:masters\"\n{NODE},system:node:n1,2,\"system:nodes\"\n"
        );
        std::fs::write(dir.join("tokens.csv"), tokens)?;
        let (store, peers) = (
            format!("http://127.0.0.1:{}", free_port()),
            format!("http://127.0.0.1:{}", free_port()),
        );
        let mut command = Command::new(program("etcd")?);
        command.arg("--data-dir").arg(dir.join("etcd")).args([
            "--listen-client-urls",
            &store,
            "--advertise-client-urls",
            &store,
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
            "--initial-cluster",
            &format!("default={peers}"),
            "--unsafe-no-fsync",
        ]);
        let mut etcd = Daemon::start("etcd", &mut command, &dir.join("etcd.log"))?;
        etcd.wait_until(|| answers(&format!("{store}/health"), None))?;
        let port = free_port();
        let url = format!("https://127.0.0.1:{port}");
        let mut cluster = Self {
            url,
            ca: ca.to_string_lossy().into_owned(),
            dir: dir.to_owned(),
            store,
            apiserver: None,
            _etcd: etcd,
        };
        cluster.serve("sa-1", &[])?;
        Ok(cluster)
    }

    /// Starts the API server, again if it runs, with a new key that signs tokens from now on; it takes those that these signed, too.
    fn serve(&mut self, signs: &str, others: &[&str]) -> Result<()> {
        // It frees the port first.
        self.apiserver = None;
        let file = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let (key, public) = (file(&format!("{signs}.key")), file(&format!("{signs}.pub")));
        let openssl = |args: &[&str]| run::read(Command::new("openssl").args(args));
        openssl(&["genrsa", "-out", &key, "2048"])?;
        openssl(&["rsa", "-in", &key, "-pubout", "-out", &public])?;
        let (url, port) = (&self.url, self.url.rsplit(':').next().unwrap_or_default());
        let mut command = Command::new(program("kube-apiserver")?);
        command.args([
            &format!("--etcd-servers={}", self.store),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            &format!("--secure-port={port}"),
            &format!("--tls-cert-file={}", file("tls.crt")),
            &format!("--tls-private-key-file={}", file("tls.key")),
            &format!("--cert-dir={}", file("certs")),
            &format!("--service-account-issuer={url}"),
            &format!("--service-account-jwks-uri={url}/openid/v1/jwks"),
            &format!("--service-account-signing-key-file={key}"),
            &format!("--service-account-key-file={public}"),
            &format!("--token-auth-file={}", file("tokens.csv")),
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        for other in others {
            let other = file(&format!("{other}.pub"));
            command.arg(format!("--service-account-key-file={other}"));
        }
        let log = self.dir.join(format!("apiserver-{signs}.log"));
        let mut apiserver = Daemon::start("kube-apiserver", &mut command, &log)?;
        let (ready, ca) = (format!("{url}/readyz"), Path::new(&self.ca));
        apiserver.wait_until(|| answers(&ready, Some(ca)))?;
        self.apiserver = Some(apiserver);
        Ok(())
    }

    /// Sends a request as somebody; gives status and answer.
    fn ask(
        &self,
        step: &mut Step,
        who: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, Value)> {
        let kind = match body.starts_with(['{', '[']) || body.is_empty() {
            true => "application/json",
            false => "application/yaml",
        };
        let sent = step.write("run/body", body)?;
        let out = step.ok(
            "curl",
            [
                "-sS",
                "--noproxy",
                "*",
                "--cacert",
                &self.ca,
                "-X",
                method,
                "-w",
                "\n%{http_code}",
                "-H",
                &format!("Authorization: Bearer {who}"),
                "-H",
                &format!("Content-Type: {kind}"),
                "-H",
                "Accept: application/json",
                "--data-binary",
                &format!("@{sent}"),
                &format!("{}{path}", self.url),
            ],
        )?;
        let (answer, status) = out.rsplit_once('\n').context("a status")?;
        Ok((
            status.parse()?,
            serde_json::from_str(answer).unwrap_or_default(),
        ))
    }

    /// As the administrator, who may.
    fn make(&self, step: &mut Step, path: &str, what: &Value) -> Result<Value> {
        let (status, answer) = self.ask(step, ADMIN, "POST", path, &what.to_string())?;
        ensure!(status == 201, "{path}: {status} {answer}");
        Ok(answer)
    }

    fn account(&self, step: &mut Step, namespace: &str, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.make(
            step,
            &path,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
        )
        .map(drop)
    }

    /// A pod that nobody runs; gives its uid.
    fn pod(&self, step: &mut Step, name: &str, account: &str) -> Result<String> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "serviceAccountName": account, "nodeName": "n1", "containers": [{"name": "c", "image": "reg.example/app"}],
        }});
        let made = self.make(step, "/api/v1/namespaces/prod/pods", &pod)?;
        Ok(made["metadata"]["uid"]
            .as_str()
            .context("a uid")?
            .to_owned())
    }

    /// Asks for a token of an account in a namespace; bound to a pod if one is named.
    fn request(
        &self,
        step: &mut Step,
        who: &str,
        account: &str,
        audience: &str,
        pod: Option<(&str, &str)>,
    ) -> Result<(u16, Value)> {
        let (namespace, account) = account.split_once('/').context("namespace/account")?;
        let mut spec = json!({"expirationSeconds": 3_600});
        if !audience.is_empty() {
            spec["audiences"] = json!([audience]);
        }
        if let Some((name, uid)) = pod {
            spec["boundObjectRef"] =
                json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
        }
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        self.ask(step, who, "POST", &path, &body.to_string())
    }

    fn token(
        &self,
        step: &mut Step,
        account: &str,
        audience: &str,
        pod: Option<(&str, &str)>,
    ) -> Result<String> {
        let (status, answer) = self.request(step, ADMIN, account, audience, pod)?;
        ensure!(status == 201, "{status} {answer}");
        Ok(answer["status"]["token"]
            .as_str()
            .context("a token")?
            .to_owned())
    }
}

/// Whether the token, as the password, pulls; and whether it pushes.
fn may(step: &mut Step, registry: &Registry, token: &str) -> Result<(bool, bool)> {
    step.write(
        "home/.docker/config.json",
        &config(&registry.address, "kubernetes", token),
    )?;
    let image = format!("{}/{APP}:v1", registry.address);
    let pulled = step.any("crane", ["manifest", &image])?;
    let other = format!("{}/{APP}:v2", registry.address);
    let pushed = step.any("crane", ["copy", &image, &other])?;
    for (ended, word) in [(&pulled, "pull"), (&pushed, "push")] {
        let said = ended.err.to_lowercase().contains("denied")
            || ended.err.to_lowercase().contains("unauthorized");
        ensure!(
            ended.code == Some(0) || said,
            "a refused {word} says so: {}",
            ended.err
        );
    }
    Ok((pulled.code == Some(0), pushed.code == Some(0)))
}

/// As a pull secret, and as what docker's clients read.
fn config(host: &str, user: &str, password: &str) -> String {
    json!({"auths": {host: {"username": user, "password": password}}}).to_string()
}

/// The tests.
pub(super) fn run(outside: &mut Outside) -> Result<()> {
    let mut cluster = Cluster::start(&outside.dir.join("cluster"))?;
    let registry = outside.registry("registry", "")?;
    let wharf = outside.wharf.clone();
    let secrets = outside.dir.join("secrets");
    std::fs::create_dir_all(&secrets)?;
    let secret = |name: &str| secrets.join(name).to_string_lossy().into_owned();
    outside.step("a cluster with accounts, and a registry with an image", |step| {
        for namespace in ["prod", "dev"] {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            cluster.make(step, "/api/v1/namespaces", &body)?;
        }
        for (namespace, name) in [("prod", "app"), ("prod", "watched"), ("dev", "app"), ("prod", "reader"), ("prod", "reviewer"), ("prod", "nobody")] {
            cluster.account(step, namespace, name)?;
        }
        for (role, account) in [("system:service-account-issuer-discovery", "reader"), ("system:auth-delegator", "reviewer")] {
            let body = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": format!("wharf-{account}")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": "prod", "name": account}],
            });
            cluster.make(step, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &body)?;
        }
        for account in ["reader", "reviewer", "nobody"] {
            std::fs::write(secret(account), cluster.token(step, &format!("prod/{account}"), "", None)?)?;
        }
        step.write("home/.docker/config.json", &config(&registry.address, "admin", "admin-password"))?;
        step.write("layer/hello", "hello\n")?;
        let (layer, image) = (step.file("layer.tar"), format!("{}/{APP}:v1", registry.address));
        step.ok("tar", ["-cf", &layer, "-C", &step.file("layer"), "."])?;
        step.ok("crane", ["append", "-f", &layer, "-t", &image]).map(drop)
    });
    let trust = |step: &mut Step, words: &[&str]| {
        let fixed = [
            "workload",
            "trust",
            "kubernetes",
            "--issuer",
            &cluster.url,
            "--authority",
            &cluster.ca,
            "--data",
            &registry.data,
        ];
        step.ok(
            &wharf,
            fixed.iter().chain(words).copied().collect::<Vec<_>>(),
        )
    };
    // Spec: K8SCRED-7. Without rights the cluster shows its keys to nobody.
    outside.step(
        "who may not read the keys is told which role it takes",
        |step| {
            trust(step, &["--as", "blind", "--namespace", "prod"])?;
            let token = cluster.token(step, "prod/app", "wharf", None)?;
            ensure!(may(step, &registry, &token)? == (false, false));
            let listed = step.ok(&wharf, ["workload", "list", "--data", &registry.data])?;
            ensure!(
                listed.contains("system:service-account-issuer-discovery"),
                "{listed}"
            );
            for rest in [&["blind-prod"][..], &["blind", "--issuer"]] {
                step.ok(
                    &wharf,
                    ["workload", "rm", "--data", &registry.data]
                        .iter()
                        .chain(rest)
                        .copied()
                        .collect::<Vec<_>>(),
                )?;
            }
            Ok(())
        },
    );
    outside.step(
        "after one command an account's token pulls, and cannot push",
        |step| {
            trust(
                step,
                &[
                    "--as",
                    "cluster",
                    "--bearer-file",
                    &secret("reader"),
                    "--namespace",
                    "prod",
                    "--service-account",
                    "app",
                    "reader",
                    "on",
                    "team/a",
                ],
            )?;
            let token = cluster.token(step, "prod/app", "wharf", None)?;
            ensure!(may(step, &registry, &token)? == (true, false));
            let uid = cluster.pod(step, "app-0", "app")?;
            let bound = cluster.token(step, "prod/app", "wharf", Some(("app-0", &uid)))?;
            ensure!(may(step, &registry, &bound)? == (true, false));
            let image = format!("docker://{}/{APP}:v1", registry.address);
            step.ok(
                "skopeo",
                [
                    "inspect",
                    "--tls-verify=false",
                    "--creds",
                    &format!("x:{bound}"),
                    &image,
                ],
            )
            .map(drop)
        },
    );
    outside.step(
        "tokens for others, and of other accounts, are refused, and the test says why",
        |step| {
            for (account, audience, why) in [
                ("prod/app", "vault", "another audience"),
                ("prod/app", "", "another audience"),
                ("dev/app", "wharf", "kubernetes.io.namespace is \"dev\""),
                (
                    "prod/nobody",
                    "wharf",
                    "kubernetes.io.serviceaccount.name is \"nobody\"",
                ),
            ] {
                let token = cluster.token(step, account, audience, None)?;
                ensure!(
                    may(step, &registry, &token)? == (false, false),
                    "{account} {audience}"
                );
                let file = step.write("token", &token)?;
                let told = step.any(
                    &wharf,
                    [
                        "workload",
                        "test",
                        "--token-file",
                        &file,
                        "--data",
                        &registry.data,
                    ],
                )?;
                ensure!(
                    told.code == Some(1) && told.out.contains(why),
                    "{why}: {}",
                    told.out
                );
            }
            Ok(())
        },
    );
    // Spec: K8SCRED-2, K8SCRED-4, K8SCRED-5.
    outside.step("a node asks for a token by the role that is printed, and pulls with the plugin's answer", |step| {
        cluster.make(step, "/api/v1/nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}))?;
        let uid = cluster.pod(step, "app-1", "app")?;
        let pod = Some(("app-1", &*uid));
        let (status, answer) = cluster.request(step, NODE, "prod/app", "wharf", pod)?;
        ensure!(status == 403, "without the role: {status} {answer}");
        let role = step.ok(&wharf, ["credential-provider", "cluster-role", "--audience", "wharf"])?;
        for part in role.split("---\n") {
            let kind = if part.contains("kind: ClusterRoleBinding") { "clusterrolebindings" } else { "clusterroles" };
            let body = part.split_once("apiVersion").map(|(_, rest)| format!("apiVersion{rest}")).context("a resource")?;
            let (status, answer) = cluster.ask(step, ADMIN, "POST", &format!("/apis/rbac.authorization.k8s.io/v1/{kind}"), &body)?;
            ensure!(status == 201, "{kind}: {status} {answer}");
        }
        let begun = Instant::now();
        let answer = loop {
            // Its authorizer follows what was written, a moment later.
            let (status, answer) = cluster.request(step, NODE, "prod/app", "wharf", pod)?;
            if status == 201 {
                break answer;
            }
            ensure!(begun.elapsed() < PATIENCE, "{status} {answer}");
            std::thread::sleep(Duration::from_millis(100));
        };
        let token = answer["status"]["token"].as_str().context("a token")?;
        let image = format!("{}/{APP}:v1", registry.address);
        let request = json!({
            "kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": image,
            "serviceAccountToken": token,
        });
        step.write("request", &request.to_string())?;
        let plugin = step.path("wharf-credential-provider");
        std::os::unix::fs::symlink(&wharf, plugin)?;
        let script = "./wharf-credential-provider --audience wharf < request";
        let answer: Value = serde_json::from_str(&step.ok("sh", ["-c", script])?)?;
        let auth = &answer["auth"][&registry.address];
        let (user, password) = (auth["username"].as_str(), auth["password"].as_str());
        let (Some(user), Some(password)) = (user, password) else {
            bail!("no credentials: {answer}");
        };
        ensure!(answer["cacheDuration"].as_str().is_some_and(|kept| kept.starts_with("5")), "{answer}");
        step.write("home/.docker/config.json", &config(&registry.address, user, password))?;
        step.ok("crane", ["pull", &image, &step.file("pulled.tar")]).map(drop)
    });
    // Spec: K8SCRED-7.
    outside.step(
        "a cluster that is asked (TokenReview) says when a pod and an account are gone",
        |step| {
            trust(
                step,
                &[
                    "--as",
                    "asked",
                    "--token-review",
                    &cluster.url,
                    "--bearer-file",
                    &secret("reviewer"),
                    "--namespace",
                    "prod",
                    "--service-account",
                    "watched",
                    "reader",
                    "on",
                    "team/a",
                ],
            )?;
            let uid = cluster.pod(step, "watched-0", "watched")?;
            let bound = cluster.token(step, "prod/watched", "wharf", Some(("watched-0", &uid)))?;
            let free = cluster.token(step, "prod/watched", "wharf", None)?;
            let other = cluster.token(step, "prod/watched", "vault", None)?;
            ensure!(may(step, &registry, &bound)? == (true, false));
            ensure!(may(step, &registry, &free)? == (true, false));
            ensure!(
                may(step, &registry, &other)? == (false, false),
                "the cluster knows no such audience"
            );
            let now = json!({"gracePeriodSeconds": 0}).to_string();
            for (path, token) in [
                ("pods/watched-0", &bound),
                ("serviceaccounts/watched", &free),
            ] {
                let (status, answer) = cluster.ask(
                    step,
                    ADMIN,
                    "DELETE",
                    &format!("/api/v1/namespaces/prod/{path}"),
                    &now,
                )?;
                ensure!(status == 200, "{path}: {status} {answer}");
                let begun = Instant::now();
                while may(step, &registry, token)?.0 {
                    ensure!(
                        begun.elapsed() < PATIENCE,
                        "{path} is gone, and its token is still accepted"
                    );
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Ok(())
        },
    );
    outside.step(
        "an account that may not ask is told which role it needs",
        |step| {
            trust(
                step,
                &[
                    "--as",
                    "asked",
                    "--token-review",
                    &cluster.url,
                    "--bearer-file",
                    &secret("nobody"),
                    "--namespace",
                    "prod",
                    "--service-account",
                    "watched",
                ],
            )?;
            cluster.account(step, "prod", "watched")?;
            let file = step.path("token");
            std::fs::write(&file, cluster.token(step, "prod/watched", "wharf", None)?)?;
            let told = step.any(
                &wharf,
                [
                    "workload",
                    "test",
                    "--token-file",
                    &file.to_string_lossy(),
                    "--data",
                    &registry.data,
                ],
            )?;
            ensure!(told.out.contains("system:auth-delegator"), "{}", told.out);
            Ok(())
        },
    );
    // Spec: K8SCRED-7, OIDC-4.
    outside.step(
        "a cluster that signs with another key is believed at once, and its older tokens too",
        |step| {
            let old = cluster.token(step, "prod/app", "wharf", None)?;
            ensure!(may(step, &registry, &old)? == (true, false));
            cluster.serve("sa-2", &["sa-1"])?;
            let new = cluster.token(step, "prod/app", "wharf", None)?;
            let key = |token: &str| token.split('.').next().map(str::to_owned);
            ensure!(key(&old) != key(&new), "another key signs");
            // An issuer is asked once in fifteen seconds for keys that are not known.
            let begun = Instant::now();
            while !may(step, &registry, &new)?.0 {
                ensure!(
                    begun.elapsed() < Duration::from_secs(30),
                    "the new key is not known"
                );
                std::thread::sleep(Duration::from_secs(1));
            }
            ensure!(may(step, &registry, &new)? == (true, false));
            ensure!(may(step, &registry, &old)? == (true, false));
            // Nobody else is, whoever signs in the cluster's name.
            let (head, rest) = new.split_once('.').context("a token")?;
            let (claims, _) = rest.split_once('.').context("a token")?;
            let (_, signature) = old.rsplit_once('.').context("a token")?;
            let forged = format!("{head}.{claims}.{signature}");
            ensure!(may(step, &registry, &forged)? == (false, false));
            Ok(())
        },
    );
    Ok(())
}

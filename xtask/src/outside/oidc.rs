//! A certified OpenID provider and people in a real browser, in which no page may run a script: signing in and out, tokens, sessions,
//! and a provider that ends sessions, forgets people, is down, changes its keys and its name.
//!
//! Pictures of the pages are left in the logs' folder, for a look at them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use wharf_meta::test_server::free_port;

use super::Outside;
use crate::e2e::process::Daemon;
use crate::e2e::site::{answers, certificates};
use crate::e2e::{Step, refused};
use crate::run;

/// How often the registry asks for an account; the shortest time that it takes.
const CHECK: Duration = Duration::from_secs(10);
/// Longest wait for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// So soon a page is there, whatever the provider does.
const BOUND: Duration = Duration::from_secs(20);
const SECRET: &str = "the-client-secret";

/// Files and addresses of all that runs here.
struct Place {
    dir: PathBuf,
    /// The authority of both servers.
    ca: PathBuf,
    wharf: String,
    registry: String,
    issuer: String,
    ports: (u16, u16),
    pictures: PathBuf,
}

impl Place {
    fn new(outside: &Outside) -> Result<Self> {
        let dir = outside.dir.join("oidc");
        std::fs::create_dir_all(&dir)?;
        let ca = certificates(&dir)?;
        let ports = (free_port(), free_port());
        let pictures = outside.logs.join("oidc");
        std::fs::create_dir_all(&pictures)?;
        std::fs::write(dir.join("password"), "admin-password")?;
        std::fs::write(dir.join("secret"), format!("{SECRET}\n"))?;
        let place = Self {
            ca,
            wharf: outside.wharf.clone(),
            registry: format!("https://localhost:{}", ports.0),
            issuer: format!("https://localhost:{}", ports.1),
            ports,
            pictures,
            dir,
        };
        place.people(&["ada", "grace"])?;
        std::fs::write(place.dir.join("wharf.toml"), place.config(&place.issuer))?;
        Ok(place)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// The registry's configuration, as the how-to writes it.
    fn config(&self, issuer: &str) -> String {
        format!(
            "[server]\nexternal_url = \"{}\"\n[tls]\ncert = \"{}\"\nkey = \"{}\"\n[auth]\nsession_check = \"{}s\"\n\
             [[auth.oidc]]\nname = \"corp\"\ntitle = \"Example Inc.\"\nissuer = \"{issuer}\"\nclient_id = \"wharf\"\n\
             client_secret_file = \"{}\"\nca_file = \"{}\"\nonboarding = \"auto\"\nadmin_group = \"registry-admins\"\n\
             group_filter = [\"registry-*\"]\nprompt = \"consent\"\nlogout = \"provider\"\n",
            self.registry,
            self.file("tls.crt"),
            self.file("tls.key"),
            CHECK.as_secs(),
            self.file("secret"),
            self.ca.display(),
        )
    }

    /// Who has an account at the provider from now on.
    fn people(&self, names: &[&str]) -> Result<()> {
        let all = names.iter().map(|name| {
            let person = json!({"password": format!("{name}-password"), "name": name, "groups": ["registry-developers", "chess"]});
            ((*name).to_owned(), person)
        });
        let all: serde_json::Map<String, Value> = all.collect();
        std::fs::write(self.dir.join("people.json"), Value::Object(all).to_string())?;
        Ok(())
    }

    /// Starts the provider, which calls itself `issuer` and signs with a key of this name.
    fn provider(&self, issuer: &str, kid: &str) -> Result<Daemon> {
        let client = json!({
            "client_id": "wharf", "client_secret": SECRET, "grant_types": ["authorization_code", "refresh_token"],
            "redirect_uris": [format!("{}/auth/oidc/corp/callback", self.registry)],
            "post_logout_redirect_uris": [format!("{}/auth/oidc/corp/signed-out", self.registry)],
            "backchannel_logout_uri": format!("{}/auth/oidc/corp/backchannel-logout", self.registry),
            "backchannel_logout_session_required": true,
        });
        let config = json!({
            "issuer": issuer, "port": self.ports.1, "cert": self.file("tls.crt"), "key": self.file("tls.key"),
            "kept": self.file("provider.json"), "people": self.file("people.json"), "kid": kid, "client": client,
        });
        let file = self.file("config.json");
        std::fs::write(&file, config.to_string())?;
        let program =
            run::find("oidc-provider").context("no oidc-provider: cargo xtask clients")?;
        let mut command = Command::new(program);
        command
            .args(["provider", &file])
            .env("NODE_EXTRA_CA_CERTS", &self.ca);
        let log = self.dir.join(format!("provider-{kid}.log"));
        let mut provider = Daemon::start("oidc-provider", &mut command, &log)?;
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        provider.wait_until(|| answers(&url, Some(&self.ca)))?;
        Ok(provider)
    }

    /// Starts the registry.
    fn serve(&self) -> Result<Daemon> {
        let mut command = Command::new(&self.wharf);
        command.args([
            "serve",
            "--data",
            &self.file("data"),
            "--config",
            &self.file("wharf.toml"),
        ]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.ports.0)]);
        let mut server = Daemon::start("wharf", &mut command, &self.dir.join("server.log"))?;
        let url = format!("{}/readyz", self.registry);
        server.wait_until(|| answers(&url, Some(&self.ca)))?;
        Ok(server)
    }

    /// A command of the registry's own administrator.
    fn tell(&self, step: &mut Step, words: &[&str]) -> Result<String> {
        let data = self.file("data");
        let words = words.iter().copied().chain(["--data", &data]);
        step.ok(&self.wharf, words)
    }

    /// What the registry answers a program: the status.
    fn asks(&self, step: &mut Step, login: &str, words: &[&str], path: &str) -> Result<String> {
        let (ca, url) = (
            self.ca.to_string_lossy(),
            format!("{}{path}", self.registry),
        );
        let base = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
            "--cacert",
            &*ca,
            "-u",
            login,
        ];
        let words = base.into_iter().chain(words.iter().copied()).chain([&*url]);
        step.ok("curl", words)
    }

    /// A picture of the page in a window of a desk, of a telephone, and in the dark.
    fn picture(&self, name: &str) -> Vec<Value> {
        [
            ("wide", 1024, "light"),
            ("narrow", 360, "light"),
            ("dark", 1024, "dark"),
        ]
        .map(|(kind, width, scheme)| {
            let file = self.pictures.join(format!("{name}-{kind}.png"));
            json!(["shot", file, width, scheme])
        })
        .to_vec()
    }

    /// A person's browser, which goes through these steps; gives what it was asked to tell.
    fn browse(&self, step: &mut Step, who: &str, steps: Vec<Value>) -> Result<String> {
        let chromium =
            run::find("chromium").context("no chromium: cargo xtask clients chromium")?;
        let input = json!({"profile": self.file(&format!("profile-{who}")), "program": chromium, "steps": steps});
        let input = step.write("run/steps.json", &input.to_string())?;
        step.ok("oidc-provider", ["browse", &input])
    }

    /// Through the provider's pages, from our sign-in page to ours.
    fn sign_in(&self, name: &str) -> Vec<Value> {
        let mut all = vec![json!(["go", format!("{}/auth/login", self.registry)])];
        all.extend([json!(["click", "a[href='/auth/oidc/corp/start']"])]);
        all.extend(self.prove(name));
        all.extend([self.at("/account/tokens"), sees(name)]);
        all
    }

    /// At the provider: name, password, consent.
    fn prove(&self, name: &str) -> Vec<Value> {
        vec![
            json!(["at", format!("{}/interaction/", self.issuer)]),
            json!(["fill", "input[name=login]", name]),
            json!(["fill", "input[name=password]", format!("{name}-password")]),
            json!(["click", "button"]),
            json!([
                "sees",
                "wharf asks for openid profile email groups offline_access"
            ]),
            json!(["click", "button"]),
        ]
    }

    /// `wharf login`, which waits for somebody to confirm its code, and the address that it shows. Its words are in this file.
    fn login(&self, step: &mut Step) -> Result<(Daemon, PathBuf, String)> {
        let ca = self.ca.to_string_lossy();
        let words = ["login", &self.registry, "--authority", &ca, "--no-docker"];
        let mut command = step.command(&self.wharf, words);
        let log = step.path("run/login.log");
        let login = Daemon::start("wharf login", &mut command, &log)?;
        let mut address = String::new();
        wait("a code", || {
            let told = std::fs::read_to_string(&log)?;
            let found = told
                .lines()
                .find(|line| line.contains("/device?user_code="));
            address = found.unwrap_or_default().trim().to_owned();
            Ok(!address.is_empty())
        })?;
        Ok((login, log, address))
    }

    fn go(&self, path: &str) -> Value {
        json!(["go", format!("{}{path}", self.registry)])
    }

    fn at(&self, path: &str) -> Value {
        json!(["at", format!("{}{path}", self.registry)])
    }

    /// Whether who has this browser is signed in here.
    fn is_in(&self, step: &mut Step, who: &str) -> Result<bool> {
        let told = self.browse(
            step,
            who,
            vec![self.go("/account/sessions"), json!(["tell", "h2"])],
        )?;
        match told.trim() {
            "Where you are signed in" => Ok(true),
            "Sign in with" => Ok(false),
            other => bail!("a page of another kind: {other}"),
        }
    }
}

fn sees(text: &str) -> Value {
    json!(["sees", text])
}

fn click(selector: &str) -> Value {
    json!(["click", selector])
}

/// Waits until something is so.
fn wait(what: &str, mut good: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !good()? {
        ensure!(began.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(began.elapsed())
}

fn log_has(file: &Path, text: &str) -> Result<bool> {
    Ok(std::fs::read_to_string(file)?.contains(text))
}

pub(super) fn run(outside: &mut Outside) -> Result<()> {
    let place = Place::new(outside)?;
    let mut provider = place.provider(&place.issuer, "first")?;
    let mut server = place.serve()?;
    let check = |step: &mut Step, config: &str| {
        let file = step.write("run/wharf.toml", config)?;
        let data = step.file("data");
        let ended = step.any(
            &place.wharf,
            [
                "config", "check", "--online", "--config", &file, "--data", &data,
            ],
        )?;
        Ok::<_, anyhow::Error>((ended.code == Some(0), ended.out + &ended.err))
    };
    outside.step("the configuration is checked with the provider", |step| {
        let good = place.config(&place.issuer);
        let (is_good, told) = check(step, &good)?;
        ensure!(is_good, "{told}");
        for (config, wanted) in [
            (place.config(&format!("{}/", place.issuer)), "calls itself"),
            (
                place.config(&format!("{}/realms/a", place.issuer)),
                "the answer is 404",
            ),
            (good.replace("ca_file", "# ca_file"), "certificate"),
            (place.config("https://localhost:1"), "refused"),
        ] {
            let (is_good, told) = check(step, &config)?;
            ensure!(
                !is_good && told.contains(wanted) && told.contains("corp"),
                "{wanted}: {told}"
            );
        }
        Ok(())
    });
    outside.step(
        "somebody signs in for the first time, without a script",
        |step| {
            let mut steps = vec![place.go("/auth/login"), sees("Sign in with")];
            steps.extend(place.picture("sign-in"));
            steps.extend(place.sign_in("ada"));
            steps.extend(place.picture("tokens-none"));
            place.browse(step, "ada", steps)?;
            let shown = place.tell(step, &["user", "show", "ada"])?;
            ensure!(shown.contains("corp"), "{shown}");
            Ok(())
        },
    );
    let mut token = String::new();
    outside.step(
        "her groups give rights, and a token pushes and pulls",
        |step| {
            place.tell(
                step,
                &[
                    "group",
                    "create",
                    "devs",
                    "--from",
                    "corp:registry-developers",
                ],
            )?;
            place.tell(step, &["grant", "group:devs", "writer", "on", "team"])?;
            let mut steps = vec![
                place.go("/account/tokens"),
                json!(["fill", "#name", "laptop"]),
                json!(["fill", "#scopes", "writer:team"]),
                click("form.wide button"),
                json!(["tell", "#secret"]),
            ];
            steps.extend(place.picture("tokens-made"));
            steps.extend([
                place.go("/account/tokens"),
                sees("laptop"),
                json!(["lacks", "shown only now"]),
            ]);
            steps.extend(place.picture("tokens"));
            token = place.browse(step, "ada", steps)?.trim().to_owned();
            let login = format!("ada:{token}");
            let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
            let push = |name: &str| format!("/v2/{name}/blobs/uploads/?digest={digest}");
            let words = [
                "-X",
                "POST",
                "-H",
                "content-type: application/octet-stream",
                "--data-binary",
                "hello",
            ];
            for (path, words, wanted) in [
                (push("team/app"), &words[..], "201"),
                (format!("/v2/team/app/blobs/{digest}"), &[], "200"),
                (push("other/app"), &words[..], "403"),
            ] {
                let status = place.asks(step, &login, words, &path)?;
                ensure!(status == wanted, "{path}: {status}");
            }
            Ok(())
        },
    );
    // Spec: OIDC-6.
    outside.step(
        "a terminal signs in through the provider, pushes, and ends with its place on the page",
        |step| {
            let (_login, log, address) = place.login(step)?;
            let mut steps = vec![
                json!(["go", address]),
                place.at("/auth/login"),
                click("a[href^='/auth/oidc/corp/start']"),
            ];
            steps.extend(place.prove("ada"));
            steps.push(place.at("/device?user_code="));
            steps.extend(place.picture("device"));
            steps.extend([
                click("form.wide button"),
                sees("Sign in this terminal as ada?"),
                sees("Did someone send you this code"),
            ]);
            steps.extend(place.picture("device-confirm"));
            steps.extend([
                click("button[value=approve]"),
                sees("the terminal signs in by itself now"),
            ]);
            steps.extend(place.picture("device-done"));
            place.browse(step, "terminal", steps)?;
            wait("the terminal", || log_has(&log, "as ada"))?;
            let told = step.ok(&place.wharf, ["whoami"])?;
            ensure!(told.starts_with("ada "), "{told}");
            let host = format!("localhost:{}", place.ports.0);
            let get = "printf %s \"$1\" | \"$0\" credential-helper get";
            let told = step.ok("sh", ["-c", get, &place.wharf, &host])?;
            let told: Value = serde_json::from_str(&told)?;
            ensure!(told["Username"] == "ada", "{told}");
            let login = format!("ada:{}", told["Secret"].as_str().context("a secret")?);
            let path = "/v2/team/app/tags/list";
            let status = place.asks(step, &login, &[], path)?;
            ensure!(status == "200" || status == "404", "it may look: {status}");
            let begin = ["-X", "POST"];
            let status = place.asks(step, &login, &begin, "/v2/team/app/blobs/uploads/")?;
            ensure!(status == "202", "{status}");
            let mut steps = vec![place.go("/account/sessions"), sees("a terminal")];
            steps.extend(place.picture("sessions-terminal"));
            steps.extend([
                click("::-p-xpath(//li[contains(., 'a terminal')]//button)"),
                place.at("/account/sessions"),
                json!(["lacks", "— a terminal"]),
            ]);
            place.browse(step, "ada", steps)?;
            let status = place.asks(step, &login, &[], path)?;
            ensure!(status == "401", "it has ended: {status}");
            refused(step.ok(&place.wharf, ["whoami"]), &["was signed out by"])
        },
    );
    outside.step("sessions are listed, and the other one is ended", |step| {
        place.browse(step, "other", place.sign_in("ada"))?;
        ensure!(place.is_in(step, "other")?, "signed in");
        let mut steps = vec![place.go("/account/sessions"), sees("this browser")];
        steps.extend(place.picture("sessions"));
        steps.extend([click("main > form button"), place.at("/account/sessions")]);
        place.browse(step, "ada", steps)?;
        ensure!(!place.is_in(step, "other")?, "its session was ended");
        ensure!(place.is_in(step, "ada")?, "her own was not");
        Ok(())
    });
    outside.step(
        "who signs out at the provider is signed out here, and nobody else is",
        |step| {
            // The provider still knows that browser, and only asks for consent.
            let steps = vec![
                place.go("/auth/login"),
                click("a[href='/auth/oidc/corp/start']"),
                click("button"),
                place.at("/account/tokens"),
                json!(["go", format!("{}/session/end", place.issuer)]),
                click("button[value=yes]"),
                sees("Sign-out Success"),
            ];
            place.browse(step, "other", steps)?;
            ensure!(!place.is_in(step, "other")?, "the provider ended it");
            ensure!(
                place.is_in(step, "ada")?,
                "another session of the same account"
            );
            Ok(())
        },
    );
    outside.step(
        "who signs out here signs out at the provider, and comes back",
        |step| {
            let mut steps = vec![
                place.go("/account/tokens"),
                click("nav form button"),
                json!(["at", format!("{}/session/end", place.issuer)]),
                click("button[value=yes]"),
                place.at("/auth/oidc/corp/signed-out?state="),
                sees("You are signed out"),
            ];
            steps.extend(place.picture("signed-out"));
            // Neither of the two knows this browser any more.
            steps.extend(place.sign_in("ada"));
            place.browse(step, "ada", steps)?;
            Ok(())
        },
    );
    outside.step(
        "a wrong name at the provider, and an answer that nobody asked for",
        |step| {
            let mut steps = vec![
                place.go("/auth/oidc/corp/start"),
                json!(["fill", "input[name=login]", "mallory"]),
                json!(["fill", "input[name=password]", "x"]),
                click("button"),
                sees("did not let you in: access_denied"),
            ];
            steps.extend(place.picture("not-let-in"));
            steps.extend([
                place.go("/auth/oidc/corp/callback?code=a&state=b"),
                sees("not begun in this browser"),
            ]);
            steps.extend(place.picture("begin-anew"));
            place.browse(step, "mallory", steps).map(drop)
        },
    );
    outside.step(
        "refresh tokens rotate, and an account that is gone takes its session along",
        |step| {
            place.browse(step, "grace", place.sign_in("grace"))?;
            // Two looks go well: the second one with what the first one got.
            let kept = place.dir.join("provider.json");
            let used = || -> Result<usize> {
                let rows: Value = serde_json::from_slice(&std::fs::read(&kept)?)?;
                let rows = rows.as_object().context("rows")?.values();
                Ok(rows
                    .filter(|row| {
                        row["model"] == "RefreshToken" && row["payload"]["accountId"] == "grace"
                    })
                    .filter(|row| !row["payload"]["consumed"].is_null())
                    .count())
            };
            wait("two looks", || Ok(used()? >= 2))?;
            ensure!(place.is_in(step, "grace")?, "she is still there");
            place.people(&["ada"])?;
            let took = wait(
                "the end of her session",
                || Ok(!place.is_in(step, "grace")?),
            )?;
            ensure!(
                took < CHECK * 3,
                "within the check's time, and not {took:?}"
            );
            let groups = place.tell(step, &["group", "list"])?;
            ensure!(
                !groups.contains("grace"),
                "what her groups gave is gone: {groups}"
            );
            ensure!(place.is_in(step, "ada")?, "and nobody else");
            place.people(&["ada", "grace"])
        },
    );
    drop(provider);
    outside.step(
        "the provider is down: sessions and pulls go on, a sign-in fails clearly",
        |step| {
            let log = place.dir.join("server.log");
            wait("a look that fails", || log_has(&log, "its sessions go on"))?;
            ensure!(place.is_in(step, "ada")?, "her session goes on");
            let pulled =
                place.asks(step, &format!("ada:{token}"), &[], "/v2/team/app/tags/list")?;
            ensure!(pulled == "200" || pulled == "404", "{pulled}");
            // A registry that never heard of the provider: sessions are in its database.
            server.kill();
            server = place.serve()?;
            let began = Instant::now();
            let mut steps = vec![
                place.go("/auth/oidc/corp/start"),
                sees("cannot be used now; try again in a moment"),
            ];
            steps.extend(place.picture("provider-down"));
            place.browse(step, "other", steps)?;
            ensure!(began.elapsed() < BOUND, "{:?}", began.elapsed());
            ensure!(place.is_in(step, "ada")?, "her session goes on");
            // Signing out needs nobody.
            place.browse(
                step,
                "ada",
                vec![
                    place.go("/account/tokens"),
                    click("nav form button"),
                    sees("You are signed out"),
                ],
            )?;
            ensure!(!place.is_in(step, "ada")?, "signed out here");
            Ok(())
        },
    );
    provider = place.provider(&place.issuer, "first")?;
    outside.step("it is back", |step| {
        let steps = vec![
            place.go("/auth/oidc/corp/start"),
            click("button"),
            place.at("/account/tokens"),
        ];
        place.browse(step, "ada", steps).map(drop)
    });
    drop(provider);
    provider = place.provider(&place.issuer, "second")?;
    outside.step("it has other keys: people sign in as before", |step| {
        let mut steps = vec![place.go("/auth/oidc/corp/start")];
        steps.extend(place.prove("grace"));
        place.browse(step, "third", steps)?;
        // Keys are asked for once in 15 s: this may have been too soon.
        wait("the new keys", || {
            place.browse(
                step,
                "third",
                vec![place.go("/auth/oidc/corp/start"), click("button")],
            )?;
            place.is_in(step, "third")
        })?;
        // What was looked at meanwhile proved nothing, and ended nothing.
        ensure!(place.is_in(step, "ada")?, "her session goes on");
        Ok(())
    });
    drop(provider);
    let other = format!("https://127.0.0.1:{}", place.ports.1);
    let _provider = place.provider(&other, "second")?;
    outside.step(
        "it calls itself otherwise: nobody signs in, sessions go on",
        |step| {
            let steps = vec![
                place.go("/auth/oidc/corp/start"),
                click("button"),
                sees("Begin anew"),
            ];
            place.browse(step, "ada", steps)?;
            ensure!(place.is_in(step, "ada")?, "her session goes on");
            server.kill();
            server = place.serve()?;
            let steps = vec![
                place.go("/auth/oidc/corp/start"),
                sees("cannot be used now"),
            ];
            place.browse(step, "other", steps)?;
            let (is_good, told) = check(step, &place.config(&place.issuer))?;
            ensure!(
                !is_good && told.contains("write exactly that as issuer"),
                "{told}"
            );
            ensure!(place.is_in(step, "ada")?, "her session goes on");
            Ok(())
        },
    );
    Ok(())
}

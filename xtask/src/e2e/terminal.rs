//! One sign-in by device (`wharf login`), and then every client that reads docker's configuration, by `docker-credential-wharf`.
//!
//! curl is the browser of whoever confirms the code.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::docker::Docker;
use super::matrix::{NO_ACCESS, Tool};
use super::site::{ALICE, Mode, Site};
use super::step::{Step, refused};
use super::suite::Suite;
use super::{TOOLS, helm};

/// For the code to appear, and for the command to end once it is confirmed.
const PATIENCE: Duration = Duration::from_secs(60);
const KEPT: &str = "home/.config/wharf/credentials.toml";
const DOCKER: &str = "home/.docker/config.json";
const HELMS: [&str; 2] = ["helm3", "helm4"];

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    if !suite.is_wharf() {
        return suite.skip("all steps", "the reference registry has no device flow");
    }
    let log = suite.log("dockerd-terminal.log");
    let docker = suite
        .folder("docker-terminal")
        .and_then(|dir| Docker::start(&dir.join("engine"), &log, false));
    let docker = match docker {
        Ok(docker) => docker,
        Err(error) => return suite.step("starting the engine", |_, _| Err(error)),
    };
    // Spec: OIDC-6.
    suite.step(
        "after one sign-in every client pushes and pulls, and after signing out none",
        |suite, step| everybody(suite, step, &docker),
    );
    suite.step("over TLS, by an authority of its own", |suite, step| {
        let (site, image) = (suite.site(Mode::Tls)?, suite.small_image()?);
        sign_in(suite, step, &site)?;
        let (_, crane) = TOOLS[0];
        step.set("SSL_CERT_FILE", &site.ca_file());
        let pushed = crane.push(step, &site, &image, "e2e/terminal/tls", "v1")?;
        ensure!(site.verify(step, "e2e/terminal/tls", "v1")? == pushed);
        // The next one buys a token, for which the authority is needed.
        age(step)?;
        let pulled = crane.pull(step, &site, &site.address, "e2e/terminal/tls", "v1")?;
        ensure!(pulled == pushed, "pulled {pulled}, {pushed} was pushed");
        wharf(suite, step, &["whoami"]).map(drop)
    });
    suite.step(
        "docker login keeps what it was given, docker logout ends it",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            sign_in(suite, step, &site)?;
            let told = docker.docker(step, &["login", &site.address])?;
            ensure!(told.contains("Login Succeeded"), "{told}");
            let listed = wharf(suite, step, &["context", "list"])?;
            ensure!(
                listed.contains(" terminal "),
                "it is another credential now: {listed}"
            );
            age(step)?;
            docker.push(step, &site, &image, "e2e/terminal/app", "v1")?;
            docker.docker(step, &["logout", &site.address])?;
            refused(
                docker.push(step, &site, &image, "e2e/terminal/app", "v2"),
                NO_ACCESS,
            )?;
            refused(wharf(suite, step, &["whoami"]), &["is not signed in to"])
        },
    );
    suite.step(
        "docker login by a password is kept by the helper, and no file of docker's holds it",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            links(suite, step)?;
            step.write(
                DOCKER,
                &format!("{{\"credHelpers\": {{\"{}\": \"wharf\"}}}}", site.address),
            )?;
            docker.login(step, &site, ALICE)?;
            ensure!(!std::fs::read_to_string(step.path(DOCKER))?.contains("\"auth\""));
            ensure!(std::fs::read_to_string(step.path(KEPT))?.contains(ALICE.1));
            docker
                .push(step, &site, &image, "e2e/terminal/app", "v1")
                .map(drop)
        },
    );
}

fn everybody(suite: &mut Suite, step: &mut Step, docker: &Docker) -> Result<()> {
    let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
    sign_in(suite, step, &site)?;
    let tools = TOOLS.iter().map(|(name, tool)| (*name, *tool as &dyn Tool));
    let tools: Vec<_> = tools.chain([("docker", docker as &dyn Tool)]).collect();
    let mut last = kept(step)?;
    for (name, tool) in &tools {
        let repository = format!("e2e/terminal/{name}");
        age(step)?;
        let pushed = tool.push(step, &site, &image, &repository, "v1")?;
        ensure!(site.verify(step, &repository, "v1")? == pushed);
        let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
        ensure!(
            pulled == pushed,
            "{name} pulled {pulled}, {pushed} was pushed"
        );
        let now = kept(step)?;
        ensure!(now != last, "{name} did not ask the helper");
        last = now;
        let elsewhere = format!("others/{name}");
        refused(tool.push(step, &site, &image, &elsewhere, "v1"), NO_ACCESS)?;
    }
    for helm in HELMS {
        age(step)?;
        let chart = helm::push(step, helm, &site, "e2e")?;
        helm::pull_and_render(step, helm, &site, "e2e", &chart)?;
        let now = kept(step)?;
        ensure!(now != last, "{helm} did not ask the helper");
        last = now;
    }
    let tags = wharf(suite, step, &["tag", "list", "e2e/terminal/crane"])?;
    ensure!(tags.contains("v1"), "{tags}");

    wharf(suite, step, &["logout"])?;
    let config: Value = serde_json::from_str(&std::fs::read_to_string(step.path(DOCKER))?)?;
    ensure!(config.get("credHelpers").is_none(), "{config}");
    for (name, tool) in &tools {
        let repository = format!("e2e/terminal/{name}");
        refused(tool.push(step, &site, &image, &repository, "v2"), NO_ACCESS)?;
    }
    for helm in HELMS {
        refused(helm::push(step, helm, &site, "e2e"), NO_ACCESS)?;
    }
    Ok(())
}

/// Puts the program in the way of clients under both of its names, and takes the file away in which they would look first.
fn links(suite: &Suite, step: &mut Step) -> Result<()> {
    let folder = step.path("bin");
    std::fs::create_dir_all(&folder)?;
    for name in ["wharf", "docker-credential-wharf"] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(suite.binary(), link)?;
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    step.set("PATH", &format!("{}:{path}", folder.display()));
    step.unset("REGISTRY_AUTH_FILE");
    Ok(())
}

fn wharf(suite: &Suite, step: &mut Step, args: &[&str]) -> Result<String> {
    let binary = suite.binary().to_string_lossy().into_owned();
    step.ok(&binary, args)
}

/// The whole way: the command here, the browser of alice there.
fn sign_in(suite: &Suite, step: &mut Step, site: &Site) -> Result<()> {
    links(suite, step)?;
    let url = site.url();
    let mut args = vec!["login", &url];
    let authority = site.ca_file();
    if site.tls() {
        args.extend(["--authority", &authority]);
    }
    let binary = suite.binary().to_string_lossy().into_owned();
    let mut command = step.command(&binary, args);
    let (out, err) = (step.path("run/login.out"), step.path("run/login.err"));
    command.stdin(Stdio::null());
    command
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?);
    let mut child = command.spawn().context("starting wharf login")?;
    let done = confirm(step, site, &mut child);
    if done.is_err() {
        let _ = child.kill();
    }
    let ended = child.wait()?;
    let told = std::fs::read_to_string(&out)? + &std::fs::read_to_string(&err)?;
    step.note(&told);
    done.with_context(|| format!("signing in: {told}"))?;
    ensure!(ended.success(), "wharf login ended with {ended}: {told}");
    ensure!(
        told.contains("as alice") && told.contains("credHelpers"),
        "{told}"
    );
    Ok(())
}

/// Opens the address that the command shows, signs in there, and confirms.
fn confirm(step: &mut Step, site: &Site, child: &mut Child) -> Result<()> {
    let err = step.path("run/login.err");
    let start = Instant::now();
    let code = loop {
        let told = std::fs::read_to_string(&err)?;
        if let Some((_, code)) = told.split_once("/device?user_code=") {
            break code.get(..9).context("a code of eight letters")?.to_owned();
        }
        ensure!(
            child.try_wait()?.is_none(),
            "wharf login ended before it showed a code"
        );
        ensure!(start.elapsed() < PATIENCE, "no code is shown");
        std::thread::sleep(Duration::from_millis(20));
    };
    let page = format!("/device?user_code={code}");
    let form = form(step, site, "/auth/login")?;
    let fields = [
        ("form", &*form),
        ("user", ALICE.0),
        ("password", ALICE.1),
        ("return", &page),
    ];
    browse(step, site, "/auth/login", &fields)?;
    let form = self::form(step, site, &page)?;
    let fields = [
        ("form", &*form),
        ("user_code", &code),
        ("decision", "approve"),
    ];
    let shown = browse(step, site, "/device", &fields)?;
    ensure!(shown.contains("Done"), "{shown}");
    while child.try_wait()?.is_none() {
        ensure!(
            start.elapsed() < PATIENCE,
            "the command does not see that the code was confirmed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A page of the registry, as a browser that keeps cookies sees it; with fields they are sent.
fn browse(step: &mut Step, site: &Site, path: &str, fields: &[(&str, &str)]) -> Result<String> {
    let (jar, origin) = (step.file("jar"), format!("Origin: {}", site.url()));
    let mut args = vec!["-sS", "--max-time", "60", "-b", &jar, "-c", &jar];
    let authority = site.ca_file();
    if site.tls() {
        args.extend(["--cacert", &authority]);
    }
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !fields.is_empty() {
        args.extend(["-H", &origin]);
    }
    args.extend(fields.iter().flat_map(|field| ["--data-urlencode", field]));
    let url = format!("{}{path}", site.url());
    args.push(&url);
    step.ok("curl", args)
}

/// What a page's form has to be sent with.
fn form(step: &mut Step, site: &Site, path: &str) -> Result<String> {
    let page = browse(step, site, path, &[])?;
    let found = page.split_once("name=\"form\" value=\"");
    let found = found.and_then(|(_, rest)| rest.split_once('"'));
    let (form, _) = found.with_context(|| format!("no form at {path}: {page}"))?;
    Ok(form.to_owned())
}

fn kept(step: &Step) -> Result<String> {
    let text = std::fs::read_to_string(step.path(KEPT))?;
    let mut lines = text.lines();
    let refresh = lines.find(|line| line.starts_with("refresh = "));
    Ok(refresh.context("no refresh token is kept")?.to_owned())
}

/// Makes the access token older than it is, so that whoever asks for it next buys another one.
fn age(step: &Step) -> Result<()> {
    let path = step.path(KEPT);
    let mut aged = String::new();
    let mut count = 0;
    for line in std::fs::read_to_string(&path)?.lines() {
        match line.split_once(" = ") {
            Some((name @ ("from" | "ends"), value)) => {
                count += 1;
                aged.push_str(&format!("{name} = {}\n", value.parse::<i64>()? - 600));
            }
            _ => aged.push_str(&format!("{line}\n")),
        }
    }
    if count != 2 {
        bail!("no terminal is kept in {}", path.display());
    }
    Ok(std::fs::write(path, aged)?)
}

//! Robots, API tokens, pull secrets and refresh tokens, in the hands of every client that can hold them.
//!
//! Made by the commands that an operator uses, on the running registry.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::docker::Docker;
use super::image::Image;
use super::matrix::{NO_ACCESS, Tool};
use super::site::{ALICE, Mode, Site};
use super::step::{Step, refused};
use super::suite::Suite;
use super::{TOOLS, helm};

/// Whoever holds a pull secret reads it from one of these: `$DOCKER_CONFIG`, and containers/image's own file.
const AUTH_FILES: [&str; 2] = ["home/.docker/config.json", "home/auth.json"];

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    if !suite.is_wharf() {
        return suite.skip(
            "all steps",
            "the reference registry has no such credentials",
        );
    }
    let log = suite.log("dockerd-credential.log");
    let docker = suite
        .folder("docker-credential")
        .and_then(|dir| Docker::start(&dir.join("engine"), &log, false));
    let docker = match docker {
        Ok(docker) => docker,
        Err(error) => return suite.step("starting the engine", |_, _| Err(error)),
    };
    let tools = TOOLS.iter().map(|(name, tool)| (*name, *tool as &dyn Tool));
    for (name, tool) in tools.chain([("docker", &docker as &dyn Tool)]) {
        images(suite, name, tool);
    }
    for helm in ["helm3", "helm4"] {
        suite.step(
            &format!("{helm}: charts by a robot, read by a token"),
            |suite, step| charts(suite, step, helm),
        );
    }
    suite.step(
        "a secret is rotated without a refused pull, and revoked",
        rotation,
    );
    suite.step(
        "docker keeps a refresh token instead of the password",
        |suite, step| refresh_token(suite, step, &docker),
    );
}

/// Robots, tokens and pull secrets are names with secrets for all of these.
fn images(suite: &mut Suite, name: &'static str, tool: &dyn Tool) {
    let namespace = format!("e2e/credential/{name}");
    let repository = format!("{namespace}/app");
    suite.step(
        &format!("{name}: a robot works in its namespace alone"),
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            let wharf = Wharf::of(suite, &site);
            let robot = format!("{namespace}+ci");
            let secret = wharf.secret(step, &["robot", "create", &robot, "--expires", "1d"])?;
            wharf.run(step, &["grant", &robot, "writer", "on", &namespace])?;
            tool.login(step, &site, (&robot, &secret))?;
            let pushed = tool.push(step, &site, &image, &repository, "v1")?;
            ensure!(site.verify(step, &repository, "v1")? == pushed);
            let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
            ensure!(pulled == pushed, "pulled {pulled}, {pushed} was pushed");
            let elsewhere = format!("e2e/credential-of-others/{name}");
            refused(tool.push(step, &site, &image, &elsewhere, "v1"), NO_ACCESS)
        },
    );
    suite.step(
        &format!("{name}: a narrow token reads what its user may write"),
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
            let wharf = Wharf::of(suite, &site);
            let scope = format!("reader:{namespace}");
            let token = [
                "token",
                "create",
                ALICE.0,
                "--name",
                name,
                "--expires",
                "1d",
                "--scope",
                &scope,
            ];
            let token = wharf.secret(step, &token)?;
            tool.login(step, &site, (ALICE.0, &token))?;
            let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
            ensure!(
                pulled == image.digest,
                "pulled {pulled}, {} was pushed",
                image.digest
            );
            refused(tool.push(step, &site, &image, &repository, "v2"), NO_ACCESS)
        },
    );
    suite.step(
        &format!("{name}: a pull secret is read as a kubelet reads it"),
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
            let wharf = Wharf::of(suite, &site);
            let made = [
                "pull-secret",
                "create",
                "--namespace",
                &namespace,
                "--host",
                &site.address,
            ];
            let manifest = wharf.run(step, &made)?;
            let auths = dockerconfigjson(&manifest)?;
            for file in AUTH_FILES {
                step.write(file, &auths)?;
            }
            let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
            ensure!(
                pulled == image.digest,
                "pulled {pulled}, {} was pushed",
                image.digest
            );
            refused(tool.push(step, &site, &image, &repository, "v2"), NO_ACCESS)
        },
    );
}

fn charts(suite: &mut Suite, step: &mut Step, helm: &'static str) -> Result<()> {
    let site = suite.site(Mode::Plain)?;
    let wharf = Wharf::of(suite, &site);
    let (namespace, robot) = (format!("e2e/{helm}"), format!("e2e/{helm}+ci"));
    let secret = wharf.secret(step, &["robot", "create", &robot, "--expires", "1d"])?;
    wharf.run(step, &["grant", &robot, "writer", "on", &namespace])?;
    helm::login(step, helm, &site, (&robot, &secret))?;
    let chart = helm::push(step, helm, &site, "e2e")?;
    let scope = format!("reader:{namespace}");
    let token = [
        "token",
        "create",
        ALICE.0,
        "--name",
        helm,
        "--expires",
        "1d",
        "--scope",
        &scope,
    ];
    let token = wharf.secret(step, &token)?;
    helm::login(step, helm, &site, (ALICE.0, &token))?;
    helm::pull_and_render(step, helm, &site, "e2e", &chart)?;
    refused(helm::push(step, helm, &site, "e2e"), NO_ACCESS)
}

fn rotation(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
    let wharf = Wharf::of(suite, &site);
    let (robot, repository) = ("e2e/rotation+ci", "e2e/rotation/app");
    super::curl::push(step, &site, ALICE, &image, repository, "v1")?;
    let first = wharf.secret(step, &["robot", "create", robot, "--expires", "1d"])?;
    wharf.run(step, &["grant", robot, "reader", "on", "e2e/rotation"])?;
    let second = wharf.secret(step, &["robot", "rotate", robot, "--overlap", "1h"])?;
    for secret in [&first, &second] {
        ensure!(pull_as(step, &site, (robot, secret), &image, repository)?);
    }
    // Two at most: the third ends the first at once.
    let third = wharf.secret(step, &["robot", "rotate", robot, "--overlap", "1h"])?;
    for (secret, good) in [(&first, false), (&second, true), (&third, true)] {
        ensure!(pull_as(step, &site, (robot, secret), &image, repository)? == good);
    }
    wharf.run(step, &["robot", "disable", robot])?;
    for secret in [&second, &third] {
        ensure!(!pull_as(step, &site, (robot, secret), &image, repository)?);
    }
    Ok(())
}

/// Whether skopeo, newly signed in, may pull.
fn pull_as(
    step: &mut Step,
    site: &Site,
    robot: (&str, &str),
    image: &Image,
    repository: &str,
) -> Result<bool> {
    let tool = super::skopeo::Skopeo;
    let pulled = tool
        .login(step, site, robot)
        .and_then(|()| tool.pull(step, site, &site.address, repository, "v1"));
    match pulled {
        Ok(digest) => {
            ensure!(
                digest == image.digest,
                "pulled {digest}, {} was pushed",
                image.digest
            );
            Ok(true)
        }
        Err(error) => refused::<()>(Err(error), NO_ACCESS).map(|()| false),
    }
}

/// Section 4.5: the token that docker keeps instead of the password works, and dies with the secret that it was bought with.
fn refresh_token(suite: &mut Suite, step: &mut Step, docker: &Docker) -> Result<()> {
    let (site, image) = (suite.site(Mode::RefreshTokens)?, suite.small_image()?);
    let wharf = Wharf::of(suite, &site);
    let (robot, repository) = ("e2e/refresh+ci", "e2e/refresh/app");
    let secret = wharf.secret(step, &["robot", "create", robot, "--expires", "1d"])?;
    wharf.run(step, &["grant", robot, "writer", "on", "e2e/refresh"])?;
    docker.login(step, &site, (robot, &secret))?;
    let kept = std::fs::read_to_string(step.path(AUTH_FILES[0]))?;
    let kept: Value = serde_json::from_str(&kept)?;
    let entry = &kept["auths"][&site.address];
    let password = entry["auth"].as_str().map(|auth| STANDARD.decode(auth));
    let password = password.transpose()?.unwrap_or_default();
    ensure!(
        entry["identitytoken"].is_string() && !String::from_utf8(password)?.contains(&secret),
        "docker kept the secret itself"
    );
    let pushed = docker.push(step, &site, &image, repository, "v1")?;
    let pulled = docker.pull(step, &site, &site.address, repository, "v1")?;
    ensure!(pulled == pushed, "pulled {pulled}, {pushed} was pushed");
    wharf.run(step, &["robot", "disable", robot])?;
    refused(
        docker.pull(step, &site, &site.address, repository, "v1"),
        NO_ACCESS,
    )
}

/// What a kubelet hands to its runtime: the data of a Secret, which is the file that all clients know.
fn dockerconfigjson(manifest: &str) -> Result<String> {
    let field = "  .dockerconfigjson: ";
    let data = manifest.lines().find_map(|line| line.strip_prefix(field));
    let data = data.with_context(|| format!("no data in {manifest}"))?;
    Ok(String::from_utf8(STANDARD.decode(data)?)?)
}

/// Commands on the machine of a registry.
struct Wharf {
    binary: String,
    data: String,
    config: String,
}

impl Wharf {
    fn of(suite: &Suite, site: &Site) -> Self {
        Self {
            binary: suite.binary().to_string_lossy().into_owned(),
            data: site.data(),
            config: site.config(),
        }
    }

    fn run(&self, step: &mut Step, args: &[&str]) -> Result<String> {
        let flags = ["--data", &self.data, "--config", &self.config];
        step.ok(&self.binary, args.iter().copied().chain(flags))
    }

    /// What a command prints is the secret alone.
    fn secret(&self, step: &mut Step, args: &[&str]) -> Result<String> {
        let secret = self.run(step, args)?.trim_end().to_owned();
        if !secret.starts_with("wharf_") || secret.contains(char::is_whitespace) {
            bail!("no secret alone: {secret:?}");
        }
        Ok(secret)
    }
}

//! Helm 3 and 4: push, pull and render a chart from the registry.

use anyhow::{Result, ensure};

use super::site::{ALICE, Mode, PAUL, RITA, Site, User};
use super::step::{Step, refused};
use super::suite::Suite;
use super::{image, matrix};

/// Tests of Helm 3.
pub(crate) fn run_3(suite: &mut Suite) {
    run(suite, "helm3");
}

/// Tests of Helm 4.
pub(crate) fn run_4(suite: &mut Suite) {
    run(suite, "helm4");
}

fn run(suite: &mut Suite, helm: &'static str) {
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("push, pull, show and render a chart over {}", mode.name()),
            |suite, step| {
                let site = suite.site(mode)?;
                login(step, helm, &site, ALICE)?;
                let chart = push(step, helm, &site, "e2e")?;
                pull_and_render(step, helm, &site, "e2e", &chart)
            },
        );
    }
    suite.step("pull a public prefix without signing in", |suite, step| {
        let site = suite.site(Mode::Public)?;
        if site.has_roles {
            login(step, helm, &site, ALICE)?;
        }
        let chart = push(step, helm, &site, "public")?;
        if site.has_roles {
            let args = security(&site, &["registry", "logout", &site.address]);
            step.ok(helm, args.iter().filter(|a| !a.starts_with("--")))?;
        }
        pull_and_render(step, helm, &site, "public", &chart)
    });
    suite.step("a wrong password is refused", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        refused(
            login(step, helm, &site, (ALICE.0, "wrong")),
            matrix::NO_ACCESS,
        )
    });
    suite.step(
        "an unknown chart and version are not found",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            login(step, helm, &site, ALICE)?;
            push(step, helm, &site, "e2e")?;
            for (name, version) in [("demo", "9.9.9"), ("nothing", "0.1.0")] {
                let args = security(
                    &site,
                    &[
                        "pull",
                        &reference(&site, "e2e", helm, name),
                        "--version",
                        version,
                    ],
                );
                refused(step.ok(helm, args), matrix::NOT_THERE)?;
            }
            Ok(())
        },
    );
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    suite.step(
        "a reader may pull and not push, a stranger neither",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            login(step, helm, &site, ALICE)?;
            let chart = push(step, helm, &site, "e2e")?;
            login(step, helm, &site, RITA)?;
            pull_and_render(step, helm, &site, "e2e", &chart)?;
            refused(push(step, helm, &site, "e2e"), matrix::NO_ACCESS)?;
            login(step, helm, &site, PAUL)?;
            refused(
                pull_and_render(step, helm, &site, "e2e", &chart),
                matrix::NO_ACCESS,
            )
        },
    );
}

/// Arguments with how Helm is told of the site's security.
fn security(site: &Site, args: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    if site.tls() {
        all.extend(["--ca-file".to_owned(), site.ca_file()]);
    } else {
        all.push("--plain-http".to_owned());
    }
    all
}

pub(super) fn login(
    step: &mut Step,
    helm: &str,
    site: &Site,
    (name, password): User,
) -> Result<()> {
    let args = security(
        site,
        &[
            "registry",
            "login",
            &site.address,
            "-u",
            name,
            "-p",
            password,
        ],
    );
    step.ok(helm, args).map(drop)
}

fn reference(site: &Site, prefix: &str, helm: &str, chart: &str) -> String {
    format!("oci://{}/{prefix}/{helm}/{chart}", site.address)
}

/// Packs a small chart whose version has a `+`, which becomes `_` in the tag, and pushes it. Gives the file's name.
pub(super) fn push(step: &mut Step, helm: &str, site: &Site, prefix: &str) -> Result<String> {
    step.write(
        "demo/Chart.yaml",
        "apiVersion: v2\nname: demo\ndescription: a chart of the tests\nversion: 0.1.0+build.5\nappVersion: \"1\"\n",
    )?;
    step.write("demo/values.yaml", "greeting: hello\n")?;
    step.write(
        "demo/templates/config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-demo\ndata:\n  greeting: {{ .Values.greeting | quote }}\n",
    )?;
    let file = "demo-0.1.0+build.5.tgz";
    if !step.path(file).exists() {
        step.ok(helm, ["package", &step.file("demo"), "-d", &step.file("")])?;
    }
    let target = format!("oci://{}/{prefix}/{helm}", site.address);
    step.ok(helm, security(site, &["push", &step.file(file), &target]))?;
    Ok(file.to_owned())
}

pub(super) fn pull_and_render(
    step: &mut Step,
    helm: &str,
    site: &Site,
    prefix: &str,
    file: &str,
) -> Result<()> {
    let chart = reference(site, prefix, helm, "demo");
    let _ = std::fs::remove_dir_all(step.path("pulled"));
    std::fs::create_dir_all(step.path("pulled"))?;
    let version = "0.1.0+build.5";
    let pulled = step.file("pulled");
    step.ok(
        helm,
        security(site, &["pull", &chart, "--version", version, "-d", &pulled]),
    )?;
    let (sent, got) = (
        image::hash_file(&step.path(file))?,
        image::hash_file(&step.path("pulled").join(file))?,
    );
    ensure!(sent == got, "the chart that came back differs");
    let shown = step.ok(
        helm,
        security(site, &["show", "chart", &chart, "--version", version]),
    )?;
    ensure!(shown.contains("a chart of the tests"), "show: {shown}");
    let args = [
        "template",
        "rel",
        &chart,
        "--version",
        version,
        "--set",
        "greeting=ahoy",
    ];
    let rendered = step.ok(helm, security(site, &args))?;
    ensure!(
        rendered.contains("greeting: \"ahoy\"") && rendered.contains("name: rel-demo"),
        "rendered: {rendered}"
    );
    Ok(())
}

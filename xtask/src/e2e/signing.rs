//! cosign 2 and 3 and notation: sign, attest, verify, with keys made here and no transparency log.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::image;
use super::matrix;
use super::site::{ALICE, Mode, RITA, Site};
use super::step::{Step, refused};
use super::suite::Suite;

/// Tests of cosign 2: signatures and attestations lie under tags.
pub(crate) fn run_cosign_2(suite: &mut Suite) {
    cosign(suite, "cosign2");
}

/// Tests of cosign 3: bundles, found through the referrers endpoint.
pub(crate) fn run_cosign_3(suite: &mut Suite) {
    cosign(suite, "cosign3");
}

fn cosign(suite: &mut Suite, program: &'static str) {
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("sign, attest and verify over {}", mode.name()),
            |suite, step| {
                let (site, image) = (suite.site(mode)?, suite.small_image()?);
                let repository = format!("e2e/{program}/signed");
                super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
                let reference = format!("{}/{repository}@{}", site.address, image.digest);
                cosign_ready(step, program, &site)?;
                refused(
                    verify(step, program, &site, &reference),
                    &["no signatures found", "no matching", "no valid bundles"],
                )?;
                sign(step, program, &site, &reference)?;
                verify(step, program, &site, &reference)?;
                step.write("predicate.json", "{\"built\": \"by the tests\"}\n")?;
                let attest = [
                    "attest",
                    "--type",
                    "custom",
                    "--predicate",
                    "predicate.json",
                    "--key",
                    "cosign.key",
                    "--yes",
                ];
                step.ok(program, signing(program, &site, &attest, &reference))?;
                let check = [
                    "verify-attestation",
                    "--type",
                    "custom",
                    "--key",
                    "cosign.pub",
                    "--insecure-ignore-tlog=true",
                ];
                let told = step.ok(program, verifying(&site, &check, &reference))?;
                ensure!(told.contains("payload"), "the attestation is empty: {told}");
                let tags = format!("/v2/{repository}/tags/list");
                let file = step.path("tags");
                ensure!(site.ask(step, Some(ALICE), &tags, &[], Some(&file))? == 200);
                let listed = std::fs::read_to_string(&file)?;
                if program == "cosign3" && site.has_referrers {
                    let kinds = referrers(step, &site, &repository, &image.digest)?;
                    ensure!(
                        kinds.iter().all(|k| k.contains("sigstore.bundle")) && kinds.len() == 2,
                        "referrers: {kinds:?}"
                    );
                    ensure!(
                        !listed.contains("sha256-"),
                        "cosign maintained a fallback tag: {listed}"
                    );
                } else {
                    ensure!(
                        listed.contains("sha256-"),
                        "no tag of a signature: {listed}"
                    );
                }
                Ok(())
            },
        );
    }
    suite.step(
        "verify in a public prefix without signing in",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Public)?, suite.small_image()?);
            let repository = format!("public/{program}");
            super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
            let reference = format!("{}/{repository}@{}", site.address, image.digest);
            if site.has_roles {
                cosign_ready(step, program, &site)?;
                sign(step, program, &site, &reference)?;
                std::fs::remove_dir_all(step.path("home/.docker"))?;
            } else {
                step.set("COSIGN_PASSWORD", "");
                step.ok(program, ["generate-key-pair"])?;
                sign(step, program, &site, &reference)?;
            }
            verify(step, program, &site, &reference)
        },
    );
    suite.step("another key verifies nothing", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        let repository = format!("e2e/{program}/other-key");
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        let reference = format!("{}/{repository}@{}", site.address, image.digest);
        cosign_ready(step, program, &site)?;
        sign(step, program, &site, &reference)?;
        for name in ["cosign.key", "cosign.pub"] {
            std::fs::remove_file(step.path(name))?;
        }
        step.ok(program, ["generate-key-pair"])?;
        refused(
            verify(step, program, &site, &reference),
            &[
                "invalid signature",
                "no matching",
                "failed to verify",
                "no valid",
            ],
        )
    });
    suite.step(
        "an unknown tag and a wrong password are refused",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            cosign_ready(step, program, &site)?;
            let missing = format!("{}/e2e/{program}/signed:no-such-tag", site.address);
            refused(verify(step, program, &site, &missing), matrix::NOT_THERE)?;
            let login = step.ok(
                program,
                ["login", &site.address, "-u", ALICE.0, "-p", "wrong"],
            );
            refused(
                login.and_then(|_| verify(step, program, &site, &missing)),
                matrix::NO_ACCESS,
            )
        },
    );
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    suite.step("a reader verifies and may not sign", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        let repository = format!("e2e/{program}/read-only");
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        let reference = format!("{}/{repository}@{}", site.address, image.digest);
        cosign_ready(step, program, &site)?;
        sign(step, program, &site, &reference)?;
        step.ok(
            program,
            ["login", &site.address, "-u", RITA.0, "-p", RITA.1],
        )?;
        verify(step, program, &site, &reference)?;
        // With something to say that is not signed yet: cosign 2 pushes nothing when the same payload is.
        let other = signing(
            program,
            &site,
            &["sign", "--key", "cosign.key", "--yes", "-a", "by=rita"],
            &reference,
        );
        refused(step.ok(program, other).map(drop), matrix::NO_ACCESS)
    });
}

/// Keys in the step's folder and alice signed in.
fn cosign_ready(step: &mut Step, program: &str, site: &Site) -> Result<()> {
    step.set("SSL_CERT_FILE", &site.ca_file());
    step.set("COSIGN_PASSWORD", "");
    step.ok(program, ["generate-key-pair"])?;
    step.ok(
        program,
        ["login", &site.address, "-u", ALICE.0, "-p", ALICE.1],
    )
    .map(drop)
}

/// Arguments of what writes: no upload to a log, and for cosign 3 no services of others.
fn signing(program: &str, site: &Site, args: &[&str], reference: &str) -> Vec<String> {
    let mut all: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    all.push("--tlog-upload=false".to_owned());
    if program == "cosign3" {
        all.push("--use-signing-config=false".to_owned());
    }
    insecure(site, &mut all);
    all.push(reference.to_owned());
    all
}

fn verifying(site: &Site, args: &[&str], reference: &str) -> Vec<String> {
    let mut all: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    insecure(site, &mut all);
    all.push(reference.to_owned());
    all
}

fn insecure(site: &Site, args: &mut Vec<String>) {
    if !site.tls() {
        args.push("--allow-http-registry".to_owned());
    }
}

fn sign(step: &mut Step, program: &str, site: &Site, reference: &str) -> Result<()> {
    let args = signing(
        program,
        site,
        &["sign", "--key", "cosign.key", "--yes"],
        reference,
    );
    step.ok(program, args).map(drop)
}

fn verify(step: &mut Step, program: &str, site: &Site, reference: &str) -> Result<()> {
    let args = verifying(
        site,
        &[
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog=true",
        ],
        reference,
    );
    step.ok(program, args).map(drop)
}

/// The artifact types that the referrers endpoint names for a subject.
fn referrers(step: &mut Step, site: &Site, repository: &str, subject: &str) -> Result<Vec<String>> {
    let file = step.path("referrers");
    let status = site.ask(
        step,
        Some(ALICE),
        &format!("/v2/{repository}/referrers/{subject}"),
        &[],
        Some(&file),
    )?;
    ensure!(status == 200, "referrers answered {status}");
    let index: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    index["manifests"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .iter()
        .map(|m| image::text(m, "artifactType"))
        .collect()
}

/// Tests of notation.
pub(crate) fn run_notation(suite: &mut Suite) {
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("sign, list and verify over {}", mode.name()),
            |suite, step| {
                let (site, image) = (suite.site(mode)?, suite.small_image()?);
                super::curl::push(step, &site, ALICE, &image, "e2e/notation/signed", "v1")?;
                let reference = format!("{}/e2e/notation/signed@{}", site.address, image.digest);
                notation_ready(step, &site)?;
                refused(
                    notation(step, &site, &["verify"], &reference),
                    &["no signature"],
                )?;
                notation(
                    step,
                    &site,
                    &["sign", "--signature-format", "cose"],
                    &reference,
                )?;
                notation(
                    step,
                    &site,
                    &["sign", "--signature-format", "jws"],
                    &reference,
                )?;
                notation(step, &site, &["verify"], &reference)?;
                let listed = notation(step, &site, &["ls"], &reference)?;
                ensure!(
                    listed.matches("sha256:").count() == 3,
                    "the image and two signatures: {listed}"
                );
                if site.has_referrers {
                    let kinds = referrers(step, &site, "e2e/notation/signed", &image.digest)?;
                    ensure!(
                        kinds == ["application/vnd.cncf.notary.signature"; 2],
                        "referrers: {kinds:?}"
                    );
                }
                Ok(())
            },
        );
    }
    suite.step(
        "verify in a public prefix without signing in",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Public)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, "public/notation", "v1")?;
            let reference = format!("{}/public/notation@{}", site.address, image.digest);
            notation_ready(step, &site)?;
            notation(step, &site, &["sign"], &reference)?;
            step.unset("NOTATION_USERNAME");
            step.unset("NOTATION_PASSWORD");
            notation(step, &site, &["verify"], &reference).map(drop)
        },
    );
    suite.step(
        "an unknown tag and a wrong password are refused",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            notation_ready(step, &site)?;
            let missing = format!("{}/e2e/notation/signed:no-such-tag", site.address);
            refused(
                notation(step, &site, &["verify"], &missing),
                matrix::NOT_THERE,
            )?;
            step.set("NOTATION_PASSWORD", "wrong");
            refused(
                notation(step, &site, &["verify"], &missing),
                matrix::NO_ACCESS,
            )
        },
    );
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    suite.step("a reader verifies and may not sign", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        super::curl::push(step, &site, ALICE, &image, "e2e/notation/read-only", "v1")?;
        let reference = format!("{}/e2e/notation/read-only@{}", site.address, image.digest);
        notation_ready(step, &site)?;
        notation(step, &site, &["sign"], &reference)?;
        step.set("NOTATION_USERNAME", RITA.0);
        step.set("NOTATION_PASSWORD", RITA.1);
        notation(step, &site, &["verify"], &reference)?;
        refused(
            notation(step, &site, &["sign"], &reference),
            matrix::NO_ACCESS,
        )
    });
}

/// A key, a trust policy for it, and alice's name; `notation login` wants a credential helper, variables do not.
fn notation_ready(step: &mut Step, site: &Site) -> Result<()> {
    step.set("SSL_CERT_FILE", &site.ca_file());
    step.set("NOTATION_USERNAME", ALICE.0);
    step.set("NOTATION_PASSWORD", ALICE.1);
    step.ok(
        "notation",
        ["cert", "generate-test", "--default", "tests.example"],
    )?;
    let policy = serde_json::json!({"version": "1.0", "trustPolicies": [{
        "name": "tests", "registryScopes": ["*"], "trustedIdentities": ["*"],
        "signatureVerification": {"level": "strict"}, "trustStores": ["ca:tests.example"],
    }]});
    step.write("policy.json", &policy.to_string())?;
    step.ok("notation", ["policy", "import", "--force", "policy.json"])
        .map(drop)
}

fn notation(step: &mut Step, site: &Site, args: &[&str], reference: &str) -> Result<String> {
    let mut all: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    if !site.tls() {
        all.push("--insecure-registry".to_owned());
    }
    all.push(reference.to_owned());
    step.ok("notation", all)
}

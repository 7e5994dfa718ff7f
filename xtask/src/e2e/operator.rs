//! What an operator does with a registry that all clients have filled: verify, back up, restart, new password, and
//! read what it logged about all of them.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::site::{ALICE, Mode, PAUL, RITA};
use super::suite::Suite;

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    if !suite.is_wharf() {
        return suite.skip("all steps", "the reference registry has no such commands");
    }
    let binary = suite.binary().to_string_lossy().into_owned();
    suite.step(
        "verify every byte of the running registry",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, "e2e/operator/app", "v1")?;
            step.ok(
                &binary,
                ["storage", "verify", "--deep", "--data", &site.data()],
            )
            .map(drop)
        },
    );
    suite.step(
        "back up while serving, verify the copy, restore it, serve it",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, "e2e/operator/app", "v1")?;
            let backup = step.file("backup");
            step.ok(
                &binary,
                ["backup", "create", &backup, "--data", &site.data()],
            )?;
            // The second one finds everything there.
            step.ok(
                &binary,
                ["backup", "create", &backup, "--data", &site.data()],
            )?;
            step.ok(&binary, ["backup", "verify", &backup])?;
            let (dir, restored) = (step.path("restored"), step.file("restored/data"));
            std::fs::create_dir_all(&dir)?;
            // A backup holds no configuration: where the metadata go has to be said.
            let config = suite.databases().config(Mode::Plain, &dir);
            let config = step.write("restore.toml", &config)?;
            let args = ["backup", "restore", &backup, "--data", &restored];
            step.ok(&binary, args.into_iter().chain(["--config", &config]))?;
            // In no backup; replicas have theirs from the configuration.
            let key = std::path::Path::new(&site.data()).join("secret.key");
            if key.exists() {
                std::fs::copy(key, std::path::Path::new(&restored).join("secret.key"))?;
            }
            let second = suite.start_on_files(Mode::Plain, &dir)?;
            ensure!(second.verify(step, "e2e/operator/app", "v1")? == image.digest);
            Ok(())
        },
    );
    suite.step(
        "kill it hard, start it again: all is there",
        |suite, step| {
            let image = suite.small_image()?;
            let dir = step.path("killed");
            let mut site = suite.start(Mode::Plain, &dir)?;
            super::curl::push(step, &site, ALICE, &image, "e2e/operator/killed", "v1")?;
            site.kill();
            let site = suite.start(Mode::Plain, &dir)?;
            ensure!(site.verify(step, "e2e/operator/killed", "v1")? == image.digest);
            Ok(())
        },
    );
    suite.step(
        "a new password for the administrator of a running registry",
        |suite, step| {
            let site = suite.start(Mode::Plain, &step.path("own"))?;
            ensure!(site.ask(step, Some(("admin", "admin-password")), "/v2/", &[], None)? == 200);
            let told = step.any(&binary, ["admin", "reset-password", "--data", &site.data()])?;
            ensure!(told.code == Some(0), "{}{}", told.out, told.err);
            ensure!(site.ask(step, Some(("admin", "admin-password")), "/v2/", &[], None)? == 401);
            Ok(())
        },
    );
    suite.step(
        "the logs of all registries have no error and no secret",
        |suite, step| {
            let mut requests = 0;
            for (name, site) in suite.sites() {
                let told = check_log(&site.server_log()?)?;
                step.note(&format!("{name}: {told} requests"));
                requests += told;
            }
            ensure!(requests > 0, "no request was logged");
            Ok(())
        },
    );
}

/// Counts the requests of a log; an answer that is the registry's own fault, an error or a secret is refused.
fn check_log(text: &str) -> Result<usize> {
    let mut requests = 0;
    for line in text.lines() {
        for (_, password) in [ALICE, RITA, PAUL] {
            ensure!(!line.contains(password), "a password is in the log: {line}");
        }
        // Every JSON Web Token begins like this, and so does none of the digests.
        ensure!(!line.contains("eyJ"), "a token is in the log: {line}");
        // What it says at the start is for people.
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        ensure!(entry["level"] != "ERROR", "an error was logged: {line}");
        let status = entry["status"].as_u64();
        requests += usize::from(status.is_some());
        // The harness asks until it is ready; 503 is the right answer before that.
        let not_ready = entry["route"] == "/readyz" && status == Some(503);
        ensure!(
            not_ready || status.is_none_or(|s| s < 500),
            "it failed: {line}"
        );
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_with_suspicion() {
        let good = "Wharf 0.1.0\n{\"level\":\"INFO\",\"status\":404}\n{\"level\":\"WARN\"}\n\
                    {\"route\":\"/readyz\",\"status\":503}\n";
        assert_eq!(check_log(good).unwrap(), 2);
        for bad in [
            "{\"level\":\"ERROR\"}",
            "{\"level\":\"INFO\",\"status\":500}",
            "{\"message\":\"alice-password\"}",
            "Bearer eyJhbGciOiJ",
        ] {
            assert!(check_log(bad).is_err(), "{bad}");
        }
    }
}

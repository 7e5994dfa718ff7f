//! What an operator does with a registry that all clients have filled: verify, back up, restart, new password.

use anyhow::ensure;

use super::site::{ALICE, Mode, Site, Subject};
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
            let restored = step.file("restored/data");
            std::fs::create_dir_all(step.path("restored"))?;
            step.ok(&binary, ["backup", "restore", &backup, "--data", &restored])?;
            let second = Site::start(
                &Subject::Wharf(binary.clone().into()),
                Mode::Plain,
                &step.path("restored"),
            )?;
            ensure!(second.verify(step, "e2e/operator/app", "v1")? == image.digest);
            Ok(())
        },
    );
    suite.step(
        "kill it hard, start it again: all is there",
        |suite, step| {
            let image = suite.small_image()?;
            let dir = step.path("killed");
            let subject = Subject::Wharf(binary.clone().into());
            let mut site = Site::start(&subject, Mode::Plain, &dir)?;
            super::curl::push(step, &site, ALICE, &image, "e2e/operator/killed", "v1")?;
            site.kill();
            let site = Site::start(&subject, Mode::Plain, &dir)?;
            ensure!(site.verify(step, "e2e/operator/killed", "v1")? == image.digest);
            Ok(())
        },
    );
    suite.step(
        "a new password for the administrator of a running registry",
        |suite, step| {
            let site = Site::start(
                &Subject::Wharf(binary.clone().into()),
                Mode::Plain,
                &step.path("own"),
            )?;
            ensure!(site.ask(step, Some(("admin", "admin-password")), "/v2/", &[], None)? == 200);
            let told = step.any(&binary, ["admin", "reset-password", "--data", &site.data()])?;
            ensure!(told.code == Some(0), "{}{}", told.out, told.err);
            ensure!(site.ask(step, Some(("admin", "admin-password")), "/v2/", &[], None)? == 401);
            let _ = suite;
            Ok(())
        },
    );
}

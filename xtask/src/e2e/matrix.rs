//! What every client that pushes and pulls images has to show, written once.

use anyhow::{Result, bail, ensure};

use super::cutter::{Cutter, Direction};
use super::image::Image;
use super::site::{ALICE, Mode, PAUL, RITA, Site, User};
use super::step::{Step, refused};
use super::suite::{BIG, BIG_REPOSITORY, Suite};

/// Words of which each client has one for a refused sign-in or a missing right.
pub(crate) const NO_ACCESS: &[&str] = &[
    "unauthorized",
    "401",
    "denied",
    "forbidden",
    "403",
    "authentication required",
    "invalid username/password",
];
/// Words for something that is not there.
pub(crate) const NOT_THERE: &[&str] = &[
    "not found",
    "404",
    "manifest unknown",
    "manifest_unknown",
    "unknown",
];

/// How a client ends up with a whole layer after its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It asks for the rest by itself.
    Resumes,
    /// It starts again, by itself or when it is called again; whole content in the end is what we can ask for.
    StartsAgain,
}

/// A client, seen from what all have in common.
pub(crate) trait Tool {
    /// Signs in, so that the commands of this step act as that user.
    fn login(&self, step: &mut Step, site: &Site, user: User) -> Result<()>;

    /// Pushes an image to `repository:tag` and gives the digest that it pushed.
    fn push(
        &self,
        step: &mut Step,
        site: &Site,
        image: &Image,
        repository: &str,
        tag: &str,
    ) -> Result<String>;

    /// Pulls `repository` by tag or digest from `address` (the site's or a proxy's), checks all content on this
    /// side and gives the digest.
    fn pull(
        &self,
        step: &mut Step,
        site: &Site,
        address: &str,
        repository: &str,
        reference: &str,
    ) -> Result<String>;

    /// What happens when a connection breaks.
    fn recovery(&self) -> Recovery;

    /// Whether it can push an index with its platforms.
    fn pushes_indexes(&self) -> bool {
        true
    }
}

/// Runs everything; repositories lie below `e2e/<name>` and `public/<name>`.
pub(crate) fn run(suite: &mut Suite, name: &str, tool: &dyn Tool) {
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("push, pull and compare over {}", mode.name()),
            |suite, step| {
                let (site, image) = (suite.site(mode)?, suite.small_image()?);
                round_trip(step, &site, tool, &image, &format!("e2e/{name}/app"), "v1")
            },
        );
    }
    if tool.pushes_indexes() {
        suite.step(
            "push and pull an index of several platforms",
            |suite, step| {
                let (site, image) = (suite.site(Mode::Plain)?, suite.index_image()?);
                round_trip(
                    step,
                    &site,
                    tool,
                    &image,
                    &format!("e2e/{name}/multi"),
                    "multi",
                )
            },
        );
    }
    suite.step("pull a public prefix without signing in", |suite, step| {
        let (site, image) = (suite.site(Mode::Public)?, suite.small_image()?);
        let repository = format!("public/{name}");
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
        ensure!(
            pulled == image.digest,
            "pulled {pulled}, {} was pushed",
            image.digest
        );
        Ok(())
    });
    suite.step("a wrong password is refused", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        let tried = tool.login(step, &site, (ALICE.0, "wrong")).and_then(|()| {
            tool.push(step, &site, &image, &format!("e2e/{name}/wrong"), "v1")
                .map(drop)
        });
        refused(tried, NO_ACCESS)
    });
    suite.step("an unknown tag is not found", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        let repository = format!("e2e/{name}/unknown");
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        tool.login(step, &site, ALICE)?;
        refused(
            tool.pull(step, &site, &site.address, &repository, "no-such-tag"),
            NOT_THERE,
        )
    });
    denied(suite, name, tool);
    broken_pull(suite, tool);
}

/// Push, look at the registry with other eyes, pull by tag and by digest.
fn round_trip(
    step: &mut Step,
    site: &Site,
    tool: &dyn Tool,
    image: &Image,
    repository: &str,
    tag: &str,
) -> Result<()> {
    tool.login(step, site, ALICE)?;
    let pushed = tool.push(step, site, image, repository, tag)?;
    let stored = site.verify(step, repository, tag)?;
    ensure!(
        stored == pushed,
        "the client pushed {pushed}, the registry has {stored}"
    );
    for reference in [tag, &pushed] {
        let pulled = tool.pull(step, site, &site.address, repository, reference)?;
        ensure!(
            pulled == pushed,
            "{reference}: pulled {pulled}, {pushed} was pushed"
        );
    }
    Ok(())
}

fn denied(suite: &mut Suite, name: &str, tool: &dyn Tool) {
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    let repository = format!("e2e/{name}/denied");
    suite.step("a reader may pull and not push", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        tool.login(step, &site, RITA)?;
        let pulled = tool.pull(step, &site, &site.address, &repository, "v1")?;
        ensure!(
            pulled == image.digest,
            "pulled {pulled}, {} was pushed",
            image.digest
        );
        refused(tool.push(step, &site, &image, &repository, "v2"), NO_ACCESS)
    });
    suite.step("a user without rights may not pull", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        super::curl::push(step, &site, ALICE, &image, &repository, "v1")?;
        tool.login(step, &site, PAUL)?;
        refused(
            tool.pull(step, &site, &site.address, &repository, "v1"),
            NO_ACCESS,
        )
    });
}

fn broken_pull(suite: &mut Suite, tool: &dyn Tool) {
    if suite.store().is_some_and(|store| store.redirects()) {
        // The bytes come from the store, past whatever breaks connections to the registry.
        return;
    }
    suite.step("a pull whose connection breaks in a big layer ends whole", |suite, step| {
        let (site, image) = suite.big_on_site(step)?;
        let cutter = Cutter::start(&site.address, Direction::Down, BIG / 2)?;
        let behind = site.seen_through(&cutter.address);
        tool.login(step, &behind, ALICE)?;
        let mut calls = 1;
        let pulled = loop {
            match tool.pull(step, &behind, &cutter.address, BIG_REPOSITORY, "v1") {
                Ok(digest) => break digest,
                Err(error) if calls < 3 && cutter.cuts() > 0 => step.note(&format!("call {calls}: {error:#}")),
                Err(error) => return Err(error),
            }
            calls += 1;
        };
        ensure!(pulled == image.digest, "pulled {pulled}, {} was pushed", image.digest);
        ensure!(cutter.cuts() == 1, "the connection was never broken: the test proves nothing");
        let resumed = cutter.ranges().iter().any(|r| r.starts_with("range: bytes=") && r != "range: bytes=0-");
        step.note(&format!("{calls} calls, ranges {:?}", cutter.ranges()));
        match (tool.recovery(), resumed, calls) {
            (Recovery::Resumes, true, 1) | (Recovery::StartsAgain, false, _) => Ok(()),
            (expected, _, _) => bail!(
                "expected of this client: {expected:?}; it needed {calls} calls and {} for a part",
                if resumed { "asked" } else { "never asked" }
            ),
        }
    });
}

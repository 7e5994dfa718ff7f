//! What the tests of all clients share: the registries, the images, the counting.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use super::below::{self, Below, Databases};
use super::image::{self, Image, Layer};
use super::process;
use super::site::{ALICE, Mode, Site, Subject};
use super::step::Step;
use super::store::Store;

/// The line that the test program prints.
pub(crate) const HELLO: &str = "hello from an image that wharf served";
/// The big layer's size.
pub(crate) const BIG: u64 = 200 << 20;
/// Where the big image lies on the plain site.
pub(crate) const BIG_REPOSITORY: &str = "e2e/shared/big";

/// A run of the end-to-end tests.
pub(crate) struct Suite {
    /// Everything that is removed at the end.
    dir: PathBuf,
    /// Where the steps' logs stay.
    logs: PathBuf,
    subject: Subject,
    /// Keeps the blobs of all sites.
    store: Option<Store>,
    /// Keep their metadata.
    databases: Databases,
    client: &'static str,
    /// Only steps whose name contains one of these.
    only: Option<&'static [&'static str]>,
    filter: Option<String>,
    sites: BTreeMap<&'static str, Rc<Site>>,
    images: BTreeMap<&'static str, Image>,
    steps: usize,
    /// Steps that did what they should.
    pub(crate) passed: usize,
    /// Steps that did not, by name.
    pub(crate) failed: Vec<String>,
    /// What was not run, and why.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Suite {
    /// A run in `dir`, with logs in `logs`.
    pub(crate) fn new(
        dir: &Path,
        logs: &Path,
        subject: Subject,
        metadata: below::Kind,
        filter: Option<String>,
    ) -> Suite {
        Suite {
            dir: dir.to_path_buf(),
            logs: logs.to_path_buf(),
            subject,
            store: None,
            databases: Databases::new(metadata),
            client: "",
            only: None,
            filter,
            sites: BTreeMap::new(),
            images: BTreeMap::new(),
            steps: 0,
            passed: 0,
            failed: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Has all sites keep their blobs in this store.
    pub(crate) fn keep_blobs_in(&mut self, store: Store) {
        self.store = Some(store);
    }

    /// Where blobs are kept, if that is an object store.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Names the client whose steps follow.
    pub(crate) fn begin(&mut self, client: &'static str) {
        self.client = client;
    }

    /// Runs one named step; a panic in it is a failure like another.
    pub(crate) fn step(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Suite, &mut Step) -> Result<()>,
    ) {
        let name = format!("{}: {name}", self.client);
        if !self.wants(&name) {
            return;
        }
        self.steps += 1;
        let slug: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let log = self.logs.join(format!("{:03}-{slug}.log", self.steps));
        let dir = self.dir.join(format!("step-{:03}", self.steps));
        let start = Instant::now();
        let result = Step::new(dir.clone(), log.clone()).and_then(|mut step| {
            catch_unwind(AssertUnwindSafe(|| body(self, &mut step)))
                .unwrap_or_else(|panic| Err(anyhow!("panic: {}", panic_text(&*panic))))
                .inspect_err(|error| step.note(&format!("FAILED: {error:#}")))
        });
        let took = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {name}  ({took:.1} s)");
            }
            Err(error) => {
                println!("FAIL  {name}  ({took:.1} s)\n      {error:#}");
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                println!(
                    "      --- the end of {} ---\n{}\n      ---",
                    log.display(),
                    process::tail(&text, 40)
                );
                self.failed.push(name);
            }
        }
        let _ = std::fs::remove_dir_all(dir);
    }

    fn wants(&self, name: &str) -> bool {
        let listed = |only: &[&str]| only.iter().any(|part| name.contains(part));
        self.only.is_none_or(listed)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| name.contains(filter.as_str()))
    }

    /// From now on, only steps whose name contains one of these.
    pub(crate) fn only(&mut self, parts: Option<&'static [&'static str]>) {
        self.only = parts;
    }

    /// Says that something was not run, and why; only for what cannot be had on this machine.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        let name = format!("{}: {name}", self.client);
        if !self.wants(&name) {
            return;
        }
        println!("skip  {name}: {reason}");
        self.skipped.push((name, reason.to_owned()));
    }

    /// A folder of the whole run, for a client's daemon.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Where a daemon's log stays after the run.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// The registry in a mode, started when it is not running yet.
    pub(crate) fn site(&mut self, mode: Mode) -> Result<Rc<Site>> {
        if let Some(site) = self.sites.get(mode.name()) {
            return Ok(Rc::clone(site));
        }
        let dir = self
            .dir
            .join(format!("site-{}", mode.name().replace(' ', "-")));
        let site = Rc::new(self.start(mode, &dir)?);
        self.sites.insert(mode.name(), Rc::clone(&site));
        Ok(site)
    }

    /// A registry of a step's own, over the stores of this run.
    pub(crate) fn start(&self, mode: Mode, dir: &Path) -> Result<Site> {
        self.start_over(self.store.as_ref(), mode, dir)
    }

    /// The same, with its blobs in its data folder whatever the run's store is.
    pub(crate) fn start_on_files(&self, mode: Mode, dir: &Path) -> Result<Site> {
        self.start_over(None, mode, dir)
    }

    fn start_over(&self, store: Option<&Store>, mode: Mode, dir: &Path) -> Result<Site> {
        let databases = &self.databases;
        Site::start(&self.subject, mode, dir, Below { store, databases }).with_context(|| {
            format!(
                "starting a registry ({}), files in {}",
                mode.name(),
                dir.display()
            )
        })
    }

    /// Where metadata are kept.
    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }

    /// Whether the program under test is ours.
    pub(crate) fn is_wharf(&self) -> bool {
        matches!(self.subject, Subject::Wharf(_))
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &Path {
        match &self.subject {
            Subject::Wharf(path) | Subject::Distribution(path) => path,
        }
    }

    /// The registries that ran, by mode.
    pub(crate) fn sites(&self) -> Vec<(&'static str, Rc<Site>)> {
        let named = self.sites.iter();
        named.map(|(name, site)| (*name, Rc::clone(site))).collect()
    }

    /// Ends the registries, and with them what they hold; what they logged stays beside the steps' logs.
    pub(crate) fn close(&mut self) {
        for (name, site) in self.sites() {
            if let Ok(text) = site.server_log() {
                let file = format!("server-{}.log", name.replace(' ', "-"));
                let _ = std::fs::write(self.logs.join(file), text);
            }
        }
        self.sites.clear();
        self.store = None;
    }

    fn image(
        &mut self,
        name: &'static str,
        make: impl FnOnce(&Path) -> Result<Image>,
    ) -> Result<Image> {
        if let Some(image) = self.images.get(name) {
            return Ok(image.clone());
        }
        let image =
            make(&self.dir.join(name)).with_context(|| format!("building the image `{name}`"))?;
        self.images.insert(name, image.clone());
        Ok(image)
    }

    /// An image with layers of many sizes, packed and plain, that runs and prints [`HELLO`].
    pub(crate) fn small_image(&mut self) -> Result<Image> {
        self.image("image-small", |dir| {
            let trees = layer_trees(dir)?;
            let layers: Vec<_> = trees
                .iter()
                .enumerate()
                .map(|(n, tree)| Layer {
                    tree,
                    gzip: n % 2 == 0,
                })
                .collect();
            Image::build(&dir.join("layout"), "v1", &layers, &["/hello"])
        })
    }

    /// An index of three platforms.
    pub(crate) fn index_image(&mut self) -> Result<Image> {
        self.image("image-index", |dir| {
            let trees = layer_trees(dir)?;
            let layers: Vec<_> = trees
                .iter()
                .take(3)
                .map(|tree| Layer { tree, gzip: true })
                .collect();
            Image::build_index(&dir.join("layout"), "multi", &layers, &["/hello"])
        })
    }

    /// An image with one layer of [`BIG`] bytes.
    pub(crate) fn big_image(&mut self) -> Result<Image> {
        self.image("image-big", |dir| big(dir, 7))
    }

    /// Another one, for a client that asks for a mount from wherever the layer is and would otherwise send nothing.
    pub(crate) fn big_image_of_its_own(&mut self) -> Result<Image> {
        self.image("image-big-own", |dir| big(dir, 8))
    }

    /// The big image, pushed to the plain site by curl alone: one upload in one request, as simple as can be.
    pub(crate) fn big_on_site(&mut self, step: &mut Step) -> Result<(Rc<Site>, Image)> {
        let image = self.big_image()?;
        let site = self.site(Mode::Plain)?;
        let path = format!("/v2/{BIG_REPOSITORY}/manifests/v1");
        if site.ask(
            step,
            Some(ALICE),
            &path,
            &["-I", "-H", &format!("Accept: {}", image::MANIFEST)],
            None,
        )? != 200
        {
            super::curl::push(step, &site, ALICE, &image, BIG_REPOSITORY, "v1")?;
        }
        Ok((site, image))
    }
}

/// A layer of [`BIG`] bytes of noise and the test program.
fn big(dir: &Path, seed: u64) -> Result<Image> {
    let tree = dir.join("tree");
    image::noise(&tree.join("noise"), BIG, seed)?;
    image::hello(&tree.join("hello"), HELLO)?;
    let layers = [Layer {
        tree: &tree,
        gzip: false,
    }];
    let image = Image::build(&dir.join("layout"), "v1", &layers, &["/hello"]);
    std::fs::remove_dir_all(&tree)?;
    image
}

/// Folders with files of many sizes: around the borders where stores and clients change their ways.
fn layer_trees(dir: &Path) -> Result<Vec<PathBuf>> {
    let sizes: [u64; 5] = [1, 16 << 10, (80 << 10) + 1, 1 << 20, 5 << 20];
    let mut trees = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let tree = dir.join(format!("tree-{n}"));
        image::noise(&tree.join(format!("data/noise-{n}")), size, n as u64)?;
        trees.push(tree);
    }
    image::hello(&trees[0].join("hello"), HELLO)?;
    Ok(trees)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

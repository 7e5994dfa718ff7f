//! One state after a cut: the server is started on it and has to keep what it promised before.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};

use super::disk::Remains;
use crate::endure::check::{Found, check, stray_uploads};
use crate::endure::history::{Key, Kind, View};
use crate::endure::http::{Body, Connection};
use crate::endure::random::{Random, digest};
use crate::endure::registry::Site;
use crate::endure::work::{Client, Sizes, World, lock};

/// Sessions that are resumed in a state.
const RESUMED: usize = 8;
/// Of so many states one is asked with the administrator's password, which takes its time.
const PASSWORD_EVERY: u64 = 4;

/// A folder in memory where there is one: what is tried is Wharf, and the disk has been modelled already.
pub(super) struct Place(PathBuf);

impl Place {
    /// An empty folder for this state.
    pub(super) fn new(beside: &Path, seed: u64) -> Result<Place> {
        let memory = Path::new("/dev/shm");
        let name = format!("wharf-state-{}-{seed:016x}", std::process::id());
        let parent = match rustix::fs::access(memory, rustix::fs::Access::WRITE_OK) {
            Ok(()) => memory,
            Err(_) => beside,
        };
        let place = Place(parent.join(name));
        place.remove_if_there()?;
        std::fs::create_dir(&place.0).with_context(|| format!("making {}", place.0.display()))?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Nothing was wrong with it.
    pub(super) fn remove(self) -> Result<()> {
        self.remove_if_there()
    }

    fn remove_if_there(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// What is known about a state.
pub(super) struct State<'a> {
    pub(super) binary: &'a Path,
    pub(super) world: &'a World,
    /// Whether the answer to a call had left the server.
    pub(super) sent: &'a (dyn Fn(usize) -> bool + Sync),
    pub(super) seed: u64,
}

/// How much was looked at.
pub(super) struct Seen {
    pub(super) looked_at: usize,
    pub(super) resumed: usize,
}

impl State<'_> {
    /// Starts the server on it and looks at everything.
    pub(super) fn look(&self, place: &Place, remains: &Remains) -> Result<Seen> {
        let root = place.path().join("disk");
        remains.write(&root)?;
        let site = Site::new(self.binary, &root)?.logging_to(place.path().join("server.log"));
        let registry = site.run(&[])?;
        let stray = stray_uploads(&site.data, site.port)?;
        if !stray.is_empty() {
            bail!("files in uploads/ that no session owns: {stray:?}");
        }
        let view = View::Sent(self.sent);
        let sessions: Vec<String> = self.world.sessions.keys().cloned().collect();
        let keys = self.world.history.keys();
        let Found {
            faults,
            values,
            mut open,
            ..
        } = check(self.world, &view, site.port, keys, &sessions)?;
        if !faults.is_empty() {
            let shown: Vec<&str> = faults.iter().take(5).map(String::as_str).collect();
            bail!("{} broken promises:\n{}", faults.len(), shown.join("\n"));
        }
        self.administrator(&site)?;
        open.sort();
        open.truncate(RESUMED);
        self.resume(&site, &open)?;
        let told = site.verify(true).context("wharf storage verify --deep")?;
        if let Some(line) = told
            .lines()
            .find(|line| line.contains("not part of the store"))
        {
            bail!("wharf storage verify says:{line}");
        }
        registry.kill()?;
        Ok(Seen {
            looked_at: values.len(),
            resumed: open.len(),
        })
    }

    /// The password that was made at the first start is in its file, and it is the right one.
    fn administrator(&self, site: &Site) -> Result<()> {
        use base64::Engine as _;
        let file = site.data.join("admin-password");
        let password = std::fs::read_to_string(&file)
            .with_context(|| format!("{}: nobody knows the password", file.display()))?;
        if !self.seed.is_multiple_of(PASSWORD_EVERY) {
            return Ok(());
        }
        let pair = format!("admin:{}", password.trim());
        let basic = base64::engine::general_purpose::STANDARD.encode(pair);
        let basic = format!("Basic {basic}");
        let mut connection = Connection::open(site.port)?;
        let answer = connection.send("GET", "/v2/", &[("Authorization", &basic)], Body::None)?;
        if answer.status != 200 {
            bail!(
                "the password in {} is refused: {}",
                file.display(),
                answer.status
            );
        }
        Ok(())
    }

    /// Each upload goes on where it says it stands, and ends with the right bytes.
    fn resume(&self, site: &Site, open: &[(String, usize)]) -> Result<()> {
        // What is done now is nothing that the other states may know of.
        let mut world = World::new();
        for (id, _) in open {
            if let Some(session) = self.world.sessions.get(id) {
                let mut session = session.clone();
                session.parts.clear();
                session.ended.clear();
                let digest = digest(&session.content.bytes());
                world.blobs.insert(digest, session.content);
                world.sessions.insert(id.clone(), session);
            }
        }
        let world = Mutex::new(world);
        let stop = AtomicBool::new(false);
        let random = Random::new(self.seed, 5);
        let sizes = Sizes { largest: 1 };
        let mut client = Client::new(&world, random, site.port, &stop, sizes)?;
        for (id, at) in open {
            if client.resume(id, *at).is_err() {
                bail!("the server went away while upload {id} was resumed");
            }
        }
        let world = lock(&world);
        let blobs: Vec<Key> = world.history.keys();
        let blobs = blobs.into_iter().filter(|key| key.kind == Kind::Blob);
        let view = View::Client;
        let mut faults = world.faults.clone();
        // Of the registers only the blobs are this world's business; tags were looked at before.
        let mut connection = Connection::open(site.port)?;
        for key in blobs {
            let target = format!(
                "/v2/{}/blobs/{}",
                crate::endure::work::repository(key.repository),
                key.name
            );
            let answer = connection.send("GET", &target, &[], Body::None)?;
            let right = world
                .blobs
                .get(&key.name)
                .is_some_and(|content| content.bytes() == answer.body);
            if answer.status != 200 || !right {
                faults.push(format!(
                    "{}: {}",
                    answer.status,
                    world.history.tell(&key, &view)
                ));
            }
        }
        match faults.first() {
            Some(fault) => bail!("after uploads were resumed: {fault}"),
            None => Ok(()),
        }
    }
}

//! The servers of one directory: which is asked, connections that are kept, and how long a dead one is left alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use wharf_core::directory::{DirectorySettings, Fault, ServerUrl};

use super::line::{Line, Manner, Trouble, tls};

/// A connection that nobody used for so long is closed; servers do it after minutes.
const IDLE: Duration = Duration::from_secs(60);
/// A server that failed is left alone for so long, twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Connections that stand ready.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Signed in as the account that searches.
    pub(super) search: Option<Line>,
    /// For people's own binds.
    pub(super) bind: Option<Line>,
}

#[derive(Debug)]
struct Down {
    until: Instant,
    wait: Duration,
    why: Trouble,
}

#[derive(Debug, Default)]
struct State {
    search: Vec<(Line, Instant)>,
    bind: Vec<(Line, Instant)>,
    down: Option<Down>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: ServerUrl,
    state: Mutex<State>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) all: Vec<Server>,
    pub(super) manner: Manner,
    places: Arc<Semaphore>,
    kept: usize,
    patience: Duration,
}

fn recent(lines: &mut Vec<(Line, Instant)>) -> Option<Line> {
    lines.retain(|(_, used)| used.elapsed() < IDLE);
    lines.pop().map(|(line, _)| line)
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that were kept.
    pub(super) fn take(&self) -> Lines {
        let mut state = self.state();
        Lines {
            search: recent(&mut state.search),
            bind: recent(&mut state.bind),
        }
    }

    /// It answered: its connections are kept, as many as may be.
    pub(super) fn keep(&self, lines: Lines, most: usize) {
        let now = Instant::now();
        let mut state = self.state();
        state.down = None;
        if let Some(line) = lines.search.filter(|_| state.search.len() < most) {
            state.search.push((line, now));
        }
        if let Some(line) = lines.bind.filter(|_| state.bind.len() < most) {
            state.bind.push((line, now));
        }
    }

    /// It failed: it is left alone for a while, and what was kept is closed.
    pub(super) fn fail(&self, why: Trouble) {
        let mut state = self.state();
        let now = Instant::now();
        let wait = match &state.down {
            // Another one of those that were under way together.
            Some(down) if down.until > now => down.wait,
            Some(down) => (down.wait * 2).min(LONGEST_WAIT),
            None => FIRST_WAIT,
        };
        let until = now + wait;
        state.down = Some(Down { until, wait, why });
        let (search, bind) = (
            std::mem::take(&mut state.search),
            std::mem::take(&mut state.bind),
        );
        drop(state);
        drop((search, bind));
    }

    /// Whether it may be asked, or why not. One that failed is asked by one at a time when its wait is over.
    pub(super) fn admits(&self) -> Result<(), Trouble> {
        let mut state = self.state();
        let now = Instant::now();
        match &mut state.down {
            Some(down) if down.until > now => Err(down.why.clone()),
            Some(down) => {
                down.until = now + down.wait;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Servers {
    pub(super) fn new(settings: &DirectorySettings) -> Result<Self, String> {
        let server = |url: &ServerUrl| Server {
            url: url.clone(),
            state: Mutex::default(),
        };
        Ok(Self {
            all: settings.servers.iter().map(server).collect(),
            manner: Manner {
                tls: tls(settings.authority.as_deref())?,
                start_tls: settings.start_tls,
                connect_timeout: settings.connect_timeout,
                read_timeout: settings.read_timeout,
            },
            places: Arc::new(Semaphore::new(settings.connections.max(1))),
            kept: settings.connections.max(1),
            patience: settings.connect_timeout + settings.read_timeout,
        })
    }

    /// A place among those that ask.
    pub(super) async fn place(&self, name: &str) -> Result<OwnedSemaphorePermit, Fault> {
        let place = timeout(self.patience, self.places.clone().acquire_owned()).await;
        let place = place.ok().and_then(Result::ok);
        place.ok_or_else(|| Fault {
            what: format!(
                "{} requests to the directory {name} are under way already",
                self.kept
            ),
            cure: "raise `connections` in its [[auth.ldap]], or see what keeps its servers busy"
                .to_owned(),
        })
    }

    /// Keeps what answered.
    pub(super) fn keep(&self, server: &Server, lines: Lines) {
        server.keep(lines, self.kept);
    }
}

//! The registry that the targets of HTTP talk to: the real server in this process, on a port of its own.
//!
//! Server and client share one thread, so that a run repeats as far as it can. The server is taken down and made anew
//! once in a while, which keeps its folder small and tries its end as well.

use std::panic;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, Once, PoisonError};

use tokio::runtime::{Builder, Runtime};
use wharf_testkit::{TestOptions, TestServer};

use super::wire::Connection;

/// Inputs for one server.
const INPUTS: u64 = 1024;

/// A server, and what is kept between inputs.
pub(super) struct World {
    pub(super) server: TestServer,
    /// Of a client that behaves well all the time.
    pub(super) bystander: Option<Connection>,
    /// Counts inputs of this process.
    pub(super) number: u64,
    left: u64,
}

struct Kept {
    runtime: Runtime,
    world: Option<World>,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);
static PANICS: AtomicU64 = AtomicU64::new(0);
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Runs one input. Panics in the server's tasks are findings, though it outlives them.
pub(super) fn run(input: impl AsyncFnOnce(&mut World)) {
    static COUNTS: Once = Once::new();
    COUNTS.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, SeqCst);
            before(info);
        }));
    });
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_with(|| Kept {
        runtime: Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime"),
        world: None,
    });
    let panics = PANICS.load(SeqCst);
    kept.runtime.block_on(async {
        if let Some(old) = kept.world.as_mut().filter(|world| world.left == 0) {
            old.bystander = None;
            old.server.stop().await;
            kept.world = None;
        }
        if kept.world.is_none() {
            kept.world = Some(World::start().await);
        }
        let world = kept.world.as_mut().expect("just made");
        world.left -= 1;
        world.number = NUMBER.fetch_add(1, SeqCst);
        input(world).await;
    });
    assert_eq!(PANICS.load(SeqCst), panics, "the server panicked");
}

impl World {
    async fn start() -> World {
        let options = TestOptions {
            anonymous: Some("maintainer"),
            ..TestOptions::default()
        };
        World {
            server: TestServer::start(options).await,
            bystander: None,
            number: 0,
            left: INPUTS,
        }
    }

    pub(super) async fn connect(&self) -> Connection {
        Connection::open(self.server.addr()).await
    }
}

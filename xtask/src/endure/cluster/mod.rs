//! `cargo xtask cluster`: replicas over PostgreSQL and an S3 server or a folder, under load, while each part fails in turn.
//!
//! A round: clients work through nginx while [`Event`]s happen; then everything is healed, the clients stop, and what they
//! were told is held against what nginx and each replica alone answer. [`real`] clients push and pull images among them. Nothing acknowledged may be lost, nothing wrong
//! served, and no answer may be the server's own error, 503 aside. With `--rolling` nothing fails, and every replica is
//! replaced by another version and back instead.

pub(super) mod bed;
mod proxy;
mod real;
mod rolling;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::bed::Bed;
use self::proxy::{Mode, Proxy};
use self::real::{Done, Real};
use super::check::{Found, check};
use super::crash::broken;
use super::history::{Key, View};
use super::random::Random;
use super::work::{Client, Sizes, World, lock};

/// Clients that work at once.
const CLIENTS: u64 = 12;
/// Registers of earlier rounds that are looked at after each round.
const SAMPLE: usize = 150;
/// Sessions that are resumed after each round.
const RESUMED: usize = 12;
/// How long a round's load lasts.
const ROUND: Duration = Duration::from_secs(8);
/// Rounds over one cluster: what has to be looked at stays bounded.
const LIFE: usize = 40;

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 120)]
    pub(crate) seconds: u64,
    /// How many replicas
    #[arg(long, default_value_t = 3)]
    pub(crate) replicas: usize,
    /// What has the blobs
    #[arg(long, value_enum, default_value_t = Store::S3)]
    pub(crate) store: Store,
    /// Nothing fails: one replica after the other is replaced, first by the program under test, then by the one before
    #[arg(long)]
    pub(crate) rolling: bool,
    /// The version before, for `--rolling`; without it, each replica is replaced by its like
    #[arg(long, requires = "rolling")]
    pub(crate) previous: Option<std::path::PathBuf>,
    /// Clients that push and pull images beside those of the driver
    #[arg(long = "client", default_values = ["crane", "oras", "skopeo", "podman", "docker"])]
    pub(crate) clients: Vec<String>,
    /// The program under test; built as a release when it is not given
    #[arg(long)]
    pub(crate) binary: Option<std::path::PathBuf>,
    /// Decides the schedule, as far as a machine lets it
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What all replicas keep their blobs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Store {
    /// A bucket
    S3,
    /// A folder
    Folder,
}

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A replica is killed, and started again some time later.
    Kill,
    /// A replica stands still for longer than its leases.
    Freeze,
    /// A replica ends in order and starts again, as in a rolling upgrade.
    Restart,
    /// PostgreSQL ends in order, which cuts all its connections, and starts again.
    DatabaseRestart,
    /// PostgreSQL is killed, and started again.
    DatabaseKill,
    /// Connections to PostgreSQL are cut in the middle.
    DatabaseCut,
    /// Commits reach PostgreSQL and their answers do not come back.
    DatabaseForgets,
    /// The S3 server asks for patience.
    StoreBusy,
    /// Connections to the S3 server are cut in the middle.
    StoreCut,
    /// The S3 server is slow.
    StoreSlow,
    /// The S3 server is away.
    StoreAway,
}

const EVENTS: [Event; 11] = [
    Event::Kill,
    Event::Freeze,
    Event::Restart,
    Event::DatabaseRestart,
    Event::DatabaseKill,
    Event::DatabaseCut,
    Event::DatabaseForgets,
    Event::StoreBusy,
    Event::StoreCut,
    Event::StoreSlow,
    Event::StoreAway,
];

/// What was done.
#[derive(Default)]
pub(crate) struct Tally {
    rounds: usize,
    events: std::collections::BTreeMap<Event, usize>,
    calls: usize,
    acknowledged: usize,
    looked_at: usize,
    resumed: usize,
    cut: usize,
    answers: std::collections::BTreeMap<u16, usize>,
    clients: std::collections::BTreeMap<&'static str, Done>,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let binary = super::binary(args.binary.as_deref())?;
    let folder = super::crash::folder("cluster")?;
    let _watchdog = crate::e2e::process::Watchdog::start(&folder, true)?;
    let begun = Instant::now();
    let time = Duration::from_secs(args.seconds);
    let mut tally = Tally::default();
    if args.rolling {
        rolling::run(&binary, &folder, args, &mut tally)?;
    }
    let mut life = 0;
    while begun.elapsed() < time && !args.rolling {
        let place = folder.join(format!("life-{life}"));
        std::fs::create_dir(&place)?;
        Life::new(&binary, &place, args, life)?
            .live(time.saturating_sub(begun.elapsed()), &mut tally)
            .with_context(|| kept(args, life, &place))?;
        std::fs::remove_dir_all(&place)?;
        life += 1;
    }
    std::fs::remove_dir_all(&folder)?;
    println!(
        "cluster: {} rounds, {} calls, {} acknowledged, {} objects looked at, {} uploads resumed, {} connections cut, \
         {:.0} s",
        tally.rounds,
        tally.calls,
        tally.acknowledged,
        tally.looked_at,
        tally.resumed,
        tally.cut,
        begun.elapsed().as_secs_f32()
    );
    println!("events: {:?}\nanswers: {:?}", tally.events, tally.answers);
    for (name, done) in &tally.clients {
        println!("{name}: {done}");
    }
    println!("{} passed, 0 failed, 0 skipped", tally.rounds);
    Ok(())
}

fn kept(args: &Args, life: u64, place: &Path) -> String {
    let seed = args.seed;
    let place = place.display();
    format!("seed {seed}, life {life}; logs are in {place}")
}

/// Dropped, it ends the clients.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Life {
    bed: Bed,
    world: Mutex<World>,
    random: Random,
    seed: u64,
    real: Vec<Real>,
    /// Sessions that may still be there.
    open: Vec<String>,
}

impl Life {
    fn new(binary: &Path, place: &Path, args: &Args, life: u64) -> Result<Life> {
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(life);
        let mut world = World::new();
        world.behind_a_front = true;
        world.undisturbed = args.rolling;
        let bed = Bed::start(binary, place, args.replicas, args.store)?;
        Ok(Life {
            real: real::start(&args.clients, place, bed.port, seed)?,
            bed,
            world: Mutex::new(world),
            random: Random::new(seed, u64::MAX),
            seed,
            open: Vec::new(),
        })
    }

    fn live(&mut self, time: Duration, tally: &mut Tally) -> Result<()> {
        let begun = Instant::now();
        let mut round = 0;
        while begun.elapsed() < time && round < LIFE {
            let since = lock(&self.world).history.now();
            self.work(round as u64, tally)
                .and_then(|()| self.look(since, tally))
                .with_context(|| format!("round {round}"))?;
            round += 1;
            tally.rounds += 1;
        }
        self.end(tally)
    }

    /// Looks at everything there ever was, not a sample, and adds up what was done.
    fn end(&mut self, tally: &mut Tally) -> Result<()> {
        let keys = lock(&self.world).history.keys();
        self.compare(self.bed.port, keys, tally)
            .context("at the end")?;
        real::end(&mut self.real);
        self.take_faults()?;
        for client in &self.real {
            let done = tally.clients.entry(client.name).or_default();
            done.add(&client.done);
        }
        let world = lock(&self.world);
        tally.calls += world.history.len();
        let done =
            |number: &usize| world.history.call(*number).outcome == super::history::Outcome::Done;
        tally.acknowledged += (0..world.history.len()).filter(done).count();
        let to_s3 = self.bed.to_s3.as_ref().map_or(0, Proxy::cut);
        tally.cut += self.bed.to_postgres.cut() + to_s3;
        for (status, count) in &world.answers {
            *tally.answers.entry(*status).or_default() += count;
        }
        Ok(())
    }

    /// Clients work while things fail.
    fn work(&mut self, round: u64, tally: &mut Tally) -> Result<()> {
        self.among_clients(round, |bed, random, world| {
            let begun = Instant::now();
            let mut outcome = Ok(());
            while begun.elapsed() < ROUND && outcome.is_ok() {
                // Those of the store stand last.
                let known = EVENTS.len() - if bed.to_s3.is_some() { 0 } else { 4 };
                let event = EVENTS[random.below(known)];
                *tally.events.entry(event).or_default() += 1;
                if event == Event::DatabaseKill {
                    lock(world).forgets_openings = true;
                }
                outcome = happen(bed, random, event).with_context(|| format!("{event:?}"));
            }
            outcome.and_then(|()| heal(bed))
        })
    }

    /// Clients work while this is done.
    fn among_clients(
        &mut self,
        round: u64,
        act: impl FnOnce(&mut Bed, &mut Random, &Mutex<World>) -> Result<()>,
    ) -> Result<()> {
        let (stop, port) = (AtomicBool::new(false), self.bed.port);
        let since = lock(&self.world).history.now();
        let (world, seed) = (&self.world, self.seed);
        let (bed, random, real) = (&mut self.bed, &mut self.random, &mut self.real);
        std::thread::scope(|scope| -> Result<()> {
            for client in real {
                let stop = &stop;
                scope.spawn(move || client.work(stop, world));
            }
            for number in 0..CLIENTS {
                let mut random = Random::new(seed, round << 8 | number);
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let own = Random::new(random.next(), number);
                        let sizes = Sizes { largest: 20 << 20 };
                        match Client::new(world, own, port, stop, sizes) {
                            // Until a connection breaks.
                            Ok(mut client) => client.work(usize::MAX),
                            Err(_) => std::thread::sleep(Duration::from_millis(20)),
                        }
                    }
                });
            }
            // Also when something here panics: the scope waits for the clients.
            let _ends = Ends(&stop);
            act(bed, random, world)
        })?;
        // What a replica still did for a client that has gone.
        std::thread::sleep(Duration::from_secs(2));
        let mut world = lock(&self.world);
        world.history.everything_is_over();
        let mut fresh: Vec<String> = world
            .sessions
            .iter()
            .filter(|(_, session)| world.history.call(session.opened).begin > since)
            .map(|(id, _)| id.clone())
            .collect();
        fresh.sort();
        self.open.extend(fresh);
        Ok(())
    }

    /// Holds what clients were told against what is there: as nginx says it, and each replica alone.
    fn look(&mut self, since: u64, tally: &mut Tally) -> Result<()> {
        real::rest(&mut self.real);
        self.take_faults()?;
        let keys = {
            let world = lock(&self.world);
            let mut keys = world.history.touched(since);
            let all = world.history.keys();
            keys.extend((0..SAMPLE).filter_map(|_| self.random.pick(&all).cloned()));
            keys
        };
        let ports: Vec<u16> = self.bed.replicas.iter().map(bed::Replica::port).collect();
        for port in ports {
            let some = keys
                .iter()
                .filter(|_| self.random.chance(40))
                .cloned()
                .collect();
            self.compare(port, some, tally)
                .with_context(|| format!("replica at port {port}"))?;
        }
        let open = self.compare(self.bed.port, keys, tally)?;
        let stop = AtomicBool::new(false);
        let random = Random::new(self.random.next(), 1);
        let mut client = Client::new(
            &self.world,
            random,
            self.bed.port,
            &stop,
            Sizes { largest: 1 },
        )?;
        let chosen = open.len().min(RESUMED);
        for (id, at) in &open[..chosen] {
            if client.resume(id, *at).is_err() {
                bail!("nobody answered while upload {id} was resumed");
            }
            tally.resumed += 1;
        }
        self.open = open.into_iter().skip(chosen).map(|(id, _)| id).collect();
        self.take_faults()
    }

    /// What any client found wrong.
    fn take_faults(&mut self) -> Result<()> {
        let mut faults = std::mem::take(&mut lock(&self.world).faults);
        for client in &mut self.real {
            faults.append(&mut client.faults);
        }
        broken(faults)
    }

    fn compare(
        &self,
        port: u16,
        keys: Vec<Key>,
        tally: &mut Tally,
    ) -> Result<Vec<(String, usize)>> {
        let mut world = lock(&self.world);
        let Found {
            faults,
            values,
            open,
            ..
        } = check(&world, &View::Client, port, keys, &self.open)?;
        broken(faults)?;
        tally.looked_at += values.len();
        for (key, value) in values {
            world.history.observed(&key, value);
        }
        Ok(open)
    }
}

/// Lets one thing happen, and waits for some of it to take effect.
fn happen(bed: &mut Bed, random: &mut Random, event: Event) -> Result<()> {
    let chosen = random.below(bed.replicas.len());
    let pause = Duration::from_millis(100 + random.below(1_500) as u64);
    let database = |bed: &Bed, mode| {
        bed.to_postgres.set(mode);
        std::thread::sleep(pause);
        bed.to_postgres.set(Mode::Honest);
    };
    let store = |bed: &Bed, mode| {
        let Some(to_s3) = &bed.to_s3 else { return };
        to_s3.set(mode);
        std::thread::sleep(pause);
        to_s3.set(Mode::Honest);
    };
    match event {
        Event::Kill => {
            bed.replicas[chosen].kill()?;
            std::thread::sleep(pause);
            bed.replicas[chosen].start()?;
        }
        Event::Freeze => {
            bed.replicas[chosen].freeze()?;
            std::thread::sleep(pause + Duration::from_secs(3));
            bed.replicas[chosen].thaw()?;
        }
        Event::Restart => {
            bed.replicas[chosen].stop()?;
            bed.replicas[chosen].start()?;
        }
        Event::DatabaseRestart => {
            bed.postgres.stop();
            std::thread::sleep(pause / 4);
            bed.postgres.again();
        }
        Event::DatabaseKill => {
            bed.postgres.kill();
            bed.postgres.again();
        }
        Event::DatabaseCut => database(bed, Mode::Cut),
        Event::DatabaseForgets => database(bed, Mode::Forget),
        Event::StoreBusy => store(bed, Mode::Busy),
        Event::StoreCut => store(bed, Mode::Cut),
        Event::StoreSlow => store(bed, Mode::Slow),
        Event::StoreAway => store(bed, Mode::Closed),
    }
    std::thread::sleep(Duration::from_millis(random.below(600) as u64));
    Ok(())
}

/// Everything works again, and every replica serves.
fn heal(bed: &mut Bed) -> Result<()> {
    bed.to_postgres.set(Mode::Honest);
    if let Some(to_s3) = &bed.to_s3 {
        to_s3.set(Mode::Honest);
    }
    for replica in &mut bed.replicas {
        replica.thaw()?;
    }
    bed.ready()
}

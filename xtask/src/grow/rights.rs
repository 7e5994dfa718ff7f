//! What rights cost: pulls beside many users, groups and bindings, and pulls while others sign in.
//!
//! Two servers over the same images, one with the rights of its one user alone. Both are asked in turn, some requests each, so that
//! a machine that changes its speed does so for both; and what is compared is the processor time that the system counts for
//! each of them, since a request's time is mostly that of the client and of the kernel between them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wharf_meta::access::binding::{self, Binding};
use wharf_meta::access::group::{self, Member};
use wharf_meta::access::{By, Changed};
use wharf_meta::{Bulk, principal};

use super::client::Client;
use super::shape::{self, MAIN, Shape};
use super::site::{Rights, Site};

/// As the promise says (docs/explanation/access.md).
const USERS: u64 = 10_000;
const GROUPS: u64 = 1_000;
const BINDINGS: u64 = 50_000;
/// Groups that each user is in.
const GROUPS_OF_EACH: u64 = 10;
/// Who is measured, in both stores.
const USER: &str = "u4711";
const PASSWORD: &str = "a long password of the one who is measured";
/// Images of each store.
const IMAGES: u64 = 1_000;
/// Clients that ask at once: enough that no processor sleeps between two requests, since waking it costs more than most of them.
const CLIENTS: u64 = 16;
/// Requests of each before the other store is asked.
const REQUESTS: u64 = 1_000;
/// Those who sign in at once.
const STORM: u64 = 16;
/// Time between two pulls beside a storm, and how long each half of a round of it takes.
const PACE: Duration = Duration::from_millis(2);
const HALF: Duration = Duration::from_secs(4);
/// What a server that does nothing uses in a second, at most, and the time until it does nothing.
const IDLE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// Most that a pull beside many rights may cost of one without, as the median of all rounds.
const BAR: f64 = 1.05;
/// The same where a few rounds are all there is, and other steps of `ci` ran a moment ago.
const LIGHT_BAR: f64 = 1.25;
/// Most that the p99 of pulls may grow beside a storm.
const STORM_BAR: f64 = 2.0;
/// Page cache for what is written to a store at rest.
const CACHE_MIB: u32 = 1_024;

/// Measures all of it, with stores below the folder; gives a table, or says which bar was missed. `light`: pulls alone, in stores that
/// are made anew.
pub(super) fn all(folder: &Path, program: &Path, rounds: u64, light: bool) -> Result<String> {
    let shape = Shape::of(IMAGES);
    let mut sites = Vec::new();
    for (name, many) in [("few-rights", false), ("many-rights", true)] {
        let folder = folder.join(name);
        if light && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        if !folder.exists() {
            super::fill(&shape, &folder.join("data"))?;
            grant(&folder.join("data").join(super::fill::DATABASE), many)?;
            fs::write(folder.join("password"), PASSWORD)?;
        }
        let mut site = Site::new(shape.clone(), &folder, program)?;
        if site.run == 0 {
            site.start(Rights::All)?;
            let file = site.folder.join("password");
            let file = file.to_str().context("a folder with an ordinary name")?;
            site.wharf(&["user", "create", USER, "--password-file", file])?;
            site.stop(false)?;
        }
        let ready = site.start(Rights::None)?;
        println!("{name}: ready after {ready:?}");
        settle(&site)?;
        sites.push(site);
    }
    let [few, many] = &sites[..] else {
        unreachable!("two were made")
    };
    let mut missed = Vec::new();
    let mut table = format!(
        "| | rights of one user | {USERS} users, {GROUPS} groups, {BINDINGS} bindings | ratio |\n|---|---:|---:|---:|\n"
    );
    for (what, path) in [
        ("GET of a manifest by tag", "manifests"),
        ("HEAD of a blob", "blobs"),
    ] {
        let all =
            |site| -> Result<Vec<_>> { (0..CLIENTS).map(|_| Puller::new(site, path)).collect() };
        let ([a, b], ratio) = in_turn([all(few)?, all(many)?], rounds)?;
        table += &format!("| {what}, processor time | {a:.1} µs | {b:.1} µs | {ratio:.3} |\n");
        missed.extend(above(what, ratio, if light { LIGHT_BAR } else { BAR }));
    }
    if light {
        return judged(table, &missed);
    }
    let [a, b] = [change(few)?, change(many)?];
    table += &format!(
        "| a grant until its answer | {a:.1} ms | {b:.1} ms | {:.1} |\n",
        b / a
    );
    settle(many)?;
    let [a, b] = [few.anonymous_memory()?, many.anonymous_memory()?];
    table += &format!(
        "| memory afterwards | {a:.1} MiB | {b:.1} MiB | {:.1} |\n",
        b / a
    );
    let (told, ratio) = storm(many, rounds.div_ceil(8))?;
    table += &told;
    missed.extend(above("p99 of pulls beside a storm", ratio, STORM_BAR));
    judged(table, &missed)
}

/// What a ratio above its bar is told as.
fn above(what: &str, ratio: f64, bar: f64) -> Option<String> {
    // Not a number is no pass either.
    (ratio.is_nan() || ratio > bar).then(|| format!("{what}: {ratio:.3}, and the bar is {bar}"))
}

/// The table, if nothing missed its bar.
fn judged(table: String, missed: &[String]) -> Result<String> {
    ensure!(missed.is_empty(), "{table}\n{}", missed.join("\n"));
    Ok(table)
}

/// Waits until the server has done what it does after a start.
fn settle(site: &Site) -> Result<()> {
    let begun = Instant::now();
    loop {
        let before = site.processor_time()?;
        std::thread::sleep(Duration::from_secs(1));
        if site.processor_time()? - before <= IDLE {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the server never rests");
    }
}

/// Gives the one user a binding, and others theirs: half to users, half to groups, at three depths.
fn grant(database: &Path, many: bool) -> Result<()> {
    let mut bulk = Bulk::open(database, CACHE_MIB)?;
    // Not long ago: old events would be cleared away while the server is measured.
    let at = super::collect::now()?;
    let by = By {
        actor: "grow".into(),
        epoch: None,
        at,
    };
    let bind = |bulk: &mut Bulk, kind: &str, name: String, namespace: String| -> Result<()> {
        let binding = Binding {
            namespace,
            kind: kind.into(),
            name,
            role: "reader".into(),
            ..Binding::default()
        };
        let put = binding::Put {
            binding,
            custom_role: false,
            by: by.clone(),
        };
        ensure!(bulk.run(&put)? != Changed::Unknown);
        Ok(())
    };
    bind(&mut bulk, "user", USER.into(), MAIN.into())?;
    if many {
        for number in 0..USERS {
            let create = principal::Create {
                name: format!("u{number}"),
                kind: "user".into(),
                secret_hash: None,
                at,
            };
            if create.name != USER {
                bulk.run(&create)?;
            }
        }
        for number in 0..GROUPS {
            let name = format!("g{number}");
            bulk.run(&group::Create {
                name,
                by: by.clone(),
            })?;
        }
        for number in 0..USERS * GROUPS_OF_EACH {
            let member = Member {
                group: format!("g{}", (number * 7 + number / USERS) % GROUPS),
                kind: "user".into(),
                name: format!("u{}", number % USERS),
            };
            bulk.run(&group::Add {
                member,
                by: by.clone(),
            })?;
        }
        for number in 0..BINDINGS {
            let (org, team) = (number % 97, number % 31);
            let namespace = match number % 3 {
                0 => format!("grow/{org}"),
                1 => format!("org{org}/team{team}"),
                _ => format!("{MAIN}/{team}/{number}"),
            };
            let (kind, name) = match number % 2 {
                0 => ("user", format!("u{}", number % USERS)),
                _ => ("group", format!("g{}", number % GROUPS)),
            };
            bind(&mut bulk, kind, name, namespace)?;
        }
    }
    bulk.finish()?;
    Ok(())
}

/// A signed-in client that asks for one thing of each image in turn.
struct Puller<'a> {
    site: &'a Site,
    client: Client,
    paths: Vec<String>,
}

impl<'a> Puller<'a> {
    fn new(site: &'a Site, what: &str) -> Result<Self> {
        let mut client = site.client()?;
        client.authorization = format!("Bearer {}", token(&mut client)?);
        let paths = (0..IMAGES).map(|image| match what {
            "blobs" => format!(
                "/v2/{MAIN}/blobs/{}",
                shape::sha256(&site.shape.blobs_of(image)[0])
            ),
            _ => format!("/v2/{MAIN}/manifests/{}", shape::tag(image)),
        });
        Ok(Self {
            site,
            client,
            paths: paths.collect(),
        })
    }

    fn ask(&mut self, number: u64) -> Result<()> {
        let path = &self.paths[usize::try_from(number % IMAGES)?];
        let method = if path.contains("/blobs/") {
            "HEAD"
        } else {
            "GET"
        };
        self.client.send(method, path, "", &[])?.expect(200)?;
        Ok(())
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// A token with which the user pulls.
fn token(client: &mut Client) -> Result<String> {
    client.authorization = basic();
    let path = format!("/token?service=wharf&scope=repository:{MAIN}:pull");
    let answer: Value = serde_json::from_slice(&client.get(&path)?.expect(200)?.body)?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

/// The processor time of a request of each, in µs, over all rounds, and the median of the rounds' ratios: what disturbs one round
/// is no cost of rights.
fn in_turn(mut pullers: [Vec<Puller<'_>>; 2], rounds: u64) -> Result<([f64; 2], f64)> {
    let mut spent = [Duration::ZERO; 2];
    let mut ratios = Vec::new();
    // The first round fills caches.
    for round in 0..=rounds {
        let mut now = [Duration::ZERO; 2];
        for (pullers, now) in pullers.iter_mut().zip(&mut now) {
            let site = pullers[0].site;
            let before = site.processor_time()?;
            std::thread::scope(|scope| -> Result<()> {
                let ask = |puller: &mut Puller<'_>| (0..REQUESTS).try_for_each(|at| puller.ask(at));
                let all = pullers.iter_mut();
                let all: Vec<_> = all.map(|puller| scope.spawn(move || ask(puller))).collect();
                let mut outcomes = all.into_iter().map(|one| one.join());
                outcomes.try_for_each(|outcome| outcome.expect("a client's thread"))
            })?;
            *now = site.processor_time()? - before;
        }
        if round > 0 {
            spent = [spent[0] + now[0], spent[1] + now[1]];
            ratios.push(now[1].as_secs_f64() / now[0].as_secs_f64());
        }
    }
    ensure!(!ratios.is_empty(), "ask for one round or more");
    let each = (rounds * REQUESTS * CLIENTS) as f64;
    let each = spent.map(|spent| spent.as_secs_f64() * 1e6 / each);
    Ok((each, median(&mut ratios)))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long a change of rights takes, in ms, as the command sees it: it is in force when the command ends.
fn change(site: &Site) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..7 {
        let namespace = format!("change/{}/{number}", site.run);
        let begun = Instant::now();
        site.wharf(&["grant", USER, "reader", "on", &namespace])?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&mut times))
}

/// Pulls at a steady pace, alone and while many sign in with passwords that each have to be hashed, in turn; what of it, and how much
/// the p99 grew.
fn storm(site: &Site, rounds: u64) -> Result<(String, f64)> {
    let mut puller = Puller::new(site, "manifests")?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (names, signed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut number, mut at) = (0, Instant::now());
    for _ in 0..rounds {
        for (times, clients) in [(&mut alone, 0), (&mut beside, STORM)] {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| -> Result<()> {
                let storm = |_| scope.spawn(|| sign_in(site, &names, &signed, &over));
                let clients: Vec<_> = (0..clients).map(storm).collect();
                let until = Instant::now() + HALF;
                let outcome = (|| {
                    while Instant::now() < until {
                        at = (at + PACE).max(Instant::now());
                        std::thread::sleep(at.saturating_duration_since(Instant::now()));
                        number += 1;
                        puller.ask(number)?;
                        // From when it should have begun.
                        times.push(at.elapsed().as_secs_f64() * 1e3);
                    }
                    anyhow::Ok(())
                })();
                over.store(true, Ordering::Relaxed);
                for client in clients {
                    client.join().expect("a client's thread")?;
                }
                outcome
            })?;
        }
    }
    let p99 = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    };
    let (a, b) = (median(&mut alone), median(&mut beside));
    let (c, d) = (p99(&mut alone), p99(&mut beside));
    let told = format!(
        "\n{STORM} clients at once sign in, {} times in all, beside one that pulls each {PACE:?}:\n\n| | alone | beside the storm | ratio \
         |\n|---|---:|---:|---:|\n| GET of a manifest by tag, median | {a:.2} ms | {b:.2} ms | {:.2} |\n| the same, p99 | {c:.2} ms | \
         {d:.2} ms | {:.2} |\n",
        signed.into_inner(),
        b / a,
        d / c,
    );
    Ok((told, d / c))
}

/// Users whom nobody knows, so that no cache of passwords helps: each costs a whole hash.
fn sign_in(site: &Site, names: &AtomicU64, signed: &AtomicU64, over: &AtomicBool) -> Result<()> {
    let mut client = site.client()?;
    while !over.load(Ordering::Relaxed) {
        let name = names.fetch_add(1, Ordering::Relaxed);
        let who = STANDARD.encode(format!("nobody{name}:{PASSWORD}"));
        client.authorization = format!("Basic {who}");
        let answer = client.get("/token?service=wharf")?;
        // 503 and 429: too many at once, so come again.
        match answer.status {
            429 | 503 => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                answer.expect(401)?;
                signed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_bar_fails_and_is_told_with_the_table() {
        assert_eq!(above("a pull", 1.05, BAR), None);
        let missed = above("a pull", 1.06, BAR).expect("it is above");
        assert_eq!(missed, "a pull: 1.060, and the bar is 1.05");
        assert!(above("a pull", f64::NAN, BAR).is_some());
        assert_eq!(
            judged("table".into(), &[]).expect("nothing missed"),
            "table"
        );
        let error = judged("table".into(), &[missed]).expect_err("it is missed");
        assert_eq!(
            error.to_string(),
            "table\na pull: 1.060, and the bar is 1.05"
        );
    }
}

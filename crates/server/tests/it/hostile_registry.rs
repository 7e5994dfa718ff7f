//! What only a registry can be flooded with: open uploads and wrong passwords.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base64::Engine as _;
use tokio::task::block_in_place;
use wharf_testkit::Version;
use wharf_testkit::options::{ADMIN, ADMIN_PASSWORD};

use crate::hostile_support::{MIB, Target, ask, connect, scaled};

/// An upload that nobody continues is a row of some hundred bytes: memory and the cost of a request stay flat, also across
/// a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_open_uploads_cost_neither_memory_nor_time() {
    let mut target = Target::start("").await;
    let tenth = scaled(3_000, 100_000) / 10;
    let memory = target.memory();
    let (first, last) = block_in_place(|| {
        open_uploads(target.addr, tenth);
        let first = cpu_of(&target, || open_uploads(target.addr, tenth));
        target.survives(48 * MIB, |stage| {
            stage.began();
            open_uploads(stage.addr(), tenth * 7);
        });
        let last = cpu_of(&target, || open_uploads(target.addr, tenth));
        (first, last)
    });
    println!("{tenth} uploads took {first:?} of processor at first, {last:?} in the end");
    // What a request costs, not how long the disk took; the kernel counts in hundredths of a second.
    let allowed = first * 3 / 2 + Duration::from_millis(100);
    assert!(last <= allowed, "{first:?} at first, {last:?} in the end");

    target.process.kill();
    target.process.again().await;
    let client = target.process.admin(Version::Http1);
    client.start_upload("team/app").await;
    block_in_place(|| target.survives(16 * MIB, |stage| stage.hold()));
    let now = target.memory();
    assert!(
        now <= memory + 48 * MIB,
        "{memory} bytes before, {now} after"
    );
}

/// Opens so many, by eight clients.
fn open_uploads(addr: SocketAddr, count: usize) {
    let request =
        "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: wharf\r\nContent-Length: 0\r\n\r\n";
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut socket = connect(addr);
                socket.set_nodelay(true).unwrap();
                for number in 0..count.div_ceil(8) {
                    // Below the requests that one connection may make.
                    if number % 5_000 == 4_999 {
                        socket = connect(addr);
                    }
                    let answer = ask(&mut socket, request).unwrap();
                    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
                }
            });
        }
    });
}

/// Processor time that the server spends meanwhile.
fn cpu_of(target: &Target, work: impl FnOnce()) -> Duration {
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", target.process.id())).unwrap();
        // After the name in parentheses: state is the first, utime and stime are the 12th and 13th (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = |at: usize| fields.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
        Duration::from_secs(ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as u32
    };
    let before = spent();
    work();
    spent() - before
}

/// Those who are not asked for a password, and those whose password is remembered, do not wait behind the hashing.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_passwords_locks_out_nobody() {
    let target = Target::start("").await;
    let right = base64(&format!("{ADMIN}:{ADMIN_PASSWORD}"));
    let asking = |credentials: &str| {
        format!(
            "HEAD /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: wharf\r\n\
             Authorization: Basic {credentials}\r\n\r\n"
        )
    };
    let known = asking(&right);
    let refused = AtomicUsize::new(0);
    block_in_place(|| {
        // Each hash that is computed takes 19 MiB; there are as many at once as threads for it, at most half the cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        target.survives(32 * MIB + cores * 20 * MIB, |stage| {
            let mut knows = stage.connect();
            let mut remembered = || {
                let answer = ask(&mut knows, &known).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            };
            remembered();
            std::thread::scope(|scope| {
                for attacker in 0..32 {
                    let (asking, refused) = (&asking, &refused);
                    scope.spawn(move || {
                        let mut attempt = 0;
                        while !stage.measured() || refused.load(SeqCst) < scaled(200, 5_000) {
                            attempt += 1;
                            let guess = base64(&format!("{ADMIN}:guess-{attacker}-{attempt}"));
                            let mut socket = stage.connect();
                            let answer = ask(&mut socket, &asking(&guess)).unwrap();
                            let status = answer.split(' ').nth(1).unwrap_or_default();
                            assert!(["401", "429", "503"].contains(&status), "{answer}");
                            refused.fetch_add(1, SeqCst);
                        }
                    });
                }
                stage.began();
                while !stage.measured() {
                    remembered();
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        });
    });
    let client = target.process.admin(Version::Http1);
    client.get("/v2/").send().await.expect_status(200);
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

//! `kill -9` at random moments: what was acknowledged is there, and no half of anything else.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wharf_meta::blob::{Find, Unlink, Unlinked};
use wharf_meta::manifest::{Get, Put, PutOutcome, Ref};
use wharf_meta::suite::{NOW, digest, edge, publish, put, repo, tag};
use wharf_meta::upload::{Claim, Create};
use wharf_meta::{Meta, tag as tags, upload};
use wharf_oci::EdgeKind;

use crate::{check, open, runtime};

const ROUNDS: u64 = 25;
const WRITERS: u64 = 16;

/// Not random, but spread: the moments differ in every round, and the machine adds its own chance.
fn moment(round: u64) -> Duration {
    Duration::from_micros(5_000 + (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 250_000)
}

#[test]
fn acknowledged_writes_survive_kills() {
    if let Ok(folder) = std::env::var("WHARF_META_CRASH") {
        return child(
            Path::new(&folder),
            std::env::var("WHARF_META_ROUND").unwrap().parse().unwrap(),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::acknowledged_writes_survive_kills",
                "--nocapture",
            ])
            .env("WHARF_META_CRASH", folder.path())
            .env("WHARF_META_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Its first line says that it writes.
        loop {
            let line = lines.next().expect("the child ended too soon").unwrap();
            if line.ends_with("ready") {
                break;
            }
        }
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment(round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        // A line that was cut was not acknowledged.
        let before = acknowledged.len();
        for line in lines.map_while(Result::ok) {
            if let Some(line) = line
                .strip_prefix("ok ")
                .and_then(|line| line.strip_suffix(" ."))
            {
                acknowledged.push(line.to_owned());
            }
        }
        killer.join().unwrap();
        verify(folder.path(), &acknowledged[before..]);
    }
    verify(folder.path(), &acknowledged);
    assert!(
        acknowledged.len() as u64 > ROUNDS * 10,
        "only {} writes were acknowledged",
        acknowledged.len()
    );
}

/// Writes and says what was acknowledged, until it is killed.
fn child(folder: &Path, round: u64) {
    let meta = open(folder);
    let out = Arc::new(Mutex::new(std::io::stdout()));
    let say = move |line: String| {
        let mut out = out.lock().unwrap();
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .unwrap();
    };
    say("\nready\n".to_owned());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (meta, say) = (meta.clone(), say.clone());
            tasks.spawn(async move {
                for n in 0_u64.. {
                    step(&meta, &say, &format!("{round}-{writer}-{n}"), writer).await;
                }
            });
        }
        tasks.join_all().await;
    });
}

/// A session with two claims, its blob, a manifest with a tag of its own and one that all writers share; then a blob that
/// goes again.
async fn step(meta: &Meta, say: &impl Fn(String), name: &str, writer: u64) {
    let repository = format!("r{}", writer % 3);
    let id = format!("u{name}");
    let create = Create {
        id: id.clone(),
        repository: repo(&repository),
        owner: "a".into(),
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    say(format!("ok upload {repository} {name} 0 .\n"));
    for (from, to) in [(0, 4), (4, 8)] {
        let append = Some(vec![7; 4]);
        let claim = Claim {
            id: id.clone(),
            epoch: 0,
            from,
            to,
            hash: vec![to as u8],
            append,
            in_file: false,
            at: NOW,
        };
        assert!(meta.write(claim).await.unwrap());
        say(format!("ok upload {repository} {name} {to} .\n"));
    }
    let mut op = publish(&repository, format!("blob {name}"));
    let blob = op.digest.clone();
    let size = op.size;
    op.upload = Some(id);
    meta.write(op).await.unwrap();
    say(format!("ok blob {repository} {name} .\n"));
    let own = format!("t{name}");
    let push = Put {
        edges: vec![edge(EdgeKind::Layer, &blob, size)],
        ..put(&repository, format!("manifest {name}"), &[&own, "shared"])
    };
    assert!(matches!(
        meta.write(push).await.unwrap(),
        PutOutcome::Stored { created: true }
    ));
    say(format!("ok manifest {repository} {name} .\n"));
    meta.write(publish(&repository, format!("going {name}")))
        .await
        .unwrap();
    let going = digest(format!("going {name}"));
    let unlink = Unlink {
        repository: repo(&repository),
        digest: going,
        actor: "a".into(),
        at: NOW,
    };
    assert_eq!(meta.write(unlink).await.unwrap(), Unlinked::Done);
    say(format!("ok gone {repository} {name} .\n"));
}

fn verify(folder: &Path, acknowledged: &[String]) {
    let meta = open(folder);
    runtime().block_on(async {
        // Only the last word about an upload counts.
        for line in acknowledged {
            let words: Vec<&str> = line.split(' ').collect();
            let (what, repository, name) = (words[0], repo(words[1]), words[2]);
            let find = |bytes: String| Find {
                repository: repository.clone(),
                digest: digest(bytes),
                with_bytes: true,
            };
            match what {
                "upload" => {
                    let offset: u64 = words[3].parse().unwrap();
                    let row = meta
                        .read(upload::Get {
                            id: format!("u{name}"),
                        })
                        .await
                        .unwrap();
                    let published = meta
                        .read(find(format!("blob {name}")))
                        .await
                        .unwrap()
                        .is_some();
                    match row {
                        Some(row) => {
                            assert!(row.offset >= offset && !published, "{line}: {row:?}");
                            let bytes = meta.read(upload::Chunks { id: row.id }).await.unwrap();
                            assert_eq!(bytes.len() as u64, row.offset, "{line}");
                            let state = if row.offset == 0 {
                                vec![]
                            } else {
                                vec![row.offset as u8]
                            };
                            assert_eq!(row.hash, state, "{line}");
                        }
                        None => assert!(published, "{line}: neither session nor blob"),
                    }
                }
                "blob" => {
                    let row = meta.read(find(format!("blob {name}"))).await.unwrap();
                    assert!(row.is_some(), "{line}");
                }
                "manifest" => {
                    let reference = Ref::Tag(tag(&format!("t{name}")));
                    let get = Get {
                        repository: repository.clone(),
                        reference,
                        with_bytes: true,
                    };
                    let row = meta
                        .read(get)
                        .await
                        .unwrap()
                        .unwrap_or_else(|| panic!("{line}"));
                    assert_eq!(row.bytes.unwrap(), format!("manifest {name}").into_bytes());
                }
                "gone" => {
                    let row = meta.read(find(format!("going {name}"))).await.unwrap();
                    assert!(row.is_none(), "{line}");
                }
                other => panic!("{other}"),
            }
        }
        for repository in ["r0", "r1", "r2"] {
            let history = tags::History {
                repository: repo(repository),
                tag: Some(tag("shared")),
                limit: u32::MAX,
            };
            let moves = meta.scan(history).await.unwrap();
            assert!(
                moves.windows(2).all(
                    |pair| pair[0].version == pair[1].version + 1 && pair[0].from == pair[1].to
                )
            );
        }
        meta.close().await;
    });
    check(folder);
}

//! What an operation costs does not follow from how much the store holds.
//!
//! Counted in instructions of SQLite's virtual machine, which are the same on every machine and at every load: a search in
//! an index is one of them however deep the index is, and a row that is passed over is some more.

use std::path::Path;

use wharf_meta::blob::{Find, Holders, ListLive, Mount, Unlink};
use wharf_meta::manifest::{
    Delete, Deleted, EdgeRow, Get, MAX_EDGES, MAX_TAGS, Pinned, Put, PutEdges, PutOutcome, Ref,
    SweepEdges,
};
use wharf_meta::suite::{NOW, digest, edge, publish, publish_key, put, repo, tag};
use wharf_meta::{
    Bulk, Op, Steps, blob, candidate, event, referrer, repository, restorable, tag as tags, upload,
};
use wharf_oci::EdgeKind;

pub(crate) const SMALL: u32 = 200;
pub(crate) const LARGE: u32 = 2_000;

/// The store whose growth is looked at: everything that can be many is many.
fn filled(folder: &Path, count: u32) -> Bulk {
    let mut bulk = Bulk::open(&folder.join("meta.db"), 64).unwrap();
    let mut run = |op: Put| {
        let outcome = bulk.run(&op).unwrap();
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{outcome:?}");
    };
    run(put("main", "subject", &["subject"]));
    for n in 0..count {
        let shared = EdgeRow {
            must_exist: false,
            ..edge(EdgeKind::Layer, &digest(format!("shared {}", n % 7)), 1)
        };
        run(Put {
            edges: vec![shared],
            check_sizes: false,
            ..put("main", format!("manifest {n}"), &[&format!("t{n:05}")])
        });
        run(Put {
            subject: Some(digest("subject")),
            artifact_type: Some(if n == 0 { "rare" } else { "common" }.into()),
            referrer_json: Some("{}".into()),
            ..put("main", format!("referrer {n}"), &[])
        });
        // One tag that moves all the time.
        run(put("main", format!("manifest {n}"), &["moving"]));
    }
    for n in 0..count {
        bulk.run(&publish("main", format!("blob {n}"))).unwrap();
        bulk.run(&publish_key(
            "main",
            format!("file {n}"),
            &format!("blobs/sha256/ab/{n}.1"),
        ))
        .unwrap();
        bulk.run(&publish(&format!("many/r{n:05}"), "held by all"))
            .unwrap();
        bulk.run(&upload::Create {
            id: format!("session {n}"),
            repository: repo("main"),
            owner: "alice".into(),
            algorithm: None,
            at: NOW + i64::from(n),
        })
        .unwrap();
    }
    bulk
}

/// What each operation costs in a store with `count` of everything.
fn costs(count: u32) -> Vec<(&'static str, Steps)> {
    let folder = tempfile::tempdir().unwrap();
    let mut bulk = filled(folder.path(), count);
    let mut costs = Vec::new();
    let half = count / 2;
    fn cost<O: Op>(
        bulk: &mut Bulk,
        costs: &mut Vec<(&'static str, Steps)>,
        name: &'static str,
        op: O,
    ) -> O::Out {
        let (out, steps) = bulk.measure(&op).unwrap();
        costs.push((name, steps));
        out
    }
    macro_rules! cost {
        ($name:literal, $op:expr) => {
            cost(&mut bulk, &mut costs, $name, $op)
        };
    }
    let by = |reference| Get {
        repository: repo("main"),
        reference,
        with_bytes: true,
    };
    let got = cost!("get by tag", by(Ref::Tag(tag(&format!("t{half:05}")))));
    assert!(got.is_some());
    let got = cost!(
        "get by digest",
        by(Ref::Digest(digest(format!("manifest {half}"))))
    );
    assert!(got.is_some());
    let find = |name: String| Find {
        repository: repo("main"),
        digest: digest(name),
        with_bytes: true,
    };
    assert!(cost!("find a blob", find(format!("blob {half}"))).is_some());
    assert!(cost!("find no blob", find("absent".into())).is_none());
    assert!(cost!("find a blob of others", find("held by all".into())).is_none());
    let page = tags::List {
        repository: repo("main"),
        after: Some(format!("t{half:05}")),
        limit: 50,
    };
    assert_eq!(cost!("page of tags", page).map(|page| page.len()), Some(50));
    let page = |within| repository::List {
        after: Some(format!("many/r{half:05}")),
        limit: 50,
        within,
    };
    assert_eq!(cost!("page of repositories", page(None)).len(), 50);
    let many = vec!["many".to_owned()];
    let named = cost!("page within a prefix", page(Some(many)));
    assert_eq!(named.len(), 50);
    let few = vec![
        format!("many/r{:05}", half + 1),
        format!("many/r{:05}", count - 1),
    ];
    assert_eq!(cost!("the visible repositories", page(Some(few))).len(), 2);
    let referrers = |types: &[&str]| referrer::List {
        repository: repo("main"),
        subject: digest("subject"),
        artifact_types: types.iter().map(|&t| t.to_owned()).collect(),
        after: None,
        limit: 50,
    };
    assert_eq!(cost!("page of referrers", referrers(&[])).len(), 50);
    assert_eq!(cost!("the rare referrer", referrers(&["rare"])).len(), 1);
    let holders = Holders {
        digest: digest("held by all"),
        limit: 5,
    };
    assert_eq!(cost!("holders of a blob", holders).len(), 5);
    let live = ListLive {
        after: None,
        limit: 50,
    };
    assert_eq!(cost!("page of blobs", live).len(), 50);
    let history = |tag| tags::History {
        repository: repo("main"),
        tag,
        limit: 5,
    };
    assert_eq!(
        cost!("history of a tag", history(Some(tag("moving")))).len(),
        5
    );
    assert_eq!(cost!("history of a repository", history(None)).len(), 5);
    let events = event::List {
        after: 7,
        limit: 50,
    };
    assert_eq!(cost!("page of events", events).len(), 50);
    cost!("totals", repository::GetTotals);
    let expired = upload::Expired {
        touched_before: NOW + 5,
        limit: 50,
    };
    assert_eq!(cost!("expired uploads", expired).len(), 5);

    cost!("publish", publish("main", "a new blob"));
    cost!("publish again", publish("main", "a new blob"));
    let mount = Mount {
        repository: repo("main"),
        from: repo("many/r00001"),
        digest: digest("held by all"),
        actor: "alice".into(),
        at: NOW,
    };
    assert!(cost!("mount", mount));
    let image = Put {
        edges: vec![
            edge(EdgeKind::Layer, &digest("a new blob"), 10),
            edge(
                EdgeKind::Layer,
                &digest(format!("blob {half}")),
                format!("blob {half}").len() as u64,
            ),
        ],
        ..put("main", "a new manifest", &["new"])
    };
    cost!("push of a manifest", image);
    cost!("move of a tag", put("main", "a new manifest", &["moving"]));
    let unlink = |name: String| Unlink {
        repository: repo("main"),
        digest: digest(name),
        actor: "alice".into(),
        at: NOW,
    };
    cost!("removal of a needed blob", unlink("a new blob".into()));
    cost!("removal of a blob", unlink(format!("blob {}", half + 1)));
    let delete = tags::Delete {
        repository: repo("main"),
        tag: tag(&format!("t{half:05}")),
        actor: "alice".into(),
        at: NOW,
    };
    assert!(cost!("removal of a tag", delete));
    let delete = |name: String| Delete {
        repository: repo("main"),
        digest: digest(name),
        actor: "alice".into(),
        at: NOW,
    };
    cost!(
        "removal of a manifest",
        delete(format!("manifest {}", half + 1))
    );
    cost!(
        "removal of a referrer",
        delete(format!("referrer {}", half + 1))
    );
    let sweep = SweepEdges {
        after: None,
        limit: 200,
        pending_before: NOW,
    };
    assert_eq!(cost!("sweep without work", sweep).done, 0);
    let condemn = blob::Lookup {
        digest: digest(format!("file {half}")),
    };
    assert!(cost!("lookup of a blob", condemn).is_some());
    bulk.finish().unwrap();
    costs
}

/// What costs more in the larger of two stores.
pub(crate) fn grown(
    small: Vec<(&'static str, Steps)>,
    large: Vec<(&'static str, Steps)>,
) -> Vec<String> {
    let mut grown = Vec::new();
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        // Totals are a table of six rows, and the index of unswept manifests holds only what is looked for.
        let scans = large.scanned > small.scanned || large.scanned > 8;
        // A few more or less: whether a search ends at a row or behind it.
        if scans || large.sorts > 0 || large.instructions > small.instructions + 8 {
            grown.push(format!("{name}: {small:?}, {large:?}"));
        }
    }
    grown
}

#[test]
fn no_operation_costs_more_in_a_larger_store() {
    let grown = grown(costs(SMALL), costs(LARGE));
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}

/// Instructions that an operation on the writer may be, at most. With the searches and changes in indexes that are among them,
/// one takes some 0.2 µs on 2 cores of AMD EPYC (cost of the parts of an index of 10,000 children), so that an operation stays
/// within the 5 ms of [`Op`].
const BOUND: u64 = 25_000;

/// Operations with as much to do as they take at once, each over what it can find at worst. Larger work comes in several.
#[test]
fn no_operation_holds_the_writer_for_longer_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let mut bulk = Bulk::open(&folder.path().join("meta.db"), 64).unwrap();
    let many = 1_200;
    let edges: Vec<EdgeRow> = (0..many)
        .map(|n| {
            let bytes = format!("blob {n}");
            bulk.run(&publish("main", bytes.clone())).unwrap();
            edge(EdgeKind::Layer, &digest(&bytes), bytes.len() as u64)
        })
        .collect();
    let part = |bulk: &mut Bulk, name: &str, edges: &[EdgeRow]| {
        let op = PutEdges {
            repository: repo("main"),
            digest: digest(name),
            edges: edges.to_vec(),
            check_sizes: true,
            at: NOW,
        };
        let (outcome, steps) = bulk.measure(&op).unwrap();
        assert_eq!(outcome, Pinned::Done);
        steps
    };
    let mut costs: Vec<(&str, Steps)> = Vec::new();

    // One manifest with many references, and tags.
    let (before, last) = edges.split_at(many - MAX_EDGES);
    for edges in before.chunks(MAX_EDGES) {
        costs.push(("part of a push", part(&mut bulk, "large", edges)));
    }
    let tags: Vec<String> = (0..MAX_TAGS).map(|n| format!("t{n:03}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let large = Put {
        edges: last.to_vec(),
        pinned: before.len() as u32,
        ..put("main", "large", &tags)
    };
    let (outcome, steps) = bulk.measure(&large).unwrap();
    assert_eq!(outcome, PutOutcome::Stored { created: true });
    costs.push(("push", steps));
    // With 225 tags, the last step takes 75 and as many references as it can.
    for (n, count) in [MAX_TAGS, MAX_TAGS, MAX_TAGS, MAX_TAGS / 2]
        .into_iter()
        .enumerate()
    {
        let names: Vec<String> = (0..count).map(|tag| format!("more{n}-{tag}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        bulk.run(&put("main", "large", &names)).unwrap();
    }
    let delete = |name: &str| Delete {
        repository: repo("main"),
        digest: digest(name),
        actor: "alice".into(),
        at: NOW,
    };
    loop {
        let (outcome, steps) = bulk.measure(&delete("large")).unwrap();
        costs.push(("removal of a manifest", steps));
        if outcome == Deleted::Done {
            break;
        }
    }

    // Many manifests with few references, whose pushes were not finished, and many that were there once.
    for n in 0..500 {
        part(&mut bulk, &format!("pending {n}"), &edges[..1]);
        let name = format!("once {n}");
        bulk.run(&put("main", name.clone(), &[])).unwrap();
        bulk.run(&delete(&name)).unwrap();
        part(&mut bulk, &name, &edges[..1]);
    }
    let mut after = None;
    loop {
        let sweep = SweepEdges {
            after: after.take(),
            limit: MAX_EDGES as u32,
            pending_before: NOW + 1,
        };
        let (swept, steps) = bulk.measure(&sweep).unwrap();
        costs.push(("sweep", steps));
        if swept.done == 0 {
            break;
        }
        after = swept.at;
    }
    bulk.finish().unwrap();
    let worst = |name| {
        let of = costs.iter().filter(|(of, _)| *of == name);
        of.map(|(_, steps)| steps.instructions).max().unwrap()
    };
    let names = ["part of a push", "push", "removal of a manifest", "sweep"];
    let worst = names.map(|name| (name, worst(name)));
    assert!(worst.iter().all(|(_, most)| *most <= BOUND), "{worst:?}");
}

/// What it takes to collect a hundred dead blobs among so many live ones, from the deletion of their manifest on.
fn collection(live: u32) -> Steps {
    let folder = tempfile::tempdir().unwrap();
    let mut bulk = Bulk::open(&folder.path().join("meta.db"), 64).unwrap();
    let image = |bulk: &mut Bulk, n: u32| {
        let mut edges = Vec::new();
        for layer in 0..100 {
            let bytes = format!("blob {n} {layer}");
            bulk.run(&publish_key("main", &bytes, &format!("k{n}-{layer}")))
                .unwrap();
            edges.push(edge(EdgeKind::Layer, &digest(&bytes), bytes.len() as u64));
        }
        let op = Put {
            edges,
            ..put("main", format!("manifest {n}"), &[&format!("t{n}")])
        };
        bulk.run(&op).unwrap();
    };
    for n in 0..live / 100 {
        image(&mut bulk, n);
    }
    image(&mut bulk, u32::MAX);
    let collect = candidate::Collect {
        due: NOW,
        limit: candidate::BATCH,
        at: NOW,
    };
    // From birth on all of them are candidates: each is looked at once, whatever comes later.
    while bulk.run(&collect).unwrap().looked_at > 0 {}
    let delete = Delete {
        repository: repo("main"),
        digest: digest(format!("manifest {}", u32::MAX)),
        actor: "alice".into(),
        at: NOW,
    };
    assert_eq!(bulk.run(&delete).unwrap(), Deleted::Done);
    let mut all = Steps::default();
    let due = restorable::Due {
        look_before: NOW,
        limit: 9,
    };
    let (rows, steps) = bulk.measure(&due).unwrap();
    all += steps;
    let purge = restorable::Purge {
        manifest: rows[0].manifest,
        deleted_at: NOW,
        cause: "a test",
        at: NOW,
    };
    loop {
        let (purged, steps) = bulk.measure(&purge).unwrap();
        assert!(steps.instructions <= BOUND, "{steps:?}");
        all += steps;
        if purged == restorable::Purged::Done {
            break;
        }
    }
    let mut blobs = 0;
    loop {
        let (collected, steps) = bulk.measure(&collect).unwrap();
        assert!(steps.instructions <= BOUND, "{steps:?}");
        all += steps;
        blobs += collected.blobs;
        if collected.looked_at == 0 {
            break;
        }
    }
    assert_eq!(blobs, 100);
    bulk.finish().unwrap();
    all
}

#[test]
fn collection_costs_what_there_is_to_collect_and_not_what_is_stored() {
    let (small, large) = (collection(500), collection(20_000));
    assert_eq!((large.scanned, large.sorts), (small.scanned, 0));
    // A few more or less: whether a search ends at a row or behind it.
    assert!(
        large.instructions < small.instructions + small.instructions / 20,
        "{small:?}, {large:?}"
    );
}

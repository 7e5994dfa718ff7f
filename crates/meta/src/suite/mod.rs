//! The tests that every engine passes.
//!
//! An engine's test binary calls [`meta_suite!`](crate::meta_suite) with a function that makes an empty store. After each
//! test the query plans of all statements that it ran are checked, so that no operation reads more than it gives.

pub mod access;
pub mod access_change;
pub mod account;
pub mod audit;
pub mod blob;
pub mod collect;
pub mod concurrent;
pub mod credential;
pub mod invitation;
pub mod job;
pub mod manifest;
pub mod multipart;
pub mod pairs;
pub mod referrer;
pub mod repository;
pub mod session;
pub mod small;
pub mod standing;
pub mod tag;
pub mod terminal;
pub mod upload;
pub mod usage;
pub mod workload;

use std::any::Any;
use std::future::Future;

use wharf_oci::{Algorithm, Digest, EdgeKind, RepositoryName, Tag};

use crate::blob::{Content, Place, Publish, Published};
use crate::manifest::{EdgeRow, Expect, Put, PutOutcome};
use crate::{Meta, Result, event};

/// A store to test, with what must live as long as it.
pub struct Store {
    /// The store.
    pub meta: Meta,
    /// Its folder or server.
    pub keep: Box<dyn Any + Send>,
}

/// A fixed time, in milliseconds since 1970: tests do not look at the clock.
pub const NOW: i64 = 1_790_000_000_000;

/// Makes a store, runs a test on it on four threads, and checks the query plans.
pub fn run<M, T, F>(make: M, test: T)
where
    M: FnOnce() -> Store,
    T: FnOnce(Meta) -> F,
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = make();
        test(store.meta.clone()).await;
        let bad = full_scans(&store.meta);
        assert!(
            bad.is_empty(),
            "statements that read more than they give:\n{}",
            bad.join("\n")
        );
        store.meta.close().await;
    });
}

/// A step of a query plan that may pass over a whole table or sort.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The step, or its beginning.
    pub step: &'static str,
    /// What stands in the statement.
    pub statement: &'static str,
    /// Why it may.
    pub reason: &'static str,
}

/// Every such step of the operations.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        step: "SCAN counter",
        statement: "FROM counter",
        reason: "as many rows as there are counters",
    },
    Allowed {
        step: "SCAN parts",
        statement: "FROM counter_delta",
        reason: "the counters and what a step has not folded yet",
    },
    Allowed {
        step: "SCAN counter_delta",
        statement: "FROM counter_delta",
        reason: "what a step has not folded yet",
    },
    Allowed {
        step: "SCAN k",
        statement: "FROM job_kind k ORDER BY k.kind",
        reason: "a handful of kinds",
    },
    Allowed {
        step: "SCAN usage_delta",
        statement: "FROM usage_delta ORDER BY id LIMIT $1",
        reason: "what a step has not folded yet",
    },
    Allowed {
        step: "SCAN replica",
        statement: "FROM replica",
        reason: "the processes over this store",
    },
    Allowed {
        step: "SCAN o",
        statement: "FROM (SELECT 1 AS id) o",
        reason: "one row that stands in the statement",
    },
    Allowed {
        step: "SCAN signing_key",
        statement: "FROM signing_key",
        reason: "a handful of keys",
    },
    Allowed {
        step: "USE TEMP B-TREE FOR ORDER BY",
        statement: "FROM signing_key",
        reason: "a handful of keys",
    },
    Allowed {
        step: "USE TEMP B-TREE FOR LAST",
        statement: "ORDER BY h.moved_at DESC, h.name DESC, h.version DESC",
        reason: "those of one millisecond only",
    },
    Allowed {
        step: "USE TEMP B-TREE FOR LAST",
        statement: "ORDER BY d.deleted_at DESC, d.digest DESC",
        reason: "those of one millisecond only",
    },
    Allowed {
        step: "SCAN quarantine",
        statement: "COUNT(*) FROM quarantine",
        reason: "damaged blobs only",
    },
    Allowed {
        step: "SCAN event_cursor",
        statement: "FROM event_cursor ORDER BY seen_transaction",
        reason: "a handful of consumers",
    },
    Allowed {
        step: "USE TEMP B-TREE FOR ORDER BY",
        statement: "FROM event_cursor ORDER BY seen_transaction",
        reason: "a handful of consumers",
    },
    Allowed {
        step: "SCAN event",
        statement: "FROM event ORDER BY transaction_id, id LIMIT 200",
        reason: "the oldest ones, which are to go",
    },
    Allowed {
        step: "SCAN principal",
        statement: "LIMIT 1",
        reason: "any one row",
    },
    Allowed {
        step: "SCAN manifest USING COVERING INDEX manifest_unswept",
        statement: "LIMIT 1",
        reason: "the index holds exactly what is looked for",
    },
];

/// How the engine runs a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All its steps.
    pub steps: Vec<String>,
    /// Steps that pass over a table or sort, and why they may.
    pub allowed: Vec<(String, &'static str)>,
    /// Steps that do so and may not.
    pub suspects: Vec<String>,
}

/// The plan of a statement, judged.
pub fn plan(meta: &Meta, statement: &str) -> Result<Plan> {
    let mut plan = Plan {
        steps: meta.explain(statement)?,
        allowed: Vec::new(),
        suspects: Vec::new(),
    };
    for step in &plan.steps {
        let suspect = (step.starts_with("SCAN ") && step != "SCAN CONSTANT ROW")
            || step.starts_with("USE TEMP B-TREE")
            || step.contains("AUTOMATIC");
        if !suspect {
            continue;
        }
        let allowed = ALLOWED.iter().find(|allowed| {
            step.starts_with(allowed.step) && statement.contains(allowed.statement)
        });
        match allowed {
            Some(allowed) => plan.allowed.push((step.clone(), allowed.reason)),
            None => plan.suspects.push(step.clone()),
        }
    }
    Ok(plan)
}

/// The page that lists the statements of all operations, made by `cargo xtask queries`. Read when a test runs, so that a
/// new page is no reason to compile.
const LISTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/reference/queries.md"
);

/// The statements of a store that pass over a table or sort where they may not, or that are not listed.
pub fn full_scans(meta: &Meta) -> Vec<String> {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let listed = std::fs::read_to_string(LISTED).unwrap_or_else(|e| panic!("{LISTED}: {e}"));
    let listed = words(&listed);
    let mut bad = Vec::new();
    for statement in meta.statements() {
        // An engine's own questions about its clock and transactions read no table.
        let own = statement.contains("clock_timestamp") || statement.contains("pg_snapshot_xmin");
        if !own && !listed.contains(&words(&statement)) {
            bad.push(format!("not in docs/reference/queries.md: {statement}"));
        }
        if meta.is_shared() {
            // Plans of PostgreSQL depend on how much a table holds.
            continue;
        }
        let plan = plan(meta, &statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
        for step in plan.suspects {
            bad.push(format!("{step}\n    in {statement}"));
        }
    }
    bad
}

/// The repository with a name.
pub fn repo(name: &str) -> RepositoryName {
    RepositoryName::parse(name).expect("a name")
}

/// The tag with a name.
pub fn tag(name: &str) -> Tag {
    Tag::parse(name).expect("a tag")
}

/// The digest of some bytes.
pub fn digest(bytes: impl AsRef<[u8]>) -> Digest {
    Digest::of(Algorithm::Sha256, bytes.as_ref())
}

/// A publish of inline bytes.
pub fn publish(repository: &str, bytes: impl AsRef<[u8]>) -> Publish {
    let bytes = bytes.as_ref();
    Publish {
        upload: None,
        repository: repo(repository),
        digest: digest(bytes),
        size: bytes.len() as u64,
        content: Content::Inline(bytes.to_vec()),
        instead_of: None,
        actor: "alice".into(),
        at: NOW,
    }
}

/// A publish of bytes under a key.
pub fn publish_key(repository: &str, bytes: impl AsRef<[u8]>, key: &str) -> Publish {
    Publish {
        content: Content::Key(key.into()),
        ..publish(repository, bytes)
    }
}

/// The same, in the place of bytes under another key that were found bad.
pub fn heal_key(repository: &str, bytes: impl AsRef<[u8]>, bad: &str, key: &str) -> Publish {
    Publish {
        instead_of: Some(Place::Key(bad.into())),
        ..publish_key(repository, bytes, key)
    }
}

/// Publishes inline bytes and gives their digest.
pub async fn push_blob(meta: &Meta, repository: &str, bytes: impl AsRef<[u8]>) -> Digest {
    let op = publish(repository, bytes);
    let digest = op.digest.clone();
    assert!(matches!(meta.write(op).await, Ok(Published::Done { .. })));
    digest
}

/// A push of a manifest without references; its bytes are any text.
pub fn put(repository: &str, bytes: impl AsRef<[u8]>, tags: &[&str]) -> Put {
    let bytes = bytes.as_ref();
    Put {
        repository: repo(repository),
        digest: digest(bytes),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: bytes.to_vec(),
        edges: Vec::new(),
        pinned: 0,
        check_sizes: true,
        subject: None,
        artifact_type: None,
        referrer_json: None,
        tags: tags.iter().map(|name| tag(name)).collect(),
        fixed: Vec::new(),
        unmade: Vec::new(),
        expect: Expect::Any,
        actor: "alice".into(),
        at: NOW,
    }
}

/// A reference that must exist.
pub fn edge(kind: EdgeKind, target: &Digest, size: u64) -> EdgeRow {
    EdgeRow {
        kind,
        target: target.clone(),
        size,
        must_exist: true,
        any_store: false,
    }
}

/// Pushes a manifest and gives its digest.
pub async fn push(meta: &Meta, op: Put) -> Digest {
    let digest = op.digest.clone();
    let outcome = meta.write(op).await;
    assert!(
        matches!(outcome, Ok(PutOutcome::Stored { .. })),
        "{outcome:?}"
    );
    digest
}

/// The kinds of all events so far.
pub async fn events(meta: &Meta) -> Vec<String> {
    let rows = meta
        .scan(event::List {
            after: 0,
            limit: 10_000,
        })
        .await
        .expect("events");
    rows.into_iter().map(|row| row.kind).collect()
}

/// Generates a module of tests, one for each test of the suite: `meta_suite!(sqlite, make)`, where `make` is a function
/// that gives a [`Store`].
#[macro_export]
macro_rules! meta_suite {
    ($name:ident, $make:path) => {
        $crate::meta_suite! { @module $name, $make,
            upload: [create_is_idempotent, claims_compare_and_swap, inline_chunks_and_move_to_file,
                take_over_fences, many_chunks_are_joined, expired_are_listed, delete_forgets],
            multipart: [claims_of_parts, a_publish_needs_its_parts, nothing_is_left_behind],
            blob: [inline_and_key, visible_only_through_links, publish_ends_the_upload,
                the_first_of_two_publishes_stays, a_late_repetition_brings_nothing_back, publish_replaces_what_is_bad,
                existing_needs_a_row, condemned_is_healed_by_a_push, mount_and_holders, unlink_respects_manifests,
                listed_for_backup, garbage_is_kept_until_collected],
            manifest: [get_by_tag_and_digest, missing_and_sizes, children_and_blobs, expectations,
                delete_and_revive, delete_with_many_tags, large_index_in_parts, pins_hold_and_expire,
                limits_are_refused, outcomes_leave_nothing, media_type_follows_the_last_push],
            tag: [pages, between, versions_survive_deletion, history, several_tags_at_once, who_may_make_and_not_move,
                one_publisher_makes_a_tag, standing],
            referrer: [pages_and_filters, gone_with_their_manifest],
            repository: [pages_within_prefixes, totals],
            session: [they_begin_and_end, they_go_with_their_user_and_in_time, one_asks_about_each, so_many_at_once, a_provider_ends_what_it_names,
                one_is_refused],
            terminal: [each_is_decided_once_and_fetched_once, so_many_wait, a_token_is_spent_by_use, two_rotate_at_once,
                they_end_with_sessions_and_users, a_session_stays_for_terminals_of_its_account],
            small: [replicas, holds, marks, principals, signing_keys, refresh_tokens, settings, events_are_in_order,
                consumers_see_every_event],
            credential: [local_users, a_change_is_meant_for_one_version, api_tokens, refresh_tokens, robots, uses, ends],
            invitation: [each_is_good_once_and_for_a_time, two_accept_at_once],
            access: [a_robot_looks_after_its_home_alone, bindings_are_kept, stale_decisions_are_refused, groups_and_roles, namespaces,
                the_last_owner_stays, the_last_administrator_stays, who_is_locked_out_does_not_count,
                two_who_remove_each_other, bindings_that_ended_are_forgotten,
                an_owner_and_a_member_leave_at_once, large_groups_go_in_steps],
            access_change: [each_change_says_what_it_was_about, the_list_of_changes_is_bounded,
                whoever_takes_the_named_parts_has_all],
            account: [groups_are_kept_as_told, a_name_gives_nothing, accounts_go_with_their_user],
            standing: [negative_answers_add_up, accounts_are_due_by_age],
            audit: [places_are_given_once, of_many_one_appends, the_oldest_are_cut_off, pages_by_time,
                origins_travel_with_operations],
            pairs: [serially],
            concurrent: [one_tag, one_blob, unlink_against_put, mount_against_unlink, tags_against_delete,
                claims_of_one_upload],
            collect: [births, deaths, undelete, large, broken_push, fading, races, last_references],
            job: [leases, order, begins, ends],
            workload: [issuers_and_rules_are_kept, a_change_is_meant_for_one_version_of_them,
                a_rule_takes_what_it_had_along, rules_keep_no_namespace],
            usage: [sums_are_what_a_walk_finds, many_at_once, counting_again, corrections],
        }
    };
    (@module $name:ident, $make:path, $($noun:ident: [$($test:ident),* $(,)?],)*) => {
        mod $name {
            use super::*;
            $(mod $noun {
                use super::*;
                $(#[test]
                fn $test() {
                    $crate::suite::run($make, $crate::suite::$noun::$test);
                })*
            })*
        }
    };
}

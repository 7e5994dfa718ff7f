//! Databases of old versions, frozen as SQL text: this binary opens them, brings them up to date and reads them.
//!
//! A new schema adds a file: `WHARF_META_FREEZE=1 cargo test -p wharf-meta --test sqlite fixture`. A file of a released
//! schema never changes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use wharf_meta::access::{self, binding::Binding};
use wharf_meta::credential::{self, CredentialRow};
use wharf_meta::manifest::{Delete, Get, Put, Ref};
use wharf_meta::suite::{
    NOW, digest, edge, events, publish, publish_key, push, push_blob, put, repo, tag,
};
use wharf_meta::{
    Meta, Opened, SCHEMA, SqliteOptions, blob, invitation, principal, referrer, refresh_token,
    repository, setting, signing_key, tag as tags, upload, usage,
};
use wharf_oci::EdgeKind;

use crate::{check, open, runtime};

fn path(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema:04}.sql"))
}

#[test]
fn every_old_schema_opens() {
    if std::env::var_os("WHARF_META_FREEZE").is_some() {
        freeze();
    }
    for schema in 1..=SCHEMA {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("meta.db");
        let sql = std::fs::read_to_string(path(schema))
            .unwrap_or_else(|e| panic!("schema {schema} is not frozen: {e}"));
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch(&sql).unwrap();
        drop(connection);
        let (meta, opened) = Meta::open(SqliteOptions::new(&database)).unwrap();
        let migrated_from = (schema < SCHEMA).then_some(schema);
        assert_eq!(
            opened,
            Opened {
                fresh: false,
                migrated_from
            }
        );
        runtime().block_on(async {
            read(&meta).await;
            count(&meta).await;
            rights(&meta, schema).await;
            push(&meta, put("team/app", "a new manifest", &["v1"])).await;
            meta.close().await;
        });
        check(folder.path());
    }
}

/// What an older version wrote comes into the sums, as the recount does it.
async fn count(meta: &Meta) {
    let limit = 100;
    let links = meta.scan(usage::Links { after: None, limit }).await;
    let (links, mut bytes) = (links.unwrap(), 0);
    bytes += links.iter().map(usage::Link::bytes).sum::<u64>();
    let links = links.into_iter().map(|link| (link.repository, link.digest));
    let links = links.collect();
    meta.write(usage::CountLinks { links }).await.unwrap();
    let manifests = meta.scan(usage::Manifests { after: None, limit }).await;
    let manifests = manifests.unwrap();
    bytes += manifests.iter().map(|row| row.bytes).sum::<u64>();
    let manifests = manifests.iter().map(|row| row.id).collect();
    let count = usage::CountManifests { manifests };
    meta.write(count).await.unwrap();
    let limit = usage::MAX_FOLD;
    assert!(meta.write(usage::Fold { limit }).await.unwrap() < limit);
    let sizes = usage::Sizes { after: None, limit };
    let sizes = meta.scan(sizes).await.unwrap();
    assert_eq!((sizes.len(), sizes[0].usage.logical), (1, bytes));
    assert!(bytes > 30, "config, layer and three manifests: {bytes}");
}

/// Rights come with schema 8, and nobody has any by rows before.
async fn rights(meta: &Meta, schema: u32) {
    let epoch = meta.read(access::Epoch).await.unwrap();
    let (after, limit) = (None, 9);
    let rows = meta.scan(access::binding::List { after, limit }).await;
    let rows = rows.unwrap();
    if schema < 8 {
        assert!(epoch == 0 && rows.is_empty());
        return;
    }
    assert_eq!((epoch, rows.len()), (2, 1));
    assert_eq!(rows[0].binding.name, "alice");
}

/// One of everything.
async fn fill(meta: &Meta) {
    let config = push_blob(meta, "team/app", "config").await;
    meta.write(publish_key("team/app", "layer", "blobs/sha256/ab/key.2"))
        .await
        .unwrap();
    meta.write(publish_key("team/app", "layer", "blobs/sha256/ab/key.1"))
        .await
        .unwrap();
    let edges = vec![
        edge(EdgeKind::Config, &config, 6),
        edge(EdgeKind::Layer, &digest("layer"), 5),
    ];
    let image = push(
        meta,
        Put {
            edges,
            ..put("team/app", "manifest 1", &["v1", "latest"])
        },
    )
    .await;
    push(meta, put("team/app", "manifest 2", &["latest"])).await;
    let referrer = Put {
        subject: Some(image),
        artifact_type: Some("application/x-signature".into()),
        referrer_json: Some("{}".into()),
        ..put("team/app", "signature", &[])
    };
    push(meta, referrer).await;
    let gone = push(meta, put("team/app", "manifest 3", &["gone"])).await;
    let delete = Delete {
        repository: repo("team/app"),
        digest: gone,
        actor: "alice".into(),
        at: NOW,
    };
    meta.write(delete).await.unwrap();
    let (id, owner) = ("session".to_owned(), "alice".to_owned());
    let create = upload::Create {
        id: id.clone(),
        repository: repo("team/app"),
        owner,
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    let append = Some(b"half".to_vec());
    let claim = upload::Claim {
        id,
        epoch: 0,
        from: 0,
        to: 4,
        hash: vec![1, 2],
        append,
        in_file: false,
        at: NOW,
    };
    assert!(meta.write(claim).await.unwrap());
    let (name, kind, secret_hash) = (
        "admin".to_owned(),
        "user".to_owned(),
        Some("hash".to_owned()),
    );
    meta.write(principal::Create {
        name,
        kind,
        secret_hash,
        at: NOW,
    })
    .await
    .unwrap();
    let (kid, algorithm, private_der) = ("kid".to_owned(), "ES256".to_owned(), vec![9; 4]);
    meta.write(signing_key::Add {
        kid,
        algorithm,
        private_der,
        at: NOW,
    })
    .await
    .unwrap();
    let (subject, credential) = ("alice".to_owned(), "password".to_owned());
    meta.write(refresh_token::Create {
        hash: vec![3; 4],
        subject,
        credential,
        created_at: NOW,
    })
    .await
    .unwrap();
    let by = || access::By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    };
    let (path, visibility) = ("team".to_owned(), "internal".to_owned());
    let namespace = access::namespace::Put {
        path: path.clone(),
        visibility,
        by: by(),
    };
    meta.write(namespace).await.unwrap();
    let binding = Binding {
        namespace: path,
        kind: "user".into(),
        name: "alice".into(),
        role: "owner".into(),
        ..Binding::default()
    };
    let custom_role = false;
    let put = access::binding::Put {
        binding,
        custom_role,
        by: by(),
    };
    meta.write(put).await.unwrap();
    meta.write(credential::CreateRobot {
        secret: CredentialRow {
            id: "credential".into(),
            kind: "robot".into(),
            principal: "team+ci".into(),
            source: "robot".into(),
            name: "1".into(),
            hash: vec![5; 4],
            scopes: Some("pull:team".into()),
            expires_at: Some(NOW + 1),
            created_at: NOW,
            created_by: "root".into(),
        },
        expires_at: NOW + 2,
        networks: "10.0.0.0/8".into(),
    })
    .await
    .unwrap();
    let (id, address) = ("credential".to_owned(), "10.0.0.1".to_owned());
    meta.write(credential::Use {
        id,
        at: NOW,
        address,
    })
    .await
    .unwrap();
    meta.write(invitation::Put {
        row: invitation::InvitationRow {
            name: "carol".into(),
            id: "invitation".into(),
            hash: vec![5; 4],
            expires_at: NOW + 3,
            created_at: NOW,
            created_by: "root".into(),
        },
    })
    .await
    .unwrap();
    meta.write(setting::Put {
        key: "k".into(),
        value: "it's \"v\"".into(),
    })
    .await
    .unwrap();
}

/// What [`fill`] wrote, as any later version must read it.
async fn read(meta: &Meta) {
    let get = |name: &str| Get {
        repository: repo("team/app"),
        reference: Ref::Tag(tag(name)),
        with_bytes: true,
    };
    for (name, bytes) in [("v1", "manifest 1"), ("latest", "manifest 2")] {
        let row = meta.read(get(name)).await.unwrap().unwrap();
        assert_eq!(
            (row.digest, row.bytes),
            (digest(bytes), Some(bytes.as_bytes().to_vec()))
        );
    }
    assert_eq!(meta.read(get("gone")).await.unwrap(), None);
    let find = |bytes: &str| blob::Find {
        repository: repo("team/app"),
        digest: digest(bytes),
        with_bytes: true,
    };
    let config = meta.read(find("config")).await.unwrap().unwrap();
    assert_eq!(config.place, blob::Place::Inline(Some(b"config".to_vec())));
    let layer = meta.read(find("layer")).await.unwrap().unwrap();
    assert_eq!(
        layer.place,
        blob::Place::Key("blobs/sha256/ab/key.2".into())
    );
    let garbage = meta
        .scan(blob::Garbage {
            after: None,
            limit: 9,
        })
        .await
        .unwrap();
    assert_eq!(garbage, ["blobs/sha256/ab/key.1"]);
    let list = referrer::List {
        repository: repo("team/app"),
        subject: digest("manifest 1"),
        artifact_types: vec!["application/x-signature".into()],
        after: None,
        limit: 9,
    };
    assert_eq!(meta.scan(list).await.unwrap().len(), 1);
    let history = tags::History {
        repository: repo("team/app"),
        tag: Some(tag("latest")),
        limit: 9,
    };
    assert_eq!(meta.scan(history).await.unwrap().len(), 2);
    let session = meta
        .read(upload::Get {
            id: "session".into(),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((session.offset, session.hash), (4, vec![1, 2]));
    assert_eq!(
        meta.read(upload::Chunks {
            id: "session".into()
        })
        .await
        .unwrap(),
        b"half"
    );
    let admin = meta
        .read(principal::Get {
            name: "admin".into(),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(admin.secret_hash.as_deref(), Some("hash"));
    assert_eq!(
        meta.read(signing_key::List).await.unwrap()[0].private_der,
        [9; 4]
    );
    let token = meta
        .read(refresh_token::Get { hash: vec![3; 4] })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(token.subject, "alice");
    let value = meta.read(setting::Get { key: "k".into() }).await.unwrap();
    assert_eq!(value.as_deref(), Some("it's \"v\""));
    let totals = meta.read(repository::GetTotals).await.unwrap();
    assert_eq!(
        (totals.manifests, totals.tags, totals.blobs, totals.uploads),
        (3, 2, 2, 1)
    );
    assert!(events(meta).await.len() >= 12);
    // An old row is as good as a new one.
    meta.write(publish("team/app", "config")).await.unwrap();
}

/// Writes the file of the present schema.
fn freeze() {
    let folder = tempfile::tempdir().unwrap();
    let meta = open(folder.path());
    runtime().block_on(async {
        fill(&meta).await;
        meta.close().await;
    });
    let connection = rusqlite::Connection::open(folder.path().join("meta.db")).unwrap();
    let mut out = String::from("-- Frozen: see tests/sqlite/fixture.rs.\n");
    // The first one makes the file, and vacuuming is chosen before that.
    for pragma in ["auto_vacuum", "application_id", "user_version"] {
        let value: i64 = connection
            .pragma_query_value(None, pragma, |row| row.get(0))
            .unwrap();
        writeln!(out, "PRAGMA {pragma} = {value};").unwrap();
    }
    out.push_str("PRAGMA journal_mode = WAL;\nBEGIN;\n");
    let mut statement = connection
        .prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid")
        .unwrap();
    let objects = statement
        .query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
            ))
        })
        .unwrap();
    for object in objects {
        let (kind, name, sql) = object.unwrap();
        writeln!(out, "{sql};").unwrap();
        if kind == "table" {
            rows(&connection, &name, &mut out);
        }
    }
    out.push_str("COMMIT;\n");
    std::fs::write(path(SCHEMA), out).unwrap();
}

fn rows(connection: &rusqlite::Connection, table: &str, out: &mut String) {
    let mut statement = connection
        .prepare(&format!("SELECT * FROM {table}"))
        .unwrap();
    let columns = statement.column_names().collect::<Vec<_>>().join(", ");
    let count = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> = (0..count)
            .map(|column| match row.get_ref(column).unwrap() {
                ValueRef::Null => "NULL".to_owned(),
                ValueRef::Integer(value) => value.to_string(),
                ValueRef::Text(text) => format!(
                    "'{}'",
                    std::str::from_utf8(text).unwrap().replace('\'', "''")
                ),
                ValueRef::Blob(bytes) => {
                    format!(
                        "x'{}'",
                        bytes
                            .iter()
                            .map(|byte| format!("{byte:02x}"))
                            .collect::<String>()
                    )
                }
                ValueRef::Real(_) => panic!("the schema has no REAL"),
            })
            .collect();
        writeln!(
            out,
            "INSERT INTO {table} ({columns}) VALUES ({});",
            values.join(", ")
        )
        .unwrap();
    }
}

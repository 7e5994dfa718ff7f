-- oldest: 1
-- PostgreSQL's dialect. The SQLite engine replaces BIGINT, BYTEA, COLLATE "C" and identity columns, and uncomments
-- what stands in /*sqlite … */ . Names sort bytewise everywhere, so that pages mean the same on every engine.

CREATE TABLE repository (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX repository_name ON repository (name);

-- Bytes known to this store. A digest is unique among live rows only: a row whose bytes were lost stays for the record
-- (state 0) while the next push makes a new one. key: the blob store's; NULL: the bytes are in blob_inline.
CREATE TABLE blob (
    id BYTEA NOT NULL PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    key TEXT,
    state BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX blob_live ON blob (digest) WHERE state = 1;

CREATE TABLE blob_inline (
    blob_id BYTEA NOT NULL PRIMARY KEY,
    bytes BYTEA NOT NULL
) /*sqlite STRICT */;

-- Which repository holds which blob. By digest and not by row, so that one push heals a lost blob for all of them. The
-- digest comes first since that one order serves both the link of a repository and the holders of a blob: an index more
-- is a page more in the log of every push, as digests are nowhere near each other.
CREATE TABLE repository_blob (
    repository_id BYTEA NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    linked_at BIGINT NOT NULL,
    PRIMARY KEY (digest, repository_id)
) /*sqlite STRICT, WITHOUT ROWID */;

-- Keys in the blob store that no row needs any more. Written in the transaction that made them so: a crash before the
-- file is removed leaves a row, not a leak.
CREATE TABLE garbage (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    since BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- state 0: its references come in parts and it is not yet there; 1: live; 2: deleted, kept so that a push revives it.
-- swept: whether the references of a deleted one have been marked.
CREATE TABLE manifest (
    id BYTEA NOT NULL PRIMARY KEY,
    repository_id BYTEA NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    size BIGINT NOT NULL,
    state BIGINT NOT NULL,
    swept BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX manifest_digest ON manifest (repository_id, digest);
CREATE INDEX manifest_unswept ON manifest (changed_at) WHERE state = 2 AND swept = 0;
CREATE INDEX manifest_pending ON manifest (changed_at) WHERE state = 0;

CREATE TABLE manifest_inline (
    manifest_id BYTEA NOT NULL PRIMARY KEY,
    bytes BYTEA NOT NULL
) /*sqlite STRICT */;

-- What a manifest refers to, by digest since the target may be absent. live 0: the manifest is deleted.
CREATE TABLE manifest_reference (
    manifest_id BYTEA NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    repository_id BYTEA NOT NULL,
    kind TEXT NOT NULL,
    size BIGINT NOT NULL,
    live BIGINT NOT NULL,
    PRIMARY KEY (manifest_id, target)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX manifest_reference_target ON manifest_reference (repository_id, target) WHERE live = 1;

CREATE TABLE tag (
    repository_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    manifest_id BYTEA NOT NULL,
    version BIGINT NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (repository_id, name)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX tag_manifest ON tag (manifest_id);

-- Every move of every tag; from_digest NULL: it was made, to_digest NULL: it was deleted. Versions go on after that.
CREATE TABLE tag_history (
    repository_id BYTEA NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    from_digest TEXT,
    to_digest TEXT,
    actor TEXT NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (repository_id, name, version)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX tag_history_recent ON tag_history (repository_id, moved_at);

-- Manifests that name a subject, with the descriptor as it is listed.
CREATE TABLE referrer (
    repository_id BYTEA NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    artifact_type TEXT COLLATE "C" NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (repository_id, subject, digest)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX referrer_type ON referrer (repository_id, subject, artifact_type, digest);

-- Sessions. bytes_held and hash_state belong together: they are durable before the row says so. epoch: the fencing
-- token of whoever writes now.
CREATE TABLE upload (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    owner TEXT NOT NULL,
    algorithm TEXT,
    bytes_held BIGINT NOT NULL,
    hash_state BYTEA NOT NULL,
    in_file BIGINT NOT NULL,
    chunks BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    touched_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX upload_touched ON upload (touched_at);

CREATE TABLE upload_chunk (
    upload_id TEXT COLLATE "C" NOT NULL,
    start BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (upload_id, start)
) /*sqlite STRICT */;

CREATE TABLE principal (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    secret_hash TEXT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

CREATE TABLE signing_key (
    kid TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    algorithm TEXT NOT NULL,
    private_der BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
) /*sqlite STRICT, WITHOUT ROWID */;

CREATE TABLE refresh_token (
    hash BYTEA NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    credential TEXT NOT NULL,
    created_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

CREATE TABLE setting (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- The outbox: facts, written in the transaction that made them true. Ids are never used twice.
CREATE TABLE event (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    repository TEXT,
    digest TEXT,
    tag TEXT,
    actor TEXT NOT NULL,
    payload TEXT NOT NULL
) /*sqlite STRICT */;

-- Totals, changed once per commit (SQLite) or folded from insert-only parts (PostgreSQL).
CREATE TABLE counter (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

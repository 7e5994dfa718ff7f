-- oldest: 1
-- Jobs, collection, undelete. Only new tables and columns with a constant, so that this takes no longer for a large store;
-- what older rows lack is found by the audit, a job.

-- candidate_since: since when nothing was known to need the link; NULL: something does, or did when it was last looked at.
-- hidden 1: a client took the blob out; the link stays for manifests that can be restored, and until collection.
ALTER TABLE repository_blob ADD COLUMN candidate_since BIGINT;
ALTER TABLE repository_blob ADD COLUMN hidden BIGINT NOT NULL DEFAULT 0;

-- The links with a candidate_since, in its order: in place of an index, which would have to pass over all links to be made.
-- A row whose since is not that of its link is out of date.
CREATE TABLE candidate (
    since BIGINT NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    repository_id BYTEA NOT NULL,
    PRIMARY KEY (since, digest, repository_id)
) /*sqlite STRICT, WITHOUT ROWID */;

-- Deleted manifests that can be restored. look_at: when to ask whether their time is over. purging 1: it is, and parts of it
-- may be gone.
CREATE TABLE restorable (
    manifest_id BYTEA NOT NULL PRIMARY KEY,
    repository_id BYTEA NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    deleted_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    look_at BIGINT NOT NULL,
    purging BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX restorable_look ON restorable (look_at, manifest_id);
CREATE INDEX restorable_repository ON restorable (repository_id, deleted_at);

-- What deleted manifests refer to, from their deletion to their end: it holds links as manifest_reference does with live 1,
-- and stands apart from that so that a look for what needs a blob passes over no deleted manifests.
CREATE TABLE kept_reference (
    repository_id BYTEA NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    manifest_id BYTEA NOT NULL,
    PRIMARY KEY (repository_id, target, manifest_id)
) /*sqlite STRICT, WITHOUT ROWID */;

-- Bytes that were found lost or wrong, until a push has brought them again.
CREATE TABLE quarantine (
    blob_id BYTEA NOT NULL PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    key TEXT,
    since BIGINT NOT NULL,
    cause TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX quarantine_digest ON quarantine (digest);

-- state 0: waits for run_at; 1: runs under a lease; 2: done; 3: dead, all attempts failed; 4: cancelled.
-- fence: grows with every lease, so that a worker whose lease ended can write nothing. every: a schedule, in milliseconds;
-- the row then waits again instead of being done.
CREATE TABLE job (
    id BYTEA NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    unique_key TEXT COLLATE "C",
    payload TEXT NOT NULL,
    state BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    run_at BIGINT NOT NULL,
    every BIGINT,
    attempts BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    lease_until BIGINT,
    worker TEXT,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX job_unique ON job (unique_key) WHERE state <= 1;
CREATE INDEX job_waiting ON job (kind, run_at) WHERE state = 0;
CREATE INDEX job_running ON job (kind, lease_until) WHERE state = 1;
CREATE INDEX job_over ON job (changed_at) WHERE state >= 2;

-- One row for each kind, to be locked by whoever takes a job of it.
CREATE TABLE job_kind (
    kind TEXT COLLATE "C" NOT NULL PRIMARY KEY
) /*sqlite STRICT, WITHOUT ROWID */;

-- What repositories take up, as the last audit counted it.
CREATE TABLE repository_usage (
    repository_id BYTEA NOT NULL PRIMARY KEY,
    logical BIGINT NOT NULL,
    own BIGINT NOT NULL,
    blobs BIGINT NOT NULL,
    counted_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- How far each consumer of events has come, in the order (transaction_id, id).
CREATE TABLE event_cursor (
    consumer TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seen_transaction BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    moved_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

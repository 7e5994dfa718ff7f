-- oldest: 1
-- The audit log. What happens is written as an event first, in the transaction that makes it so; one process at a time then gives
-- events their places here, without gaps, each with a hash over the one before.

-- Where an event came from: the id of the credential, the client's address, the request's id; '' is unknown or none.
ALTER TABLE event ADD COLUMN credential TEXT NOT NULL DEFAULT '';
ALTER TABLE event ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE event ADD COLUMN request TEXT NOT NULL DEFAULT '';

-- hash: over the hash before and all other columns but mac, which is made of the hash with a key that is not in the database.
CREATE TABLE audit_entry (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    action TEXT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    credential TEXT NOT NULL,
    address TEXT NOT NULL,
    request TEXT NOT NULL,
    repository TEXT COLLATE "C",
    digest TEXT,
    tag TEXT,
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL,
    mac BYTEA NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX audit_entry_at ON audit_entry (at, seq);
CREATE INDEX audit_entry_principal ON audit_entry (principal, at, seq);
CREATE INDEX audit_entry_repository ON audit_entry (repository, at, seq);

-- One row, id 1: the last entry, and the last one that was cut off at the old end; the mac is over all of it.
CREATE TABLE audit_head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    cut_seq BIGINT NOT NULL,
    cut_hash BYTEA NOT NULL,
    mac BYTEA NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

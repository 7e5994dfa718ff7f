-- oldest: 1
-- Uploads to an object store: what it cannot be asked for on the way of a request, and what it must be told when an upload
-- comes to nothing.

-- The multipart upload whose parts the claim counts; NULL: there is no part yet, or the bytes are in a file.
ALTER TABLE upload ADD COLUMN multipart TEXT;
ALTER TABLE upload ADD COLUMN parts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE upload ADD COLUMN part_bytes BIGINT NOT NULL DEFAULT 0;

-- Multipart uploads that were begun. state 0: under way; 1: given up, its parts and its object are to go; 2: its object is
-- a blob, or it is gone: only rows are left. No blob is made of one that is not under way.
CREATE TABLE multipart (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    upload_id TEXT COLLATE "C" NOT NULL,
    session TEXT NOT NULL,
    part_size BIGINT NOT NULL,
    state BIGINT NOT NULL,
    began_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX multipart_upload ON multipart (upload_id);
CREATE INDEX multipart_state ON multipart (state, began_at);

-- Parts that the store acknowledged and an upload claimed.
CREATE TABLE upload_part (
    key TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    size BIGINT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (key, number)
) /*sqlite STRICT, WITHOUT ROWID */;

-- Which blob has a key that does not name its digest: that of a multipart upload, chosen before the digest was known. For
-- whoever finds the object and asks whether a row wants it.
CREATE TABLE unnamed (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    digest TEXT COLLATE "C" NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

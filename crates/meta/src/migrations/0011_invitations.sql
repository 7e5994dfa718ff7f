-- oldest: 1
-- Links with which somebody chooses a password, once, and so becomes a local user. One for each name. hash: SHA-256 of what the
-- link says.
CREATE TABLE invitation (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX invitation_id ON invitation (id);
CREATE UNIQUE INDEX invitation_hash ON invitation (hash);
CREATE INDEX invitation_expiry ON invitation (expires_at);

-- So that grants which ended long ago are found.
CREATE INDEX access_binding_expiry ON access_binding (expires_at);

-- oldest: 1
-- Processes that serve from this store, as each says of itself. Nothing is decided by it.

CREATE TABLE replica (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    settings TEXT NOT NULL,
    load TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX replica_seen ON replica (seen_at);
CREATE INDEX replica_started ON replica (started_at, id);

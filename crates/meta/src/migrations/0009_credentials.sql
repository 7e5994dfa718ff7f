-- oldest: 1
-- Robots, API tokens, and local users that can be locked out without being forgotten.

-- disabled_at: it cannot sign in, and nothing that it was given is good; what it would sign in with lies in kept_hash then,
-- so that older versions do not let it in either. expires_at, networks: of a robot.
ALTER TABLE principal ADD COLUMN disabled_at BIGINT;
ALTER TABLE principal ADD COLUMN kept_hash TEXT;
ALTER TABLE principal ADD COLUMN expires_at BIGINT;
ALTER TABLE principal ADD COLUMN networks TEXT NOT NULL DEFAULT '';
ALTER TABLE principal ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
CREATE INDEX principal_kind ON principal (kind, name);

-- Secrets with so many random bits that one round of SHA-256 keeps them. kind: `token` of a user, `robot`. source: where
-- the principal is kept. scopes: what is left of the principal's rights; NULL: all.
CREATE TABLE credential (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    hash BYTEA NOT NULL,
    scopes TEXT,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX credential_hash ON credential (hash);
CREATE INDEX credential_principal ON credential (principal, created_at, id);
CREATE INDEX credential_expiry ON credential (expires_at);

-- When and from where each was used last, to the minute. Its own table: written beside pulls, and worth no sync.
CREATE TABLE credential_use (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    used_at BIGINT NOT NULL,
    address TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

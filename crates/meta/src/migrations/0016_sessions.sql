-- oldest: 1
-- Sessions of people in the browser. hash: SHA-256 of what the cookie says. source: where the user is kept. provider and subject: the
-- account that was signed in with; '' is a password, and then credential names it. refresh: with what the provider is asked whether the
-- account is still there, sealed. check_at: when it is asked next; NULL: never.
CREATE TABLE session (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    source TEXT NOT NULL,
    credential TEXT NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    refresh BYTEA,
    check_at BIGINT
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX session_hash ON session (hash);
CREATE UNIQUE INDEX session_principal ON session (principal, created_at, id);
CREATE UNIQUE INDEX session_account ON session (provider, subject, id);
CREATE INDEX session_expiry ON session (expires_at);
CREATE INDEX session_check ON session (check_at);

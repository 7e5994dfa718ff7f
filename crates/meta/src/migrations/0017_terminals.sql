-- oldest: 1
-- Terminals: programs on people's machines that sign in by the device flow (RFC 8628).

-- Who waits for somebody to say yes. hash and user_code: SHA-256 of what the program polls with, and a keyed hash of what a person
-- types. state: 0 waits, 1 approved, 2 denied, 3 spent. device and address: what the program says it is, and where from. wait: how long
-- to wait between two polls, in ms. principal to subject: as in a session, of whoever decided; '' before. lasts_until: when what is made of it
-- ends at the latest; NULL: as configured. terminal: what was made of it.
CREATE TABLE device_grant (
    hash BYTEA NOT NULL PRIMARY KEY,
    user_code BYTEA NOT NULL,
    state BIGINT NOT NULL,
    device TEXT NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    wait BIGINT NOT NULL,
    polled_at BIGINT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    source TEXT NOT NULL,
    credential TEXT NOT NULL,
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    lasts_until BIGINT,
    terminal TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX device_grant_user_code ON device_grant (user_code);
CREATE INDEX device_grant_address ON device_grant (address, state, expires_at);
CREATE INDEX device_grant_state ON device_grant (state, expires_at);
CREATE INDEX device_grant_expiry ON device_grant (expires_at);
CREATE INDEX device_grant_principal ON device_grant (principal);

-- family: SHA-256 of the part that all refresh tokens of one terminal share. hash and previous: SHA-256 of the one that is good, and of
-- the one before it. rotated_at: when that one was spent. generation: counts them. expires_at: when it ends unless it is used before.
-- ends_at: when it ends anyway. The others as in a session.
CREATE TABLE terminal (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    principal TEXT COLLATE "C" NOT NULL,
    source TEXT NOT NULL,
    credential TEXT NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    device TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    family BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    previous BYTEA,
    rotated_at BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX terminal_family ON terminal (family);
CREATE UNIQUE INDEX terminal_principal ON terminal (principal, created_at, id);
CREATE INDEX terminal_expiry ON terminal (expires_at);

-- kept: 1 when the session is over in the browser, and its row stays since its provider is asked for the account of terminals.
ALTER TABLE session ADD COLUMN kept BIGINT NOT NULL DEFAULT 0;

-- oldest: 1
-- Providers end sessions (OpenID Connect Back-Channel Logout 1.0). sid: what the provider calls its own session, of which ours is; ''
-- where it says nothing.
ALTER TABLE session ADD COLUMN sid TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE UNIQUE INDEX session_sid ON session (provider, sid, id);

-- Words to end sessions that were heard once, and count no second time. expires_at: when they would be too old anyway.
CREATE TABLE logout_token (
    provider TEXT COLLATE "C" NOT NULL,
    jti TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (provider, jti)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX logout_token_expiry ON logout_token (expires_at);

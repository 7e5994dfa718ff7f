-- oldest: 1
-- What a directory says of an account when it is asked beside sign-ins.

-- checked_at: when it was asked last. misses: negative answers in a row. missing: 1 while these are not enough to count.
-- gone_at: since when they count; whatever was bought with the account is no good then.
ALTER TABLE account ADD COLUMN checked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN misses BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN gone_at BIGINT;
CREATE UNIQUE INDEX account_check ON account (provider, missing, checked_at, subject);

-- oldest: 1
-- Accounts of people elsewhere: who signs in with one is the user that it belongs to. Never found by a name or an address.

-- provider: the name of its section in the configuration. issuer: who vouched for it when it came here; '' where a provider has only
-- itself. principal: the user. created_by: who linked it; '' is whoever signed in with it first. seen_at: to the hour.
CREATE TABLE account (
    provider TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    issuer TEXT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (provider, subject)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX account_principal ON account (principal, provider, subject);

-- The groups in which an account is, as its provider told last.
CREATE TABLE account_group (
    provider TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (provider, subject, name)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX account_group_name ON account_group (provider, name, subject);

-- Whoever's account is in this group of a provider is in that group here.
CREATE TABLE group_source (
    group_name TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    added_at BIGINT NOT NULL,
    added_by TEXT NOT NULL,
    PRIMARY KEY (group_name, provider, name)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE UNIQUE INDEX group_source_name ON group_source (provider, name, group_name);

-- oldest: 1
-- Who signs tokens that machines sign in with. settings: JSON that core writes. secret: what its keys are fetched with, sealed; NULL:
-- nothing is needed. version: counts the changes of the row.
CREATE TABLE workload_issuer (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    settings TEXT NOT NULL,
    secret BYTEA,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- What is asked of an issuer's tokens. Bindings and groups name a rule as kind 'workload'. conditions: JSON that core writes.
CREATE TABLE workload_rule (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    issuer TEXT COLLATE "C" NOT NULL,
    conditions TEXT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX workload_rule_issuer ON workload_rule (issuer);

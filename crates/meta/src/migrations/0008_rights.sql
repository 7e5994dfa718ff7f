-- oldest: 1
-- Who may do what. Rights only ever add up, so a binary that does not know these tables gives fewer of them, never more.

-- The setting `access.epoch` is counted up by every change of these tables, and locked by whoever is about to make one:
-- replicas look at it to hear of changes, and no two changes are decided on beside each other.

-- Prefixes of repository names that have settings. visibility: private, internal or public.
CREATE TABLE namespace (
    path TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    visibility TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

CREATE TABLE access_group (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- kind: user or robot.
CREATE TABLE group_member (
    group_name TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    added_at BIGINT NOT NULL,
    added_by TEXT NOT NULL,
    PRIMARY KEY (group_name, kind, name)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX group_member_of ON group_member (kind, name);

-- Roles beside those that every binary knows. permissions: words separated by commas.
CREATE TABLE access_role (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    permissions TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
) /*sqlite STRICT, WITHOUT ROWID */;

-- namespace: '' is everywhere. kind: user, robot, group, anonymous or signed-in; name is '' for the last two. The conditions
-- are part of what a binding is, so that none takes the place of one without; '' and expires_at 0 are none.
CREATE TABLE access_binding (
    namespace TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    networks TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    sign_in TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (namespace, kind, name, role, networks, tags, sign_in, expires_at)
) /*sqlite STRICT, WITHOUT ROWID */;
CREATE INDEX access_binding_of ON access_binding (kind, name, role, namespace);
CREATE INDEX access_binding_role ON access_binding (role, namespace, kind, name);

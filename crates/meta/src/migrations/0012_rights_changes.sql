-- oldest: 1
-- What the last changes of rights were about. epoch: the one that the change made. part: role, subject, member, visibility,
-- namespace, bindings or all; place, kind and name say which one, '' where it has none.
CREATE TABLE access_change (
    epoch BIGINT NOT NULL,
    part TEXT COLLATE "C" NOT NULL,
    place TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (epoch, part, place, kind, name)
) /*sqlite STRICT, WITHOUT ROWID */;

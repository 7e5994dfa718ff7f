-- oldest: 1
-- Jobs at a time of day. A schedule with a phase runs when the time, modulo every, is the phase; NULL: a period after it ended.
ALTER TABLE job ADD COLUMN phase BIGINT;

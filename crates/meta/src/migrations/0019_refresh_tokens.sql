-- oldest: 1
-- What one principal has, oldest first: beyond a bound the oldest goes, and all with their principal.
CREATE INDEX refresh_token_subject ON refresh_token (subject, created_at);

-- The key leads, so that keys that grow with time (the engine's own do) are all written where the
-- index ends, and not at the end of each practice's part of it: see docs/decisions/0009. PostgreSQL
-- finds keys in a registry instead.
DROP INDEX credit_call_key;

CREATE UNIQUE INDEX credit_call_key ON credit_call (key, practice_no, operation);

-- The Cycles protocol. A lease is a call with an overage policy; its money is in credit_call, here is
-- what its client said of it and which keys its steps had.

-- A lease used more than there was and nobody has given credit since.
ALTER TABLE credit_practice ADD COLUMN over_limit INTEGER NOT NULL DEFAULT 0;

-- The part of a call's cost that its overage policy left to the operator.
ALTER TABLE credit_call ADD COLUMN uncovered_nano_usd INTEGER NOT NULL DEFAULT 0
    CHECK (uncovered_nano_usd >= 0);

-- The client's own words: may be erased, nothing decides by them.
CREATE TABLE credit_cycles_call (
    practice_no INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    key TEXT NOT NULL,
    tenant TEXT NOT NULL,
    workspace TEXT NOT NULL,
    app TEXT NOT NULL,
    workflow TEXT NOT NULL,
    agent TEXT NOT NULL,
    toolset TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Canonical JSON of what is optional: dimensions, tags, metadata, metrics.
    rest TEXT NOT NULL,
    PRIMARY KEY (practice_no, call_no)
) WITHOUT ROWID;

-- One row per accepted commit, release, extension, dry run and decision: its key repeats its answer.
-- Kinds: 1 dry run, 2 commit, 3 release, 4 extension, 5 decision.
CREATE TABLE credit_cycles_step (
    practice_no INTEGER NOT NULL,
    kind INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 5),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_hash INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    number INTEGER NOT NULL,
    told TEXT NOT NULL,
    PRIMARY KEY (practice_no, kind, key)
) WITHOUT ROWID;

-- How a lease ended: at most one commit or release each.
CREATE UNIQUE INDEX credit_cycles_step_end ON credit_cycles_step (practice_no, call_no)
    WHERE kind IN (2, 3);

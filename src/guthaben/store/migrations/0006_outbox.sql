-- Telling people, and background work. What is told is written in the transaction of the change it
-- tells of; who gets it and how is worked out afterwards. Practice number 0 stands for the operator.

CREATE TABLE credit_notice (
    practice_no INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),
    -- What the notice is about, so that one thing is told once: a top-up's number, a period's start.
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    -- The same for ever and in every repetition, so that a receiver can tell one from two.
    notice_id TEXT NOT NULL UNIQUE,
    -- A flat JSON object of integers and short codes; no addresses, no secrets.
    facts TEXT NOT NULL,
    told_at_s INTEGER NOT NULL,
    spread_at_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (practice_no, kind, key)
) WITHOUT ROWID;

CREATE INDEX credit_notice_new ON credit_notice (told_at_s) WHERE spread_at_s = 0;
CREATE INDEX credit_notice_time ON credit_notice (practice_no, told_at_s);

-- One row for each address and endpoint that a notice goes to.
CREATE TABLE credit_delivery (
    practice_no INTEGER NOT NULL,
    notice_id TEXT NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('email', 'webhook')),
    target_id TEXT NOT NULL,
    -- Whose address or endpoint it is: the practice's, or 0 for the operator's.
    owner_no INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('waiting', 'delivered', 'dropped', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at_s INTEGER NOT NULL,
    -- Who is sending it now, and until when nobody else may.
    lease TEXT NOT NULL DEFAULT '',
    lease_until_s INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    created_at_s INTEGER NOT NULL,
    done_at_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (practice_no, notice_id, channel, target_id)
) WITHOUT ROWID;

CREATE INDEX credit_delivery_todo ON credit_delivery (next_try_at_s) WHERE status = 'waiting';
CREATE INDEX credit_delivery_dead ON credit_delivery (created_at_s) WHERE status = 'dead';
CREATE INDEX credit_delivery_target ON credit_delivery (target_id) WHERE status = 'waiting';

-- E-mail addresses: may be erased, with everything that names them.
CREATE TABLE credit_contact (
    practice_no INTEGER NOT NULL,
    contact_id TEXT NOT NULL,
    address TEXT NOT NULL,
    language TEXT NOT NULL CHECK (language IN ('de', 'fr', 'it', 'en')),
    created_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, contact_id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX credit_contact_address ON credit_contact (practice_no, address);

-- What a contact does not want to hear of; '*' stands for all that is not contractual.
CREATE TABLE credit_unsubscribed (
    practice_no INTEGER NOT NULL,
    contact_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, contact_id, kind)
) WITHOUT ROWID;

-- Where signed webhooks go.
CREATE TABLE credit_endpoint (
    practice_no INTEGER NOT NULL,
    endpoint_id TEXT NOT NULL,
    url TEXT NOT NULL,
    -- Kinds, separated by spaces; '*' for all.
    kinds TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    disabled_at_s INTEGER NOT NULL DEFAULT 0,
    disabled_reason TEXT NOT NULL DEFAULT '',
    -- Since when nothing has arrived, 0 while it answers.
    failing_since_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (practice_no, endpoint_id)
) WITHOUT ROWID;

CREATE TABLE credit_endpoint_secret (
    practice_no INTEGER NOT NULL,
    endpoint_id TEXT NOT NULL,
    secret_no INTEGER NOT NULL,
    secret TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    expires_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, endpoint_id, secret_no)
) WITHOUT ROWID;

-- How low a practice's credit was told to be, in per cent, so that each crossing is told once.
CREATE TABLE credit_low_watch (
    practice_no INTEGER PRIMARY KEY,
    level INTEGER NOT NULL,
    basis TEXT NOT NULL,
    crossings INTEGER NOT NULL
);

-- Who does the background work of this database, until when, and as the how-manieth.
CREATE TABLE credit_lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    place TEXT NOT NULL,
    fence INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- How each background job is doing.
CREATE TABLE credit_job (
    name TEXT PRIMARY KEY,
    fence INTEGER NOT NULL,
    every_s INTEGER NOT NULL,
    next_due_ms INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    succeeded_at_ms INTEGER NOT NULL,
    lag_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('never', 'running', 'ok', 'failed')),
    error TEXT NOT NULL,
    failures_in_a_row INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    failures INTEGER NOT NULL
) WITHOUT ROWID;

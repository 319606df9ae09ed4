-- Calls that are over for long leave for files. What remains here of each is what its key, its
-- transfers and its total still need; nothing of a practice's balance ever was in a call's row.

-- One row per file. States: 1 is being written, 2 is written and its rows are leaving, 3 done.
CREATE TABLE credit_archive (
    archive_no INTEGER PRIMARY KEY,
    -- The month (UTC) in which its calls began: 2025-01.
    month TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
    began_at_s INTEGER NOT NULL,
    done_at_s INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
    reserved_nano_usd INTEGER NOT NULL DEFAULT 0,
    cost_nano_usd INTEGER NOT NULL DEFAULT 0,
    file_bytes INTEGER NOT NULL DEFAULT 0,
    -- Of the file, in hexadecimal; empty while it is being written.
    sha256 TEXT NOT NULL DEFAULT ''
);

CREATE TABLE credit_archived_call (
    practice_no INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    body_hash INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    ended_at_s INTEGER NOT NULL,
    reserved_nano_usd INTEGER NOT NULL CHECK (reserved_nano_usd >= 0),
    cost_nano_usd INTEGER NOT NULL CHECK (cost_nano_usd >= 0),
    first_seq INTEGER NOT NULL,
    archive_no INTEGER NOT NULL,
    operation INTEGER NOT NULL CHECK (operation IN (1, 2)),
    status INTEGER NOT NULL CHECK (status IN (2, 3, 5)),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    PRIMARY KEY (practice_no, call_no)
) WITHOUT ROWID;

CREATE UNIQUE INDEX credit_archived_call_key ON credit_archived_call (practice_no, operation, key);

CREATE TRIGGER credit_archived_call_no_replace BEFORE INSERT ON credit_archived_call
WHEN EXISTS (
    SELECT 1 FROM credit_archived_call
    WHERE practice_no = NEW.practice_no
    AND (call_no = NEW.call_no OR operation = NEW.operation AND key = NEW.key)
)
BEGIN
    SELECT RAISE(ABORT, 'archived calls and their keys are kept for ever: this one is taken');
END;

CREATE TRIGGER credit_archived_call_no_update BEFORE UPDATE ON credit_archived_call
BEGIN
    SELECT RAISE(ABORT, 'archived calls and their keys are kept for ever');
END;

CREATE TRIGGER credit_archived_call_no_delete BEFORE DELETE ON credit_archived_call
BEGIN
    SELECT RAISE(ABORT, 'archived calls and their keys are kept for ever');
END;

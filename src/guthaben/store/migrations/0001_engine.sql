-- The engine's tables. Every table leads with the practice, so that any of them can be spread by it.
-- Amounts are integers in nano-USD, prices in minor units of their currency, instants in s or ms as
-- their names say. "Never" is 4611686018427387904 (2^62). Enumerations are listed in guthaben.domain.

CREATE TABLE credit_meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE credit_practice (
    practice_no INTEGER PRIMARY KEY,
    practice_id TEXT NOT NULL UNIQUE CHECK (length(practice_id) BETWEEN 1 AND 200),
    head BLOB NOT NULL CHECK (length(head) = 32),
    last_seq INTEGER NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    held_nano_usd INTEGER NOT NULL DEFAULT 0 CHECK (held_nano_usd >= 0),
    debt_nano_usd INTEGER NOT NULL DEFAULT 0 CHECK (debt_nano_usd >= 0),
    next_grant_no INTEGER NOT NULL DEFAULT 1,
    next_call_no INTEGER NOT NULL DEFAULT 1,
    next_event_no INTEGER NOT NULL DEFAULT 1,
    next_due_ms INTEGER NOT NULL DEFAULT 4611686018427387904,
    status INTEGER NOT NULL DEFAULT 1 CHECK (status IN (1, 2, 3)),
    mode INTEGER NOT NULL DEFAULT 1 CHECK (mode IN (1, 2)),
    overrun INTEGER NOT NULL DEFAULT 1 CHECK (overrun IN (1, 2)),
    debt_blocks_allowance INTEGER NOT NULL DEFAULT 0,
    overdraft_limit_nano_usd INTEGER NOT NULL DEFAULT 0 CHECK (overdraft_limit_nano_usd >= 0),
    time_zone TEXT NOT NULL DEFAULT 'Europe/Zurich',
    license TEXT NOT NULL DEFAULT '',
    license_active INTEGER NOT NULL DEFAULT 0,
    period_start_s INTEGER NOT NULL DEFAULT 0,
    period_end_s INTEGER NOT NULL DEFAULT 0,
    allowance_nano_usd INTEGER NOT NULL DEFAULT 0 CHECK (allowance_nano_usd >= 0),
    auto_topup_armed INTEGER NOT NULL DEFAULT 0,
    auto_topup_next_s INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE credit_grant (
    practice_no INTEGER NOT NULL,
    grant_no INTEGER NOT NULL,
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    free_nano_usd INTEGER NOT NULL CHECK (free_nano_usd >= 0),
    held_nano_usd INTEGER NOT NULL CHECK (held_nano_usd >= 0),
    granted_nano_usd INTEGER NOT NULL CHECK (granted_nano_usd > 0),
    expires_at_s INTEGER NOT NULL,
    license TEXT NOT NULL,
    period_start_s INTEGER NOT NULL,
    period_end_s INTEGER NOT NULL,
    provisional INTEGER NOT NULL,
    period_used_nano_usd INTEGER NOT NULL CHECK (period_used_nano_usd >= 0),
    event_no INTEGER NOT NULL,
    created_at_s INTEGER NOT NULL,
    -- Promotional or paid and not used up: what a practice is loaded with. A column of its own, so
    -- that using a part of a grant need not touch the index.
    is_open INTEGER NOT NULL CHECK (is_open IN (0, 1)
        AND (is_open = 1) = (kind <> 1 AND free_nano_usd + held_nano_usd > 0)),
    PRIMARY KEY (practice_no, grant_no)
) WITHOUT ROWID;

CREATE INDEX credit_grant_open ON credit_grant (practice_no) WHERE is_open = 1;

-- Never a second allowance for one period.
CREATE UNIQUE INDEX credit_grant_allowance ON credit_grant (practice_no, license, period_start_s)
    WHERE kind = 1;

-- One row per call for ever: the hold while it is open, the usage event afterwards.
CREATE TABLE credit_call (
    practice_no INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    operation INTEGER NOT NULL CHECK (operation IN (1, 2)),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_hash INTEGER NOT NULL,
    status INTEGER NOT NULL CHECK (status BETWEEN 1 AND 5),
    ended_by INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    reserved_nano_usd INTEGER NOT NULL CHECK (reserved_nano_usd >= 0),
    cost_nano_usd INTEGER NOT NULL CHECK (cost_nano_usd >= 0),
    license TEXT NOT NULL,
    period_start_s INTEGER NOT NULL,
    slices TEXT NOT NULL,
    on_expiry INTEGER NOT NULL,
    on_exception INTEGER NOT NULL,
    grace_ms INTEGER NOT NULL,
    overage_policy INTEGER NOT NULL,
    ended_at_s INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    model TEXT,
    operation_type TEXT,
    input_tokens INTEGER NOT NULL CHECK (input_tokens >= 0),
    output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
    total_tokens INTEGER NOT NULL CHECK (total_tokens >= 0),
    audio_us INTEGER NOT NULL CHECK (audio_us >= 0),
    price_version TEXT,
    user_id TEXT,
    device_id TEXT,
    api_key_id TEXT,
    reference TEXT,
    tags TEXT,
    legacy_id INTEGER,
    PRIMARY KEY (practice_no, call_no)
) WITHOUT ROWID;

CREATE UNIQUE INDEX credit_call_key ON credit_call (practice_no, operation, key);

CREATE INDEX credit_call_due ON credit_call (practice_no, (expires_at_ms + grace_ms))
    WHERE status = 1;

CREATE TABLE credit_transfer (
    practice_no INTEGER NOT NULL,
    seq INTEGER NOT NULL CHECK (seq > 0),
    source INTEGER NOT NULL,
    target INTEGER NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd > 0),
    grant_no INTEGER NOT NULL,
    call_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    code INTEGER NOT NULL,
    reverses_seq INTEGER NOT NULL,
    at_s INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (practice_no, seq),
    CHECK (source <> target)
) WITHOUT ROWID;

CREATE TRIGGER credit_transfer_no_update BEFORE UPDATE ON credit_transfer
BEGIN
    SELECT RAISE(ABORT, 'transfers are append-only: write a new transfer that reverses the old one');
END;

CREATE TRIGGER credit_transfer_no_delete BEFORE DELETE ON credit_transfer
BEGIN
    SELECT RAISE(ABORT, 'transfers are append-only: none is ever deleted');
END;

-- INSERT OR REPLACE would delete without asking the trigger above.
CREATE TRIGGER credit_transfer_no_replace BEFORE INSERT ON credit_transfer
WHEN EXISTS (
    SELECT 1 FROM credit_transfer WHERE practice_no = NEW.practice_no AND seq >= NEW.seq
)
BEGIN
    SELECT RAISE(ABORT, 'transfers are append-only: this sequence number is taken');
END;

-- Keys of money commands, for ever. Keys of calls live on the call.
CREATE TABLE credit_key (
    practice_no INTEGER NOT NULL,
    operation TEXT NOT NULL,
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body_hash INTEGER NOT NULL,
    grant_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, operation, key)
) WITHOUT ROWID;

CREATE TRIGGER credit_key_no_replace BEFORE INSERT ON credit_key
WHEN EXISTS (
    SELECT 1 FROM credit_key
    WHERE practice_no = NEW.practice_no AND operation = NEW.operation AND key = NEW.key
)
BEGIN
    SELECT RAISE(ABORT, 'keys of money commands are kept for ever: this one is taken');
END;

CREATE TRIGGER credit_key_no_update BEFORE UPDATE ON credit_key
BEGIN
    SELECT RAISE(ABORT, 'keys of money commands are kept for ever');
END;

CREATE TRIGGER credit_key_no_delete BEFORE DELETE ON credit_key
BEGIN
    SELECT RAISE(ABORT, 'keys of money commands are kept for ever');
END;

-- Money that came or went; an attempt to charge a saved card is such a row too.
CREATE TABLE credit_event (
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    row_id INTEGER NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (
        status IN ('pending', 'unknown', 'succeeded', 'failed', 'canceled', 'quarantined')
    ),
    amount_nano_usd INTEGER NOT NULL,
    price_minor INTEGER,
    currency TEXT NOT NULL,
    license TEXT NOT NULL,
    event_at_s INTEGER NOT NULL,
    recorded_at_s INTEGER NOT NULL,
    cap_month TEXT NOT NULL,
    cap_zone TEXT NOT NULL,
    provider TEXT NOT NULL,
    livemode INTEGER,
    payment_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    topup_id TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    params TEXT NOT NULL,
    bonus_nano_usd INTEGER NOT NULL CHECK (bonus_nano_usd >= 0),
    grant_no INTEGER NOT NULL,
    bonus_grant_no INTEGER NOT NULL,
    captured_minor INTEGER NOT NULL,
    net_minor INTEGER NOT NULL,
    clawed_back_nano_usd INTEGER NOT NULL CHECK (clawed_back_nano_usd >= 0),
    bonus_clawed_back_nano_usd INTEGER NOT NULL CHECK (bonus_clawed_back_nano_usd >= 0),
    parent_event_no INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (practice_no, event_no)
) WITHOUT ROWID;

CREATE INDEX credit_event_session ON credit_event (session_id) WHERE session_id <> '';
CREATE INDEX credit_event_payment ON credit_event (payment_id) WHERE payment_id <> '';
CREATE UNIQUE INDEX credit_event_topup ON credit_event (topup_id) WHERE topup_id <> '';
CREATE INDEX credit_event_auto ON credit_event (practice_no, event_type, status, event_at_s);
CREATE INDEX credit_event_waiting ON credit_event (recorded_at_s)
    WHERE status IN ('pending', 'unknown');

-- At most one automatic attempt of a practice is in flight.
CREATE UNIQUE INDEX credit_event_single_flight ON credit_event (practice_no)
    WHERE event_type = 'auto_topup_purchase' AND status IN ('pending', 'unknown');

-- Free text and addresses, apart from everything that must stay for ever: may be erased.
CREATE TABLE credit_note (
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    customer_email TEXT,
    author TEXT,
    note TEXT,
    meta_json TEXT,
    PRIMARY KEY (practice_no, event_no)
) WITHOUT ROWID;

-- A payment turns into credit once, for ever, whatever event told of it.
CREATE TABLE credit_payment (
    provider TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('payment', 'session')),
    ref TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    at_s INTEGER NOT NULL,
    PRIMARY KEY (provider, livemode, kind, ref)
) WITHOUT ROWID;

CREATE INDEX credit_payment_event ON credit_payment (practice_no, event_no);

CREATE TRIGGER credit_payment_no_replace BEFORE INSERT ON credit_payment
WHEN EXISTS (
    SELECT 1 FROM credit_payment WHERE provider = NEW.provider
    AND livemode = NEW.livemode AND kind = NEW.kind AND ref = NEW.ref
)
BEGIN
    SELECT RAISE(ABORT, 'the payment registry is kept for ever: this payment is registered');
END;

CREATE TRIGGER credit_payment_no_update BEFORE UPDATE ON credit_payment
BEGIN
    SELECT RAISE(ABORT, 'the payment registry is kept for ever');
END;

CREATE TRIGGER credit_payment_no_delete BEFORE DELETE ON credit_payment
BEGIN
    SELECT RAISE(ABORT, 'the payment registry is kept for ever');
END;

-- What each dispute has taken of a payment; once it is closed, nothing told later changes it.
CREATE TABLE credit_dispute (
    provider TEXT NOT NULL,
    dispute_id TEXT NOT NULL,
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    withdrawn_minor INTEGER NOT NULL CHECK (withdrawn_minor >= 0),
    is_closed INTEGER NOT NULL,
    told_at_s INTEGER NOT NULL,
    PRIMARY KEY (provider, dispute_id)
) WITHOUT ROWID;

CREATE INDEX credit_dispute_event ON credit_dispute (practice_no, event_no);

CREATE TABLE credit_topup_settings (
    practice_no INTEGER PRIMARY KEY,
    enabled INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL DEFAULT 'chf',
    credit_nano_usd INTEGER NOT NULL,
    trigger_percent INTEGER NOT NULL,
    trigger_below_nano_usd INTEGER NOT NULL DEFAULT 0,
    cap_minor INTEGER NOT NULL,
    cooldown_s INTEGER NOT NULL DEFAULT 86400,
    paused_reason TEXT NOT NULL DEFAULT '',
    updated_at_s INTEGER NOT NULL
);

CREATE TABLE credit_provider_customer (
    practice_no INTEGER NOT NULL,
    provider TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    customer_id TEXT,
    payment_method_id TEXT,
    updated_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, provider, livemode)
) WITHOUT ROWID;

CREATE TABLE credit_consent (
    practice_no INTEGER NOT NULL,
    consent_no INTEGER NOT NULL,
    source TEXT NOT NULL,
    text_version TEXT NOT NULL,
    language TEXT NOT NULL,
    actor TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL DEFAULT 'chf',
    trigger_percent INTEGER NOT NULL,
    trigger_below_nano_usd INTEGER NOT NULL,
    cap_minor INTEGER NOT NULL,
    given_at_s INTEGER NOT NULL,
    revoked_at_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (practice_no, consent_no)
) WITHOUT ROWID;

-- What settings were changed, by whom: outside the ledger.
CREATE TABLE credit_settings_audit (
    practice_no INTEGER NOT NULL,
    audit_no INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, audit_no)
) WITHOUT ROWID;

-- Counters for caps of a user, a device or an API key in a day or a month.
CREATE TABLE credit_cap_counter (
    practice_no INTEGER NOT NULL,
    subject TEXT NOT NULL,
    window TEXT NOT NULL,
    used_nano_usd INTEGER NOT NULL CHECK (used_nano_usd >= 0),
    PRIMARY KEY (practice_no, subject, window)
) WITHOUT ROWID;

-- Calls that the gate of the four modules refused: shown beside usage, never counted as used.
CREATE TABLE credit_blocked_call (
    practice_no INTEGER NOT NULL,
    blocked_no INTEGER NOT NULL,
    license TEXT NOT NULL,
    period_start_s INTEGER NOT NULL,
    period_end_s INTEGER NOT NULL,
    at_s INTEGER NOT NULL,
    status TEXT NOT NULL,
    operation_type TEXT,
    model TEXT,
    device_id TEXT,
    reference TEXT,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    audio_us INTEGER NOT NULL DEFAULT 0,
    cost_nano_usd INTEGER NOT NULL DEFAULT 0,
    legacy_id INTEGER,
    PRIMARY KEY (practice_no, blocked_no)
) WITHOUT ROWID;

CREATE TABLE credit_inbox (
    provider TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    provider_event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    payload BLOB NOT NULL,
    received_at_s INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('new', 'done', 'ignored', 'quarantined', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at_s INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    practice_no INTEGER NOT NULL DEFAULT 0,
    done_at_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (provider, livemode, provider_event_id)
) WITHOUT ROWID;

CREATE INDEX credit_inbox_todo ON credit_inbox (next_try_at_s) WHERE status = 'new';

CREATE TABLE credit_alarm (
    alarm_no INTEGER PRIMARY KEY,
    practice_no INTEGER NOT NULL DEFAULT 0,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    raised_at_s INTEGER NOT NULL,
    cleared_at_s INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE credit_api_key (
    key_id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    practice_no INTEGER NOT NULL DEFAULT 0,
    scopes TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    revoked_at_s INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

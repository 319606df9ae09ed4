-- Money in: what the provider said last of each payment, cases held back for a person, refunds that
-- an operator asked for, warnings of fraud, and runs of the reconciliation.

-- One row per payment of ours that was read at the provider. `looks` grows whenever something that
-- was read is booked: whoever read before that and comes later reads again.
CREATE TABLE credit_payment_state (
    provider TEXT NOT NULL,
    payment_id TEXT NOT NULL CHECK (payment_id <> ''),
    looks INTEGER NOT NULL DEFAULT 0 CHECK (looks >= 0),
    charge_id TEXT NOT NULL DEFAULT '',
    -- In the currency of the balance; unknown until the provider has told.
    gross_minor INTEGER,
    fee_minor INTEGER,
    net_minor INTEGER,
    balance_currency TEXT NOT NULL DEFAULT '',
    seen_run_no INTEGER NOT NULL DEFAULT 0,
    seen_at_s INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (provider, payment_id)
) WITHOUT ROWID;

CREATE INDEX credit_payment_state_charge ON credit_payment_state (charge_id)
    WHERE charge_id <> '';

CREATE INDEX credit_payment_state_seen ON credit_payment_state (seen_run_no);

-- The dispute as it was read last; what it withholds is in withdrawn_minor.
ALTER TABLE credit_dispute ADD COLUMN status TEXT NOT NULL DEFAULT '';
ALTER TABLE credit_dispute ADD COLUMN amount_minor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit_dispute ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE credit_dispute ADD COLUMN opened_at_s INTEGER NOT NULL DEFAULT 0;

CREATE TABLE credit_fraud_warning (
    provider TEXT NOT NULL,
    warning_id TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    fraud_type TEXT NOT NULL,
    actionable INTEGER NOT NULL,
    told_at_s INTEGER NOT NULL,
    PRIMARY KEY (provider, warning_id)
) WITHOUT ROWID;

-- Money that is somewhere and not credited, for a person to decide about. practice_no and event_no
-- are 0 where nobody knows whose it is.
CREATE TABLE credit_case (
    case_no INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    livemode INTEGER,
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    amount_minor INTEGER,
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    opened_at_s INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'credited', 'refunded', 'dismissed')),
    resolved_at_s INTEGER NOT NULL DEFAULT 0,
    to_practice_no INTEGER NOT NULL DEFAULT 0,
    to_event_no INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX credit_case_open ON credit_case (case_no) WHERE status = 'open';
CREATE INDEX credit_case_payment ON credit_case (payment_id) WHERE payment_id <> '';
CREATE UNIQUE INDEX credit_case_event ON credit_case (practice_no, event_no) WHERE event_no > 0;
-- Nobody's payment has one case, however often it is told.
CREATE UNIQUE INDEX credit_case_nobody ON credit_case (provider, payment_id) WHERE event_no = 0;

INSERT INTO credit_case (case_no, provider, payment_id, session_id, livemode, practice_no, event_no,
    amount_minor, currency, reason, opened_at_s, status)
SELECT row_id, provider, payment_id, session_id, livemode, practice_no, event_no, price_minor,
    currency, reason, recorded_at_s, 'open'
FROM credit_event WHERE status = 'quarantined';

-- A refund that somebody here asked for: committed before the provider hears of it.
CREATE TABLE credit_refund (
    refund_id TEXT PRIMARY KEY CHECK (length(refund_id) BETWEEN 1 AND 64),
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    case_no INTEGER NOT NULL DEFAULT 0,
    request_key TEXT NOT NULL CHECK (length(request_key) BETWEEN 1 AND 255),
    payment_id TEXT NOT NULL CHECK (payment_id <> ''),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    allow_debt INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    status TEXT NOT NULL CHECK (
        status IN ('pending', 'unknown', 'sent', 'succeeded', 'failed', 'canceled')
    ),
    provider_refund_id TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at_s INTEGER NOT NULL DEFAULT 0,
    asked_at_s INTEGER NOT NULL,
    ended_at_s INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE UNIQUE INDEX credit_refund_key ON credit_refund (practice_no, request_key);
CREATE INDEX credit_refund_payment ON credit_refund (payment_id);
CREATE INDEX credit_refund_waiting ON credit_refund (next_try_at_s)
    WHERE status IN ('pending', 'unknown');

-- Of one payment, one refund at a time has no answer yet: two operators can't both send theirs.
CREATE UNIQUE INDEX credit_refund_single_flight ON credit_refund (payment_id)
    WHERE status IN ('pending', 'unknown');

-- What operators did, to what, when; who and why may be erased.
CREATE TABLE credit_operator_note (
    note_no INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    author TEXT,
    reason TEXT
);

CREATE INDEX credit_operator_note_subject ON credit_operator_note (subject, note_no);

CREATE TABLE credit_reconcile_run (
    run_no INTEGER PRIMARY KEY,
    since_s INTEGER NOT NULL,
    until_s INTEGER NOT NULL,
    fixes INTEGER NOT NULL,
    started_at_s INTEGER NOT NULL,
    ended_at_s INTEGER NOT NULL DEFAULT 0,
    payments INTEGER NOT NULL DEFAULT 0,
    differences INTEGER NOT NULL DEFAULT 0,
    remaining INTEGER NOT NULL DEFAULT 0
);

-- What the reconciliation walks through on our side, and the letters that wait for a person.
CREATE INDEX credit_event_recorded ON credit_event (recorded_at_s, practice_no, event_no)
    WHERE status = 'succeeded' AND payment_id <> '';
CREATE INDEX credit_inbox_stuck ON credit_inbox (received_at_s)
    WHERE status IN ('dead', 'quarantined');

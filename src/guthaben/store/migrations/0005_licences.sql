-- Licences that are sold as subscriptions: what a plan includes, who bought what, and what the provider
-- last said. The practice's own licence (credit_practice.license and its period) is told from here.

ALTER TABLE credit_practice
    ADD COLUMN license_ends_at_s INTEGER NOT NULL DEFAULT 4611686018427387904;

-- What a plan includes per period, dated. A change is a new row: what counted for a period stays known.
CREATE TABLE credit_plan (
    plan_no INTEGER PRIMARY KEY,
    lookup_key TEXT NOT NULL CHECK (length(lookup_key) BETWEEN 1 AND 200),
    from_s INTEGER NOT NULL,
    allowance_nano_usd INTEGER NOT NULL CHECK (allowance_nano_usd >= 0),
    trial_nano_usd INTEGER CHECK (trial_nano_usd >= 0),
    is_removed INTEGER NOT NULL CHECK (is_removed IN (0, 1)),
    author TEXT NOT NULL,
    at_s INTEGER NOT NULL
);

CREATE INDEX credit_plan_key ON credit_plan (lookup_key);

CREATE TRIGGER credit_plan_no_update BEFORE UPDATE ON credit_plan
BEGIN
    SELECT RAISE(ABORT, 'plans are kept as they were: add a row that begins later');
END;

CREATE TRIGGER credit_plan_no_delete BEFORE DELETE ON credit_plan
BEGIN
    SELECT RAISE(ABORT, 'plans are kept as they were: none is ever deleted');
END;

CREATE TRIGGER credit_plan_no_replace BEFORE INSERT ON credit_plan
WHEN EXISTS (SELECT 1 FROM credit_plan WHERE plan_no >= NEW.plan_no)
BEGIN
    SELECT RAISE(ABORT, 'plans are kept as they were: numbers only grow');
END;

-- Our own record of a licence that is being bought, committed before the provider's page is made.
CREATE TABLE credit_license_order (
    practice_no INTEGER NOT NULL,
    order_id TEXT NOT NULL,
    lookup_key TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    status TEXT NOT NULL CHECK (status IN ('pending', 'complete', 'canceled')),
    reason TEXT NOT NULL DEFAULT '',
    livemode INTEGER,
    customer_id TEXT NOT NULL DEFAULT '',
    session_id TEXT NOT NULL DEFAULT '',
    subscription_id TEXT NOT NULL DEFAULT '',
    created_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, order_id)
);

CREATE UNIQUE INDEX credit_license_order_id ON credit_license_order (order_id);

-- What the provider last said of each subscription of a practice. `version` counts the answers that
-- were stored, so that an answer asked for before another one was stored is known to be old.
CREATE TABLE credit_subscription (
    practice_no INTEGER NOT NULL,
    subscription_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    customer_id TEXT NOT NULL,
    status TEXT NOT NULL,
    items TEXT NOT NULL,
    ends_at_s INTEGER NOT NULL,
    began_at_s INTEGER NOT NULL,
    is_over INTEGER NOT NULL CHECK (is_over IN (0, 1)),
    due_at_s INTEGER NOT NULL,
    allowance_nano_usd INTEGER NOT NULL CHECK (allowance_nano_usd >= 0),
    is_unknown INTEGER NOT NULL CHECK (is_unknown IN (0, 1)),
    version INTEGER NOT NULL,
    asked_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, subscription_id)
);

-- A subscription belongs to one practice for ever.
CREATE UNIQUE INDEX credit_subscription_owner
    ON credit_subscription (provider, livemode, subscription_id);
CREATE INDEX credit_subscription_customer ON credit_subscription (customer_id);
CREATE INDEX credit_subscription_due ON credit_subscription (due_at_s) WHERE is_over = 0;

CREATE INDEX credit_provider_customer_id ON credit_provider_customer (customer_id);

-- Each plan that a subscription was seen to have while it was paid for, per period: the highest of a
-- period is what that period includes, in whatever order it was heard.
CREATE TABLE credit_subscription_seen (
    practice_no INTEGER NOT NULL,
    subscription_id TEXT NOT NULL,
    period_start_s INTEGER NOT NULL,
    items TEXT NOT NULL,
    is_trial INTEGER NOT NULL CHECK (is_trial IN (0, 1)),
    seen_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, subscription_id, period_start_s, items, is_trial)
);

-- Subscriptions whose practice is in doubt: nothing is granted until an operator says whose they are.
CREATE TABLE credit_subscription_held (
    held_no INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    subscription_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    named TEXT NOT NULL,
    held_at_s INTEGER NOT NULL,
    resolved_at_s INTEGER NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX credit_subscription_held_ref
    ON credit_subscription_held (provider, livemode, subscription_id);

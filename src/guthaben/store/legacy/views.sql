-- The two old tables as views on the engine's tables, so that there is one truth and one bookkeeping.
-- Amounts leave as floats by division (n / 1e9), which gives 6.6667 back; whoever adds up takes the
-- engine's integers. Purchases that failed for a reason show no credit; `reason` is empty again
-- when they succeed after all.

CREATE VIEW ai_credit_ledger AS
SELECT
    e.row_id AS id,
    p.practice_id AS practice_id,
    NULLIF(e.license, '') AS subscription_id,
    n.customer_email AS customer_email,
    e.event_type AS event_type,
    CASE
        WHEN e.status IN ('failed', 'canceled', 'quarantined') AND e.reason <> '' THEN 0.0
        ELSE e.amount_nano_usd / 1e9
    END AS amount_internal_usd,
    e.price_minor / 100.0 AS amount_paid_chf,
    NULLIF(e.session_id, '') AS stripe_checkout_session_id,
    NULLIF(e.payment_id, '') AS stripe_payment_intent_id,
    e.status AS status,
    COALESCE(n.meta_json, '{}') AS meta_json,
    e.event_at_s AS created_at
FROM credit_event e
JOIN credit_practice p ON p.practice_no = e.practice_no
LEFT JOIN credit_note n ON n.practice_no = e.practice_no AND n.event_no = e.event_no;

CREATE TRIGGER ai_credit_ledger_no_insert INSTEAD OF INSERT ON ai_credit_ledger
BEGIN
    SELECT RAISE(ABORT, 'ai_credit_ledger is a view: use aza_ai_credit.insert_ledger_event');
END;

CREATE TRIGGER ai_credit_ledger_no_delete INSTEAD OF DELETE ON ai_credit_ledger
BEGIN
    SELECT RAISE(ABORT, 'ai_credit_ledger keeps every row: book a refund with aza_ai_credit.insert_ledger_event');
END;

CREATE TRIGGER ai_credit_ledger_no_update INSTEAD OF UPDATE OF
    id, practice_id, subscription_id, customer_email, event_type, amount_internal_usd,
    amount_paid_chf, stripe_checkout_session_id, stripe_payment_intent_id, status, meta_json
ON ai_credit_ledger
BEGIN
    SELECT RAISE(ABORT, 'of ai_credit_ledger only created_at may be updated: use aza_ai_credit.insert_ledger_event or its process_ functions');
END;

CREATE TRIGGER ai_credit_ledger_created_at INSTEAD OF UPDATE OF created_at ON ai_credit_ledger
BEGIN
    SELECT RAISE(ABORT, 'created_at is an integer of seconds since 1970')
    WHERE typeof(NEW.created_at) <> 'integer' OR NEW.created_at < 0;
    UPDATE credit_event SET event_at_s = NEW.created_at WHERE row_id = OLD.id;
END;

-- Numbers of rows that were never in the old table: practice and call, far above any old number.
CREATE VIEW ai_usage_events AS
SELECT
    COALESCE(c.legacy_id, c.practice_no * 4294967296 + c.call_no) AS id,
    c.license AS subscription_id,
    p.practice_id AS practice_id,
    c.device_id AS device_id,
    c.period_start_s AS period_start,
    g.period_end_s AS period_end,
    c.operation_type AS operation_type,
    c.model AS model,
    c.input_tokens AS input_tokens,
    c.output_tokens AS output_tokens,
    c.total_tokens AS total_tokens,
    c.audio_us / 1e6 AS audio_seconds,
    c.cost_nano_usd / 1e9 AS estimated_cost_usd,
    c.reference AS request_id,
    COALESCE(json_extract(c.tags, '$.usage_status'), 'success') AS status,
    c.created_at_ms / 1000 AS created_at
FROM credit_call c
JOIN credit_practice p ON p.practice_no = c.practice_no
LEFT JOIN credit_grant g ON g.practice_no = c.practice_no AND g.license = c.license
    AND g.period_start_s = c.period_start_s AND g.kind = 1
WHERE c.status IN (2, 5) OR c.cost_nano_usd > 0
UNION ALL
SELECT
    COALESCE(b.legacy_id, b.practice_no * 4294967296 + 2147483648 + b.blocked_no),
    b.license,
    p.practice_id,
    b.device_id,
    b.period_start_s,
    b.period_end_s,
    b.operation_type,
    b.model,
    b.input_tokens,
    b.output_tokens,
    b.total_tokens,
    b.audio_us / 1e6,
    b.cost_nano_usd / 1e9,
    b.reference,
    b.status,
    b.at_s
FROM credit_blocked_call b
JOIN credit_practice p ON p.practice_no = b.practice_no;

CREATE TRIGGER ai_usage_events_no_insert INSTEAD OF INSERT ON ai_usage_events
BEGIN
    SELECT RAISE(ABORT, 'ai_usage_events is a view: use aza_ai_budget.insert_usage_event');
END;

CREATE TRIGGER ai_usage_events_no_delete INSTEAD OF DELETE ON ai_usage_events
BEGIN
    SELECT RAISE(ABORT, 'ai_usage_events keeps every row: correct a cost with guthaben.Guthaben.adjust');
END;

CREATE TRIGGER ai_usage_events_no_update INSTEAD OF UPDATE ON ai_usage_events
BEGIN
    SELECT RAISE(ABORT, 'ai_usage_events is a view: use aza_ai_budget.insert_usage_event');
END;

-- The automatic top-up: what a decline leads to, one charge for a whole shortfall, stops.

-- An attempt: which need it serves (the number of the need's first attempt), which card it names,
-- what its failure means, what its payment may still take at the provider, when it was first sent.
ALTER TABLE credit_event ADD COLUMN need_no INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit_event ADD COLUMN method_id TEXT NOT NULL DEFAULT '';
ALTER TABLE credit_event ADD COLUMN verdict TEXT NOT NULL DEFAULT '';
ALTER TABLE credit_event ADD COLUMN open_minor INTEGER NOT NULL DEFAULT 0 CHECK (open_minor >= 0);
ALTER TABLE credit_event ADD COLUMN sent_at_s INTEGER NOT NULL DEFAULT 0;

-- Nobody knows of an older attempt that it was not sent.
UPDATE credit_event SET sent_at_s = recorded_at_s WHERE idempotency_key <> '';

CREATE INDEX credit_event_need ON credit_event (practice_no, need_no) WHERE need_no <> 0;
CREATE INDEX credit_event_method ON credit_event (practice_no, method_id, recorded_at_s)
    WHERE method_id <> '';
CREATE INDEX credit_event_declined ON credit_event (practice_no, event_no)
    WHERE verdict IN ('never', 'soon', 'later');
CREATE INDEX credit_event_open ON credit_event (practice_no, event_no) WHERE open_minor > 0;

ALTER TABLE credit_topup_settings ADD COLUMN largest_minor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit_topup_settings ADD COLUMN on_decline TEXT NOT NULL DEFAULT 'pause'
    CHECK (on_decline IN ('pause', 'retry'));
ALTER TABLE credit_topup_settings ADD COLUMN need_no INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit_topup_settings ADD COLUMN retry_at_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit_topup_settings ADD COLUMN since_event_no INTEGER NOT NULL DEFAULT 0;

ALTER TABLE credit_consent ADD COLUMN largest_minor INTEGER NOT NULL DEFAULT 0;

-- Operators' stops of automatic charges: practice 0 stands for all practices and servers.
CREATE TABLE credit_topup_stop (
    practice_no INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_s INTEGER NOT NULL
);

CREATE INDEX credit_practice_armed ON credit_practice (practice_no) WHERE auto_topup_armed = 1;

-- Events of the provider name customers. Once applied, their content is of no use any more and is
-- erased after a while; the event's id stays for ever, so that it is never applied twice.
ALTER TABLE credit_inbox ADD COLUMN erased_at_s INTEGER NOT NULL DEFAULT 0;

CREATE INDEX credit_inbox_kept ON credit_inbox (done_at_s)
    WHERE erased_at_s = 0 AND status IN ('done', 'ignored');

-- Several servers on one database.

-- The allowances of a practice that still matter, for whoever loads it.
CREATE INDEX credit_grant_periods ON credit_grant (practice_no, period_end_s) WHERE kind = 1;

-- Several servers on one database.

-- The allowances of a practice that still matter, for whoever loads it.
CREATE INDEX credit_grant_periods ON credit_grant (practice_no, period_end_s) WHERE kind = 1;

-- An alarm is open once, whichever server raises it; of twins that there are, the first stays.
UPDATE credit_alarm SET cleared_at_s = raised_at_s WHERE cleared_at_s = 0 AND EXISTS (
    SELECT 1 FROM credit_alarm AS first WHERE first.code = credit_alarm.code
    AND first.subject = credit_alarm.subject AND first.practice_no = credit_alarm.practice_no
    AND first.cleared_at_s = 0 AND first.alarm_no < credit_alarm.alarm_no
);

CREATE UNIQUE INDEX credit_alarm_open ON credit_alarm (code, subject, practice_no)
    WHERE cleared_at_s = 0;

-- Which number a practice has, for ever. Apart from credit_practice, so that this can be spread by the
-- number, and a name still be given once.
CREATE TABLE credit_practice_name (
    practice_id TEXT PRIMARY KEY,
    practice_no INTEGER NOT NULL UNIQUE
) WITHOUT ROWID;

INSERT INTO credit_practice_name (practice_id, practice_no)
    SELECT practice_id, practice_no FROM credit_practice;

-- What an API key or a device of a practice may use: money in a day and a month, requests in a
-- minute and at once. The subject is 'key:<id>' or 'device:<id>'; 'key:*' and 'device:*' stand for
-- every other one. What was used of the money is counted in credit_cap_counter, from 0001.
CREATE TABLE credit_cap (
    practice_no INTEGER NOT NULL,
    subject TEXT NOT NULL CHECK (length(subject) BETWEEN 3 AND 220),
    -- Null is no cap; 0 is nothing at all.
    day_nano_usd INTEGER CHECK (day_nano_usd >= 0),
    month_nano_usd INTEGER CHECK (month_nano_usd >= 0),
    -- 0 is no limit.
    per_minute INTEGER NOT NULL DEFAULT 0 CHECK (per_minute >= 0),
    at_once INTEGER NOT NULL DEFAULT 0 CHECK (at_once >= 0),
    changed_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, subject)
) WITHOUT ROWID;

-- The beginnings that an allowance's period had before its real bounds were told, separated by commas:
-- a call or a command that still speaks of them means the same allowance.
ALTER TABLE credit_grant ADD COLUMN former_starts TEXT NOT NULL DEFAULT '';

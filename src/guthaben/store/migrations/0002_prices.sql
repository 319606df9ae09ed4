-- Prices: sheets as they were taken, and the versions made of them. Nothing is ever changed, so that
-- the version on a call explains its cost for ever. They belong to the installation, to no practice.

CREATE TABLE credit_price_sheet (
    hash TEXT PRIMARY KEY CHECK (length(hash) = 64),
    source TEXT NOT NULL,
    -- JSON in its canonical form; prices are decimal strings.
    body TEXT NOT NULL,
    added_at_s INTEGER NOT NULL
);

CREATE TABLE credit_price_version (
    version_no INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    hash TEXT NOT NULL CHECK (length(hash) = 64),
    imported_hash TEXT NOT NULL REFERENCES credit_price_sheet (hash),
    own_hash TEXT NOT NULL REFERENCES credit_price_sheet (hash),
    change TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at_s INTEGER NOT NULL
);

CREATE INDEX credit_price_version_name ON credit_price_version (version);

CREATE TRIGGER credit_price_sheet_no_update BEFORE UPDATE ON credit_price_sheet
BEGIN
    SELECT RAISE(ABORT, 'price sheets are kept as they are: take a new one');
END;

CREATE TRIGGER credit_price_sheet_no_delete BEFORE DELETE ON credit_price_sheet
BEGIN
    SELECT RAISE(ABORT, 'price sheets are kept for ever');
END;

CREATE TRIGGER credit_price_sheet_no_replace BEFORE INSERT ON credit_price_sheet
WHEN EXISTS (SELECT 1 FROM credit_price_sheet WHERE hash = NEW.hash)
BEGIN
    SELECT RAISE(ABORT, 'price sheets are kept as they are: this one is there already');
END;

CREATE TRIGGER credit_price_version_no_update BEFORE UPDATE ON credit_price_version
BEGIN
    SELECT RAISE(ABORT, 'versions of prices are kept as they are: make a new one');
END;

CREATE TRIGGER credit_price_version_no_delete BEFORE DELETE ON credit_price_version
BEGIN
    SELECT RAISE(ABORT, 'versions of prices are kept for ever');
END;

CREATE TRIGGER credit_price_version_no_replace BEFORE INSERT ON credit_price_version
WHEN EXISTS (SELECT 1 FROM credit_price_version WHERE version_no >= NEW.version_no)
BEGIN
    SELECT RAISE(ABORT, 'versions of prices only grow');
END;

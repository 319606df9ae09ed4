-- Purchases by hand: the page of each one until it is known to be over, the consent to keep a card,
-- and the language a practice is spoken to in.

-- One row per page that we asked for. `order_json` holds exactly what was asked, so that a lost
-- answer can be asked for again with the same key; it is emptied as soon as the page is known.
CREATE TABLE credit_checkout (
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    is_open INTEGER NOT NULL CHECK (is_open IN (0, 1)),
    order_json TEXT NOT NULL,
    next_look_at_s INTEGER NOT NULL,
    looks INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (practice_no, event_no)
);

CREATE INDEX credit_checkout_due ON credit_checkout (next_look_at_s) WHERE is_open = 1;

-- Who agreed, with which purchase, to which text, that the card is kept for later. It switches
-- nothing on: charging the card by itself needs a consent of its own in credit_consent.
CREATE TABLE credit_card_consent (
    practice_no INTEGER NOT NULL,
    event_no INTEGER NOT NULL,
    text_version TEXT NOT NULL,
    language TEXT NOT NULL,
    actor TEXT NOT NULL,
    given_at_s INTEGER NOT NULL,
    PRIMARY KEY (practice_no, event_no)
);

CREATE TABLE credit_language (
    practice_no INTEGER PRIMARY KEY,
    language TEXT NOT NULL CHECK (language IN ('de', 'fr', 'it', 'en')),
    updated_at_s INTEGER NOT NULL
);

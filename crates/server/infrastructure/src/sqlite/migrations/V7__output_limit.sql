-- A log whose job printed more than it may: `end` goes on with what comes, `kept` is where it was cut.
ALTER TABLE output_log ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
UPDATE output_log SET kept = end;

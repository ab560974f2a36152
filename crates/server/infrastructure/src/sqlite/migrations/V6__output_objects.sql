-- Output in objects: a log is the union of its rows in `output_tail` and in `output_block`.

-- Objects that blocks refer to. Without blocks an object is removed, then its row.
CREATE TABLE output_object (
    id     BLOB NOT NULL PRIMARY KEY,
    blocks INTEGER NOT NULL CHECK (blocks >= 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX output_object_unused ON output_object (id) WHERE blocks = 0;

-- Where the bytes of a part of a log lie: the data at `position` of the object, then `runs_len` bytes of runs.
CREATE TABLE output_block (
    job      BLOB NOT NULL,
    lease    INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    start    INTEGER NOT NULL,
    end      INTEGER NOT NULL,
    object   BLOB NOT NULL,
    position INTEGER NOT NULL,
    runs_len INTEGER NOT NULL,
    lines    INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (job, lease, rank, start)
) STRICT, WITHOUT ROWID;

-- How much of a log lies in `output_tail`.
ALTER TABLE output_log ADD COLUMN tail_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE output_log SET tail_bytes = end;

-- Tails that may have to be moved; small ones, which are most, are not in it.
CREATE INDEX output_log_tail ON output_log (tail_bytes) WHERE tail_bytes > 65536;

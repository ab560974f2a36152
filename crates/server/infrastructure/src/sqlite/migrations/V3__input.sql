-- One row for each job that takes input. `source`: whose bytes it reads, its own or those of the job it repeats;
-- of such a one `end` and `complete` are the source's, and it takes no more.
CREATE TABLE input_log (
    job      BLOB NOT NULL PRIMARY KEY,
    source   BLOB NOT NULL,
    end      INTEGER NOT NULL,
    complete INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Rows with blobs of up to 1 MiB, so with a row id.
CREATE TABLE input_part (
    job   BLOB NOT NULL,
    start INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (job, start)
) STRICT;

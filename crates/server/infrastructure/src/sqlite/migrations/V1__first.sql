-- Ids are the 16 bytes of a UUIDv7, times are milliseconds since the Unix epoch by the store's clock.
-- Job states: 0 queued, 1 assigned, 2 running, 3 succeeded, 4 failed, 5 cancelled, 6 timed out.
-- Attempt outcomes: 0 succeeded, 1 failed, 2 timed out, 3 cancelled, 4 lost.
-- Worker phases: 0 planned, 1 starting, 2 ready, 3 draining, 4 gone.

CREATE TABLE shape (
    id   BLOB NOT NULL PRIMARY KEY,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What never changes of a job.
CREATE TABLE job (
    id         BLOB NOT NULL PRIMARY KEY,
    namespace  TEXT NOT NULL,
    spec       TEXT NOT NULL,
    name       TEXT NOT NULL,
    shape      BLOB NOT NULL,
    priority   INTEGER NOT NULL,
    owner      TEXT NOT NULL,
    retry_of   BLOB,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE job_label (
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    job       BLOB NOT NULL,
    PRIMARY KEY (namespace, key, value, job)
) STRICT, WITHOUT ROWID;

-- Queued and held jobs: narrow, since each of its rows is written several times.
CREATE TABLE job_live (
    id               BLOB NOT NULL PRIMARY KEY,
    namespace        TEXT NOT NULL,
    shape            BLOB NOT NULL,
    state            INTEGER NOT NULL CHECK (state BETWEEN 0 AND 2),
    ready_at         INTEGER NOT NULL,
    worker           BLOB,
    lease            INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    same_attempt     INTEGER NOT NULL,
    repetitions      INTEGER NOT NULL,
    uncounted        INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    retries          INTEGER NOT NULL,
    retry_on         INTEGER NOT NULL,
    cpu_millis       INTEGER NOT NULL,
    memory_bytes     INTEGER NOT NULL,
    lost_after_ms    INTEGER NOT NULL,
    CHECK ((state = 0) = (worker IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX job_live_claimable ON job_live (shape, ready_at, id) WHERE state = 0;
CREATE INDEX job_live_ready ON job_live (ready_at) WHERE state = 0;
CREATE INDEX job_live_held ON job_live (worker, id, lease, lost_after_ms) WHERE worker IS NOT NULL;
CREATE INDEX job_live_list ON job_live (namespace, state, id);

CREATE TABLE job_ended (
    id               BLOB NOT NULL PRIMARY KEY,
    namespace        TEXT NOT NULL,
    state            INTEGER NOT NULL CHECK (state BETWEEN 3 AND 6),
    exit_code        INTEGER,
    signal           INTEGER,
    reason           TEXT NOT NULL,
    message          TEXT NOT NULL,
    lease            INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    same_attempt     INTEGER NOT NULL,
    repetitions      INTEGER NOT NULL,
    uncounted        INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    ended_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX job_ended_list ON job_ended (namespace, state, id);

-- One row for each claim. `result` is what the worker reported, to tell the same result from another one.
CREATE TABLE attempt (
    job           BLOB NOT NULL,
    lease         INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    started_at    INTEGER,
    ended_at      INTEGER,
    outcome       INTEGER,
    exit_code     INTEGER,
    signal        INTEGER,
    reason        TEXT,
    message       TEXT,
    result        TEXT,
    never_started INTEGER NOT NULL DEFAULT 0,
    declared_end  INTEGER,
    PRIMARY KEY (job, lease)
) STRICT, WITHOUT ROWID;

-- Where an attempt runs. Provider and machine are copies: they outlive the worker's row.
CREATE TABLE placement (
    job      BLOB NOT NULL,
    lease    INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    worker   BLOB NOT NULL,
    provider TEXT NOT NULL,
    machine  TEXT NOT NULL,
    devices  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, lease, rank)
) STRICT, WITHOUT ROWID;

CREATE TABLE submission (
    namespace  TEXT NOT NULL,
    request_id TEXT NOT NULL,
    spec_hash  BLOB NOT NULL,
    job        BLOB NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (namespace, request_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (
    id           BLOB NOT NULL PRIMARY KEY,
    namespace    TEXT NOT NULL,
    provider     TEXT NOT NULL,
    phase        INTEGER NOT NULL CHECK (phase BETWEEN 0 AND 4),
    first_job    BLOB NOT NULL,
    machine      TEXT NOT NULL DEFAULT '',
    session      INTEGER NOT NULL DEFAULT 0,
    beat         INTEGER NOT NULL DEFAULT 0,
    cpu_millis   INTEGER NOT NULL DEFAULT 0,
    memory_bytes INTEGER NOT NULL DEFAULT 0,
    slots        INTEGER NOT NULL,
    used_slots   INTEGER NOT NULL DEFAULT 0 CHECK (used_slots >= 0),
    enforced     TEXT NOT NULL DEFAULT '[]',
    revoked      INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    phase_since  INTEGER NOT NULL,
    idle_since   INTEGER NOT NULL,
    ended_at     INTEGER,
    message      TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE INDEX worker_live ON worker (id) WHERE phase < 4;

-- The current certificate of a worker that registered.
CREATE TABLE identity (
    worker     BLOB NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    spki       BLOB NOT NULL,
    not_after  INTEGER NOT NULL,
    chain      BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- `spki`, `redeemed_at` and `chain` are set together, at the redemption.
CREATE TABLE otp (
    id          TEXT NOT NULL PRIMARY KEY,
    worker      BLOB NOT NULL,
    secret_hash BLOB NOT NULL,
    armed_at    INTEGER,
    spki        BLOB,
    redeemed_at INTEGER,
    chain       BLOB,
    revoked     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX otp_worker ON otp (worker);

CREATE TABLE event (
    position  INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    kind      TEXT NOT NULL,
    job       BLOB,
    worker    BLOB,
    body      TEXT NOT NULL
) STRICT;

CREATE INDEX event_job ON event (job, position) WHERE job IS NOT NULL;

-- One row: the position of the newest event.
CREATE TABLE event_position (
    n INTEGER NOT NULL
) STRICT;
INSERT INTO event_position (n) VALUES (0);

CREATE TABLE output_log (
    job      BLOB NOT NULL,
    lease    INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    end      INTEGER NOT NULL,
    lines    INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (job, lease, rank)
) STRICT, WITHOUT ROWID;

-- Rows with blobs of any size, so with a row id.
CREATE TABLE output_tail (
    job   BLOB NOT NULL,
    lease INTEGER NOT NULL,
    rank  INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end   INTEGER NOT NULL,
    data  BLOB NOT NULL,
    runs  TEXT NOT NULL,
    PRIMARY KEY (job, lease, rank, start)
) STRICT;

CREATE TABLE token (
    id          TEXT NOT NULL PRIMARY KEY,
    namespace   TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    revoked     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX token_valid ON token (id) WHERE revoked = 0;

CREATE TABLE sealed (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

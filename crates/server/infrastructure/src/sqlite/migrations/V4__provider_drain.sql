-- A row for each provider that takes no new work.
CREATE TABLE provider_drain (
    provider TEXT NOT NULL PRIMARY KEY,
    message  TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is removed when it is old, the oldest first.
ALTER TABLE job_ended ADD COLUMN output_expired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE output_log ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;

CREATE INDEX job_ended_at ON job_ended (ended_at, id);
CREATE INDEX job_ended_output ON job_ended (ended_at, id) WHERE output_expired = 0;
CREATE INDEX submission_at ON submission (at);

-- Whether another job still reads the input of one that is removed.
CREATE INDEX input_log_source ON input_log (source);

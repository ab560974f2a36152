INSERT INTO output_log (job, lease, rank, end, lines, messages) VALUES (?1, ?2, ?3, ?4, ?5, 1)
ON CONFLICT (job, lease, rank) DO UPDATE
SET end = excluded.end, lines = lines + excluded.lines, messages = messages + 1

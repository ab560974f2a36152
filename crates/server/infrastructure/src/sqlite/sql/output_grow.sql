INSERT INTO output_log (job, lease, rank, end, kept, lines, messages, tail_bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (job, lease, rank) DO UPDATE
SET end = excluded.end, kept = excluded.kept, lines = lines + excluded.lines, messages = messages + excluded.messages,
    tail_bytes = tail_bytes + excluded.tail_bytes

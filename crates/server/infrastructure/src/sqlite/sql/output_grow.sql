INSERT INTO output_log (job, lease, rank, end, lines, messages, tail_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (job, lease, rank) DO UPDATE
SET end = excluded.end, lines = lines + excluded.lines, messages = messages + excluded.messages,
    tail_bytes = tail_bytes + excluded.tail_bytes

SELECT id, ready_at FROM job_live
WHERE state = 0
  AND shape = ?1
  AND ready_at <= ?2                -- not one that still waits for its time
ORDER BY ready_at, id
LIMIT ?3

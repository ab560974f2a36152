SELECT id FROM job_ended
WHERE namespace = ?1
  AND state = ?2
  AND id < ?3
ORDER BY id DESC
LIMIT ?4

SELECT id FROM job_live
WHERE namespace = ?1
  AND state = ?2
  AND id < ?3
ORDER BY id DESC
LIMIT ?4

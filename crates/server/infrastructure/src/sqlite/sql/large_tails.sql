-- Tails that are worth an object, the largest first.
SELECT output_log.job, output_log.lease, output_log.rank FROM output_log
JOIN attempt ON attempt.job = output_log.job AND attempt.lease = output_log.lease
WHERE output_log.tail_bytes > 65536 -- the bound of an ended attempt, and of the index
  AND (output_log.tail_bytes >= ?1 OR attempt.outcome IS NOT NULL)
ORDER BY output_log.tail_bytes DESC
LIMIT ?2

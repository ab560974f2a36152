-- Answered from the partial index alone; its size is the answer's.
SELECT worker, id, lease, lost_after_ms FROM job_live
WHERE worker IS NOT NULL
ORDER BY worker, id

-- Kinds: 0 ready, 1 waits for its time, 2 held, 3 assigned, 4 running.
SELECT CASE
           WHEN state > 0 THEN state + 2
           WHEN ready_at <= ?1 THEN 0
           WHEN ready_at < ?2 THEN 1
           ELSE 2
       END AS kind,
       count(*), min(ready_at)
FROM job_live
GROUP BY kind

SELECT min(ready_at) FROM job_live
WHERE state = 0
  AND ready_at > ?1                 -- what is claimable already needs no timer

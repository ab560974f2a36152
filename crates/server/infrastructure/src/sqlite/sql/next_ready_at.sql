SELECT min(ready_at) FROM job_live
WHERE state = 0
  AND ready_at > ?1                 -- what is claimable already needs no timer
  AND ready_at < ?2                 -- nor what is held until it is released

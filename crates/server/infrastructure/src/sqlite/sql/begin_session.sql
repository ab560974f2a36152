UPDATE worker
SET session = session + 1, beat = 0, cpu_millis = ?3, memory_bytes = ?4, slots = min(slots, ?5), enforced = ?6,
    idle_since = CASE session WHEN 0 THEN ?7 ELSE idle_since END
WHERE id = ?1
  AND phase IN (2, 3)               -- ready or draining
  AND revoked = 0
  AND EXISTS (                      -- the current certificate, or the one before it if the reply was lost
      SELECT 1 FROM identity
      WHERE identity.worker = worker.id AND identity.generation IN (?2, ?2 + 1)
  )
RETURNING session, namespace

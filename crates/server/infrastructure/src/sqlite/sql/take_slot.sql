-- A claim's guard: a stale snapshot of the planner costs a retry, never a wrong start.
UPDATE worker SET used_slots = used_slots + 1
WHERE id = ?1
  AND namespace = ?2                -- the trust boundary
  AND phase = 2                     -- ready: neither draining nor gone
  AND revoked = 0
  AND session > 0                   -- it was connected
  AND used_slots < slots
RETURNING provider, machine

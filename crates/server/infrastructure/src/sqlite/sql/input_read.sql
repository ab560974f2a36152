-- The parts from the one that holds a position on.
SELECT start, data FROM input_part
WHERE job = ?1
  AND start >= coalesce(
      (SELECT max(start) FROM input_part WHERE job = ?1 AND start <= ?2), 0)
ORDER BY start

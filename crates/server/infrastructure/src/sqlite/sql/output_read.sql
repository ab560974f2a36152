-- From the row that holds the position on.
SELECT start, data, runs FROM output_tail
WHERE job = ?1
  AND lease = ?2
  AND rank = ?3
  AND start >= coalesce(
      (SELECT max(start) FROM output_tail WHERE job = ?1 AND lease = ?2 AND rank = ?3 AND start <= ?4),
      0
  )
  AND end > ?4
ORDER BY start

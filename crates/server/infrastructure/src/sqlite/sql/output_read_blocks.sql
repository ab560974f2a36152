-- From the block that holds the position on.
SELECT start, end, object, position, runs_len, lines, messages FROM output_block
WHERE job = ?1
  AND lease = ?2
  AND rank = ?3
  AND start >= coalesce(
      (SELECT max(start) FROM output_block WHERE job = ?1 AND lease = ?2 AND rank = ?3 AND start <= ?4),
      0
  )
  AND end > ?4
ORDER BY start

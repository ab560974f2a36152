-- What rows of a tail begin in a range, to compare them with the block that is to replace them.
SELECT min(start), max(end), sum(end - start) FROM output_tail
WHERE job = ?1
  AND lease = ?2
  AND rank = ?3
  AND start >= ?4
  AND start < ?5

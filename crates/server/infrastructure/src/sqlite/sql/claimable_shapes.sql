-- Skip scan over the shapes of queued jobs, one index look-up for each; then the head of each shape.
WITH RECURSIVE shapes (shape) AS (
    SELECT min(shape) FROM job_live WHERE state = 0
    UNION ALL
    SELECT (SELECT min(shape) FROM job_live WHERE state = 0 AND shape > shapes.shape)
    FROM shapes
    WHERE shapes.shape IS NOT NULL
)
SELECT shapes.shape, shape.json, head.id, head.ready_at
FROM shapes
JOIN job_live AS head ON head.id = (
    SELECT id FROM job_live
    WHERE state = 0
      AND shape = shapes.shape
      AND ready_at <= ?1            -- not one that still waits for its time
    ORDER BY ready_at, id
    LIMIT 1
)
JOIN shape ON shape.id = shapes.shape
WHERE shapes.shape IS NOT NULL      -- the row that ends the scan
  AND (head.ready_at, head.id) > (?3, ?4)
ORDER BY head.ready_at, head.id
LIMIT ?2

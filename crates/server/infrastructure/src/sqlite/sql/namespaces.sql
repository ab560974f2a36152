-- Skip scan over the namespaces that have jobs, one index look-up for each.
WITH RECURSIVE
live (name) AS (
    SELECT min(namespace) FROM job_live
    UNION ALL
    SELECT (SELECT min(namespace) FROM job_live WHERE namespace > live.name)
    FROM live WHERE live.name IS NOT NULL
),
ended (name) AS (
    SELECT min(namespace) FROM job_ended
    UNION ALL
    SELECT (SELECT min(namespace) FROM job_ended WHERE namespace > ended.name)
    FROM ended WHERE ended.name IS NOT NULL
)
SELECT name FROM live WHERE name IS NOT NULL
UNION ALL                           -- a name may come twice
SELECT name FROM ended WHERE name IS NOT NULL

-- Driven by one pair, newest first; the other pairs and the state are looked up for each of its jobs.
SELECT driver.job FROM job_label AS driver
WHERE driver.namespace = ?1
  AND driver.key = ?2
  AND driver.value = ?3
  AND driver.job < ?4
  AND NOT EXISTS (                  -- no wanted pair that the job does not have
      SELECT 1 FROM json_each(?5) AS wanted
      WHERE NOT EXISTS (
          SELECT 1 FROM job_label AS other
          WHERE other.namespace = ?1
            AND other.key = wanted.key
            AND other.value = wanted.value
            AND other.job = driver.job
      )
  )
  AND coalesce(
      (SELECT state FROM job_live WHERE id = driver.job),
      (SELECT state FROM job_ended WHERE id = driver.job)
  ) IN (SELECT value FROM json_each(?6))
ORDER BY driver.job DESC
LIMIT ?7

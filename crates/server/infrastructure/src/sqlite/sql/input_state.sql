-- What is stored of a job's own input, and whether the job lives.
SELECT input_log.end, input_log.complete,
       EXISTS (SELECT 1 FROM job_live WHERE job_live.id = input_log.job)
FROM input_log
WHERE input_log.job = ?1

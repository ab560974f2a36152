SELECT job_live.id, job_live.lease, job_live.attempt, job_live.state, job_live.cancel_requested,
       job_live.repetitions, job.namespace, job.spec
FROM job_live
JOIN job ON job.id = job_live.id
WHERE job_live.worker = ?1
ORDER BY job_live.id

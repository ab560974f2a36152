SELECT id, lease, attempt, state, cancel_requested, repetitions, retries, retry_on
FROM job_live INDEXED BY job_live_held
WHERE worker = ?1
ORDER BY id

SELECT namespace, state, ready_at, worker, lease, attempt, same_attempt, repetitions, uncounted,
       cancel_requested, retries, retry_on
FROM job_live
WHERE id = ?1

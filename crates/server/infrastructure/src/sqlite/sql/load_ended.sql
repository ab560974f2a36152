SELECT namespace, state, exit_code, signal, reason, message, lease, attempt, same_attempt, repetitions,
       uncounted, cancel_requested, ended_at
FROM job_ended
WHERE id = ?1

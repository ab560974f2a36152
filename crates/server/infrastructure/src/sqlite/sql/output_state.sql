-- Whose attempt it is, whether it lives, what it declared, what is taken, how much of that is kept, and
-- how much is kept of the job's other logs.
SELECT placement.worker, attempt.outcome IS NULL, attempt.declared_end, coalesce(output_log.end, 0),
       coalesce(output_log.kept, 0), coalesce(output_log.expired, FALSE),
       (SELECT coalesce(sum(other.kept), 0) FROM output_log AS other
        WHERE other.job = ?1 AND NOT (other.lease = ?2 AND other.rank = ?3))
FROM attempt
JOIN placement ON placement.job = attempt.job AND placement.lease = attempt.lease AND placement.rank = ?3
LEFT JOIN output_log
    ON output_log.job = attempt.job AND output_log.lease = attempt.lease AND output_log.rank = ?3
WHERE attempt.job = ?1 AND attempt.lease = ?2

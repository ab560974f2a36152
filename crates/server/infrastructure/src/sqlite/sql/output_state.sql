-- Whose attempt it is, whether it lives, what it declared and what is stored.
SELECT placement.worker, attempt.outcome IS NULL, attempt.declared_end, coalesce(output_log.end, 0)
FROM attempt
JOIN placement ON placement.job = attempt.job AND placement.lease = attempt.lease AND placement.rank = ?3
LEFT JOIN output_log
    ON output_log.job = attempt.job AND output_log.lease = attempt.lease AND output_log.rank = ?3
WHERE attempt.job = ?1 AND attempt.lease = ?2

-- The attempts of one job with their first placement and what they printed.
SELECT attempt.lease, attempt.number, placement.worker, placement.provider, placement.machine,
       attempt.started_at, attempt.ended_at, attempt.outcome, attempt.exit_code, attempt.signal,
       attempt.reason, attempt.message, attempt.never_started, attempt.declared_end,
       coalesce(output_log.kept, 0), coalesce(output_log.lines, 0), coalesce(output_log.messages, 0),
       coalesce(output_log.end > output_log.kept, FALSE), coalesce(output_log.expired, FALSE)
FROM attempt
JOIN placement ON placement.job = attempt.job AND placement.lease = attempt.lease AND placement.rank = 0
LEFT JOIN output_log
    ON output_log.job = attempt.job AND output_log.lease = attempt.lease AND output_log.rank = 0
WHERE attempt.job = ?1
ORDER BY attempt.lease

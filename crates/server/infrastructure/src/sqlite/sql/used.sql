SELECT worker.provider, sum(held.cpu_millis), sum(held.memory_bytes)
FROM job_live AS held INDEXED BY job_live_held
JOIN worker ON worker.id = held.worker
WHERE held.worker IS NOT NULL
GROUP BY worker.provider

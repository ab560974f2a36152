SELECT worker, sum(cpu_millis), sum(memory_bytes)
FROM job_live INDEXED BY job_live_held
WHERE worker IS NOT NULL
GROUP BY worker

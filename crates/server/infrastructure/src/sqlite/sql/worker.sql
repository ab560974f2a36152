SELECT id, namespace, provider, phase, first_job, machine, session, beat, cpu_millis, memory_bytes, slots,
       used_slots, enforced, revoked, created_at, phase_since, idle_since, ended_at, message
FROM worker

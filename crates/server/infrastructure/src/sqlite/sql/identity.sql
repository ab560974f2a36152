SELECT identity.generation, identity.spki, identity.not_after, worker.revoked, worker.used_slots > 0,
       identity.chain, worker.phase
FROM identity
JOIN worker ON worker.id = identity.worker
WHERE identity.worker = ?1

//! What changes workers, their one-time passwords, identities and sessions. Redemption and renewal are decided by
//! the domain on the loaded rows inside the transaction, so concurrent ones are one after the other.

use hodei_server_application::ports::workers::{
    BeatRecord, Certificate, NewWorker, Redeem, RedeemOutcome, RenewOutcome, SessionOutcome, SessionStart,
    WorkerChange,
};
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::identity::{Identity, RenewalDecision, RenewalRequest};
use hodei_server_domain::worker::otp::{Attempted, Otp, OtpDecision, OtpRefusal};
use hodei_server_domain::worker::phase::{WorkerEvent, WorkerPhase};
use hodei_shared::ids::WorkerId;
use hodei_shared::text;
use rusqlite::{OptionalExtension, Result, Row, params};

use super::core::Change;
use super::value::{chain_bytes, chain_from, int, phase_from, phase_number, to_json, uint};
use super::workers_read::{IDENTITY, OTP, identity_row, otp_row};

pub(super) const BEGIN_SESSION: &str = include_str!("sql/begin_session.sql");
pub(super) const BEAT: &str = "UPDATE worker SET beat = max(beat, ?3)
     WHERE id = ?1 AND session = ?2 AND phase < 4 AND revoked = 0";
const WORKER_STATE: &str = "SELECT namespace, phase, used_slots, revoked, machine FROM worker WHERE id = ?1";

/// How much of a password's public id an event shows.
const SHOWN_OTP_ID_CHARS: usize = 64;

/// What a change of a worker is decided by.
struct WorkerState {
    namespace: String,
    phase: WorkerPhase,
    used_slots: u32,
    revoked: bool,
    machine: String,
}

/// A password, whose it is, and the certificate that it was redeemed for.
struct StoredOtp {
    worker: WorkerId,
    otp: Otp,
    chain: Vec<Vec<u8>>,
}

impl Change<'_> {
    pub(super) fn plan(&mut self, workers: &[NewWorker]) -> Result<()> {
        for worker in workers {
            let stored = self
                .connection
                .prepare_cached(
                    "INSERT INTO worker (id, namespace, provider, phase, first_job, slots, created_at,
                         phase_since, idle_since)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    worker.id.as_bytes(),
                    worker.namespace.as_str(),
                    worker.provider.as_str(),
                    phase_number(WorkerPhase::Planned),
                    worker.first_job.as_bytes(),
                    worker.slots,
                    self.now_ms
                ])?;
            if stored == 1 {
                let event = Event::WorkerPlanned {
                    worker: worker.id,
                    provider: worker.provider.clone(),
                };
                self.event(worker.namespace.as_str(), event);
            }
        }
        Ok(())
    }

    pub(super) fn change_workers(&mut self, changes: &[WorkerChange]) -> Result<Vec<bool>> {
        changes.iter().map(|change| self.change_worker(change)).collect()
    }

    fn change_worker(&mut self, change: &WorkerChange) -> Result<bool> {
        let id = change.worker();
        let Some(state) = self.worker_state(id)? else {
            return Ok(false);
        };
        match change {
            WorkerChange::Creating {
                otp_id, secret_hash, ..
            } => {
                let moved = self.move_worker(id, &state, WorkerEvent::Creating, "")?;
                if moved {
                    self.connection
                        .prepare_cached("INSERT INTO otp (id, worker, secret_hash) VALUES (?1, ?2, ?3)")?
                        .execute(params![otp_id, id.as_bytes(), secret_hash])?;
                }
                Ok(moved)
            }
            WorkerChange::Started { machine, .. } => self.started(id, &state, machine),
            WorkerChange::Drain {
                message, only_idle, ..
            } => {
                if *only_idle && state.used_slots > 0 {
                    return Ok(false);
                }
                self.drain(id, &state, message)
            }
            WorkerChange::Revoke { message, .. } => self.revoke(id, &state, message),
            WorkerChange::Gone { message, .. } => self.gone(id, &state, message),
        }
    }

    fn worker_state(&self, worker: WorkerId) -> Result<Option<WorkerState>> {
        let mut select = self.connection.prepare_cached(WORKER_STATE)?;
        let found = select.query_row([worker.as_bytes()], |row| {
            Ok(WorkerState {
                namespace: row.get(0)?,
                phase: phase_from(row, 1)?,
                used_slots: row.get(2)?,
                revoked: row.get(3)?,
                machine: row.get(4)?,
            })
        });
        found.optional()
    }

    /// Moves a worker on if the domain says so.
    fn move_worker(
        &self,
        worker: WorkerId,
        state: &WorkerState,
        event: WorkerEvent,
        message: &str,
    ) -> Result<bool> {
        let Some(phase) = state.phase.apply(event) else {
            return Ok(false);
        };
        self.connection
            .prepare_cached("UPDATE worker SET phase = ?2, phase_since = ?3, message = ?4 WHERE id = ?1")?
            .execute(params![
                worker.as_bytes(),
                phase_number(phase),
                self.now_ms,
                message
            ])?;
        Ok(true)
    }

    fn started(&self, worker: WorkerId, state: &WorkerState, machine: &str) -> Result<bool> {
        if state.phase == WorkerPhase::Gone {
            return Ok(false);
        }
        let mut changed = state.machine != machine;
        if changed {
            self.connection
                .prepare_cached("UPDATE worker SET machine = ?2 WHERE id = ?1")?
                .execute(params![worker.as_bytes(), machine])?;
        }
        if state.phase == WorkerPhase::Starting {
            let armed = self
                .connection
                .prepare_cached(
                    "UPDATE otp SET armed_at = ?2 WHERE worker = ?1 AND armed_at IS NULL AND revoked = 0",
                )?
                .execute(params![worker.as_bytes(), self.now_ms])?;
            changed |= armed > 0;
        }
        Ok(changed)
    }

    fn drain(&mut self, worker: WorkerId, state: &WorkerState, message: &str) -> Result<bool> {
        let moved = self.move_worker(worker, state, WorkerEvent::Drain, message)?;
        if moved {
            let message = message.to_owned();
            self.event(&state.namespace, Event::WorkerDraining { worker, message });
        }
        Ok(moved)
    }

    fn revoke(&mut self, worker: WorkerId, state: &WorkerState, message: &str) -> Result<bool> {
        if state.revoked || state.phase == WorkerPhase::Gone {
            return Ok(false);
        }
        self.connection
            .prepare_cached("UPDATE worker SET revoked = 1 WHERE id = ?1")?
            .execute([worker.as_bytes()])?;
        self.void_passwords(worker)?;
        let event = Event::IdentityRevoked {
            worker,
            message: message.to_owned(),
        };
        self.event(&state.namespace, event);
        self.drain(worker, state, message)?;
        Ok(true)
    }

    fn gone(&mut self, worker: WorkerId, state: &WorkerState, message: &str) -> Result<bool> {
        if !self.move_worker(worker, state, WorkerEvent::Gone, message)? {
            return Ok(false);
        }
        self.connection
            .prepare_cached("UPDATE worker SET ended_at = ?2 WHERE id = ?1")?
            .execute(params![worker.as_bytes(), self.now_ms])?;
        self.void_passwords(worker)?;
        let message = message.to_owned();
        self.event(&state.namespace, Event::WorkerGone { worker, message });
        Ok(true)
    }

    fn void_passwords(&self, worker: WorkerId) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE otp SET revoked = 1 WHERE worker = ?1")?
            .execute([worker.as_bytes()])?;
        Ok(())
    }

    pub(super) fn redeem(&mut self, redeem: &Redeem) -> Result<RedeemOutcome> {
        let found = self.load_otp(&redeem.otp_id)?;
        let Some(StoredOtp { worker, otp, chain }) = found else {
            return Ok(self.refuse_otp(redeem, "", OtpRefusal::Unknown));
        };
        let Some(state) = self.worker_state(worker)? else {
            return Ok(self.refuse_otp(redeem, "", OtpRefusal::Unknown));
        };
        let attempted = Attempted {
            secret_matches: redeem.secret_matches,
            spki: redeem.candidate.spki,
            now_ms: self.now_ms,
        };
        match otp.decide(attempted) {
            OtpDecision::Issue => {
                self.register(worker, &state, redeem)?;
                Ok(RedeemOutcome::Issued(redeem.candidate.chain.clone()))
            }
            OtpDecision::Repeat => Ok(RedeemOutcome::Repeated(chain)),
            OtpDecision::TryAgain => Ok(RedeemOutcome::TryAgain),
            OtpDecision::Reused => {
                self.event(&state.namespace, Event::OtpReused { worker });
                self.revoke(worker, &state, "its password came again with another key")?;
                Ok(RedeemOutcome::Reused(worker))
            }
            OtpDecision::Refuse(why) => Ok(self.refuse_otp(redeem, &state.namespace, why)),
        }
    }

    fn load_otp(&self, otp_id: &str) -> Result<Option<StoredOtp>> {
        let mut select = self.connection.prepare_cached(OTP)?;
        let load = |row: &Row<'_>| {
            let (worker, otp) = otp_row(row)?;
            let chain = if otp.redeemed.is_some() {
                chain_from(row, 6)?
            } else {
                Vec::new()
            };
            Ok(StoredOtp { worker, otp, chain })
        };
        select.query_row([otp_id], load).optional()
    }

    fn refuse_otp(&mut self, redeem: &Redeem, namespace: &str, why: OtpRefusal) -> RedeemOutcome {
        let event = Event::OtpRefused {
            otp_id: text::shorten(&redeem.otp_id, SHOWN_OTP_ID_CHARS),
            why,
        };
        self.event(namespace, event);
        RedeemOutcome::Refused(why)
    }

    fn register(&mut self, worker: WorkerId, state: &WorkerState, redeem: &Redeem) -> Result<()> {
        let candidate = &redeem.candidate;
        self.connection
            .prepare_cached("UPDATE otp SET spki = ?2, redeemed_at = ?3, chain = ?4 WHERE id = ?1")?
            .execute(params![
                redeem.otp_id,
                candidate.spki.0,
                self.now_ms,
                chain_bytes(&candidate.chain)
            ])?;
        self.store_identity(worker, candidate)?;
        self.connection
            .prepare_cached("UPDATE worker SET idle_since = ?2 WHERE id = ?1")?
            .execute(params![worker.as_bytes(), self.now_ms])?;
        // One that drains already stays so: it connects to hear that it may leave.
        self.move_worker(worker, state, WorkerEvent::Registered, "")?;
        self.event(&state.namespace, Event::WorkerRegistered { worker });
        Ok(())
    }

    fn store_identity(&self, worker: WorkerId, certificate: &Certificate) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO identity (worker, generation, spki, not_after, chain) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (worker) DO UPDATE
                 SET generation = excluded.generation, spki = excluded.spki, not_after = excluded.not_after,
                     chain = excluded.chain",
            )?
            .execute(params![
                worker.as_bytes(),
                int(certificate.generation),
                certificate.spki.0,
                certificate.not_after_ms,
                chain_bytes(&certificate.chain)
            ])?;
        Ok(())
    }

    pub(super) fn renew(
        &mut self,
        worker: WorkerId,
        request: RenewalRequest,
        candidate: &Certificate,
    ) -> Result<RenewOutcome> {
        let found = self.load_identity(worker)?;
        let (Some((identity, chain)), Some(state)) = (found, self.worker_state(worker)?) else {
            return Ok(RenewOutcome::NoSuchWorker);
        };
        if state.phase == WorkerPhase::Gone {
            return Ok(RenewOutcome::NoSuchWorker);
        }
        let now_ms = self.now_ms;
        Ok(match identity.decide(RenewalRequest { now_ms, ..request }) {
            RenewalDecision::Issue => {
                self.store_identity(worker, candidate)?;
                RenewOutcome::Issued(candidate.chain.clone())
            }
            RenewalDecision::Repeat => RenewOutcome::Repeated(chain),
            RenewalDecision::Stolen => {
                self.revoke(
                    worker,
                    &state,
                    "a renewal came from an older or foreign certificate",
                )?;
                RenewOutcome::Stolen
            }
            RenewalDecision::Refuse(why) => RenewOutcome::Refused(why),
        })
    }

    fn load_identity(&self, worker: WorkerId) -> Result<Option<(Identity, Vec<Vec<u8>>)>> {
        let mut select = self.connection.prepare_cached(IDENTITY)?;
        let load = |row: &Row<'_>| Ok((identity_row(row)?, chain_from(row, 5)?));
        select.query_row([worker.as_bytes()], load).optional()
    }

    pub(super) fn begin_session(&mut self, start: &SessionStart) -> Result<SessionOutcome> {
        let begun = self
            .connection
            .prepare_cached(BEGIN_SESSION)?
            .query_row(
                params![
                    start.worker.as_bytes(),
                    int(start.generation),
                    int(start.room.cpu_millis),
                    int(start.room.memory_bytes),
                    start.slots,
                    to_json(&start.enforced)?,
                    self.now_ms
                ],
                |row| Ok((uint(row, 0)?, row.get::<_, String>(1)?)),
            )
            .optional()?;
        let Some((session, namespace)) = begun else {
            return Ok(SessionOutcome::Refused);
        };
        let event = Event::WorkerConnected {
            worker: start.worker,
            session,
            room: start.room,
        };
        self.event(&namespace, event);
        Ok(SessionOutcome::Began(session))
    }

    pub(super) fn beat(&self, beats: &[BeatRecord]) -> Result<Vec<bool>> {
        let mut update = self.connection.prepare_cached(BEAT)?;
        beats
            .iter()
            .map(|beat| {
                let changed =
                    update.execute(params![beat.worker.as_bytes(), int(beat.session), int(beat.beat)])?;
                Ok(changed == 1)
            })
            .collect()
    }
}

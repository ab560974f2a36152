//! Workers, their one-time passwords and identities.

use async_trait::async_trait;
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::identity::{Identity, RenewalDecision, RenewalRequest};
use hodei_server_domain::worker::otp::{Attempted, Otp, OtpDecision, OtpRefusal, Redemption};
use hodei_server_domain::worker::phase::{WorkerEvent, WorkerPhase};
use hodei_shared::ids::WorkerId;
use hodei_shared::resources::Resources;
use hodei_shared::text;

use super::{FakeOtp, FakeStore, FakeWorker, State};
use crate::ports::StoreError;
use crate::ports::workers::{
    BeatRecord, Certificate, NewWorker, Redeem, RedeemOutcome, RenewOutcome, SessionOutcome, SessionStart,
    WorkerChange, WorkerRecord, WorkerRegistry,
};

impl State {
    fn plan_one(&mut self, new: NewWorker) {
        if self.workers.contains_key(&new.id) {
            return;
        }
        self.event(Event::WorkerPlanned {
            worker: new.id,
            provider: new.provider.clone(),
        });
        let record = WorkerRecord {
            id: new.id,
            namespace: new.namespace,
            provider: new.provider,
            phase: WorkerPhase::Planned,
            first_job: new.first_job,
            machine: String::new(),
            session: 0,
            beat: 0,
            room: Resources::default(),
            slots: new.slots,
            used_slots: 0,
            enforced: Vec::new(),
            revoked: false,
            created_at_ms: self.now_ms,
            phase_since_ms: self.now_ms,
            idle_since_ms: self.now_ms,
            ended_at_ms: None,
            message: String::new(),
        };
        let worker = FakeWorker {
            record,
            certificate: None,
        };
        self.workers.insert(new.id, worker);
    }

    fn move_worker(&mut self, id: WorkerId, event: WorkerEvent, message: &str) -> bool {
        let now_ms = self.now_ms;
        let Some(worker) = self.workers.get_mut(&id).map(|worker| &mut worker.record) else {
            return false;
        };
        let Some(phase) = worker.phase.apply(event) else {
            return false;
        };
        worker.phase = phase;
        worker.phase_since_ms = now_ms;
        worker.message = message.to_owned();
        true
    }

    fn change_worker(&mut self, change: WorkerChange) -> bool {
        match change {
            WorkerChange::Creating {
                worker,
                otp_id,
                secret_hash,
            } => {
                let moved = self.move_worker(worker, WorkerEvent::Creating, "");
                if moved {
                    assert!(!self.otps.contains_key(&otp_id), "a password's id is used twice");
                    let otp = Otp {
                        secret_hash,
                        armed_at_ms: None,
                        redeemed: None,
                        revoked: false,
                    };
                    let chain = Vec::new();
                    self.otps.insert(otp_id, FakeOtp { worker, otp, chain });
                }
                moved
            }
            WorkerChange::Started { worker, machine } => self.started(worker, machine),
            WorkerChange::Drain {
                worker,
                message,
                only_idle,
            } => {
                let busy = self
                    .workers
                    .get(&worker)
                    .is_some_and(|worker| worker.record.used_slots > 0);
                !(only_idle && busy) && self.drain(worker, &message)
            }
            WorkerChange::Revoke { worker, message } => self.revoke(worker, &message),
            WorkerChange::Gone { worker, message } => {
                let moved = self.move_worker(worker, WorkerEvent::Gone, &message);
                if moved {
                    let now_ms = self.now_ms;
                    let stored = self.workers.get_mut(&worker).expect("it moved");
                    stored.record.ended_at_ms = Some(now_ms);
                    self.void_passwords(worker);
                    self.event(Event::WorkerGone { worker, message });
                }
                moved
            }
        }
    }

    fn started(&mut self, id: WorkerId, machine: String) -> bool {
        let now_ms = self.now_ms;
        let Some(worker) = self.workers.get_mut(&id).map(|worker| &mut worker.record) else {
            return false;
        };
        if worker.phase == WorkerPhase::Gone {
            return false;
        }
        let mut changed = worker.machine != machine;
        worker.machine = machine;
        if worker.phase == WorkerPhase::Starting {
            for otp in self.otps.values_mut().filter(|otp| otp.worker == id) {
                if otp.otp.armed_at_ms.is_none() && !otp.otp.revoked {
                    otp.otp.armed_at_ms = Some(now_ms);
                    changed = true;
                }
            }
        }
        changed
    }

    fn drain(&mut self, worker: WorkerId, message: &str) -> bool {
        let moved = self.move_worker(worker, WorkerEvent::Drain, message);
        if moved {
            let message = message.to_owned();
            self.event(Event::WorkerDraining { worker, message });
        }
        moved
    }

    fn revoke(&mut self, worker: WorkerId, message: &str) -> bool {
        let Some(stored) = self.workers.get_mut(&worker) else {
            return false;
        };
        if stored.record.revoked || stored.record.phase == WorkerPhase::Gone {
            return false;
        }
        stored.record.revoked = true;
        self.void_passwords(worker);
        self.event(Event::IdentityRevoked {
            worker,
            message: message.to_owned(),
        });
        self.drain(worker, message);
        true
    }

    fn void_passwords(&mut self, worker: WorkerId) {
        for otp in self.otps.values_mut().filter(|otp| otp.worker == worker) {
            otp.otp.revoked = true;
        }
    }

    fn redeem_one(&mut self, redeem: Redeem) -> RedeemOutcome {
        let now_ms = self.now_ms;
        let Some(stored) = self.otps.get_mut(&redeem.otp_id) else {
            return self.refuse(&redeem.otp_id, OtpRefusal::Unknown);
        };
        let worker = stored.worker;
        let attempted = Attempted {
            secret_matches: redeem.secret_matches,
            spki: redeem.candidate.spki,
            now_ms,
        };
        match stored.otp.decide(attempted) {
            OtpDecision::Issue => {
                let chain = redeem.candidate.chain.clone();
                stored.otp.redeemed = Some(Redemption {
                    spki: redeem.candidate.spki,
                    at_ms: now_ms,
                });
                stored.chain = chain.clone();
                let known = self.workers.get_mut(&worker).expect("a password has a worker");
                assert!(known.certificate.is_none(), "a worker registers twice");
                known.certificate = Some(redeem.candidate);
                known.record.idle_since_ms = now_ms;
                self.move_worker(worker, WorkerEvent::Registered, "");
                self.event(Event::WorkerRegistered { worker });
                RedeemOutcome::Issued(chain)
            }
            OtpDecision::Repeat => RedeemOutcome::Repeated(stored.chain.clone()),
            OtpDecision::TryAgain => RedeemOutcome::TryAgain,
            OtpDecision::Reused => {
                self.event(Event::OtpReused { worker });
                self.revoke(worker, "its password came again with another key");
                RedeemOutcome::Reused(worker)
            }
            OtpDecision::Refuse(why) => self.refuse(&redeem.otp_id, why),
        }
    }

    fn refuse(&mut self, otp_id: &str, why: OtpRefusal) -> RedeemOutcome {
        let otp_id = text::shorten(otp_id, 64);
        self.event(Event::OtpRefused { otp_id, why });
        RedeemOutcome::Refused(why)
    }

    fn identity_of(&self, worker: WorkerId) -> Option<Identity> {
        let worker = self.workers.get(&worker)?;
        let certificate = worker.certificate.as_ref()?;
        Some(Identity {
            generation: certificate.generation,
            spki: certificate.spki,
            not_after_ms: certificate.not_after_ms,
            revoked: worker.record.revoked,
            has_live_attempt: worker.record.used_slots > 0,
        })
    }

    fn renew_one(&mut self, id: WorkerId, request: RenewalRequest, candidate: Certificate) -> RenewOutcome {
        let now_ms = self.now_ms;
        let identity = self.identity_of(id);
        let stored = self
            .workers
            .get_mut(&id)
            .filter(|worker| worker.record.phase != WorkerPhase::Gone);
        let (Some(identity), Some(stored)) = (identity, stored) else {
            return RenewOutcome::NoSuchWorker;
        };
        match identity.decide(RenewalRequest { now_ms, ..request }) {
            RenewalDecision::Issue => {
                assert_eq!(
                    candidate.generation,
                    identity.generation + 1,
                    "generations grow by one"
                );
                assert_eq!(
                    candidate.spki, request.new_spki,
                    "the candidate is for the key that asks"
                );
                let chain = candidate.chain.clone();
                stored.certificate = Some(candidate);
                RenewOutcome::Issued(chain)
            }
            RenewalDecision::Repeat => {
                let chain = stored
                    .certificate
                    .as_ref()
                    .map(|certificate| certificate.chain.clone());
                RenewOutcome::Repeated(chain.unwrap_or_default())
            }
            RenewalDecision::Stolen => {
                self.revoke(id, "a renewal came from an older or foreign certificate");
                RenewOutcome::Stolen
            }
            RenewalDecision::Refuse(why) => RenewOutcome::Refused(why),
        }
    }

    fn begin(&mut self, start: SessionStart) -> SessionOutcome {
        let now_ms = self.now_ms;
        let generation = self.identity_of(start.worker).map(|identity| identity.generation);
        let known = generation.is_some_and(|g| g == start.generation || g == start.generation + 1);
        let Some(worker) = self
            .workers
            .get_mut(&start.worker)
            .map(|worker| &mut worker.record)
        else {
            return SessionOutcome::Refused;
        };
        let phase = matches!(worker.phase, WorkerPhase::Ready | WorkerPhase::Draining);
        if !known || !phase || worker.revoked {
            return SessionOutcome::Refused;
        }
        if worker.session == 0 {
            worker.idle_since_ms = now_ms;
        }
        worker.session += 1;
        worker.beat = 0;
        worker.room = start.room;
        worker.slots = worker.slots.min(start.slots);
        worker.enforced = start.enforced;
        let session = worker.session;
        self.event(Event::WorkerConnected {
            worker: start.worker,
            session,
            room: start.room,
        });
        SessionOutcome::Began(session)
    }

    fn beat_one(&mut self, beat: BeatRecord) -> bool {
        let Some(worker) = self
            .workers
            .get_mut(&beat.worker)
            .map(|worker| &mut worker.record)
        else {
            return false;
        };
        let current = worker.session == beat.session && worker.phase != WorkerPhase::Gone && !worker.revoked;
        if current {
            worker.beat = worker.beat.max(beat.beat);
        }
        current
    }
}

#[async_trait]
impl WorkerRegistry for FakeStore {
    async fn plan(&self, workers: Vec<NewWorker>) -> Result<(), StoreError> {
        self.write(|state| workers.into_iter().for_each(|worker| state.plan_one(worker)))
    }

    async fn change(&self, changes: Vec<WorkerChange>) -> Result<Vec<bool>, StoreError> {
        self.write(|state| {
            changes
                .into_iter()
                .map(|change| state.change_worker(change))
                .collect()
        })
    }

    async fn live(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        Ok(self.read(|state| {
            let records = state.workers.values().map(|worker| &worker.record);
            records
                .filter(|record| record.phase != WorkerPhase::Gone)
                .cloned()
                .collect()
        }))
    }

    async fn list(&self, limit: usize) -> Result<Vec<WorkerRecord>, StoreError> {
        Ok(self.read(|state| {
            state
                .workers
                .values()
                .rev()
                .take(limit)
                .map(|w| w.record.clone())
                .collect()
        }))
    }

    async fn get(&self, worker: WorkerId) -> Result<Option<WorkerRecord>, StoreError> {
        Ok(self.read(|state| state.workers.get(&worker).map(|worker| worker.record.clone())))
    }

    async fn otp(&self, otp_id: &str) -> Result<Option<(WorkerId, Otp)>, StoreError> {
        Ok(self.read(|state| state.otps.get(otp_id).map(|otp| (otp.worker, otp.otp.clone()))))
    }

    async fn redeem(&self, redeem: Redeem) -> Result<RedeemOutcome, StoreError> {
        self.write(|state| state.redeem_one(redeem))
    }

    async fn identity(&self, worker: WorkerId) -> Result<Option<Identity>, StoreError> {
        Ok(self.read(|state| state.identity_of(worker)))
    }

    async fn renew(
        &self,
        worker: WorkerId,
        request: RenewalRequest,
        candidate: Certificate,
    ) -> Result<RenewOutcome, StoreError> {
        self.write(|state| state.renew_one(worker, request, candidate))
    }

    async fn begin_session(&self, start: SessionStart) -> Result<SessionOutcome, StoreError> {
        self.write(|state| state.begin(start))
    }

    async fn beat(&self, beats: Vec<BeatRecord>) -> Result<Vec<bool>, StoreError> {
        self.write(|state| beats.into_iter().map(|beat| state.beat_one(beat)).collect())
    }
}

//! What is read of workers, their one-time passwords and identities.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::workers::{
    BeatRecord, Certificate, NewWorker, Redeem, RedeemOutcome, RenewOutcome, SessionOutcome, SessionStart,
    WorkerChange, WorkerRecord, WorkerRegistry,
};
use hodei_server_domain::worker::identity::{Identity, RenewalRequest};
use hodei_server_domain::worker::otp::{Otp, Redemption, SpkiHash};
use hodei_shared::ids::WorkerId;
use hodei_shared::resources::Resources;
use rusqlite::{OptionalExtension, Row};

use super::SqliteStore;
use super::op::{Op, perform};
use super::value::{count, from_json, job_id, name, phase_from, uint, worker_id};

pub(super) const ONE: &str = concat!(include_str!("sql/worker.sql"), "WHERE id = ?1");
pub(super) const LIVE: &str = concat!(include_str!("sql/worker.sql"), "WHERE phase < 4 ORDER BY id");
pub(super) const NEWEST: &str = concat!(include_str!("sql/worker.sql"), "ORDER BY id DESC LIMIT ?1");
pub(super) const OTP: &str =
    "SELECT worker, secret_hash, armed_at, spki, redeemed_at, revoked, chain FROM otp WHERE id = ?1";
pub(super) const IDENTITY: &str = include_str!("sql/identity.sql");

fn worker_record(row: &Row<'_>) -> rusqlite::Result<WorkerRecord> {
    Ok(WorkerRecord {
        id: worker_id(row, 0)?,
        namespace: name(row, 1)?,
        provider: name(row, 2)?,
        phase: phase_from(row, 3)?,
        first_job: job_id(row, 4)?,
        machine: row.get(5)?,
        session: uint(row, 6)?,
        beat: uint(row, 7)?,
        room: Resources {
            cpu_millis: uint(row, 8)?,
            memory_bytes: uint(row, 9)?,
        },
        slots: row.get(10)?,
        used_slots: row.get(11)?,
        enforced: from_json(row, 12)?,
        revoked: row.get(13)?,
        created_at_ms: row.get(14)?,
        phase_since_ms: row.get(15)?,
        idle_since_ms: row.get(16)?,
        ended_at_ms: row.get(17)?,
        message: row.get(18)?,
    })
}

/// A row of [`OTP`].
pub(super) fn otp_row(row: &Row<'_>) -> rusqlite::Result<(WorkerId, Otp)> {
    let spki: Option<[u8; 32]> = row.get(3)?;
    let redeemed = match spki {
        Some(spki) => Some(Redemption {
            spki: SpkiHash(spki),
            at_ms: row.get(4)?,
        }),
        None => None,
    };
    let otp = Otp {
        secret_hash: row.get(1)?,
        armed_at_ms: row.get(2)?,
        redeemed,
        revoked: row.get(5)?,
    };
    Ok((worker_id(row, 0)?, otp))
}

/// A row of [`IDENTITY`].
pub(super) fn identity_row(row: &Row<'_>) -> rusqlite::Result<Identity> {
    Ok(Identity {
        generation: uint(row, 0)?,
        spki: SpkiHash(row.get(1)?),
        not_after_ms: row.get(2)?,
        revoked: row.get(3)?,
        has_live_attempt: row.get(4)?,
    })
}

#[async_trait]
impl WorkerRegistry for SqliteStore {
    async fn plan(&self, workers: Vec<NewWorker>) -> Result<(), StoreError> {
        perform!(self, Op::Plan(workers), Plan)
    }

    async fn change(&self, changes: Vec<WorkerChange>) -> Result<Vec<bool>, StoreError> {
        perform!(self, Op::ChangeWorkers(changes), ChangeWorkers)
    }

    async fn live(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(LIVE)?
                .query_map([], worker_record)?
                .collect()
        })
        .await
    }

    async fn list(&self, limit: usize) -> Result<Vec<WorkerRecord>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(NEWEST)?
                .query_map([count(limit)], worker_record)?
                .collect()
        })
        .await
    }

    async fn get(&self, worker: WorkerId) -> Result<Option<WorkerRecord>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(ONE)?
                .query_row([worker.as_bytes()], worker_record)
                .optional()
        })
        .await
    }

    async fn otp(&self, otp_id: &str) -> Result<Option<(WorkerId, Otp)>, StoreError> {
        let otp_id = otp_id.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(OTP)?
                .query_row([otp_id], otp_row)
                .optional()
        })
        .await
    }

    async fn redeem(&self, redeem: Redeem) -> Result<RedeemOutcome, StoreError> {
        perform!(self, Op::Redeem(redeem), Redeem)
    }

    async fn identity(&self, worker: WorkerId) -> Result<Option<Identity>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(IDENTITY)?
                .query_row([worker.as_bytes()], identity_row)
                .optional()
        })
        .await
    }

    async fn renew(
        &self,
        worker: WorkerId,
        request: RenewalRequest,
        candidate: Certificate,
    ) -> Result<RenewOutcome, StoreError> {
        perform!(self, Op::Renew(worker, request, candidate), Renew)
    }

    async fn begin_session(&self, start: SessionStart) -> Result<SessionOutcome, StoreError> {
        perform!(self, Op::BeginSession(start), BeginSession)
    }

    async fn beat(&self, beats: Vec<BeatRecord>) -> Result<Vec<bool>, StoreError> {
        perform!(self, Op::Beat(beats), Beat)
    }
}

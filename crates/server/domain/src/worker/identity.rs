//! Who a worker is after it registered: a certificate of one generation, renewed at half of its life.

use super::otp::SpkiHash;

/// How long after its end a certificate can still be renewed by a worker that holds a live attempt.
pub const EXPIRED_RENEWAL_CAP_MS: i64 = 7 * 86_400_000;

/// What the store knows of a worker's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Grows by one with each renewal; stands in the certificate.
    pub generation: u64,
    /// The key of that generation.
    pub spki: SpkiHash,
    /// End of the certificate's validity.
    pub not_after_ms: i64,
    /// The identity was revoked.
    pub revoked: bool,
    /// Whether the worker holds a live attempt.
    pub has_live_attempt: bool,
}

/// A renewal that is asked for, over a connection with a certificate of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalRequest {
    /// Generation in the certificate that is shown.
    pub shown_generation: u64,
    /// The key of the certificate that is shown.
    pub shown_spki: SpkiHash,
    /// The key that asks for a certificate.
    pub new_spki: SpkiHash,
    /// End of validity of the certificate that is shown.
    pub shown_not_after_ms: i64,
    /// Store time.
    pub now_ms: i64,
}

/// What a renewal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalDecision {
    /// Issue the next generation.
    Issue,
    /// The reply was lost: hand out the stored bytes again.
    Repeat,
    /// An older generation with another key: theft. Revoke.
    Stolen,
    /// Refused.
    Refuse(RenewalRefusal),
}

/// Why a renewal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalRefusal {
    /// The identity was revoked.
    Revoked,
    /// The certificate has ended and nothing justifies a renewal.
    Expired,
    /// An ended certificate is renewed with its own key only.
    OtherKey,
}

impl Identity {
    /// Decides a renewal.
    pub fn decide(&self, request: RenewalRequest) -> RenewalDecision {
        if self.revoked {
            return RenewalDecision::Refuse(RenewalRefusal::Revoked);
        }
        if request.shown_generation + 1 == self.generation && request.new_spki == self.spki {
            return RenewalDecision::Repeat;
        }
        if request.shown_generation != self.generation || request.shown_spki != self.spki {
            return RenewalDecision::Stolen;
        }
        let overdue_ms = request.now_ms - request.shown_not_after_ms;
        if overdue_ms > 0 {
            if !self.has_live_attempt || overdue_ms > EXPIRED_RENEWAL_CAP_MS {
                return RenewalDecision::Refuse(RenewalRefusal::Expired);
            }
            if request.new_spki != request.shown_spki {
                return RenewalDecision::Refuse(RenewalRefusal::OtherKey);
            }
        }
        RenewalDecision::Issue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: SpkiHash = SpkiHash([1; 32]);
    const CURRENT: SpkiHash = SpkiHash([2; 32]);
    const NEXT: SpkiHash = SpkiHash([3; 32]);

    fn ask(generation: u64, shown: SpkiHash, new: SpkiHash, now_ms: i64) -> RenewalRequest {
        RenewalRequest {
            shown_generation: generation,
            shown_spki: shown,
            new_spki: new,
            shown_not_after_ms: 1_000,
            now_ms,
        }
    }

    #[test]
    fn every_renewal_is_decided() {
        use RenewalDecision::{Issue, Refuse, Repeat, Stolen};
        let live = Identity {
            generation: 2,
            spki: CURRENT,
            not_after_ms: 1_000,
            revoked: false,
            has_live_attempt: true,
        };
        let idle = Identity {
            has_live_attempt: false,
            ..live.clone()
        };
        let revoked = Identity {
            revoked: true,
            ..live.clone()
        };
        let week = EXPIRED_RENEWAL_CAP_MS;
        for (name, identity, request, want) in [
            ("half-life", &live, ask(2, CURRENT, NEXT, 500), Issue),
            ("lost reply", &live, ask(1, OLD, CURRENT, 500), Repeat),
            (
                "older generation, other key",
                &live,
                ask(1, OLD, NEXT, 500),
                Stolen,
            ),
            (
                "same generation, other key shown",
                &live,
                ask(2, OLD, NEXT, 500),
                Stolen,
            ),
            (
                "expired, live attempt, same key",
                &live,
                ask(2, CURRENT, CURRENT, 5_000),
                Issue,
            ),
            (
                "expired, other key",
                &live,
                ask(2, CURRENT, NEXT, 5_000),
                Refuse(RenewalRefusal::OtherKey),
            ),
            (
                "expired, idle",
                &idle,
                ask(2, CURRENT, CURRENT, 5_000),
                Refuse(RenewalRefusal::Expired),
            ),
            (
                "a week later",
                &live,
                ask(2, CURRENT, CURRENT, week + 2_000),
                Refuse(RenewalRefusal::Expired),
            ),
            (
                "revoked",
                &revoked,
                ask(2, CURRENT, NEXT, 500),
                Refuse(RenewalRefusal::Revoked),
            ),
        ] {
            assert_eq!(identity.decide(request), want, "{name}");
        }
    }
}

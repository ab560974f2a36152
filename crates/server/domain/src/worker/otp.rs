//! One-time passwords: `hodei_otp_ID_SECRET`, redeemed once, while the machine that got it starts or runs.
//!
//! The domain sees only a keyed hash of the secret. Why a redemption is refused is told to the event log alone;
//! the caller hears one vague reason, but for the right secret before its machine is confirmed: "try again".

use serde::{Deserialize, Serialize};

/// How long after its machine's start a password can be redeemed.
pub const OTP_LIFE_MS: i64 = 120_000;
/// How long the stored certificate is handed out again to the same key.
pub const REPEAT_MS: i64 = 120_000;

/// The hash of a certificate's public key: SHA-256 over the SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpkiHash(pub [u8; 32]);

/// What the store knows of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otp {
    /// Keyed hash of the secret.
    pub secret_hash: [u8; 32],
    /// When its machine was seen to start; `None`: not armed yet.
    pub armed_at_ms: Option<i64>,
    /// Its redemption.
    pub redeemed: Option<Redemption>,
    /// The worker's identity was revoked, or its machine destroyed.
    pub revoked: bool,
}

/// A redemption that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// Whose key it was.
    pub spki: SpkiHash,
    /// When.
    pub at_ms: i64,
}

/// A redemption that is asked for, after the request's own signature was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    /// Whether the secret's keyed hash is the stored one; compared in constant time by the caller.
    pub secret_matches: bool,
    /// The key that asks.
    pub spki: SpkiHash,
    /// Store time.
    pub now_ms: i64,
}

/// What a redemption leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpDecision {
    /// Issue and store a certificate.
    Issue,
    /// Hand out the stored bytes again.
    Repeat,
    /// The right secret too early.
    TryAgain,
    /// The right secret with another key after its redemption: theft. Revoke the first certificate, destroy the
    /// machine.
    Reused,
    /// Refused.
    Refuse(OtpRefusal),
}

/// Why a redemption is refused; for the event log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtpRefusal {
    /// Not of the form of a password, or no such id.
    Unknown,
    /// The id exists, the secret is another.
    WrongSecret,
    /// Too long after the machine's start.
    Expired,
    /// The worker's identity was revoked.
    Revoked,
    /// The certificate request is not acceptable.
    BadRequest,
}

impl Otp {
    /// Decides a redemption.
    pub fn decide(&self, attempted: Attempted) -> OtpDecision {
        if !attempted.secret_matches {
            return OtpDecision::Refuse(OtpRefusal::WrongSecret);
        }
        if self.revoked {
            return OtpDecision::Refuse(OtpRefusal::Revoked);
        }
        if let Some(first) = &self.redeemed {
            return match attempted.spki == first.spki {
                false => OtpDecision::Reused,
                true if attempted.now_ms - first.at_ms <= REPEAT_MS => OtpDecision::Repeat,
                true => OtpDecision::Refuse(OtpRefusal::Expired),
            };
        }
        match self.armed_at_ms {
            None => OtpDecision::TryAgain,
            Some(at) if attempted.now_ms - at <= OTP_LIFE_MS => OtpDecision::Issue,
            Some(_) => OtpDecision::Refuse(OtpRefusal::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SpkiHash = SpkiHash([1; 32]);
    const B: SpkiHash = SpkiHash([2; 32]);

    fn otp(armed: Option<i64>, redeemed: Option<(SpkiHash, i64)>, revoked: bool) -> Otp {
        let redeemed = redeemed.map(|(spki, at_ms)| Redemption { spki, at_ms });
        Otp {
            secret_hash: [0; 32],
            armed_at_ms: armed,
            redeemed,
            revoked,
        }
    }

    #[test]
    fn every_state_answers_every_redemption() {
        use OtpDecision::{Issue, Refuse, Repeat, Reused, TryAgain};
        use OtpRefusal::{Expired, Revoked, WrongSecret};
        #[rustfmt::skip]
        let table = [
            // state, [right secret in time, right secret late, wrong secret, other key in time]
            (otp(None, None, false), [TryAgain, TryAgain, Refuse(WrongSecret), TryAgain]),
            (otp(Some(0), None, false), [Issue, Refuse(Expired), Refuse(WrongSecret), Issue]),
            (otp(Some(0), Some((A, 0)), false), [Repeat, Refuse(Expired), Refuse(WrongSecret), Reused]),
            (otp(Some(0), Some((A, 0)), true), [Refuse(Revoked), Refuse(Revoked), Refuse(WrongSecret), Refuse(Revoked)]),
            (otp(Some(0), None, true), [Refuse(Revoked), Refuse(Revoked), Refuse(WrongSecret), Refuse(Revoked)]),
        ];
        let asked = [(true, A, 1), (true, A, 120_001), (false, A, 1), (true, B, 1)];
        for (state, wanted) in table {
            for ((secret_matches, spki, now_ms), want) in asked.into_iter().zip(wanted) {
                let got = state.decide(Attempted {
                    secret_matches,
                    spki,
                    now_ms,
                });
                assert_eq!(got, want, "{state:?} at {now_ms} with {spki:?}");
            }
        }
    }
}

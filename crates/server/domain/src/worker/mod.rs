//! Workers: their life ([`phase`]), the one-time password that lets one in ([`otp`]) and who it is afterwards
//! ([`identity`]).

pub mod identity;
pub mod otp;
pub mod phase;

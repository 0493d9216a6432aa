//! How much a device, a user and an address may ask for in a minute.
//!
//! Each has an account per [`Activity`] in a [`ledger`] (pure). An account holds what a minute allows, may be emptied at
//! once, and fills steadily. What is known only after a request was read, such as the operations of an upload, may leave an
//! account overdrawn: the request is served, and the next one waits until that is made up for.
//!
//! **Invariants**
//!
//! - Memory is bounded: accounts that are full again are forgotten, and there are only so many others.
//! - Strangers cannot displace the accounts of users: addresses have a ledger of their own. So have tables, of which
//!   write rules say how much a user may write ([`TableRates`]).
//!
//! Start reading at [`RateLimiter::take`].

mod ledger;
mod tables;

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use self::ledger::Ledger;

pub use self::tables::{TableLimited, TableRates, TableWrites};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Requests with local writes.
    Upload,
    /// The writes in them.
    Operation,
    /// Starts of sync streams.
    Stream,
    /// Write checkpoints that are asked for; those in answers to uploads are free.
    WriteCheckpoint,
    /// Tokens that are not accepted. Counts against the address, since nobody else is known.
    RefusedToken,
}

impl Activity {
    /// As in settings and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "uploads",
            Self::Operation => "operations",
            Self::Stream => "streams",
            Self::WriteCheckpoint => "write_checkpoints",
            Self::RefusedToken => "refused_tokens",
        }
    }
}

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party<'a> {
    /// A client id of a user.
    Device(&'a str, &'a str),
    /// All devices of a user together.
    User(&'a str),
    /// Where requests come from. Of IPv6 the first half counts: a single customer has the other one.
    Address(IpAddr),
}

impl Party<'_> {
    /// As in settings and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device(..) => "device",
            Self::User(_) => "user",
            Self::Address(_) => "address",
        }
    }
}

/// How much one party may do in a minute; also how much of it at once. 0: as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests with local writes.
    pub uploads_per_minute: u32,
    /// Writes in them.
    pub operations_per_minute: u32,
    /// Starts of sync streams.
    pub streams_per_minute: u32,
    /// Write checkpoints.
    pub write_checkpoints_per_minute: u32,
}

/// How much each party may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// One device.
    pub device: Rates,
    /// All devices of a user together.
    pub user: Rates,
    /// All who come from one address.
    pub address: Rates,
    /// Tokens from one address that are not accepted.
    pub refused_tokens_per_minute: u32,
}

impl RateLimits {
    const fn of(&self, party: Party<'_>, activity: Activity) -> u32 {
        let rates = match party {
            Party::Device(..) => &self.device,
            Party::User(_) => &self.user,
            Party::Address(_) => &self.address,
        };
        match activity {
            Activity::Upload => rates.uploads_per_minute,
            Activity::Operation => rates.operations_per_minute,
            Activity::Stream => rates.streams_per_minute,
            Activity::WriteCheckpoint => rates.write_checkpoints_per_minute,
            Activity::RefusedToken => self.refused_tokens_per_minute,
        }
    }
}

impl Default for RateLimits {
    /// What no app needs: a device that was away for long sends an upload per local transaction, one after the other, a
    /// hundred a second. Addresses are bounded in tokens that are refused only: whole offices share one.
    fn default() -> Self {
        let device = Rates {
            uploads_per_minute: 6_000,
            operations_per_minute: 300_000,
            streams_per_minute: 300,
            write_checkpoints_per_minute: 6_000,
        };
        let user = Rates {
            uploads_per_minute: 12_000,
            operations_per_minute: 600_000,
            streams_per_minute: 1_200,
            write_checkpoints_per_minute: 12_000,
        };
        Self { device, user, address: Rates::default(), refused_tokens_per_minute: 1_200 }
    }
}

/// Somebody must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimited {
    /// With what.
    pub activity: Activity,
    /// Who: [`Party::name`].
    pub party: &'static str,
    /// For how long.
    pub wait: Duration,
}

impl RateLimited {
    /// The setting that says so.
    pub fn setting(&self) -> String {
        match self.activity {
            Activity::RefusedToken => "limits.rate.refused_tokens_per_minute".to_owned(),
            activity => format!("limits.rate.{}.{}_per_minute", self.party, activity.name()),
        }
    }
}

/// The accounts of one service process.
pub struct RateLimiter {
    limits: RateLimits,
    addresses: Mutex<Ledger>,
    users: Mutex<Ledger>,
    /// Keyed by chance, so that nobody can choose who else has the same number.
    numbers: RandomState,
    start: Instant,
}

impl RateLimiter {
    /// Full accounts for everybody.
    pub fn new(limits: RateLimits) -> Self {
        let (addresses, users) = (Mutex::new(Ledger::new()), Mutex::new(Ledger::new()));
        Self { limits, addresses, users, numbers: RandomState::new(), start: Instant::now() }
    }

    /// Takes `count` from an account; with 0 it is only looked at.
    ///
    /// # Errors
    /// When nothing is left in it. Then nothing is taken.
    pub fn take(&self, party: Party<'_>, activity: Activity, count: usize) -> Result<(), RateLimited> {
        let Some(per_minute) = NonZeroU32::new(self.limits.of(party, activity)) else { return Ok(()) };
        let (party, ledger) = match party {
            Party::Address(address) => (Party::Address(network(address)), &self.addresses),
            Party::User(_) | Party::Device(..) => (party, &self.users),
        };
        let account = self.numbers.hash_one((party, activity));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // What a thread that panicked left behind is a ledger all the same.
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = ledger.take(account, per_minute, count, self.start.elapsed());
        taken.map_err(|wait| RateLimited { activity, party: party.name(), wait })
    }
}

/// The part of an address that one customer has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_stream() -> RateLimiter {
        let one = Rates { streams_per_minute: 1, ..Rates::default() };
        RateLimiter::new(RateLimits { device: one, user: one, address: one, refused_tokens_per_minute: 0 })
    }

    fn address(text: &str) -> Party<'static> {
        Party::Address(text.parse().unwrap())
    }

    #[test]
    fn each_party_has_an_account_of_its_own_per_activity() {
        let limiter = one_stream();
        for party in
            [Party::User("ann"), Party::User("bob"), Party::Device("ann", "phone"), Party::Device("ann", "laptop")]
        {
            assert_eq!(limiter.take(party, Activity::Stream, 1), Ok(()), "{party:?}");
            let told = limiter.take(party, Activity::Stream, 1).unwrap_err();
            assert_eq!((told.activity, told.party), (Activity::Stream, party.name()));
            assert!(told.wait <= Duration::from_mins(1));
            assert_eq!(limiter.take(party, Activity::Upload, 1), Ok(()), "0 is no bound");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_ipv4_has_one_form() {
        let limiter = one_stream();
        let take = |text| limiter.take(address(text), Activity::Stream, 1).is_ok();
        assert!(take("2001:db8:1:2::1"));
        assert!(!take("2001:db8:1:2:ffff::9"), "the same network");
        assert!(take("2001:db8:1:3::1"));
        assert!(take("192.0.2.1"));
        assert!(!take("::ffff:192.0.2.1"));
        assert!(take("192.0.2.2"));
    }
}

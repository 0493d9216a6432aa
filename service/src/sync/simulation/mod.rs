//! Seeded simulation of serving: a made-up source, the store, the hub, and clients that read at their own pace, lose
//! their connection and come back. What a client has at a complete checkpoint is compared with the source's history.
//!
//! `SIM_SEED=n SIM_CASES=1` replays a case, `SIM_CASES=10000` runs longer.
//!
//! [`source`] is what changes, [`world`] brings it to clients through the service, [`client`] is a device that knows the
//! protocol and nothing of the service.

mod client;
mod source;
mod world;

use std::{env, thread};

use self::world::World;
use crate::fuzz::Random;

/// Cases of a run, unless `SIM_CASES` says how many.
const CASES: u64 = 30;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Names the case that failed.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("replay with SIM_SEED={} SIM_CASES=1", self.0);
        }
    }
}

#[test]
fn clients_only_ever_have_states_of_the_source() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = number("SIM_SEED").unwrap_or(1);
    let mut checked = 0;
    for seed in first..first + number("SIM_CASES").unwrap_or(CASES) {
        let _case = Case(seed);
        checked += runtime.block_on(run(seed));
    }
    assert!(checked > 0, "no checkpoint was looked at");
}

/// Runs a case; returns how many checkpoints were compared.
async fn run(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random);
    let steps = 100 + random.below(300);
    for _ in 0..steps {
        world.step(&mut random).await;
    }
    world.settle(&mut random).await;
    world.checked()
}

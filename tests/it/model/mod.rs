//! Three of our clients, each a process of its own, do what comes to mind: they write, go offline and online, are killed;
//! the service is killed, and others write to Postgres. The clock of one is right, that of another three days ahead, that
//! of the third three days behind. Whatever the order:
//!
//! - in the end every device holds what SQL on Postgres says;
//! - what was acknowledged to an app is on its device at any time, and in Postgres once;
//! - what a device shows is a state that Postgres had: rows that one transaction writes are never seen apart, and nothing
//!   goes back.
//!
//! `KAIROS_MODEL_SEED=n` draws the same steps again, as far as five processes can be replayed; `KAIROS_MODEL_STEPS=n` takes
//! more of them than a run of all tests.

mod device;
mod world;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::world::World;
use crate::faults::number;

/// What happens in a step.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write,
    WriteAndKill,
    Kill,
    ChangeConnection,
    ChangeService,
    TurnMirrors,
    EditInSource,
}

impl Step {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..100) {
            0..55 => Self::Write,
            55..60 => Self::WriteAndKill,
            60..63 => Self::Kill,
            63..73 => Self::ChangeConnection,
            73..78 => Self::ChangeService,
            78..92 => Self::TurnMirrors,
            _ => Self::EditInSource,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_devices_converge_and_nothing_is_lost_doubled_or_torn() {
    let seed = number("KAIROS_MODEL_SEED", u64::from(std::process::id()));
    println!("KAIROS_MODEL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await;
    for number in 0..number("KAIROS_MODEL_STEPS", 600) {
        let step = Step::draw(&mut random);
        let device = random.random_range(0..world.devices.len());
        let context = format!("seed {seed}, step {number}, {step:?} of device {device}");
        match step {
            Step::Write => world.devices[device].write(&mut random).await,
            Step::WriteAndKill => world.devices[device].write_and_be_killed(&mut random).await,
            Step::Kill => world.devices[device].be_killed().await,
            Step::ChangeConnection => world.change_connection(device).await,
            Step::ChangeService => world.change_service().await,
            Step::TurnMirrors => world.turn_mirrors().await,
            Step::EditInSource => world.edit_in_source(&mut random).await,
        }
        for device in &mut world.devices {
            device.look(&context).await;
        }
    }
    world.settle().await;
    world.assert_each_write_is_there_once().await;
}

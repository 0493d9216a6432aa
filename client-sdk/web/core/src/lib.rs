//! The [`SyncMachine`] behind functions that a WebAssembly host can call.
//!
//! The host asks for room ([`input`]), writes text there, calls one of [`start`], [`line`] and [`event`], which return the
//! length of an answer, and reads it at [`output`]. One instance of the module is one machine.
//!
//! **Invariants**
//!
//! - No imports: the module can do nothing but answer.
//! - Whatever is written, the answer is JSON: `{"instructions":[…],"progress":{…},"current":…}` or
//!   `{"error":{"code":…,"message":…}}`. No error quotes its input.
//! - A large line leaves no large buffer behind.

#![allow(unsafe_code, reason = "exported names must be declared unsafe; nothing else is")]

use std::cell::RefCell;

use kairos_client_core::{Event, Instruction, Progress, SyncMachine, line as lines};
use kairos_sync_protocol::{Checksum, request::SyncRequest};
use serde::{Serialize, de::DeserializeOwned};

/// Buffers beyond this are given back after use.
const KEPT_BYTES: usize = 1024 * 1024;

#[derive(Default)]
struct Module {
    machine: Option<SyncMachine>,
    input: Vec<u8>,
    output: Vec<u8>,
}

thread_local! {
    static MODULE: RefCell<Module> = RefCell::default();
}

#[derive(Serialize)]
struct Answer {
    instructions: Vec<Instruction>,
    progress: Progress,
    current: bool,
}

#[derive(Serialize)]
struct Failure {
    error: FailureDetail,
}

#[derive(Serialize)]
struct FailureDetail {
    code: &'static str,
    message: String,
}

impl Failure {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { error: FailureDetail { code, message: message.into() } }
    }
}

/// Room for an input of this length.
#[unsafe(no_mangle)]
pub extern "C" fn input(length: usize) -> *mut u8 {
    MODULE.with_borrow_mut(|module| {
        module.input.clear();
        module.input.resize(length, 0);
        module.input.as_mut_ptr()
    })
}

/// Where the last answer is.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    MODULE.with_borrow(|module| module.output.as_ptr())
}

/// A new machine whose requests carry what the input, a sync request, carries.
#[unsafe(no_mangle)]
pub extern "C" fn start() -> usize {
    MODULE.with_borrow_mut(|module| {
        let machine = module.read::<SyncRequest>("the template is not a sync request").map(SyncMachine::new);
        module.answer(machine.map(|machine| (machine, Vec::new())))
    })
}

/// The input is a line of the stream.
#[unsafe(no_mangle)]
pub extern "C" fn line() -> usize {
    MODULE.with_borrow_mut(|module| {
        let line = lines::parse_bytes(&module.input).map_err(|error| Failure::new("CLIENT-0205", error.to_string()));
        module.step(line.map(|line| line.map(Event::Line)))
    })
}

/// The input is an event.
#[unsafe(no_mangle)]
pub extern "C" fn event() -> usize {
    MODULE.with_borrow_mut(|module| {
        let event = module.read::<Event>("this is no event").map(Some);
        module.step(event)
    })
}

/// The checksum of a PUT. The input is a JSON array of table, id and data.
#[unsafe(no_mangle)]
pub extern "C" fn put_checksum() -> u32 {
    MODULE.with_borrow(|module| {
        let put = module.read::<[String; 3]>("this is no PUT");
        put.map(|[table, id, data]| Checksum::of_put(&table, &id, &data).bits()).unwrap_or_default()
    })
}

impl Module {
    /// As text everywhere: reading from bytes as well would be the same code once more.
    fn read<T: DeserializeOwned>(&self, otherwise: &str) -> Result<T, Failure> {
        let text = std::str::from_utf8(&self.input).unwrap_or_default();
        serde_json::from_str(text).map_err(|_| Failure::new("CLIENT-0301", otherwise))
    }

    /// A line of a later version of the protocol is no event; nothing follows from it.
    fn step(&mut self, event: Result<Option<Event>, Failure>) -> usize {
        let taken = match (event, self.machine.take()) {
            (Ok(event), Some(mut machine)) => {
                let instructions = event.map(|event| machine.step(event)).unwrap_or_default();
                Ok((machine, instructions))
            }
            (Ok(_), None) => Err(Failure::new("CLIENT-0301", "there is no machine yet")),
            (Err(failure), machine) => {
                self.machine = machine;
                Err(failure)
            }
        };
        self.answer(taken)
    }

    fn answer(&mut self, taken: Result<(SyncMachine, Vec<Instruction>), Failure>) -> usize {
        for buffer in [&mut self.input, &mut self.output] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        let written = match taken {
            Ok((machine, instructions)) => {
                let (progress, current) = (machine.download().total(), machine.is_current());
                self.machine = Some(machine);
                serde_json::to_writer(&mut self.output, &Answer { instructions, progress, current })
            }
            Err(failure) => serde_json::to_writer(&mut self.output, &failure),
        };
        // Nothing of it can fail: keys are texts, and the buffer is memory.
        if written.is_err() { 0 } else { self.output.len() }
    }
}

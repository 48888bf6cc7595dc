//! The board: physical memory, processors, one clock, one queue of deadlines, the bus, and inputs from outside.
//!
//! One tick is one completed instruction, REP iteration or delivery. The scheduler runs every runnable processor over the
//! same interval `[t, t + S)`, one after another; none is told a time before what another was told, by a time-stamp counter or
//! a device. A deadline cuts the slice; a message from one processor to another is seen at the start of the receiver's next
//! slice, a message that a processor's own access causes at once. With everything asleep the clock jumps to the next
//! deadline, and with none the machine is idle.
//!
//! ```
//! use rootmode_arch::{HostPhysical, record::Stop};
//! use rootmode_cpu::{Cpu, Model, board::Board};
//! let mut board = Board::new();
//! board.memory.add_ram(HostPhysical(0), 0x10_0000)?;
//! let mut cpu = Cpu::new(0, Model::max_intel().into());
//! // One 2-MiB page maps address 0; the code is `inc eax; hlt`.
//! for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)] {
//!     board.memory.write_u64(HostPhysical(at), entry);
//! }
//! board.memory.write(HostPhysical(0x8000), &[0xff, 0xc0, 0xf4]);
//! cpu.enter_long_mode(0x1000, 0x8000, 0x9000);
//! board.add_processor(cpu, None);
//! assert_eq!(board.run(1000).stop, Stop::Idle);
//! assert_eq!(board.processors()[0].cpu.gpr[0], 1);
//! assert_eq!(board.now(), 2);
//! # Ok::<(), rootmode_mmu::LayoutError>(())
//! ```

mod deadlines;
mod fabric;
mod schedule;
mod snapshot;

pub use deadlines::{Deadline, Deadlines, Source};
pub use snapshot::{Snapshot, SnapshotError};

use crate::context::{Bus, Context, Effects, EmptyBus, Message};
use crate::fault::Result;
use crate::instruction::{Instruction, Outcome};
use crate::virtualization::Virtualization;
use crate::{Cpu, Processor};
use rootmode_arch::Hardware;
use rootmode_arch::choices::{Choices, Tame};
use rootmode_arch::record::{Level, Observer, Payload, Record, Stop};
use rootmode_mmu::{Digest, PhysicalMemory};
use std::collections::VecDeque;

/// An input from outside the machine, at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Applied at the first slice that starts at or after this tick.
    pub tick: u64,
    /// Which processor.
    pub processor: u8,
    /// What it gets.
    pub message: Message,
}

/// Why and where a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stopped {
    /// Why.
    pub stop: Stop,
    /// The processor that stopped (for a limit: the one that reached it); 0 for machine-wide reasons.
    pub processor: u8,
    /// When, as that processor sees it.
    pub tick: u64,
}

/// The interval that all processors run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    end: u64,
    /// The processor that runs next.
    next: usize,
}

/// A machine without a supervisor. A supervisor (loaders and recording, or a Rust host) owns one and calls [`Board::run`].
pub struct Board {
    /// The host-physical address space.
    pub memory: PhysicalMemory,
    /// Longest slice in ticks.
    pub slice_ticks: u64,
    /// Whether gate addresses stop host-mode code.
    pub gates: bool,
    bus: Box<dyn Bus>,
    choices: Box<dyn Choices + Send>,
    observer: Option<Box<dyn Observer + Send>>,
    processors: Vec<Processor>,
    now: u64,
    deadlines: Deadlines,
    inputs: VecDeque<Input>,
    /// Messages between processors, for the next slice.
    messages: Vec<(u8, Message)>,
    slice: Option<Slice>,
    /// The processor that goes first in the current slice.
    first: usize,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// A board with nothing on it: no memory, no processors, an empty bus, tame choices.
    pub fn new() -> Self {
        Self {
            memory: PhysicalMemory::new(),
            slice_ticks: 1000,
            gates: false,
            bus: Box::new(EmptyBus),
            choices: Box::new(Tame),
            observer: None,
            processors: Vec::new(),
            now: 0,
            deadlines: Deadlines::default(),
            inputs: VecDeque::new(),
            messages: Vec::new(),
            slice: None,
            first: 0,
        }
    }

    /// Replaces the bus.
    pub fn set_bus(&mut self, bus: Box<dyn Bus>) {
        self.bus = bus;
    }
    /// The bus. A machine that knows its type gets it with `(board.bus() as &dyn Any).downcast_ref()`.
    pub fn bus(&self) -> &dyn Bus {
        &*self.bus
    }
    /// Calls `f` with the bus, memory and the time, and applies what devices cause: how the outside world reaches a device
    /// between runs.
    pub fn with_bus<T>(
        &mut self,
        f: impl FnOnce(&mut dyn Bus, &mut PhysicalMemory, u64, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let result = f(&mut *self.bus, &mut self.memory, self.now, &mut effects);
        self.apply(None, effects);
        result
    }
    /// Replaces the source of choices.
    pub fn set_choices(&mut self, choices: Box<dyn Choices + Send>) {
        self.choices = choices;
    }
    /// Makes the hardware hostile: to be said before processors are added. A machine stays what it is.
    pub fn set_hardware(&mut self, hardware: Hardware) {
        if hardware == Hardware::Hostile {
            self.memory.watch_tables();
        }
    }
    /// Replaces the observer.
    pub fn set_observer(&mut self, observer: Option<Box<dyn Observer + Send>>) {
        self.observer = observer;
    }

    /// Adds a processor; its index becomes its place.
    ///
    /// # Panics
    /// With more than 255 processors.
    pub fn add_processor(&mut self, mut cpu: Cpu, extension: Option<Box<dyn Virtualization>>) -> u8 {
        let index = u8::try_from(self.processors.len()).expect("a board has at most 255 processors");
        cpu.place(index);
        cpu.tick = self.now;
        if self.memory.ledger().is_some() {
            cpu.tlb.remember_origins();
            cpu.refresh();
        }
        self.processors.push(Processor::new(cpu, extension));
        index
    }

    /// The processors.
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }
    /// The processors, to change their state between runs.
    pub fn processors_mut(&mut self) -> &mut [Processor] {
        &mut self.processors
    }
    /// Machine time: the start of the current slice.
    pub const fn now(&self) -> u64 {
        self.now
    }
    /// Asks for [`Bus::deadline`] with `number` at `tick`, as a device would.
    pub fn add_deadline(&mut self, tick: u64, number: u32) {
        self.deadlines.add(tick, Source::Bus(number));
        if let Some(Slice { end, next }) = self.slice {
            self.slice = Some(Slice { end: self.cut(end), next });
        }
    }
    /// The deadlines that devices asked for.
    pub const fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Queues an input from outside. Inputs must come in order of their ticks.
    pub fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Calls `f` with processor `index` and what it is lent: how a supervisor does anything to a processor between runs.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn with_processor<T>(
        &mut self,
        index: u8,
        f: impl FnOnce(&mut Processor, &mut Context<'_>) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let mut context = Context {
            memory: &mut self.memory,
            bus: &mut *self.bus,
            choices: &mut *self.choices,
            observer: self.observer.as_deref_mut().map(|o| o as &mut dyn Observer),
            effects: &mut effects,
            gates: self.gates,
        };
        let processor = &mut self.processors[usize::from(index)];
        context.memory.set_management(processor.cpu.smm);
        let result = f(processor, &mut context);
        context.memory.set_management(false);
        self.apply(Some(index), effects);
        result
    }

    /// Executes one instruction as a value on processor `index`, at no cost in ticks.
    ///
    /// # Errors
    /// The fault that it would raise.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn execute(&mut self, index: u8, instruction: &Instruction) -> Result<Outcome> {
        self.with_processor(index, |processor, context| processor.execute(context, instruction))
    }

    /// Draws a choice.
    pub fn choose(&mut self, site: rootmode_arch::Site, n: u64) -> u64 {
        self.choices.choose(site, n)
    }

    /// Offers a record to the observer.
    pub fn emit(&mut self, vcpu: u8, level: Level, payload: Payload) {
        let tick = self.processors.get(usize::from(vcpu)).map_or(self.now, |p| p.cpu.tick);
        if let Some(observer) = &mut self.observer {
            observer.observe(&Record { tick, vcpu, level, payload });
        }
    }

    /// The fingerprint of the machine's state: memory, processors, extensions, clock, deadlines, messages on their way.
    pub fn digest(&self) -> u128 {
        let mut digest = Digest::new();
        self.memory.digest(&mut digest);
        digest.u64(self.now);
        // What was told in earlier slices can no longer be ahead of anybody.
        digest.u64(self.told().saturating_sub(self.now));
        for processor in &self.processors {
            processor.cpu.digest(&mut digest);
            if let Some(extension) = &processor.extension {
                extension.digest(&mut digest);
            }
        }
        self.deadlines.digest(&mut digest);
        self.digest_messages(&mut digest);
        self.bus.digest(&mut digest);
        digest.finish()
    }
}

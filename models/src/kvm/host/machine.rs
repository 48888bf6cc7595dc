//! What L0's tasks share: the board with its physical processor, L0's memory, L1's slot, and the second-stage tables.

use std::sync::{Arc, Mutex};

use rootmode_arch::record::{Level, Observer, Payload, Record, Stop};
use rootmode_arch::{Cr4, Gpr, GuestPhysical, HostPhysical, RFlags, Segment, Vendor};
use rootmode_cpu::board::Board;
use rootmode_cpu::model::CpuidInputs;
use rootmode_cpu::{Activity, Cpu, Fault, Instruction, Model, Outcome, gate_address};

use super::executor::Flag;
use super::frames::Frames;
use super::second_stage::{Mapped12, Rights, Tables};
use crate::kvm::slots::{Below, Memory, Reader, Touch};
use crate::kvm::trace::Tracepoint;
use crate::kvm::vm::Failure;

/// L0 did something that cannot be right: a bug of the model, never the guest's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostBug {
    /// An instruction of L0 faulted.
    #[error("L0's {instruction:?} faulted: {fault:?}")]
    Fault {
        /// The instruction.
        instruction: Instruction,
        /// What it raised.
        fault: Fault,
    },
    /// A VMX instruction of L0 ended in VMfail.
    #[error("L0's {instruction:?} ended in VMfail with error {error}")]
    VmFail {
        /// The instruction.
        instruction: Instruction,
        /// The VM-instruction error; 0 without a current VMCS.
        error: u64,
    },
    /// The processor refused a control structure that L0 made.
    #[error("the processor refused L0's entry: exit {code:#x}, detail {detail:#x}")]
    Refused {
        /// Exit reason or exit code.
        code: u64,
        /// Qualification or EXITINFO1.
        detail: u64,
    },
    /// L0's memory is used up.
    #[error("L0 has no page frame left")]
    OutOfFrames,
}

/// The board's observer: says which guest ran, and that it was L0 who entered and left it.
struct Relabel {
    inner: Box<dyn Observer + Send>,
    nested: Arc<Mutex<bool>>,
}

impl Observer for Relabel {
    fn observe(&mut self, record: &Record) {
        let nested = self.nested.lock().is_ok_and(|nested| *nested);
        let level = match record.payload {
            Payload::Entry { .. } | Payload::EntryFailed { .. } | Payload::Exit { .. } => Level::L0,
            _ if record.level == Level::L0 => Level::L0,
            _ if nested => Level::L2,
            _ => Level::L1,
        };
        self.inner.observe(&Record { level, ..*record });
    }
}

/// An observer that several parts may hold.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Box<dyn Observer + Send>>>);

impl Observer for Shared {
    fn observe(&mut self, record: &Record) {
        if let Ok(mut observer) = self.0.lock() {
            observer.observe(record);
        }
    }
}

/// What a vCPU is asked to do while it is out of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// INIT.
    Init,
    /// Its last descriptor is closed.
    Destroy,
}

/// What INIT or the destruction of a vCPU leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The segment registers, as a client reads them.
    pub segments: Option<[Segment; 8]>,
    /// vmcs02 is the current VMCS, though L2 does not run.
    pub loaded02: bool,
    /// A VMCS was freed while it was current.
    pub freed_while_loaded: bool,
    /// A page frame was freed twice.
    pub freed_twice: bool,
}

/// What L0's tasks share.
pub struct Machine {
    /// Memory, processor, clock, devices of L1.
    pub board: Board,
    pub(crate) frames: Frames,
    pub(crate) memory: Memory,
    /// The physical processor that the running task is on.
    pub(crate) current: u8,
    /// L1's second stage.
    pub(crate) tables01: Tables,
    /// The shadows of L1's second stages, while there are any, by physical processor.
    pub(crate) shadows: Vec<Option<Tables>>,
    /// Someone unlinked a leaf of the shadow: the next entry flushes.
    pub(super) flush_requested: bool,
    pub(super) observer: Option<Shared>,
    nested: Arc<Mutex<bool>>,
    /// The machine stops.
    pub(super) stop: Option<Stop>,
    /// L0 has a bug.
    pub(super) bug: Option<HostBug>,
    /// L1's registers by number, then RIP, when it was last left.
    pub(super) last_registers: [u64; 17],
    /// Something for the vCPU to do before its next entry.
    pub(super) request: Option<Request>,
    pub(super) ended: Option<Ended>,
    /// Tracepoints, while somebody wants them (VMX).
    pub(crate) trace: Option<Vec<Tracepoint>>,
    /// VMREADs of the interruption error code.
    pub(super) error_code_reads: u64,
    /// What lets the stopped vCPU go on.
    pub(super) resumed: Option<Flag>,
}

impl Machine {
    pub(crate) fn new(
        mut board: Board,
        vendor: Vendor,
        observer: Option<Box<dyn Observer + Send>>,
        memory: Memory,
    ) -> Result<Self, HostBug> {
        let mut frames = Frames::new(&mut board.memory).map_err(|_| HostBug::OutOfFrames)?;
        let tables01 = Tables::new(vendor, &mut frames, &mut board.memory).ok_or(HostBug::OutOfFrames)?;
        board.gates = true;
        let mut machine = Self {
            board,
            frames,
            memory,
            current: 0,
            tables01,
            shadows: Vec::new(),
            flush_requested: false,
            observer: None,
            nested: Arc::default(),
            stop: None,
            bug: None,
            last_registers: [0; 17],
            request: None,
            ended: None,
            trace: None,
            error_code_reads: 0,
            resumed: None,
        };
        if let Some(observer) = observer {
            machine.set_observer(observer);
        }
        Ok(machine)
    }

    /// Shows everything to `observer` from now on.
    pub(crate) fn set_observer(&mut self, observer: Box<dyn Observer + Send>) {
        let shared = Shared(Arc::new(Mutex::new(observer)));
        let inner = Box::new(shared.clone());
        self.board.set_observer(Some(Box::new(Relabel { inner, nested: self.nested.clone() })));
        self.observer = Some(shared);
    }

    /// Calls `f` with the VM's memory and what that lies in.
    pub(crate) fn with_memory<T>(&mut self, f: impl FnOnce(&mut Memory, &mut Below<'_>) -> T) -> T {
        let (memory, mut below) = self.split();
        f(memory, &mut below)
    }

    fn split(&mut self) -> (&mut Memory, Below<'_>) {
        let Self { board, frames, memory, tables01, shadows, current, .. } = self;
        (memory, Below { board, frames, tables01, shadows, current: *current })
    }

    /// A vCPU was made on the current processor: it may have a shadow.
    pub(super) fn add_shadow(&mut self) {
        self.shadows.resize(usize::from(self.current) + 1, None);
    }

    /// The shadow that the current processor's L2 runs on.
    pub(super) fn shadow(&self) -> Option<&Tables> {
        self.shadows[usize::from(self.current)].as_ref()
    }

    /// The root of the current processor's shadow; a new, empty one if there is none.
    pub(super) fn shadow_root(&mut self, vendor: Vendor) -> Result<HostPhysical, HostBug> {
        if let Some(shadow) = self.shadow() {
            return Ok(shadow.root());
        }
        let Self { board, frames, shadows, current, .. } = self;
        let tables = Tables::new(vendor, frames, &mut board.memory).ok_or(HostBug::OutOfFrames)?;
        let root = tables.root();
        shadows[usize::from(*current)] = Some(tables);
        Ok(root)
    }

    /// The current processor's shadow goes; where its top level was. The caller flushes.
    pub(super) fn take_shadow(&mut self) -> Option<HostPhysical> {
        let mut shadow = self.shadows[usize::from(self.current)].take()?;
        shadow.clear(&mut self.board.memory, &mut self.frames);
        self.frames.give_back(shadow.root());
        Some(shadow.root())
    }

    /// Puts a page of L1's into the current processor's shadow. `None`: no memory is there.
    pub(super) fn map_shadow(
        &mut self,
        address: GuestPhysical,
        mapped: Mapped12,
        write: bool,
    ) -> Result<Option<()>, HostBug> {
        let touched = self.with_memory(|memory, below| memory.touch(below, mapped.guest, write));
        let Ok(Some((host, writable))) = touched else { return Ok(None) };
        let rights = Rights { write: mapped.rights.write && writable, ..mapped.rights };
        let Self { board, frames, shadows, current, .. } = self;
        let Some(shadow) = &mut shadows[usize::from(*current)] else { return Ok(Some(())) };
        if shadow.map(&mut board.memory, frames, address, host, rights).is_some() {
            return Ok(Some(()));
        }
        // It has grown too large: L2 begins anew. What is cached of it stays right.
        shadow.clear(&mut board.memory, frames);
        shadow.map(&mut board.memory, frames, address, host, rights).ok_or(HostBug::OutOfFrames).map(Some)
    }

    pub(crate) fn cpu(&self) -> &Cpu {
        &self.board.processors()[usize::from(self.current)].cpu
    }

    pub(crate) fn cpu_mut(&mut self) -> &mut Cpu {
        &mut self.board.processors_mut()[usize::from(self.current)].cpu
    }

    /// A frame of L0's memory.
    pub(crate) fn frame(&mut self, count: u64) -> Result<HostPhysical, HostBug> {
        self.frames.take(&mut self.board.memory, count).ok_or(HostBug::OutOfFrames)
    }

    /// Executes an instruction as a value.
    pub(crate) fn execute(&mut self, instruction: Instruction) -> Result<Outcome, HostBug> {
        self.board.execute(self.current, &instruction).map_err(|fault| HostBug::Fault { instruction, fault })
    }

    /// Executes a VMX instruction that must succeed.
    pub(crate) fn vmx(&mut self, instruction: Instruction) -> Result<Outcome, HostBug> {
        let outcome = self.execute(instruction)?;
        let failed = self.cpu().rflags().intersects(RFlags::CF | RFlags::ZF);
        if outcome != Outcome::Entered && failed {
            let encoding = rootmode_vmx::Field::InstructionError.encoding().into();
            let error = match self.execute(Instruction::Vmread { encoding })? {
                Outcome::Value(error) => error,
                _ => 0,
            };
            return Err(HostBug::VmFail { instruction, error });
        }
        Ok(outcome)
    }

    /// Stands the processor in host mode at its gate: nothing of the host runs there but L0.
    pub(crate) fn park(&mut self) {
        let rip = gate_address(self.current.into()).0;
        let cpu = self.cpu_mut();
        cpu.rip = rip;
        cpu.activity = Activity::Active;
        cpu.refresh();
    }

    /// Nothing runs on the processor until the next entry.
    pub(crate) fn idle(&mut self) {
        let cpu = self.cpu_mut();
        cpu.activity = Activity::Halted;
        cpu.refresh();
    }

    /// L2 runs from now on, or no longer does.
    pub(crate) fn set_nested(&mut self, on: bool) {
        if let Ok(mut nested) = self.nested.lock() {
            *nested = on;
        }
    }

    /// A fact that L1 or L2 could see.
    pub(super) fn emit(&mut self, level: Level, payload: Payload) {
        let tick = self.cpu().tick;
        if let Some(observer) = &mut self.observer {
            observer.observe(&Record { tick, vcpu: self.current, level, payload });
        }
    }

    /// L0 completed an instruction for a guest: it costs what it would have cost the processor.
    pub(crate) fn charge(&mut self) {
        self.cpu_mut().tick += 1;
    }

    /// A port access of `level`, on L1's bus. An IN answers the value.
    pub(super) fn port(&mut self, level: Level, port: u16, size: u8, output: Option<u32>) -> u32 {
        let mask = u32::MAX >> (32 - 8 * u32::from(size));
        let (value, stop) = self.board.with_processor(self.current, |processor, ctx| {
            let tick = processor.cpu.tick;
            let value = match output {
                Some(value) => {
                    ctx.bus.write_port(port, size, value & mask, tick, ctx.effects);
                    value & mask
                }
                None => ctx.bus.read_port(port, size, tick, ctx.effects) & mask,
            };
            (value, ctx.effects.stop.take())
        });
        self.emit(level, Payload::Port { port, size, write: output.is_some(), value });
        self.stop = self.stop.or(stop);
        value
    }

    /// CPUID as L1's processor model answers it.
    pub(super) fn cpuid(&self, model: &Model, leaf: u32, subleaf: u32, cr4: Cr4) -> [u32; 4] {
        let physical = self.cpu().cpuid_inputs();
        model.cpuid_with(leaf, subleaf, &CpuidInputs { cr4, index: 0, apic: true, ..physical })
    }

    /// Maps the page of L1's address space that was touched. False: no memory is there, or none that may be written.
    pub(super) fn map01(&mut self, address: GuestPhysical, write: bool) -> Result<bool, HostBug> {
        match self.with_memory(|memory, below| memory.fault_in(below, address, write)) {
            Ok(touch) => Ok(touch == Touch::Mapped),
            Err(Failure::Bug(bug)) => Err(bug),
            Err(Failure::Errno(_)) => Ok(false),
        }
    }

    /// Where a byte of L1's memory is, for L0 to read or write.
    pub(super) fn place(&mut self, address: GuestPhysical, write: bool) -> Option<HostPhysical> {
        self.with_memory(|memory, below| memory.place(below, address, write))
    }

    /// L1's memory, to read.
    pub(super) fn l1(&mut self) -> Reader<'_> {
        let (memory, below) = self.split();
        Reader::new(memory, below)
    }

    /// A general-purpose register other than the ones that the processor switches.
    pub(crate) fn gpr(&self, gpr: Gpr) -> u64 {
        self.cpu().register(gpr)
    }

    pub(crate) fn set_gpr(&mut self, gpr: Gpr, value: u64) {
        self.cpu_mut().gpr[gpr as usize] = value;
    }
}

//! [`Virtualization`]: the seam between the core and an extension (VMX, SVM).
//!
//! The core knows neither extension. It offers events, asks for the extension's instructions and MSRs, and calls at
//! instruction boundaries when asked to. The extension owns everything else, and works on plain data:
//!
//! **Entering a guest** ([`execute`](Virtualization::execute) of VMLAUNCH, VMRESUME, VMRUN). Check, then assign the
//! public fields of [`Cpu`]: registers, segments, CR0..CR4, EFER, [`Cpu::cpl`], shadows, [`Cpu::activity`],
//! [`Cpu::pending_debug`]; set [`Cpu::injected`] for an event to inject; fill [`Cpu::published`] (intercept mask, second
//! stage, VPID or ASID, TSC offset and ratio, gates, level); flush [`Cpu::tlb`] as the tags demand; call
//! [`Cpu::refresh`]; answer [`Outcome::Entered`]. RIP is then the guest's, the instruction costs no tick, and the
//! injected event is delivered (one tick) before the guest's first instruction.
//!
//! **Leaving it** (any answer [`Reaction::Exit`]). Save from the same fields, load the host's into them, set
//! `cpu.published = Published::default()` (level as before entry), clear [`Cpu::injected`] and take
//! [`Cpu::delivering`]: if it is `Some`, the exit happened while that event was delivered (IDT-vectoring information,
//! EXITINTINFO). Call [`Cpu::refresh`]. The engine commits nothing of the instruction and goes on at the new RIP.
//! At `raise` of an instruction's event [`Cpu::rip`] is the instruction's address, [`Cpu::current`] has its length and
//! bytes; in `boundary` RIP is the next instruction's and the length is 0.
//!
//! **Second stage.** [`Published::second_stage`](crate::Published) carries root and mode; translations are tagged with
//! the root and [`Published::space`](crate::Published). The engine walks, sets flags, and offers
//! [`Event::SecondStage`] at [`Stage::AfterOperands`]; its class need not be in the mask.
//!
//! **Memory.** VMCS regions, VMCBs, bitmaps and MSR lists are read and written in place through
//! [`Context::memory`], by host-physical address. [`Watch::CONTROL`](rootmode_mmu::Watch) marks cached copies.
//!
//! **A Rust host** calls [`Processor::execute`](crate::Processor::execute) with [`Instruction`] values; HOST_RIP or the
//! RIP after VMRUN is a [gate](crate::gate_address), where the run stops.
//!
//! **Records.** The extension emits `Entry`, `EntryFailed` and `Exit` through [`Context::emit`]; the core emits
//! deliveries, port accesses, MSR accesses, flushes. Emit `Exit` while `published.level` is still the guest's, `Entry`
//! after it was set.
//!
//! **Answers of `raise`**, by event:
//!
//! | event | `Done(value)` means |
//! | --- | --- |
//! | `CrRead`, `Smsw`, `Rdmsr`, `Rdtsc`, `Rdtscp`, `Rdpmc`, `DrRead`, VMREAD | the result is `value` |
//! | `CrWrite` except CR8, `Clts`, `Lmsw` | write `value` to the whole register instead, with the usual checks |
//! | `ApicAccess` | the access goes to host-physical address `value` instead |
//! | anything else | the instruction is complete |

use crate::fault::{Fault, Result};
use crate::instruction::{Instruction, Outcome};
use crate::{Context, Cpu};
use rootmode_arch::{Event, Reaction, Stage, Vendor};
use rootmode_mmu::Digest;

/// An instruction of an extension before its operands are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the mnemonics")]
pub enum Opcode {
    Vmxon,
    Vmxoff,
    Vmclear,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmwrite,
    Vmlaunch,
    Vmresume,
    Vmcall,
    Vmfunc,
    Invept,
    Invvpid,
    Vmrun,
    Vmload,
    Vmsave,
    Vmmcall,
    Vmgexit,
    Stgi,
    Clgi,
    Invlpga,
    Skinit,
}

/// Places within an instruction boundary, in the order in which the engine visits them
/// (SDM Vol. 3A "Prioritization of Concurrent Events").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slot {
    /// Before pending debug exceptions: TPR below threshold, monitor trap flag.
    BeforeDebug,
    /// Before NMIs: VMX-preemption timer, NMI window.
    BeforeNmi,
    /// Before external interrupts: interrupt window, delivery of virtual interrupts.
    BeforeInterrupt,
    /// Behind external interrupts: SVM's virtual interrupts, which physical ones precede.
    AfterInterrupt,
}

/// A virtualization extension of one logical processor. Object-safe. What is provided is an extension that has no instructions,
/// MSRs or restrictions of its own.
pub trait Virtualization: Send {
    /// Which extension.
    fn vendor(&self) -> Vendor;

    /// An event of a published class reached `stage`. [`Reaction::Exit`] means that the guest was left.
    fn raise(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event, stage: Stage) -> Reaction;

    /// Whether `opcode` may execute now, in host mode or un-intercepted: #UD outside VMX operation or with EFER.SVME = 0,
    /// #GP(0) above CPL 0. Called before operands are fetched, after `raise` at [`Stage::BeforeExceptions`].
    ///
    /// # Errors
    /// The exception.
    fn permit(&self, cpu: &Cpu, opcode: Opcode) -> Result {
        let _ = (cpu, opcode);
        Err(Fault::UD)
    }

    /// Executes an instruction of the extension whose operands were fetched. VMX instructions report VMsucceed and VMfail
    /// in RFLAGS and answer [`Outcome::Done`]; an entry, and an entry that fails with an exit, answer
    /// [`Outcome::Entered`].
    ///
    /// # Errors
    /// An exception; nothing was committed.
    fn execute(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        instruction: &Instruction,
    ) -> Result<Outcome> {
        let _ = (cpu, ctx, instruction);
        Err(Fault::UD)
    }

    /// What VMREAD of `encoding` into a register yields in 64-bit mode, if it surely succeeds. `None`:
    /// [`permit`](Self::permit) and [`execute`](Self::execute) decide.
    fn field(&self, cpu: &Cpu, encoding: u64) -> Option<u64> {
        let _ = (cpu, encoding);
        None
    }

    /// VMWRITE of a register in 64-bit mode, if it surely succeeds. False, and nothing happened: [`permit`](Self::permit) and
    /// [`execute`](Self::execute) decide.
    fn set_field(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, encoding: u64, value: u64) -> bool {
        let _ = (cpu, ctx, encoding, value);
        false
    }

    /// An instruction boundary, while `published.boundary` is set or `published.deadline` has come. May exit, or set
    /// [`Cpu::injected`] (then answer [`Reaction::Proceed`]; the engine delivers it at once).
    fn boundary(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, slot: Slot) -> Reaction {
        let _ = (cpu, ctx, slot);
        Reaction::Proceed
    }

    /// RDMSR of an MSR that the extension owns (capabilities, VM_CR, VM_HSAVE_PA). `None`: not its own.
    fn read_msr(&mut self, cpu: &Cpu, index: u32) -> Option<Result<u64>> {
        let _ = (cpu, index);
        None
    }

    /// WRMSR of an MSR that the extension owns. `None`: not its own.
    fn write_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Result> {
        let _ = (cpu, index, value);
        None
    }

    /// Whether `value` may be written to control register `cr` (0 or 4) as far as the extension cares
    /// (IA32_VMX_CR0_FIXED0 and relatives in VMX operation).
    ///
    /// # Errors
    /// #GP(0).
    fn check_cr(&self, cpu: &Cpu, cr: u8, value: u64) -> Result {
        let _ = (cpu, cr, value);
        Ok(())
    }

    /// Bits of EFER that the extension allows (SVM: SVME, unless VM_CR forbids it), beyond the core's.
    fn efer_bits(&self, cpu: &Cpu) -> u64 {
        let _ = cpu;
        0
    }

    /// INIT: whether it is blocked (VMX root operation).
    fn blocks_init(&self, cpu: &Cpu) -> bool {
        let _ = cpu;
        false
    }

    /// INIT is taken: the extension returns to its state after reset. `Some`: the fault happens instead of the reset
    /// (SVM's VM_CR.R_INIT).
    fn init(&mut self, cpu: &mut Cpu) -> Option<Fault> {
        let _ = cpu;
        None
    }

    /// Adds everything that a guest can observe to `digest`.
    fn digest(&self, digest: &mut Digest);

    /// A copy, for snapshots.
    fn clone_box(&self) -> Box<dyn Virtualization>;
}

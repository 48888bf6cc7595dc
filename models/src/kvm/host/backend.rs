//! [`Backend`]: what L0 asks of VMX and of SVM alike, to run a guest and to understand why it was left.

use rootmode_arch::{Gpr, GuestPhysical};
use rootmode_cpu::{DeliveryKind, Model};
use std::sync::Arc;

use super::machine::HostBug;
use super::state::State;
use crate::kvm::Filter;
use crate::kvm::interception::Configuration;

/// An event that is injected by an entry, or whose delivery an exit interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What it is.
    pub kind: DeliveryKind,
    /// Vector.
    pub vector: u8,
    /// Error code to push.
    pub error_code: Option<u32>,
    /// Instruction length of software events, else 0.
    pub length: u8,
}

/// What a debugger outside of the guest asks of the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debugging {
    /// Debug exceptions exit.
    pub traps: bool,
    /// INT3 exits.
    pub breakpoints: bool,
    /// The guest is left behind its next instruction, which it does not see in RFLAGS.TF once it is left.
    pub single_step: bool,
    /// DR0 to DR3 and DR7 while the guest runs; moves to and from debug registers exit then.
    pub registers: Option<([u64; 4], u64)>,
}

/// What of the guest's the debugger's has taken the place of: RFLAGS.TF; DR0 to DR3 and DR7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) trap_flag: Option<u64>,
    pub(super) registers: Option<([u64; 4], u64)>,
}

/// What the next entry does beside entering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Injected before the first instruction.
    pub injection: Option<Injection>,
    /// Exit as soon as an interrupt can be taken.
    pub interrupt_window: bool,
    /// Exit as soon as an NMI can be taken.
    pub nmi_window: bool,
    /// Translations of the guest may be stale.
    pub flush: bool,
    /// The debugger's wishes.
    pub debug: Debugging,
}

/// An access that the second stage refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Where.
    pub address: GuestPhysical,
    /// It was a write.
    pub write: bool,
}

/// Why the guest was left, in nobody's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// IN, OUT, INS or OUTS.
    Port {
        /// Port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// IN or INS.
        input: bool,
        /// INS or OUTS.
        string: bool,
    },
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// A triple fault.
    Shutdown,
    /// The second stage refused an access.
    SecondStage(Touched),
    /// A physical interrupt of the host.
    HostInterrupt,
    /// An NMI of the host.
    HostNmi,
    /// An interrupt can be taken now.
    InterruptWindow,
    /// An NMI can be taken now.
    NmiWindow,
    /// A change of CR0 or CR4 that L0 owns a part of.
    WriteCr,
    /// MOV to CR8.
    WriteCr8 {
        /// The value.
        value: u64,
    },
    /// MOV from CR8.
    ReadCr8 {
        /// Where to.
        gpr: Gpr,
    },
    /// XSETBV.
    Xsetbv,
    /// INVD, WBINVD: nothing is cached.
    CacheFlush,
    /// An instruction that KVM completes by doing nothing: MONITOR, MWAIT, PAUSE.
    Idle,
    /// An instruction that does not exist for this guest.
    Undefined,
    /// A debug exception that the debugger wanted to see.
    Debug {
        /// Its causes, as in DR6, without what that always has set.
        causes: u64,
    },
    /// MOV to a debug register.
    WriteDr {
        /// Which.
        dr: u8,
        /// The value.
        value: u64,
    },
    /// MOV from a debug register.
    ReadDr {
        /// Which.
        dr: u8,
        /// Where to.
        gpr: Gpr,
    },
    /// An exception that L0 wanted to see.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code.
        code: Option<u32>,
    },
    /// The processor refused the guest's state.
    Refused {
        /// Exit reason or exit code.
        reason: u64,
    },
    /// Something that this model of KVM does not do.
    Unmodelled {
        /// Exit reason or exit code.
        reason: u64,
    },
}

/// What one exit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub cause: Cause,
    /// The event whose delivery it interrupted.
    pub interrupted: Option<Injection>,
}

/// A vCPU on one vendor's extension. All of it is done with the processor's own instructions.
pub trait Backend: Send {
    /// Moves `state` into the control structure and the processor.
    ///
    /// # Errors
    /// [`HostBug`] if L0 did something that cannot be right.
    fn load(&mut self, state: &State) -> Result<(), HostBug>;

    /// Moves the guest's registers out.
    ///
    /// # Errors
    /// [`HostBug`].
    fn save(&self) -> Result<State, HostBug>;

    /// Whether an interrupt and whether an NMI could be injected now.
    ///
    /// # Errors
    /// [`HostBug`].
    fn accepts(&self) -> Result<(bool, bool), HostBug>;

    /// Enters the guest; the processor is in it when this returns.
    ///
    /// # Errors
    /// [`HostBug`].
    fn enter(&mut self, entry: &Entry) -> Result<(), HostBug>;

    /// Reads why the guest was left, after the processor has reached its gate.
    ///
    /// # Errors
    /// [`HostBug`].
    fn leave(&mut self) -> Result<Exit, HostBug>;

    /// Completes the instruction that exited: RIP moves on, shadows end, a tick passes.
    ///
    /// # Errors
    /// [`HostBug`].
    fn skip(&mut self) -> Result<(), HostBug>;

    /// Whether the port instruction that exited has a REP prefix.
    ///
    /// # Errors
    /// [`HostBug`].
    fn repeats(&self) -> Result<bool, HostBug>;

    /// A general-purpose register.
    ///
    /// # Errors
    /// [`HostBug`].
    fn gpr(&self, gpr: Gpr) -> Result<u64, HostBug>;

    /// Writes a general-purpose register.
    ///
    /// # Errors
    /// [`HostBug`].
    fn set_gpr(&mut self, gpr: Gpr, value: u64) -> Result<(), HostBug>;

    /// RDMSR of an MSR that the guest owns. `None`: there is none.
    ///
    /// # Errors
    /// [`HostBug`].
    fn read_msr(&mut self, index: u32) -> Result<Option<u64>, HostBug>;

    /// WRMSR of an MSR that the guest owns. `None`: there is none, or not with this value.
    ///
    /// # Errors
    /// [`HostBug`].
    fn write_msr(&mut self, index: u32, value: u64) -> Result<Option<()>, HostBug>;

    /// What is added to the host's TSC.
    ///
    /// # Errors
    /// [`HostBug`].
    fn tsc_offset(&self) -> Result<u64, HostBug>;

    /// Changes what is added to the host's TSC.
    ///
    /// # Errors
    /// [`HostBug`].
    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), HostBug>;

    /// The guest's processor is this one from now on.
    fn set_model(&mut self, model: Arc<Model>);

    /// What decides which MSR accesses exit has changed.
    ///
    /// # Errors
    /// [`HostBug`].
    fn configure(&mut self, configuration: &Configuration, filter: &Filter) -> Result<(), HostBug>;

    /// The vCPU ends: the processor forgets its control structures.
    ///
    /// # Errors
    /// [`HostBug`].
    fn release(&mut self) -> Result<(), HostBug>;
}

//! [`Backend`]: what L0 asks of VMX and of SVM alike, to run a guest and to understand why it was left.

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Gpr, GuestPhysical, HostPhysical, vector};
use rootmode_cpu::{DeliveryKind, Model};

use super::machine::HostBug;
use super::nested_state::NestedState;
use super::second_stage::Refused;
use super::state::State;
use crate::kvm::interception::Configuration;
use crate::kvm::{Errno, Filter};

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

impl Injection {
    /// Whether it is a fault, behind which the instruction starts again: who raises it sets RFLAGS.RF.
    pub fn is_fault(&self) -> bool {
        let aborts = matches!(self.vector, vector::DF | vector::MC);
        self.kind == DeliveryKind::Hardware && self.vector != vector::DB && !aborts
    }
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
    /// It belongs to nesting: an instruction of L1's that uses the extension, an exit of L2 that L1 is to see, or a page that
    /// L1's tables decide about. [`Backend::nest`] does it.
    Nested,
}

/// What came of something that belongs to nesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// Whoever runs now goes on.
    Resumes,
    /// So it does, and the event whose delivery was interrupted is delivered again.
    Again,
    /// Whoever runs gets this exception.
    Raises(Injection),
    /// L2 touched a page that L1's tables lead to, and there is no memory.
    Device {
        /// The page, as L2 calls it.
        page: GuestPhysical,
        /// The same as L1 calls it.
        at: GuestPhysical,
    },
    /// L2 is not entered, because a page that L1 names for it is missing; L1 is as before its instruction.
    Missing,
    /// The exit to L1 failed (SDM Vol. 3C "VMX Aborts").
    Abort,
    /// Something that this model of KVM does not do.
    Unmodelled,
}

/// Where a page of L2's led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadowed {
    /// To memory of L1's, and L2 can access it now.
    Mapped(GuestPhysical),
    /// To an address of L1's where there is no memory.
    Device(GuestPhysical),
    /// L1's tables do not let L2 access it.
    Refused(Refused),
}

/// Something that comes while L2 runs and makes it exit, if L1 wants so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// An external interrupt; its vector, if it was acknowledged for L1.
    Interrupt(Option<u8>),
    /// An NMI.
    Nmi,
    /// INIT.
    Init,
    /// L1's monitor trap flag, behind an instruction that L0 completed.
    Trap,
    /// An exception that L0 found an instruction of L2's to raise; its error code, and CR2 or the causes in DR6.
    Exception(Injection, u64),
}

/// What an `async fn` of an object-safe trait returns.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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

    /// Does what belongs to nesting of the last exit.
    ///
    /// # Errors
    /// [`HostBug`].
    fn nest(&mut self) -> Task<'_, Result<Nested, HostBug>>;

    /// Whether L2 runs.
    fn in_l2(&self) -> bool;

    /// L1 entered L2, which has not run yet: nothing may come between.
    fn entry_pending(&self) -> bool;

    /// Whether L1 is to see an arrival, and sees it at once; L2 runs.
    ///
    /// # Errors
    /// [`HostBug`].
    fn reaches_l1(&self, arrival: Arrival) -> Result<bool, HostBug>;

    /// Whether L1 wants interrupts acknowledged when L2 exits for one.
    fn acknowledges(&self) -> bool;

    /// L2 exits to L1 for an arrival.
    ///
    /// # Errors
    /// [`HostBug`].
    fn arrive(&mut self, arrival: Arrival) -> Task<'_, Result<Nested, HostBug>>;

    /// A HLT that L0 has completed, of an L2 whose hypervisor does not see it. True: the processor halts in the guest, and
    /// the vCPU need not sleep.
    ///
    /// # Errors
    /// [`HostBug`].
    fn halts(&mut self) -> Result<bool, HostBug>;

    /// The next entry injects a fault that L0 raised: what its delivery saves has RFLAGS.RF.
    ///
    /// # Errors
    /// [`HostBug`].
    fn raises_fault(&mut self) -> Result<(), HostBug>;

    /// An instruction of whoever runs was completed by the emulator.
    fn completes(&mut self);

    /// Whether L1 is to see that L0 completed an instruction of L2's.
    fn trap_waits(&self) -> bool;

    /// The client is about to write IA32_FEATURE_CONTROL, whose lock does not hold it.
    fn unlock(&mut self);

    /// Top level of the second-stage table that whoever runs runs on, and whether that is a shadow of L1's.
    fn second_stage(&self) -> (HostPhysical, bool);

    /// Lets L2 access a page, as far as L1's tables do; L2 runs on a shadow of them.
    ///
    /// # Errors
    /// [`HostBug`].
    fn shadow_page(&mut self, access: &GuestPhysicalAccess) -> Result<Shadowed, HostBug>;

    /// L2's access, which L0 makes for it, is refused by L1's tables: L1 gets the exit.
    ///
    /// # Errors
    /// [`HostBug`].
    fn refuse(&mut self, access: GuestPhysicalAccess, refused: Refused) -> Task<'_, Result<Nested, HostBug>>;

    /// Whether L1 is in VMX operation and a change of CR0 or CR4 to these values is not allowed there.
    fn fixes(&self, cr0: u64, cr4: u64) -> bool;

    /// INIT waits: L1 is in VMX root operation, or its global interrupt flag is 0.
    fn blocks_init(&self) -> bool;

    /// `KVM_GET_NESTED_STATE`.
    ///
    /// # Errors
    /// [`HostBug`].
    fn nested_state(&mut self) -> Result<NestedState, HostBug>;

    /// `KVM_SET_NESTED_STATE` of a state whose head is consistent in itself.
    ///
    /// # Errors
    /// [`HostBug`]; inside, [`Errno::Einval`] for a state that cannot be.
    fn set_nested_state(&mut self, state: NestedState) -> Task<'_, Result<Result<(), Errno>, HostBug>>;

    /// L1 is no longer in VMX operation, or no longer uses SVM.
    ///
    /// # Errors
    /// [`HostBug`].
    fn leave_nested(&mut self) -> Task<'_, Result<(), HostBug>>;

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

    /// Completes the instruction that exited: RIP moves on, shadows end, a tick passes. True: RFLAGS.TF asks for a #DB that
    /// the caller has to bring.
    ///
    /// # Errors
    /// [`HostBug`].
    fn skip(&mut self) -> Result<bool, HostBug>;

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

    /// What is added to the host's TSC for L1.
    ///
    /// # Errors
    /// [`HostBug`].
    fn tsc_offset(&self) -> Result<u64, HostBug>;

    /// Changes what is added to the host's TSC for L1, and with it for L2.
    ///
    /// # Errors
    /// [`HostBug`].
    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), HostBug>;

    /// The guest's processor is this one from now on.
    ///
    /// # Errors
    /// [`HostBug`].
    fn set_model(&mut self, model: Arc<Model>) -> Result<(), HostBug>;

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

//! [`Event`]: one vendor-neutral enum of everything that a hypervisor can intercept, and the three
//! stages at which an instruction offers it.

use crate::{Dr6, Gpr, GuestPhysical, Linear, SegmentName, Selector, vector};

/// When, within an instruction, its event is offered (SDM Vol. 3C "Relative Priority of Faults and VM Exits",
/// APM Vol. 2 "Instruction Intercepts"). At which stage a class exits is a column of each vendor's intercept table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Before any exception that the instruction can cause, privilege checks included.
    BeforeExceptions,
    /// After checks of mode, privilege and operand validity, before memory is accessed.
    AfterPrivilege,
    /// After operands and memory were fetched (and their faults), before any commit.
    AfterOperands,
}

/// What the extension answers to an offered event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The guest left: nothing of the instruction may be committed.
    Exit,
    /// Not intercepted (at this stage): go on.
    Proceed,
    /// Virtualized without an exit: the instruction is complete and its result is this value.
    Done(u64),
    /// The guest takes this hardware exception instead, with this error code if its vector has one: #GP for what a
    /// virtualized register does not accept, #VE in place of an EPT violation, #VC in place of an exit.
    Exception(u8, u32),
}

/// Where a task switch comes from (SDM Vol. 3C "Exit Qualification for Task Switches", bits 31:30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskSwitchSource {
    /// CALL instruction.
    Call,
    /// IRET instruction.
    Iret,
    /// JMP instruction.
    Jmp,
    /// Task gate in the IDT.
    IdtGate,
}

/// How an exception came about; decides its interruption type and whether a length is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExceptionSource {
    /// Raised by the processor.
    Hardware,
    /// INT3 or INTO.
    Software,
    /// INT1 (ICEBP).
    Privileged,
}

/// An exception about to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exception {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, for vectors that have one.
    pub error_code: Option<u32>,
    /// #PF: the faulting linear address. #DB: the bits that DR6 would get, active high. Else 0.
    pub detail: u64,
    /// Hardware, INT3/INTO or INT1.
    pub source: ExceptionSource,
    /// Length of the instruction for software and privileged software exceptions, else 0.
    pub instruction_length: u8,
}

impl Exception {
    /// Whether what its delivery saves has RFLAGS.RF set, whatever it was: so with faults, which start their instruction
    /// again. Of debug exceptions only general detect is one of those
    /// (SDM Vol. 3B "Instruction-Breakpoint Exception Condition").
    pub fn asks_for_resume(&self) -> bool {
        let fault = self.vector != vector::DB || self.detail & Dr6::BD.0 != 0;
        self.source == ExceptionSource::Hardware && fault
    }
}

/// A memory operand in decoded form, as instruction-information fields report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryOperand {
    /// Effective segment.
    pub segment: SegmentName,
    /// Base register.
    pub base: Option<Gpr>,
    /// Index register.
    pub index: Option<Gpr>,
    /// log2 of the scale, 0 to 3.
    pub scale: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub address_size: u8,
    /// Displacement, sign-extended (RIP-relative operands: the sum with the next RIP).
    pub displacement: u64,
    /// Linear address of the operand.
    pub linear: Linear,
}

/// A register or memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A general-purpose register.
    Register(Gpr),
    /// A memory location.
    Memory(MemoryOperand),
}

/// The instructions of VMX operation that exit unconditionally or through VMCS shadowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the mnemonics")]
pub enum VmxInstruction {
    Vmcall,
    Vmclear,
    Vmlaunch,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmresume,
    Vmwrite,
    Vmxoff,
    Vmxon,
    Invept,
    Invvpid,
    Vmfunc,
}

/// The descriptor-table instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the mnemonics")]
pub enum TableInstruction {
    Sgdt,
    Sidt,
    Lgdt,
    Lidt,
    Sldt,
    Str,
    Lldt,
    Ltr,
}

/// A port access, one element of a string instruction at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortAccess {
    /// Port number.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// True for IN and INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// REP prefix.
    pub rep: bool,
    /// Port given as an immediate.
    pub immediate: bool,
    /// Address size of a string instruction in bytes (2, 4, 8), else 0.
    pub address_size: u8,
    /// Segment of a string instruction (ES for INS).
    pub segment: SegmentName,
    /// Linear address of a string instruction's memory operand, else 0.
    pub linear: Linear,
}

/// A guest-physical access that the second stage refused, or that has a special meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct GuestPhysicalAccess {
    /// The address.
    pub address: GuestPhysical,
    /// The linear address, if the access has one.
    pub linear: Option<Linear>,
    /// Data read.
    pub read: bool,
    /// Data write.
    pub write: bool,
    /// Instruction fetch.
    pub fetch: bool,
    /// Access to a guest paging structure while translating `linear`.
    pub table_walk: bool,
    /// The access is by a user-mode linear address (CPL 3 or implicit supervisor excluded).
    pub user: bool,
    /// A fetch at CPL 0 to 2 under AMD's guest mode execute trap: the one access that nested paging takes as a supervisor's.
    pub supervisor_fetch: bool,
    /// Not `table_walk`: the guest's own paging lets `linear` be written (R/W = 1 at every level). For EPT's advanced information.
    pub linear_writable: bool,
    /// Not `table_walk`: the guest's own paging forbids execution at `linear` (XD = 1 at some level). For EPT's advanced information.
    pub linear_execute_disable: bool,
    /// Permissions of the second-stage translation, ANDed over all levels: bit 0 R, 1 W, 2 X, 3 X for user-mode linear addresses.
    pub permissions: u8,
    /// Raw value of the second stage's entry at which the walk ended, present or not (EPT: bit 63 suppresses #VE).
    pub entry: u64,
    /// Reserved bits (NPT) or a misconfiguration (EPT) rather than missing permission.
    pub misconfigured: bool,
}

macro_rules! events {
    ($($(#[$meta:meta])* $name:ident $(($payload:ty))? $({ $($(#[$fmeta:meta])* $field:ident : $fty:ty),* $(,)? })?,)*) => {
        /// Everything that a hypervisor can intercept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Event {
            $($(#[$meta])* $name $(($payload))? $({ $($(#[$fmeta])* $field: $fty),* })?,)*
        }

        /// The kinds of [`Event`], without their operands; indexes [`EventClasses`] and the intercept tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u8)]
        pub enum EventClass {
            $($(#[$meta])* $name,)*
        }

        impl EventClass {
            /// Every class, ascending.
            pub const ALL: &'static [EventClass] = &[$(EventClass::$name),*];

            /// The class's name, as in the enum.
            pub const fn name(self) -> &'static str {
                match self { $(EventClass::$name => stringify!($name),)* }
            }
        }

        impl Event {
            /// The kind of the event.
            pub const fn class(&self) -> EventClass {
                match self { $(events!(@pat $name $(($payload))? $({ $($field),* })?) => EventClass::$name,)* }
            }
        }
    };
    (@pat $name:ident ($payload:ty)) => { Event::$name(_) };
    (@pat $name:ident { $($field:ident),* }) => { Event::$name { .. } };
    (@pat $name:ident) => { Event::$name };
}

events! {
    /// An exception (also INT3, INTO, INT1).
    Exception(Exception),
    /// A maskable interrupt that the processor would accept; the vector is known only if acknowledged.
    ExternalInterrupt { /// Vector in the interrupt controller.
        vector: u8 },
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// An INIT signal.
    Init,
    /// A start-up IPI.
    Sipi { /// Start vector.
        vector: u8 },
    /// A triple fault or other cause of shutdown.
    TripleFault,
    /// A task switch, after the checks on the new TSS descriptor.
    TaskSwitch { /// Selector of the new TSS.
        selector: Selector, /// What started it.
        source: TaskSwitchSource, /// Error code to push on the new stack.
        error_code: Option<u32> },
    /// Interrupts have become possible ("interrupt-window exiting").
    InterruptWindow,
    /// NMIs have become possible ("NMI-window exiting").
    NmiWindow,
    /// A virtual interrupt is about to be taken (SVM's VINTR).
    VirtualInterrupt { /// Virtual vector.
        vector: u8 },
    /// The VMX-preemption timer counted down to 0.
    PreemptionTimer,
    /// A monitor trap flag exit is pending.
    MonitorTrap,
    /// The virtual TPR is below the TPR threshold.
    TprBelowThreshold,
    /// Freeze on an unmasked legacy floating-point error (SVM's FERR_FREEZE).
    FerrFreeze,
    /// A bus lock was taken (trap-like).
    BusLock,
    /// The second stage refused an access.
    SecondStage(GuestPhysicalAccess),
    /// An access to the APIC-access page, or to the AVIC backing page.
    ApicAccess { /// Guest-physical access, offset in the page = address modulo 4096.
        access: GuestPhysicalAccess, /// Bytes accessed.
        size: u8, /// During delivery of an event.
        in_delivery: bool },
    /// A virtualized APIC write that needs the hypervisor (trap-like).
    ApicWrite { /// Page offset, 0 to 0xfff.
        offset: u16 },
    /// A virtualized EOI of a vector in the EOI-exit bitmap.
    VirtualizedEoi { /// Vector.
        vector: u8 },
    /// The page-modification log is full.
    PageModificationLogFull,

    /// CPUID.
    Cpuid { /// EAX.
        leaf: u32, /// ECX.
        subleaf: u32 },
    /// GETSEC.
    Getsec,
    /// HLT.
    Hlt,
    /// HLT while no virtual interrupt is pending (SVM's idle HLT).
    IdleHlt,
    /// INVD.
    Invd,
    /// WBINVD or WBNOINVD.
    Wbinvd { /// WBNOINVD.
        no_invalidate: bool },
    /// INVLPG.
    Invlpg { /// Operand.
        linear: Linear },
    /// INVLPGA.
    Invlpga { /// RAX.
        linear: Linear, /// ECX.
        asid: u32 },
    /// INVLPGB.
    Invlpgb,
    /// TLBSYNC.
    Tlbsync,
    /// INVPCID.
    Invpcid { /// Register that holds the type.
        kind: Gpr, /// Descriptor.
        operand: MemoryOperand },
    /// RDPMC.
    Rdpmc { /// ECX.
        counter: u32 },
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// RSM.
    Rsm,
    /// An instruction of VMX operation.
    Vmx { /// Which.
        instruction: VmxInstruction, /// Memory or register operand (field value for VMREAD and VMWRITE).
        operand: Option<Operand>, /// Second register operand (VMREAD, VMWRITE: field encoding; INVEPT, INVVPID: type).
        register: Option<Gpr>, /// Value of that register (its low 32 bits outside 64-bit mode). VMFUNC: EAX in bits 31:0, ECX in bits 63:32.
        value: u64 },
    /// MOV from a control register (0, 2, 3, 4, 8).
    CrRead { /// Which.
        cr: u8, /// Destination.
        gpr: Gpr },
    /// MOV to a control register.
    CrWrite { /// Which.
        cr: u8, /// Source.
        gpr: Gpr, /// Value to be written.
        value: u64 },
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw { /// Source value.
        source: u16, /// Linear address of a memory operand.
        memory: Option<Linear> },
    /// SMSW.
    Smsw { /// Destination register, if it is one.
        register: Option<Gpr> },
    /// MOV from a debug register.
    DrRead { /// Which, 0 to 7.
        dr: u8, /// Destination.
        gpr: Gpr },
    /// MOV to a debug register.
    DrWrite { /// Which, 0 to 7.
        dr: u8, /// Source.
        gpr: Gpr, /// Value to be written.
        value: u64 },
    /// IN, OUT, INS, OUTS.
    PortIo(PortAccess),
    /// RDMSR.
    Rdmsr { /// ECX.
        index: u32 },
    /// WRMSR.
    Wrmsr { /// ECX.
        index: u32, /// EDX:EAX.
        value: u64 },
    /// MWAIT.
    Mwait { /// The address-range monitor is armed.
        armed: bool },
    /// MONITOR.
    Monitor,
    /// PAUSE.
    Pause { /// Privilege level.
        cpl: u8, /// Time-stamp counter at the instruction.
        tsc: u64 },
    /// SGDT, SIDT, LGDT, LIDT, SLDT, STR, LLDT, LTR.
    DescriptorTable { /// Which.
        instruction: TableInstruction, /// Its operand.
        operand: Operand, /// Operand size in bytes.
        operand_size: u8 },
    /// RDRAND.
    Rdrand { /// Destination.
        gpr: Gpr, /// Bytes: 2, 4, 8.
        size: u8 },
    /// RDSEED.
    Rdseed { /// Destination.
        gpr: Gpr, /// Bytes: 2, 4, 8.
        size: u8 },
    /// XSETBV.
    Xsetbv { /// ECX.
        index: u32, /// EDX:EAX.
        value: u64 },
    /// XSAVES.
    Xsaves { /// EDX:EAX.
        mask: u64, /// XCR0 | IA32_XSS.
        enabled: u64, /// The save area.
        operand: MemoryOperand },
    /// XRSTORS.
    Xrstors { /// EDX:EAX.
        mask: u64, /// XCR0 | IA32_XSS.
        enabled: u64, /// The save area.
        operand: MemoryOperand },
    /// UMWAIT.
    Umwait { /// Operand register.
        gpr: Gpr },
    /// TPAUSE.
    Tpause { /// Operand register.
        gpr: Gpr },
    /// ENCLS.
    Encls { /// EAX.
        leaf: u32 },
    /// ENCLV.
    Enclv { /// EAX.
        leaf: u32 },
    /// PCONFIG.
    Pconfig { /// EAX.
        leaf: u32 },
    /// ENQCMD or ENQCMDS.
    Enqcmd { /// ENQCMDS.
        supervisor: bool, /// PASID that would be translated.
        pasid: u32 },
    /// LOADIWKEY.
    Loadiwkey { /// EAX.
        eax: u32, /// Number of the first XMM operand, 0 to 15.
        first: u8, /// Number of the second XMM operand, 0 to 15.
        second: u8 },
    /// SEAMCALL or TDCALL.
    Seam { /// TDCALL.
        tdcall: bool },
    /// INT n.
    SoftwareInterrupt { /// n.
        vector: u8, /// Instruction length.
        instruction_length: u8 },
    /// IRET.
    Iret,
    /// PUSHF.
    Pushf,
    /// POPF.
    Popf,
    /// VMRUN.
    Vmrun { /// RAX.
        vmcb: u64 },
    /// VMLOAD.
    Vmload { /// RAX.
        vmcb: u64 },
    /// VMSAVE.
    Vmsave { /// RAX.
        vmcb: u64 },
    /// VMMCALL.
    Vmmcall,
    /// VMGEXIT.
    Vmgexit,
    /// STGI.
    Stgi,
    /// CLGI.
    Clgi,
    /// SKINIT.
    Skinit { /// EAX.
        block: u32 },
    /// RDPRU.
    Rdpru { /// ECX.
        register: u32 },
    /// MCOMMIT.
    Mcommit,
    /// EFER was written (trap-like).
    EferWritten { /// New value.
        value: u64 },
    /// A control register was written (trap-like).
    CrWritten { /// Which, 0 to 15.
        cr: u8, /// New value.
        value: u64 },
}

/// A set of [`EventClass`]es: what the CPU tests before it calls the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct EventClasses(pub u128);

impl EventClasses {
    /// No class.
    pub const NONE: Self = Self(0);
    /// Whether `class` is in the set.
    pub const fn contains(self, class: EventClass) -> bool {
        self.0 >> class as u8 & 1 != 0
    }
    /// The set with `class` added.
    pub const fn with(self, class: EventClass) -> Self {
        Self(self.0 | 1 << class as u8)
    }
    /// The set with `class` removed.
    pub const fn without(self, class: EventClass) -> Self {
        Self(self.0 & !(1 << class as u8))
    }
}

const _: () = assert!(EventClass::ALL.len() <= 128, "EventClasses is 128 bits wide");

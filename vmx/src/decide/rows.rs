//! The rows of [`Table::BUILT_IN`](super::Table::BUILT_IN): the manual's causes of VM exits as data.
//!
//! Stages follow SDM Vol. 3C "Relative Priority of Faults and VM Exits": #UD, faults based on privilege and the TSS's
//! I/O permission bits come before a VM exit ([`AfterPrivilege`](Stage::AfterPrivilege)); faults of an operand come
//! before an exit that depends on its contents ([`AfterOperands`](Stage::AfterOperands)); MOV DR, GETSEC and
//! the instructions of VMX operation exit whatever the CPL ([`BeforeExceptions`](Stage::BeforeExceptions)), the last
//! two only where their mode does not make them #UD, which their condition checks.

use super::condition::Condition;
use super::table::{Gate, Row};
use crate::bitmap::Access;
use crate::information::Format;
use crate::{ExitReason, PinControls, PrimaryControls as P, SecondaryControls as S, TertiaryControls as T};
use rootmode_arch::event::VmxInstruction as V;
use rootmode_arch::{EventClass, Stage};

const OTHER: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"Other Causes of VM Exits\"";
const ALWAYS: &str =
    "SDM Vol. 3C (325384-083, Mar 2024) \"Instructions That Cause VM Exits Unconditionally\"";
const SOMETIMES: &str =
    "SDM Vol. 3C (325384-083, Mar 2024) \"Instructions That Cause VM Exits Conditionally\"";
const REFERENCE: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"VMX Instruction Reference\"";
const REASONS: &str = "SDM Vol. 3D (325384-083, Mar 2024) \"VMX Basic Exit Reasons\"";

const BEFORE: Option<Stage> = Some(Stage::BeforeExceptions);
const PRIVILEGE: Option<Stage> = Some(Stage::AfterPrivilege);
const OPERANDS: Option<Stage> = Some(Stage::AfterOperands);

/// A row without gates, for an event that is not an instruction.
const fn event(class: EventClass, id: &'static str, reason: ExitReason, source: &'static str) -> Row {
    Row {
        id,
        class,
        gates: [None, None],
        condition: Condition::Always,
        reason,
        stage: None,
        information: None,
        source,
        enabled: true,
        negated: false,
    }
}

/// A row without gates, for an instruction that exits after privilege checks.
const fn instruction(class: EventClass, id: &'static str, reason: ExitReason, source: &'static str) -> Row {
    Row { stage: PRIVILEGE, ..event(class, id, reason, source) }
}

/// A row for an instruction of VMX operation.
const fn vmx(id: &'static str, condition: Condition, reason: ExitReason, source: &'static str) -> Row {
    Row { stage: BEFORE, condition, ..event(EventClass::Vmx, id, reason, source) }
}

impl Row {
    const fn gate(mut self, gate: Option<Gate>) -> Self {
        let place = if self.gates[0].is_none() { 0 } else { 1 };
        assert!(self.gates[place].is_none(), "a row has two gates");
        self.gates[place] = gate;
        self
    }
    const fn pin(self, control: PinControls) -> Self {
        self.gate(Gate::pin(control))
    }
    const fn primary(self, control: P) -> Self {
        self.gate(Gate::primary(control))
    }
    const fn secondary(self, control: S) -> Self {
        self.gate(Gate::secondary(control))
    }
    const fn tertiary(self, control: T) -> Self {
        self.gate(Gate::tertiary(control))
    }
    const fn unless_primary(self, control: P) -> Self {
        self.gate(Gate::off(Gate::primary(control)))
    }
    const fn unless_secondary(self, control: S) -> Self {
        self.gate(Gate::off(Gate::secondary(control)))
    }
    const fn when(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }
    const fn at(mut self, stage: Option<Stage>) -> Self {
        self.stage = stage;
        self
    }
    const fn reports(mut self, format: Format) -> Self {
        self.information = Some(format);
        self
    }
}

use Condition as C;
use EventClass as E;
use ExitReason as R;

/// Number of rows.
pub(super) const COUNT: usize = 83;

/// The rows, by class in the order of [`EventClass`]; rows of `Vmx`
/// by instruction in the order of [`VmxInstruction`](V). Among those of one event, the first that applies decides.
pub(super) const ROWS: [Row; COUNT] = [
    event(E::Exception, "exception", R::EXCEPTION_OR_NMI, OTHER).when(C::ExceptionBitmap),
    event(E::ExternalInterrupt, "external-interrupt", R::EXTERNAL_INTERRUPT, OTHER)
        .pin(PinControls::EXTERNAL_INTERRUPT_EXITING)
        .when(C::NotPosted),
    event(E::Nmi, "nmi", R::EXCEPTION_OR_NMI, OTHER).pin(PinControls::NMI_EXITING),
    event(E::Init, "init", R::INIT, OTHER),
    event(E::Sipi, "sipi", R::SIPI, OTHER),
    event(E::TripleFault, "triple-fault", R::TRIPLE_FAULT, OTHER),
    event(E::TaskSwitch, "task-switch", R::TASK_SWITCH, OTHER),
    event(E::InterruptWindow, "interrupt-window", R::INTERRUPT_WINDOW, OTHER)
        .primary(P::INTERRUPT_WINDOW_EXITING)
        .when(C::InterruptsOpen),
    event(E::NmiWindow, "nmi-window", R::NMI_WINDOW, OTHER).primary(P::NMI_WINDOW_EXITING).when(C::NmisOpen),
    event(E::PreemptionTimer, "preemption-timer", R::PREEMPTION_TIMER, OTHER)
        .pin(PinControls::PREEMPTION_TIMER),
    event(E::MonitorTrap, "monitor-trap", R::MONITOR_TRAP_FLAG, MTF).primary(P::MONITOR_TRAP_FLAG),
    event(E::MonitorTrap, "monitor-trap-injected", R::MONITOR_TRAP_FLAG, MTF).when(C::PendingMtf),
    event(E::TprBelowThreshold, "tpr-below-threshold", R::TPR_BELOW_THRESHOLD, TPR)
        .primary(P::USE_TPR_SHADOW)
        .unless_secondary(S::VIRTUAL_INTERRUPT_DELIVERY)
        .when(C::TprBelowThreshold),
    event(E::BusLock, "bus-lock", R::BUS_LOCK, OTHER).secondary(S::BUS_LOCK_DETECTION),
    event(E::SecondStage, "ept-violation", R::EPT_VIOLATION, EPT)
        .secondary(S::ENABLE_EPT)
        .when(C::EptViolation),
    event(E::SecondStage, "ept-misconfiguration", R::EPT_MISCONFIGURATION, EPT)
        .secondary(S::ENABLE_EPT)
        .when(C::EptMisconfiguration),
    event(E::ApicAccess, "apic-access", R::APIC_ACCESS, APIC)
        .secondary(S::VIRTUALIZE_APIC_ACCESSES)
        .when(C::ApicAccess),
    event(E::ApicWrite, "apic-write", R::APIC_WRITE, APIC_WRITE).primary(P::USE_TPR_SHADOW),
    event(E::VirtualizedEoi, "virtualized-eoi", R::VIRTUALIZED_EOI, EOI)
        .secondary(S::VIRTUAL_INTERRUPT_DELIVERY)
        .when(C::EoiExitBitmap),
    event(E::PageModificationLogFull, "page-modification-log-full", R::PML_FULL, PML)
        .secondary(S::ENABLE_PML),
    instruction(E::Cpuid, "cpuid", R::CPUID, ALWAYS),
    instruction(E::Getsec, "getsec", R::GETSEC, ALWAYS).at(BEFORE).when(C::SmxEnabled),
    instruction(E::Hlt, "hlt", R::HLT, SOMETIMES).primary(P::HLT_EXITING),
    instruction(E::Invd, "invd", R::INVD, ALWAYS),
    instruction(E::Wbinvd, "wbinvd", R::WBINVD, SOMETIMES).secondary(S::WBINVD_EXITING),
    instruction(E::Invlpg, "invlpg", R::INVLPG, SOMETIMES).primary(P::INVLPG_EXITING),
    instruction(E::Invpcid, "invpcid", R::INVPCID, SOMETIMES)
        .secondary(S::ENABLE_INVPCID)
        .primary(P::INVLPG_EXITING)
        .reports(Format::Invalidate),
    instruction(E::Rdpmc, "rdpmc", R::RDPMC, SOMETIMES).primary(P::RDPMC_EXITING),
    instruction(E::Rdtsc, "rdtsc", R::RDTSC, SOMETIMES).primary(P::RDTSC_EXITING),
    instruction(E::Rdtscp, "rdtscp", R::RDTSCP, SOMETIMES)
        .secondary(S::ENABLE_RDTSCP)
        .primary(P::RDTSC_EXITING),
    instruction(E::Rsm, "rsm", R::RSM, SOMETIMES),
    vmx("vmcall", C::Instruction(V::Vmcall), R::VMCALL, REFERENCE),
    vmx("vmclear", C::InstructionInMode(V::Vmclear), R::VMCLEAR, ALWAYS).reports(Format::Memory),
    vmx("vmlaunch", C::InstructionInMode(V::Vmlaunch), R::VMLAUNCH, ALWAYS),
    vmx("vmptrld", C::InstructionInMode(V::Vmptrld), R::VMPTRLD, ALWAYS).reports(Format::Memory),
    vmx("vmptrst", C::InstructionInMode(V::Vmptrst), R::VMPTRST, ALWAYS).reports(Format::Memory),
    vmx("vmread", C::InstructionInMode(V::Vmread), R::VMREAD, SOMETIMES)
        .unless_secondary(S::VMCS_SHADOWING)
        .reports(Format::VmcsField),
    vmx("vmread-bitmap", C::VmreadBitmap, R::VMREAD, SOMETIMES)
        .secondary(S::VMCS_SHADOWING)
        .reports(Format::VmcsField),
    vmx("vmresume", C::InstructionInMode(V::Vmresume), R::VMRESUME, ALWAYS),
    vmx("vmwrite", C::InstructionInMode(V::Vmwrite), R::VMWRITE, SOMETIMES)
        .unless_secondary(S::VMCS_SHADOWING)
        .reports(Format::VmcsField),
    vmx("vmwrite-bitmap", C::VmwriteBitmap, R::VMWRITE, SOMETIMES)
        .secondary(S::VMCS_SHADOWING)
        .reports(Format::VmcsField),
    vmx("vmxoff", C::InstructionInMode(V::Vmxoff), R::VMXOFF, ALWAYS),
    vmx("vmxon", C::InstructionInMode(V::Vmxon), R::VMXON, ALWAYS).reports(Format::Memory),
    vmx("invept", C::InstructionInMode(V::Invept), R::INVEPT, ALWAYS).reports(Format::Invalidate),
    vmx("invvpid", C::InstructionInMode(V::Invvpid), R::INVVPID, ALWAYS).reports(Format::Invalidate),
    vmx("vmfunc", C::VmFunction, R::VMFUNC, VMFUNC).secondary(S::ENABLE_VM_FUNCTIONS),
    instruction(E::CrRead, "mov-from-cr3", R::CR_ACCESS, SOMETIMES)
        .primary(P::CR3_STORE_EXITING)
        .when(C::Register(3)),
    instruction(E::CrRead, "mov-from-cr8", R::CR_ACCESS, SOMETIMES)
        .primary(P::CR8_STORE_EXITING)
        .when(C::Register(8)),
    instruction(E::CrWrite, "mov-to-cr0", R::CR_ACCESS, SOMETIMES).when(C::Cr0Differs),
    instruction(E::CrWrite, "mov-to-cr3", R::CR_ACCESS, SOMETIMES)
        .primary(P::CR3_LOAD_EXITING)
        .when(C::Cr3NotTarget),
    instruction(E::CrWrite, "mov-to-cr4", R::CR_ACCESS, SOMETIMES).when(C::Cr4Differs),
    instruction(E::CrWrite, "mov-to-cr8", R::CR_ACCESS, SOMETIMES)
        .primary(P::CR8_LOAD_EXITING)
        .when(C::Register(8)),
    instruction(E::Clts, "clts", R::CR_ACCESS, SOMETIMES).when(C::Clts),
    instruction(E::Lmsw, "lmsw", R::CR_ACCESS, SOMETIMES).when(C::Lmsw).at(OPERANDS),
    instruction(E::DrRead, "mov-from-dr", R::MOV_DR, SOMETIMES).primary(P::MOV_DR_EXITING).at(BEFORE),
    instruction(E::DrWrite, "mov-to-dr", R::MOV_DR, SOMETIMES).primary(P::MOV_DR_EXITING).at(BEFORE),
    instruction(E::PortIo, "io", R::IO_INSTRUCTION, SOMETIMES)
        .primary(P::UNCONDITIONAL_IO_EXITING)
        .unless_primary(P::USE_IO_BITMAPS)
        .reports(Format::InsOuts),
    instruction(E::PortIo, "io-bitmap", R::IO_INSTRUCTION, SOMETIMES)
        .primary(P::USE_IO_BITMAPS)
        .when(C::IoBitmap)
        .reports(Format::InsOuts),
    instruction(E::Rdmsr, "rdmsr", R::RDMSR, SOMETIMES).unless_primary(P::USE_MSR_BITMAPS),
    instruction(E::Rdmsr, "rdmsr-bitmap", R::RDMSR, SOMETIMES)
        .primary(P::USE_MSR_BITMAPS)
        .when(C::MsrBitmap(Access::Read)),
    instruction(E::Wrmsr, "wrmsr", R::WRMSR, SOMETIMES).unless_primary(P::USE_MSR_BITMAPS),
    instruction(E::Wrmsr, "wrmsr-bitmap", R::WRMSR, SOMETIMES)
        .primary(P::USE_MSR_BITMAPS)
        .when(C::MsrBitmap(Access::Write)),
    instruction(E::Mwait, "mwait", R::MWAIT, SOMETIMES).primary(P::MWAIT_EXITING),
    instruction(E::Monitor, "monitor", R::MONITOR, SOMETIMES).primary(P::MONITOR_EXITING),
    instruction(E::Pause, "pause", R::PAUSE, SOMETIMES).primary(P::PAUSE_EXITING),
    instruction(E::Pause, "pause-loop", R::PAUSE, SOMETIMES)
        .secondary(S::PAUSE_LOOP_EXITING)
        .when(C::PauseLoop),
    instruction(E::DescriptorTable, "gdtr-idtr", R::GDTR_IDTR_ACCESS, SOMETIMES)
        .secondary(S::DESCRIPTOR_TABLE_EXITING)
        .when(C::GdtrOrIdtr)
        .reports(Format::GdtrIdtr),
    instruction(E::DescriptorTable, "ldtr-tr", R::LDTR_TR_ACCESS, SOMETIMES)
        .secondary(S::DESCRIPTOR_TABLE_EXITING)
        .when(C::LdtrOrTr)
        .reports(Format::LdtrTr),
    instruction(E::Rdrand, "rdrand", R::RDRAND, SOMETIMES)
        .secondary(S::RDRAND_EXITING)
        .reports(Format::Register),
    instruction(E::Rdseed, "rdseed", R::RDSEED, SOMETIMES)
        .secondary(S::RDSEED_EXITING)
        .reports(Format::Register),
    instruction(E::Xsetbv, "xsetbv", R::XSETBV, ALWAYS),
    instruction(E::Xsaves, "xsaves", R::XSAVES, SOMETIMES)
        .secondary(S::ENABLE_XSAVES)
        .when(C::XssBitmap)
        .reports(Format::Memory),
    instruction(E::Xrstors, "xrstors", R::XRSTORS, SOMETIMES)
        .secondary(S::ENABLE_XSAVES)
        .when(C::XssBitmap)
        .reports(Format::Memory),
    instruction(E::Umwait, "umwait", R::UMWAIT, SOMETIMES)
        .secondary(S::ENABLE_USER_WAIT)
        .primary(P::RDTSC_EXITING)
        .reports(Format::Register),
    instruction(E::Tpause, "tpause", R::TPAUSE, SOMETIMES)
        .secondary(S::ENABLE_USER_WAIT)
        .primary(P::RDTSC_EXITING)
        .reports(Format::Register),
    instruction(E::Encls, "encls", R::ENCLS, SOMETIMES)
        .secondary(S::ENABLE_ENCLS_EXITING)
        .when(C::EnclsBitmap),
    instruction(E::Enclv, "enclv", R::ENCLV, SOMETIMES)
        .secondary(S::ENABLE_ENCLV_EXITING)
        .when(C::EnclvBitmap),
    instruction(E::Pconfig, "pconfig", R::PCONFIG, SOMETIMES)
        .secondary(S::ENABLE_PCONFIG)
        .when(C::PconfigBitmap),
    instruction(E::Enqcmd, "enqcmd-pasid", R::ENQCMD_PASID, SOMETIMES)
        .secondary(S::PASID_TRANSLATION)
        .when(C::PasidFailed(false)),
    // ENQCMDS takes the PASID from its memory operand.
    instruction(E::Enqcmd, "enqcmds-pasid", R::ENQCMDS_PASID, SOMETIMES)
        .secondary(S::PASID_TRANSLATION)
        .when(C::PasidFailed(true))
        .at(OPERANDS),
    instruction(E::Loadiwkey, "loadiwkey", R::LOADIWKEY, SOMETIMES)
        .tertiary(T::LOADIWKEY_EXITING)
        .reports(Format::Loadiwkey),
    instruction(E::Seam, "seamcall", R::SEAMCALL, REASONS).when(C::Seamcall).at(BEFORE),
    instruction(E::Seam, "tdcall", R::TDCALL, REASONS).when(C::Tdcall),
];

const MTF: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"Monitor Trap Flag\"";
const TPR: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"TPR Virtualization\"";
const EPT: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"EPT-Induced VM Exits\"";
const APIC: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"Virtualizing Memory-Mapped APIC Accesses\"";
const APIC_WRITE: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"APIC-Write VM Exits\"";
const EOI: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"EOI Virtualization\"";
const PML: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"Page-Modification Logging\"";
const VMFUNC: &str = "SDM Vol. 3C (325384-083, Mar 2024) \"Enabling VM Functions\"";

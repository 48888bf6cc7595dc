//! The rows of the built-in table, in the order of the event classes
//! (APM Vol. 2 (24593 rev. 3.43) "Instruction Intercepts", "SVM Intercept Exit Codes" and the sections named).

use super::condition::Condition;
use super::exit::Info;
use super::table::{Gate, Row};
use crate::bitmap::Access;
use crate::encode::ExitCode;
use crate::vmcb::Intercept;
use rootmode_arch::event::TableInstruction;
use rootmode_arch::{EventClass, Stage};

/// The row's columns by name: identifier, class, gate, condition, code, stage, information, section.
macro_rules! rows {
    ($($id:literal $class:ident $gate:tt $condition:expr, $stage:ident $info:ident $source:expr;)*) => {
        /// Number of rows.
        pub(super) const COUNT: usize = [$($id),*].len();
        /// All rows.
        pub(super) const ROWS: [Row; COUNT] = [$(Row {
            id: $id,
            class: EventClass::$class,
            gate: rows!(@gate $gate),
            condition: { use Condition::*; $condition },
            code: rows!(@code $gate),
            stage: rows!(@stage $stage),
            info: Info::$info,
            source: $source,
            enabled: true,
            negated: false,
        }),*];
    };
    (@gate [$bit:ident]) => { Gate::Bit(Intercept::$bit) };
    (@gate [$bit:ident; $count:literal]) => { Gate::Numbered { first: Intercept::$bit, count: $count } };
    (@gate [=> $code:ident]) => { Gate::Open };
    (@gate [=> of $bit:ident]) => { Gate::Open };
    (@code [$bit:ident]) => { ExitCode::of(Intercept::$bit) };
    (@code [$bit:ident; $count:literal]) => { ExitCode::of(Intercept::$bit) };
    (@code [=> $code:ident]) => { ExitCode::$code };
    (@code [=> of $bit:ident]) => { ExitCode::of(Intercept::$bit) };
    (@stage Event) => { None };
    (@stage First) => { Some(Stage::BeforeExceptions) };
    (@stage Checked) => { Some(Stage::AfterPrivilege) };
    (@stage Operands) => { Some(Stage::AfterOperands) };
}

const INSTRUCTIONS: &str = "Instruction Intercepts";
const FORCED: &str = "Interrupt Injection Restrictions";
const TRAPS: &str = "Control Register Write Traps";
const TABLES: &str = "Instruction Intercepts";
const REGISTERS: &str = "Virtual APIC Register Accesses";

rows! {
    "icebp" Exception [ICEBP] Int1, Event Nothing INSTRUCTIONS;
    "machine-check.forced" Exception [=> of EXCP_MC] ForcedMachineCheck, Event Nothing FORCED;
    "exception" Exception [EXCP_DE; 32] NotInt1, Event Exception "Exception Intercepts";
    "intr" ExternalInterrupt [INTR] Always, Event Nothing "INTR Intercept";
    "intr.forced" ExternalInterrupt [=> of INTR] Forced, Event Nothing FORCED;
    "nmi" Nmi [NMI] Always, Event Nothing "NMI Intercept";
    "nmi.forced" Nmi [=> of NMI] Forced, Event Nothing FORCED;
    "smi" Smi [SMI] SmmUnlocked, Event Smi "SMI Intercept";
    "smi.sev-es" Smi [=> of SMI] SevEs, Event Smi "Interaction with SMI and #MC";
    "init" Init [INIT] Always, Event Nothing "INIT Intercept";
    "init.forced" Init [=> of INIT] Forced, Event Nothing FORCED;
    "shutdown" TripleFault [SHUTDOWN] Always, Event Nothing "Shutdown Intercept";
    "task-switch" TaskSwitch [TASK_SWITCH] Always, Event TaskSwitch "Task Switch Intercept";
    "vintr" VirtualInterrupt [VINTR] Always, Event Nothing "Virtual Interrupt Intercept";
    "ferr-freeze" FerrFreeze [FERR_FREEZE] Always, Event Nothing "Ferr_Freeze Intercept";
    "bus-lock" BusLock [BUSLOCK] BusLocksExhausted, Event Nothing "Bus Lock Threshold";
    "nested-page-fault" SecondStage [=> NPF] Always, Event NestedPageFault "Nested versus Guest Page Faults, Fault Ordering";
    "avic.fault" ApicAccess [=> AVIC_NOACCEL] ApicFault, Event NoAcceleration REGISTERS;
    "avic.ipi" ApicWrite [=> AVIC_INCOMPLETE_IPI] IpiFailed, Event IncompleteIpi "AVIC IPI Delivery Not Completed";
    "avic.trap" ApicWrite [=> AVIC_NOACCEL] ApicTrap, Event NoAcceleration REGISTERS;
    "avic.level-eoi" VirtualizedEoi [=> AVIC_NOACCEL] Avic, Event NoAcceleration "AVIC Access to Un-accelerated vAPIC register";
    "cpuid" Cpuid [CPUID] Always, First Nothing INSTRUCTIONS;
    "cpuid.snp" Cpuid [=> of CPUID] Snp, First Nothing "Running SNP-Active Virtual Machines";
    "hlt" Hlt [HLT] Always, Checked Nothing INSTRUCTIONS;
    "hlt.idle" Hlt [IDLE_HLT] NoVirtualInterrupt, Checked Nothing INSTRUCTIONS;
    "idle-hlt.hlt" IdleHlt [HLT] Always, Checked Nothing INSTRUCTIONS;
    "idle-hlt" IdleHlt [IDLE_HLT] Always, Checked Nothing INSTRUCTIONS;
    "invd" Invd [INVD] Always, Checked Nothing INSTRUCTIONS;
    "wbinvd" Wbinvd [WBINVD] Always, Checked Nothing INSTRUCTIONS;
    "invlpg" Invlpg [INVLPG] Always, Checked Linear INSTRUCTIONS;
    "invlpga" Invlpga [INVLPGA] Always, Checked Nothing INSTRUCTIONS;
    "invlpgb" Invlpgb [INVLPGB] Always, Checked Nothing INSTRUCTIONS;
    "invlpgb.illegal" Invlpgb [INVLPGB_ILLEGAL] IllegalOperands, Checked Nothing INSTRUCTIONS;
    "tlbsync" Tlbsync [TLBSYNC] Always, Checked Nothing INSTRUCTIONS;
    "invpcid" Invpcid [INVPCID] Always, Checked Nothing INSTRUCTIONS;
    "rdpmc" Rdpmc [RDPMC] Always, Checked Nothing INSTRUCTIONS;
    "rdtsc" Rdtsc [RDTSC] Always, Checked Nothing INSTRUCTIONS;
    "rdtscp" Rdtscp [RDTSCP] Always, Checked Nothing INSTRUCTIONS;
    "rsm" Rsm [RSM] Always, First Nothing INSTRUCTIONS;
    "cr-read" CrRead [CR0_READ; 16] Always, Checked MovCr INSTRUCTIONS;
    "cr-write" CrWrite [CR0_WRITE; 16] Always, Checked MovCr INSTRUCTIONS;
    "cr0-selective-write" CrWrite [CR0_SEL_WRITE] Cr0Changes, Checked MovCr INSTRUCTIONS;
    "clts" Clts [CR0_WRITE] Always, Checked Nothing INSTRUCTIONS;
    "lmsw" Lmsw [CR0_WRITE] Always, Checked Nothing INSTRUCTIONS;
    "lmsw.selective" Lmsw [CR0_SEL_WRITE] Always, Checked Nothing INSTRUCTIONS;
    "smsw" Smsw [CR0_READ] Always, Checked Nothing INSTRUCTIONS;
    "dr-read" DrRead [DR0_READ; 16] Always, Checked MovDr INSTRUCTIONS;
    "dr-write" DrWrite [DR0_WRITE; 16] Always, Checked MovDr INSTRUCTIONS;
    "ioio" PortIo [IOIO_PROT] PortMap, Checked Ioio "IN and OUT Behavior";
    "ioio.snp" PortIo [=> of IOIO_PROT] Snp, Checked Ioio "Running SNP-Active Virtual Machines";
    "rdmsr" Rdmsr [MSR_PROT] MsrMap(Access::Read), Checked Msr "MSR Intercepts";
    "wrmsr" Wrmsr [MSR_PROT] MsrMap(Access::Write), Checked Msr "MSR Intercepts";
    "mwait.armed" Mwait [MWAIT_CONDITIONAL] Armed, Checked Nothing INSTRUCTIONS;
    "mwait" Mwait [MWAIT] Always, Checked Nothing INSTRUCTIONS;
    "monitor" Monitor [MONITOR] Always, Operands Nothing INSTRUCTIONS;
    "pause" Pause [PAUSE] PauseFilter, First Nothing "Pause Intercept Filtering";
    "sgdt" DescriptorTable [GDTR_READ] Table(TableInstruction::Sgdt), Checked Nothing TABLES;
    "sidt" DescriptorTable [IDTR_READ] Table(TableInstruction::Sidt), Checked Nothing TABLES;
    "lgdt" DescriptorTable [GDTR_WRITE] Table(TableInstruction::Lgdt), Checked Nothing TABLES;
    "lidt" DescriptorTable [IDTR_WRITE] Table(TableInstruction::Lidt), Checked Nothing TABLES;
    "sldt" DescriptorTable [LDTR_READ] Table(TableInstruction::Sldt), Checked Nothing TABLES;
    "str" DescriptorTable [TR_READ] Table(TableInstruction::Str), Checked Nothing TABLES;
    "lldt" DescriptorTable [LDTR_WRITE] Table(TableInstruction::Lldt), Checked Nothing TABLES;
    "ltr" DescriptorTable [TR_WRITE] Table(TableInstruction::Ltr), Checked Nothing TABLES;
    "xsetbv" Xsetbv [XSETBV] Always, First Nothing INSTRUCTIONS;
    "swint" SoftwareInterrupt [SWINT] Always, First Vector INSTRUCTIONS;
    "iret" Iret [IRET] Always, First Nothing INSTRUCTIONS;
    "pushf" Pushf [PUSHF] Always, First Nothing INSTRUCTIONS;
    "popf" Popf [POPF] Always, First Nothing INSTRUCTIONS;
    "vmrun" Vmrun [VMRUN] Always, Checked Nothing INSTRUCTIONS;
    "vmload" Vmload [VMLOAD] Always, Checked Nothing INSTRUCTIONS;
    "vmload.refused" Vmload [=> of VMLOAD] VirtualizationRefused, Checked Nothing "VMSAVE and VMLOAD Virtualization";
    "vmsave" Vmsave [VMSAVE] Always, Checked Nothing INSTRUCTIONS;
    "vmsave.refused" Vmsave [=> of VMSAVE] VirtualizationRefused, Checked Nothing "VMSAVE and VMLOAD Virtualization";
    "vmmcall" Vmmcall [VMMCALL] Always, First Nothing INSTRUCTIONS;
    "vmgexit" Vmgexit [=> VMGEXIT] SevEs, First Nothing "VMGEXIT";
    "vmgexit.vmmcall" Vmgexit [VMMCALL] NotSevEs, First Nothing "VMGEXIT";
    "stgi" Stgi [STGI] Always, Checked Nothing INSTRUCTIONS;
    "clgi" Clgi [CLGI] Always, Checked Nothing INSTRUCTIONS;
    "skinit" Skinit [SKINIT] Always, Checked Nothing INSTRUCTIONS;
    "rdpru" Rdpru [RDPRU] Always, Checked Nothing INSTRUCTIONS;
    "mcommit" Mcommit [MCOMMIT] Always, Checked Nothing "VMCB Layout";
    "efer-write-trap" EferWritten [EFER_WRITE_TRAP] SevEs, Event NewValue TRAPS;
    "cr-write-trap" CrWritten [CR0_WRITE_TRAP; 16] SevEs, Event NewValue TRAPS;
}

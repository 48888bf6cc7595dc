//! The rows of the built-in table, in the order of the event classes
//! (APM Vol. 2 (24593 rev. 3.43) "Instruction Intercepts", "SVM Intercept Exit Codes" and the sections named).

use super::condition::Condition;
use super::exit::{Exit, Info};
use super::table::{Gate, Row};
use super::view::View;
use crate::bitmap::{Access, PermissionMaps};
use crate::encode::ExitCode;
use crate::vmcb::Intercept;
use rootmode_arch::event::TableInstruction;
use rootmode_arch::{Event, EventClass, Stage};

/// Rows by class; columns: identifier, gate, condition, stage, information, section. Yields the rows as data, and
/// [`decide_built_in`], in which each row is a constant that the compiler can see through.
macro_rules! rows {
    ($($class:ident { $($id:literal $gate:tt $condition:expr, $stage:ident $info:ident $source:expr;)+ })*) => {
        /// Number of rows.
        pub(super) const COUNT: usize = [$($($id),+),*].len();
        /// All rows.
        pub(super) const ROWS: [Row; COUNT] =
            [$($(rows!(@row $class $id $gate $condition, $stage $info $source)),+),*];

        /// What the table of all rows answers.
        #[inline]
        pub(super) fn decide_built_in<M: PermissionMaps + ?Sized>(view: &View<'_, M>, event: &Event) -> Option<Exit> {
            match event {
                $(Event::$class { .. } => {
                    $({
                        const ROW: Row = rows!(@row $class $id $gate $condition, $stage $info $source);
                        if ROW.applies(view, event) {
                            return Some(Exit::new(view, event, &ROW));
                        }
                    })+
                    None
                })*
                _ => None,
            }
        }
    };
    (@row $class:ident $id:literal $gate:tt $condition:expr, $stage:ident $info:ident $source:expr) => {
        Row {
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
        }
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
const REGISTERS: &str = "Virtual APIC Register Accesses";

rows! {
    Exception {
        "icebp" [ICEBP] Int1, Event Nothing INSTRUCTIONS;
        "machine-check.forced" [=> of EXCP_MC] ForcedMachineCheck, Event Nothing FORCED;
        "exception" [EXCP_DE; 32] NotInt1, Event Exception "Exception Intercepts";
    }
    ExternalInterrupt {
        "intr" [INTR] Always, Event Nothing "INTR Intercept";
        "intr.forced" [=> of INTR] Forced, Event Nothing FORCED;
    }
    Nmi {
        "nmi" [NMI] Always, Event Nothing "NMI Intercept";
        "nmi.forced" [=> of NMI] Forced, Event Nothing FORCED;
    }
    Smi {
        "smi" [SMI] SmmUnlocked, Event Smi "SMI Intercept";
        "smi.sev-es" [=> of SMI] SevEs, Event Smi "Interaction with SMI and #MC";
    }
    Init {
        "init" [INIT] Always, Event Nothing "INIT Intercept";
        "init.forced" [=> of INIT] Forced, Event Nothing FORCED;
    }
    TripleFault {
        "shutdown" [SHUTDOWN] Always, Event Nothing "Shutdown Intercept";
    }
    TaskSwitch {
        "task-switch" [TASK_SWITCH] Always, Event TaskSwitch "Task Switch Intercept";
    }
    VirtualInterrupt {
        "vintr" [VINTR] Always, Event Nothing "Virtual Interrupt Intercept";
    }
    FerrFreeze {
        "ferr-freeze" [FERR_FREEZE] Always, Event Nothing "Ferr_Freeze Intercept";
    }
    BusLock {
        "bus-lock" [BUSLOCK] BusLocksExhausted, Event Nothing "Bus Lock Threshold";
    }
    SecondStage {
        "nested-page-fault" [=> NPF] Always, Event NestedPageFault "Nested versus Guest Page Faults, Fault Ordering";
    }
    ApicAccess {
        "avic.fault" [=> AVIC_NOACCEL] ApicFault, Event NoAcceleration REGISTERS;
    }
    ApicWrite {
        "avic.ipi" [=> AVIC_INCOMPLETE_IPI] IpiFailed, Event IncompleteIpi "AVIC IPI Delivery Not Completed";
        "avic.trap" [=> AVIC_NOACCEL] ApicTrap, Event NoAcceleration REGISTERS;
    }
    VirtualizedEoi {
        "avic.level-eoi" [=> AVIC_NOACCEL] Avic, Event NoAcceleration "AVIC Access to Un-accelerated vAPIC register";
    }
    Cpuid {
        "cpuid" [CPUID] Always, First Nothing INSTRUCTIONS;
        "cpuid.snp" [=> of CPUID] Snp, First Nothing "Running SNP-Active Virtual Machines";
    }
    Hlt {
        "hlt" [HLT] Always, Checked Nothing INSTRUCTIONS;
        "hlt.idle" [IDLE_HLT] NoVirtualInterrupt, Checked Nothing INSTRUCTIONS;
    }
    IdleHlt {
        "idle-hlt.hlt" [HLT] Always, Checked Nothing INSTRUCTIONS;
        "idle-hlt" [IDLE_HLT] Always, Checked Nothing INSTRUCTIONS;
    }
    Invd {
        "invd" [INVD] Always, Checked Nothing INSTRUCTIONS;
    }
    Wbinvd {
        "wbinvd" [WBINVD] Always, Checked Nothing INSTRUCTIONS;
    }
    Invlpg {
        "invlpg" [INVLPG] Always, Checked Linear INSTRUCTIONS;
    }
    Invlpga {
        "invlpga" [INVLPGA] Always, Checked Nothing INSTRUCTIONS;
    }
    Invlpgb {
        "invlpgb" [INVLPGB] Always, Checked Nothing INSTRUCTIONS;
        "invlpgb.illegal" [INVLPGB_ILLEGAL] IllegalOperands, Checked Nothing INSTRUCTIONS;
    }
    Tlbsync {
        "tlbsync" [TLBSYNC] Always, Checked Nothing INSTRUCTIONS;
    }
    Invpcid {
        "invpcid" [INVPCID] Always, Checked Nothing INSTRUCTIONS;
    }
    Rdpmc {
        "rdpmc" [RDPMC] Always, Checked Nothing INSTRUCTIONS;
    }
    Rdtsc {
        "rdtsc" [RDTSC] Always, Checked Nothing INSTRUCTIONS;
    }
    Rdtscp {
        "rdtscp" [RDTSCP] Always, Checked Nothing INSTRUCTIONS;
    }
    Rsm {
        "rsm" [RSM] Always, First Nothing INSTRUCTIONS;
    }
    CrRead {
        "cr-read" [CR0_READ; 16] Always, Checked MovCr INSTRUCTIONS;
    }
    CrWrite {
        "cr-write" [CR0_WRITE; 16] Always, Checked MovCr INSTRUCTIONS;
        "cr0-selective-write" [CR0_SEL_WRITE] Cr0Changes, Checked MovCr INSTRUCTIONS;
    }
    Clts {
        "clts" [CR0_WRITE] Always, Checked Nothing INSTRUCTIONS;
    }
    Lmsw {
        "lmsw" [CR0_WRITE] Always, Checked Nothing INSTRUCTIONS;
        "lmsw.selective" [CR0_SEL_WRITE] Always, Checked Nothing INSTRUCTIONS;
    }
    Smsw {
        "smsw" [CR0_READ] Always, Checked Nothing INSTRUCTIONS;
    }
    DrRead {
        "dr-read" [DR0_READ; 16] Always, Checked MovDr INSTRUCTIONS;
    }
    DrWrite {
        "dr-write" [DR0_WRITE; 16] Always, Checked MovDr INSTRUCTIONS;
    }
    PortIo {
        "ioio" [IOIO_PROT] PortMap, Checked Ioio "IN and OUT Behavior";
        "ioio.snp" [=> of IOIO_PROT] Snp, Checked Ioio "Running SNP-Active Virtual Machines";
    }
    Rdmsr {
        "rdmsr" [MSR_PROT] MsrMap(Access::Read), Checked Msr "MSR Intercepts";
    }
    Wrmsr {
        "wrmsr" [MSR_PROT] MsrMap(Access::Write), Checked Msr "MSR Intercepts";
    }
    Mwait {
        "mwait.armed" [MWAIT_CONDITIONAL] Armed, Checked Nothing INSTRUCTIONS;
        "mwait" [MWAIT] Always, Checked Nothing INSTRUCTIONS;
    }
    Monitor {
        "monitor" [MONITOR] Always, Operands Nothing INSTRUCTIONS;
    }
    Pause {
        "pause" [PAUSE] PauseFilter, First Nothing "Pause Intercept Filtering";
    }
    DescriptorTable {
        "sgdt" [GDTR_READ] Table(TableInstruction::Sgdt), Checked Nothing INSTRUCTIONS;
        "sidt" [IDTR_READ] Table(TableInstruction::Sidt), Checked Nothing INSTRUCTIONS;
        "lgdt" [GDTR_WRITE] Table(TableInstruction::Lgdt), Checked Nothing INSTRUCTIONS;
        "lidt" [IDTR_WRITE] Table(TableInstruction::Lidt), Checked Nothing INSTRUCTIONS;
        "sldt" [LDTR_READ] Table(TableInstruction::Sldt), Checked Nothing INSTRUCTIONS;
        "str" [TR_READ] Table(TableInstruction::Str), Checked Nothing INSTRUCTIONS;
        "lldt" [LDTR_WRITE] Table(TableInstruction::Lldt), Checked Nothing INSTRUCTIONS;
        "ltr" [TR_WRITE] Table(TableInstruction::Ltr), Checked Nothing INSTRUCTIONS;
    }
    Xsetbv {
        "xsetbv" [XSETBV] Always, First Nothing INSTRUCTIONS;
    }
    SoftwareInterrupt {
        "swint" [SWINT] Always, First Vector INSTRUCTIONS;
    }
    Iret {
        "iret" [IRET] Always, First Nothing INSTRUCTIONS;
    }
    Pushf {
        "pushf" [PUSHF] Always, First Nothing INSTRUCTIONS;
    }
    Popf {
        "popf" [POPF] Always, First Nothing INSTRUCTIONS;
    }
    Vmrun {
        "vmrun" [VMRUN] Always, Checked Nothing INSTRUCTIONS;
    }
    Vmload {
        "vmload" [VMLOAD] Always, Checked Nothing INSTRUCTIONS;
        "vmload.refused" [=> of VMLOAD] VirtualizationRefused, Checked Nothing "VMSAVE and VMLOAD Virtualization";
    }
    Vmsave {
        "vmsave" [VMSAVE] Always, Checked Nothing INSTRUCTIONS;
        "vmsave.refused" [=> of VMSAVE] VirtualizationRefused, Checked Nothing "VMSAVE and VMLOAD Virtualization";
        "vmsave.snp" [=> of VMSAVE] Snp, Checked Nothing "Running SNP-Active Virtual Machines";
    }
    Vmmcall {
        "vmmcall" [VMMCALL] Always, First Nothing INSTRUCTIONS;
    }
    Vmgexit {
        "vmgexit" [=> VMGEXIT] SevEs, First Nothing "VMGEXIT";
        "vmgexit.vmmcall" [VMMCALL] NotSevEs, First Nothing "VMGEXIT";
    }
    Stgi {
        "stgi" [STGI] Always, Checked Nothing INSTRUCTIONS;
    }
    Clgi {
        "clgi" [CLGI] Always, Checked Nothing INSTRUCTIONS;
    }
    Skinit {
        "skinit" [SKINIT] Always, Checked Nothing INSTRUCTIONS;
    }
    Rdpru {
        "rdpru" [RDPRU] Always, Checked Nothing INSTRUCTIONS;
    }
    Mcommit {
        "mcommit" [MCOMMIT] Always, Checked Nothing "VMCB Layout";
    }
    EferWritten {
        "efer-write-trap" [EFER_WRITE_TRAP] SevEs, Event NewValue TRAPS;
    }
    CrWritten {
        "cr-write-trap" [CR0_WRITE_TRAP; 16] SevEs, Event NewValue TRAPS;
    }
}

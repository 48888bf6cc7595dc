//! When VMX non-root operation exits: one row a cause, from SDM Vol. 3C (325384-083, Mar 2024) "VMX Non-Root Operation",
//! "VM Exits", "APIC Virtualization and Virtual Interrupts" and SDM Vol. 3D "VMX Basic Exit Reasons".

use super::vmx_conditions::*;
use super::vmx_information::information;
use super::vmx_qualifications::*;
use super::{Answer, ExpectedExit, Masked, When};
use rootmode_arch::EventClass as C;
use rootmode_arch::event::{ExceptionSource, VmxInstruction};
use rootmode_arch::{Event, Stage};

/// A cause of VM exits.
struct Row {
    name: &'static str,
    class: C,
    /// Controls that must be 1.
    on: &'static [On],
    /// What else must hold.
    condition: fn(&Seen<'_>, &Event) -> bool,
    /// Basic exit reason.
    reason: u64,
    qualification: fn(&Seen<'_>, &Event) -> Masked,
    when: When,
}

const ZERO: fn(&Seen<'_>, &Event) -> Masked = |_, _| Masked::exact(0);
const ALWAYS: fn(&Seen<'_>, &Event) -> bool = |_, _| true;
const NOT_AN_INSTRUCTION: When = When::Anytime;
const FIRST: When = When::At(Stage::BeforeExceptions);
const CHECKED: When = When::At(Stage::AfterPrivilege);
const FETCHED: When = When::At(Stage::AfterOperands);

const fn row(
    name: &'static str,
    class: C,
    on: &'static [On],
    condition: fn(&Seen<'_>, &Event) -> bool,
    reason: u64,
    qualification: fn(&Seen<'_>, &Event) -> Masked,
    when: When,
) -> Row {
    Row { name, class, on, condition, reason, qualification, when }
}

/// Every cause. The stage follows "Relative Priority of Faults and VM Exits"; instructions of VMX operation exit before
/// their check of CPL (SDM Vol. 3C "VMX Instruction Reference", Operation sections).
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // "Other Causes of VM Exits"
    row("exception", C::Exception, &[], exception_exits, 0, exception_qualification, NOT_AN_INSTRUCTION),
    row("external interrupt", C::ExternalInterrupt, &[On::Pin(0)], interrupt_exits, 1, ZERO, NOT_AN_INSTRUCTION),
    row("NMI", C::Nmi, &[On::Pin(3)], ALWAYS, 0, ZERO, NOT_AN_INSTRUCTION),
    row("INIT", C::Init, &[], ALWAYS, 3, ZERO, NOT_AN_INSTRUCTION),
    row("SIPI", C::Sipi, &[], ALWAYS, 4, vector, NOT_AN_INSTRUCTION),
    row("triple fault", C::TripleFault, &[], ALWAYS, 2, ZERO, NOT_AN_INSTRUCTION),
    row("task switch", C::TaskSwitch, &[], ALWAYS, 9, task_switch, NOT_AN_INSTRUCTION),
    row("interrupt window", C::InterruptWindow, &[On::Primary(2)], interrupt_window, 7, ZERO, NOT_AN_INSTRUCTION),
    row("NMI window", C::NmiWindow, &[On::Primary(22)], nmi_window, 8, ZERO, NOT_AN_INSTRUCTION),
    row("preemption timer", C::PreemptionTimer, &[On::Pin(6)], ALWAYS, 52, ZERO, NOT_AN_INSTRUCTION),
    row("monitor trap flag", C::MonitorTrap, &[On::Primary(27)], ALWAYS, 37, ZERO, NOT_AN_INSTRUCTION),
    row("pending MTF", C::MonitorTrap, &[], |v, _| v.processor.pending_mtf, 37, ZERO, NOT_AN_INSTRUCTION),
    row("TPR below threshold", C::TprBelowThreshold, &[On::Primary(21)], below_threshold, 43, ZERO, NOT_AN_INSTRUCTION),
    row("bus lock", C::BusLock, &[On::Secondary(30)], ALWAYS, 74, ZERO, NOT_AN_INSTRUCTION),
    row("EPT misconfiguration", C::SecondStage, &[On::Secondary(1)], misconfigured, 49, ZERO, NOT_AN_INSTRUCTION),
    row("EPT violation", C::SecondStage, &[On::Secondary(1)], violated, 48, ept_violation, NOT_AN_INSTRUCTION),
    row("APIC access", C::ApicAccess, &[On::Secondary(0)], apic_access_exits, 44, apic_access, NOT_AN_INSTRUCTION),
    row("APIC write", C::ApicWrite, &[On::Primary(21)], ALWAYS, 56, apic_write, NOT_AN_INSTRUCTION),
    row("virtualized EOI", C::VirtualizedEoi, &[On::Secondary(9)], eoi_exits, 45, vector, NOT_AN_INSTRUCTION),
    row("log full", C::PageModificationLogFull, &[On::Secondary(17)], ALWAYS, 62, log_full, NOT_AN_INSTRUCTION),
    // "Instructions That Cause VM Exits Unconditionally"
    row("CPUID", C::Cpuid, &[], ALWAYS, 10, ZERO, When::BeforeMemory),
    row("GETSEC", C::Getsec, &[], |v, _| v.processor.cr4.0 >> 14 & 1 != 0, 11, ZERO, When::BeforeMemory),
    row("INVD", C::Invd, &[], ALWAYS, 13, ZERO, CHECKED),
    row("XSETBV", C::Xsetbv, &[], ALWAYS, 55, ZERO, CHECKED),
    row("VMCALL", C::Vmx, &[], |_, e| is(e, VmxInstruction::Vmcall), 18, ZERO, FIRST),
    row("VMCLEAR", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmclear), 19, displacement, FIRST),
    row("VMLAUNCH", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmlaunch), 20, ZERO, FIRST),
    row("VMPTRLD", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmptrld), 21, displacement, FIRST),
    row("VMPTRST", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmptrst), 22, displacement, FIRST),
    row("VMRESUME", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmresume), 24, ZERO, FIRST),
    row("VMXOFF", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmxoff), 26, ZERO, FIRST),
    row("VMXON", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmxon), 27, displacement, FIRST),
    row("INVEPT", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Invept), 50, displacement, FIRST),
    row("INVVPID", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Invvpid), 53, displacement, FIRST),
    row("SEAMCALL", C::Seam, &[], |v, e| is_64_bit(v) && *e == Event::Seam { tdcall: false }, 76, ZERO, When::BeforeMemory),
    row("TDCALL", C::Seam, &[], |v, e| is_64_bit(v) && *e == Event::Seam { tdcall: true }, 77, ZERO, When::BeforeMemory),
    // "Instructions That Cause VM Exits Conditionally"
    row("CLTS", C::Clts, &[], clts_exits, 28, |_, _| Masked::exact(2 << 4), CHECKED),
    row("ENCLS", C::Encls, &[On::Secondary(15)], |v, e| leaf_exits(v.controls.encls_bitmap.0, e), 60, ZERO, CHECKED),
    row("ENCLV", C::Enclv, &[On::Secondary(28)], |v, e| leaf_exits(v.controls.enclv_bitmap.0, e), 70, ZERO, CHECKED),
    row("ENQCMD", C::Enqcmd, &[On::Secondary(21)], |v, e| pasid_exits(v, e, false), 72, |_, _| Masked::OPEN, When::Operands),
    row("ENQCMDS", C::Enqcmd, &[On::Secondary(21)], |v, e| pasid_exits(v, e, true), 73, |_, _| Masked::OPEN, FETCHED),
    row("HLT", C::Hlt, &[On::Primary(7)], ALWAYS, 12, ZERO, CHECKED),
    row("I/O by bitmap", C::PortIo, &[On::Primary(25)], port_exits, 30, port, CHECKED),
    row("I/O unconditionally", C::PortIo, &[On::Primary(24)], |v, _| v.controls.primary.0 >> 25 & 1 == 0, 30, port, CHECKED),
    row("INVLPG", C::Invlpg, &[On::Primary(9)], ALWAYS, 14, invlpg, CHECKED),
    row("INVPCID", C::Invpcid, &[On::Primary(9), On::Secondary(12)], ALWAYS, 58, displacement, CHECKED),
    row("SGDT ... LIDT", C::DescriptorTable, &[On::Secondary(2)], |_, e| of_gdtr_or_idtr(e), 46, displacement, CHECKED),
    row("SLDT ... LTR", C::DescriptorTable, &[On::Secondary(2)], |_, e| !of_gdtr_or_idtr(e), 47, displacement, CHECKED),
    row("LMSW", C::Lmsw, &[], lmsw_exits, 28, lmsw, FETCHED),
    row("LOADIWKEY", C::Loadiwkey, &[On::Tertiary(0)], ALWAYS, 69, ZERO, CHECKED),
    row("MONITOR", C::Monitor, &[On::Primary(29)], ALWAYS, 39, ZERO, CHECKED),
    row("MOV from CR3", C::CrRead, &[On::Primary(16)], |_, e| cr(e) == 3, 28, mov_cr, CHECKED),
    row("MOV from CR8", C::CrRead, &[On::Primary(20)], |_, e| cr(e) == 8, 28, mov_cr, CHECKED),
    row("MOV to CR0", C::CrWrite, &[], cr0_exits, 28, mov_cr, CHECKED),
    row("MOV to CR3", C::CrWrite, &[On::Primary(15)], cr3_exits, 28, mov_cr, CHECKED),
    row("MOV to CR4", C::CrWrite, &[], cr4_exits, 28, mov_cr, CHECKED),
    row("MOV to CR8", C::CrWrite, &[On::Primary(19)], |_, e| cr(e) == 8, 28, mov_cr, CHECKED),
    // MOV DR exits take priority over the checks of CPL and CR4.DE ("Instructions That Cause VM Exits Conditionally").
    row("MOV from DR", C::DrRead, &[On::Primary(23)], ALWAYS, 29, mov_dr, FIRST),
    row("MOV to DR", C::DrWrite, &[On::Primary(23)], ALWAYS, 29, mov_dr, FIRST),
    row("MWAIT", C::Mwait, &[On::Primary(10)], ALWAYS, 36, mwait, CHECKED),
    row("PAUSE", C::Pause, &[On::Primary(30)], ALWAYS, 40, ZERO, When::BeforeMemory),
    row("PAUSE loop", C::Pause, &[On::Secondary(10)], pause_loop_exits, 40, ZERO, When::BeforeMemory),
    row("PCONFIG", C::Pconfig, &[On::Secondary(27)], |v, e| leaf_exits(v.controls.pconfig_bitmap.0, e), 65, ZERO, CHECKED),
    row("RDMSR", C::Rdmsr, &[], msr_exits, 31, ZERO, CHECKED),
    row("WRMSR", C::Wrmsr, &[], msr_exits, 32, ZERO, CHECKED),
    row("RDPMC", C::Rdpmc, &[On::Primary(11)], ALWAYS, 15, ZERO, CHECKED),
    row("RDRAND", C::Rdrand, &[On::Secondary(11)], ALWAYS, 57, ZERO, When::BeforeMemory),
    row("RDSEED", C::Rdseed, &[On::Secondary(16)], ALWAYS, 61, ZERO, When::BeforeMemory),
    row("RDTSC", C::Rdtsc, &[On::Primary(12)], ALWAYS, 16, ZERO, CHECKED),
    row("RDTSCP", C::Rdtscp, &[On::Primary(12), On::Secondary(3)], ALWAYS, 51, ZERO, CHECKED),
    // RSM exits if executed in SMM; outside of it, it is an invalid opcode and never offered.
    row("RSM", C::Rsm, &[], ALWAYS, 17, ZERO, When::BeforeMemory),
    row("TPAUSE", C::Tpause, &[On::Primary(12), On::Secondary(26)], ALWAYS, 68, ZERO, CHECKED),
    row("UMWAIT", C::Umwait, &[On::Primary(12), On::Secondary(26)], ALWAYS, 67, ZERO, CHECKED),
    row("VMREAD", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmread) && shadow_exits(v, e), 23, displacement, FIRST),
    row("VMWRITE", C::Vmx, &[], |v, e| is_valid(v, e, VmxInstruction::Vmwrite) && shadow_exits(v, e), 25, displacement, FIRST),
    row("WBINVD", C::Wbinvd, &[On::Secondary(6)], ALWAYS, 54, ZERO, CHECKED),
    row("XRSTORS", C::Xrstors, &[On::Secondary(20)], xss_exits, 64, displacement, CHECKED),
    row("XSAVES", C::Xsaves, &[On::Secondary(20)], xss_exits, 63, displacement, CHECKED),
    row("VMFUNC", C::Vmx, &[On::Secondary(13)], vmfunc_exits, 59, ZERO, When::BeforeMemory),
];

/// When the exits of `class` for the basic reason `reason` happen; `None`: rows differ, or there are none.
pub fn when(class: C, reason: u64) -> Option<When> {
    let mut all = ROWS.iter().filter(|row| row.class == class && row.reason == reason).map(|row| row.when);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// What the manual says about `event`.
pub fn expected(view: &Seen<'_>, event: &Event) -> Answer {
    if is_open(view, event) {
        return Answer::Open;
    }
    let of_class = |row: &&Row| row.class == event.class();
    let holds = |row: &&Row| row.on.iter().all(|c| on(view, *c)) && (row.condition)(view, event);
    let Some(row) = ROWS.iter().filter(of_class).find(holds) else { return Answer::Stays };
    let (interruption, error_code) = interruption(view, event);
    let (guest_linear, guest_physical) = addresses(event);
    Answer::Exits(ExpectedExit {
        row: row.name,
        reason: row.reason,
        qualification: (row.qualification)(view, event),
        second: Masked::OPEN,
        information: information(event, is_64_bit(view), view.controls.traits.ins_outs_information),
        interruption,
        error_code,
        guest_linear,
        guest_physical,
        when: row.when,
    })
}

/// Cases without an answer.
fn is_open(view: &Seen<'_>, event: &Event) -> bool {
    match event {
        // "APIC-Write VM Exits": only writes that were virtualized come so far; without the TPR shadow, none is.
        Event::ApicWrite { .. } => {
            on(view, On::Primary(21)) && !on(view, On::Secondary(8)) && !on(view, On::Secondary(9))
        }
        // "VM Functions": without the control, and from leaf 64 on, VMFUNC is an invalid opcode, not an event.
        Event::Vmx { instruction: VmxInstruction::Vmfunc, value, .. } => *value & 0xffff_ffff > 63,
        _ => false,
    }
}

/// "Information for VM Exits Due to Vectored Events": the interruption information and its error code.
fn interruption(view: &Seen<'_>, event: &Event) -> (Masked, Option<u32>) {
    const VALID: u64 = 1 << 31;
    match event {
        Event::Nmi => (Masked::within(VALID | 2 << 8 | 2, !(1 << 12)), None),
        Event::ExternalInterrupt { vector } if view.controls.exit.0 >> 15 & 1 != 0 => {
            (Masked::exact(VALID | u64::from(*vector)), None)
        }
        Event::Exception(e) => {
            let kind = match e.source {
                ExceptionSource::Hardware => 3,
                ExceptionSource::Privileged => 5,
                ExceptionSource::Software => 6,
            };
            let unblocking = unblocking(view);
            let undefined = if e.vector == 8 { 1 << 12 } else { 0 };
            // Real-address mode has no error codes.
            let code = e.error_code.filter(|_| view.processor.cr0.0 & 1 != 0);
            let value = VALID | kind << 8 | u64::from(e.vector) | u64::from(code.is_some()) << 11;
            (Masked::within(value | unblocking.value, unblocking.mask & !undefined), code)
        }
        // Bit 31 is 0: nothing else is defined.
        _ => (Masked::within(0, VALID), None),
    }
}

/// Guest-linear and guest-physical address.
fn addresses(event: &Event) -> (Option<u64>, Option<u64>) {
    match event {
        Event::Lmsw { memory, .. } => (memory.map(|linear| linear.0), None),
        Event::PortIo(access) if access.string => (Some(access.linear.0), None),
        Event::SecondStage(access) => {
            let linear = access.linear.filter(|_| !access.misconfigured);
            (linear.map(|linear| linear.0), Some(access.address.0))
        }
        _ => (None, None),
    }
}

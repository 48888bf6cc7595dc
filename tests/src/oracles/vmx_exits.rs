//! When VMX non-root operation exits: one row a cause, from SDM Vol. 3C (325384-083, Mar 2024) "VMX Non-Root Operation",
//! "VM Exits", "APIC Virtualization and Virtual Interrupts" and SDM Vol. 3D "VMX Basic Exit Reasons".

use super::vmx_information::information;
use super::{Answer, ExpectedExit, Masked, When};
use rootmode_arch::EventClass as C;
use rootmode_arch::event::{
    ExceptionSource, GuestPhysicalAccess, Operand, PortAccess, TableInstruction, TaskSwitchSource,
    VmxInstruction,
};
use rootmode_arch::{Event, Stage};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps};
use rootmode_vmx::decide::View;

/// A control: word and bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// Pin-based.
    Pin(u32),
    /// Primary processor-based.
    Primary(u32),
    /// Secondary processor-based, if bit 31 of the primary word is 1.
    Secondary(u32),
    /// Tertiary processor-based, if bit 17 of the primary word is 1.
    Tertiary(u32),
}

type Seen<'a> = View<'a, dyn Bitmaps + 'a>;

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

/// Whether a control is 1 and its word counts.
fn on(view: &Seen<'_>, control: On) -> bool {
    let c = view.controls;
    match control {
        On::Pin(bit) => c.pin.0 >> bit & 1 != 0,
        On::Primary(bit) => c.primary.0 >> bit & 1 != 0,
        On::Secondary(bit) => c.primary.0 >> 31 & 1 != 0 && c.secondary.0 >> bit & 1 != 0,
        On::Tertiary(bit) => c.primary.0 >> 17 & 1 != 0 && c.tertiary.0 >> bit & 1 != 0,
    }
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

fn is_64_bit(view: &Seen<'_>) -> bool {
    view.processor.efer.0 >> 10 & 1 != 0 && view.processor.cs_long
}

fn is(event: &Event, wanted: VmxInstruction) -> bool {
    matches!(event, Event::Vmx { instruction, .. } if *instruction == wanted)
}

/// An instruction of VMX operation that is not an invalid opcode in this mode: CR0.PE = 1, RFLAGS.VM = 0, and no
/// compatibility mode ("VMX Instruction Reference", Operation sections; VMCALL and VMFUNC have no such checks).
fn is_valid(view: &Seen<'_>, event: &Event, wanted: VmxInstruction) -> bool {
    let p = view.processor;
    let compatibility = p.efer.0 >> 10 & 1 != 0 && !p.cs_long;
    is(event, wanted) && p.cr0.0 & 1 != 0 && p.rflags.0 >> 17 & 1 == 0 && !compatibility
}

fn of_gdtr_or_idtr(event: &Event) -> bool {
    use TableInstruction as T;
    matches!(event, Event::DescriptorTable { instruction: T::Sgdt | T::Sidt | T::Lgdt | T::Lidt, .. })
}

fn cr(event: &Event) -> u8 {
    match event {
        Event::CrRead { cr, .. } | Event::CrWrite { cr, .. } => *cr,
        _ => u8::MAX,
    }
}

/// "Exception Bitmap": a page fault's bit counts as it is if the masked error code matches, else inverted.
fn exception_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Exception(e) = event else { return false };
    let bit = view.controls.exception_bitmap >> e.vector & 1 != 0;
    if e.vector != 14 {
        return bit;
    }
    let code = e.error_code.unwrap_or(0);
    bit == (code & view.controls.page_fault_mask == view.controls.page_fault_match)
}

/// "Exit Qualification for Debug Exceptions": B0 to B3, BLD, BD, BS, RTM. Page faults: the linear address.
fn exception_qualification(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Exception(e) = event else { return Masked::OPEN };
    Masked::exact(match e.vector {
        1 => e.detail & (0b1111 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 16),
        14 => e.detail,
        _ => 0,
    })
}

/// "Posted-Interrupt Processing": the notification vector does not exit.
fn interrupt_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::ExternalInterrupt { vector } = event else { return false };
    !(on(view, On::Pin(7)) && u64::from(*vector) == u64::from(view.controls.posted_interrupt_vector) & 0xff)
}

fn vector(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::Sipi { vector } | Event::VirtualizedEoi { vector } => Masked::exact((*vector).into()),
        _ => Masked::OPEN,
    }
}

/// "Exit Qualification for Task Switches".
fn task_switch(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::TaskSwitch { selector, source, .. } = event else { return Masked::OPEN };
    let source = match source {
        TaskSwitchSource::Call => 0,
        TaskSwitchSource::Iret => 1,
        TaskSwitchSource::Jmp => 2,
        TaskSwitchSource::IdtGate => 3,
    };
    Masked::exact(u64::from(selector.0) | source << 30)
}

/// RFLAGS.IF = 1, no blocking by STI (bit 0) or by MOV SS (bit 1).
fn interrupt_window(view: &Seen<'_>, _: &Event) -> bool {
    view.processor.rflags.0 >> 9 & 1 != 0 && view.processor.interruptibility.0 & 0b11 == 0
}

/// No virtual-NMI blocking (bit 3), no blocking by MOV SS; STI is the processor's choice.
fn nmi_window(view: &Seen<'_>, _: &Event) -> bool {
    let sti = u32::from(view.controls.traits.sti_blocks_nmi_window);
    view.processor.interruptibility.0 & (0b1010 | sti) == 0
}

/// "TPR Virtualization": with virtual-interrupt delivery, the PPR is evaluated instead.
fn below_threshold(view: &Seen<'_>, _: &Event) -> bool {
    !on(view, On::Secondary(9)) && u32::from(view.processor.vtpr >> 4) < view.controls.tpr_threshold & 0xf
}

fn misconfigured(_: &Seen<'_>, event: &Event) -> bool {
    matches!(event, Event::SecondStage(access) if access.misconfigured)
}

/// "Convertible EPT Violations": with bit 18 and bit 63 of the entry 0, protected mode, no event in delivery, and a free
/// information area, it is an exception and no exit.
fn violated(view: &Seen<'_>, event: &Event) -> bool {
    let Event::SecondStage(access) = event else { return false };
    let p = view.processor;
    let converted = on(view, On::Secondary(18))
        && access.entry >> 63 == 0
        && p.cr0.0 & 1 != 0
        && !p.in_delivery
        && !p.virtualization_exception_busy
        && !p.asynchronous;
    !access.misconfigured && !converted
}

/// Bit 12: undefined with NMI exiting but not virtual NMIs, and while an event is in delivery.
fn unblocking(view: &Seen<'_>) -> Masked {
    let undefined = on(view, On::Pin(3)) && !on(view, On::Pin(5)) || view.processor.in_delivery;
    Masked::within(
        u64::from(view.processor.iret_unblocks_nmi) << 12,
        if undefined { !(1 << 12) } else { u64::MAX },
    )
}

/// "Exit Qualification for EPT Violations".
fn ept_violation(view: &Seen<'_>, event: &Event) -> Masked {
    let Event::SecondStage(a) = event else { return Masked::OPEN };
    let Masked { mut value, mut mask } = unblocking(view);
    let bit = |on: bool, at: u32| u64::from(on) << at;
    value |= bit(a.read, 0) | bit(a.write, 1) | bit(a.fetch, 2);
    value |= u64::from(a.permissions & 7) << 3;
    if on(view, On::Secondary(22)) {
        value |= u64::from(a.permissions >> 3 & 1) << 6;
    } else {
        mask &= !(1 << 6);
    }
    if a.linear.is_some() {
        value |= 1 << 7 | bit(!a.table_walk, 8);
    } else {
        mask &= !(1 << 8);
    }
    if a.linear.is_some() && !a.table_walk && view.controls.traits.advanced_ept_information {
        // Without paging, every linear address is a user-mode one, writable and executable.
        let paging = view.processor.cr0.0 >> 31 & 1 != 0;
        value |= bit(a.user || !paging, 9)
            | bit(a.linear_writable || !paging, 10)
            | bit(a.linear_execute_disable && paging, 11);
    } else {
        mask &= !(0b111 << 9);
    }
    value |= bit(view.processor.asynchronous, 16);
    Masked { value, mask }
}

fn log_full(view: &Seen<'_>, _: &Event) -> Masked {
    let bit = unblocking(view);
    Masked::within(bit.value, bit.mask & 1 << 12)
}

fn apic_write(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::ApicWrite { offset } = event else { return Masked::OPEN };
    Masked::exact(u64::from(offset & 0xfff))
}

fn eoi_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::VirtualizedEoi { vector } = event else { return false };
    view.controls.eoi_exit_bitmap[usize::from(vector / 64)] >> (vector % 64) & 1 != 0
}

/// Registers that "Virtualizing Reads from the APIC-Access Page" lists for APIC-register virtualization.
const READABLE: &[u64] = &[
    0x020, 0x030, 0x080, 0x0b0, 0x0d0, 0x0e0, 0x0f0, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x160, 0x170,
    0x180, 0x190, 0x1a0, 0x1b0, 0x1c0, 0x1d0, 0x1e0, 0x1f0, 0x200, 0x210, 0x220, 0x230, 0x240, 0x250, 0x260,
    0x270, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0,
];

/// Registers that "Virtualizing Writes to the APIC-Access Page" lists for APIC-register virtualization.
const WRITABLE: &[u64] = &[
    0x020, 0x080, 0x0b0, 0x0d0, 0x0e0, 0x0f0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370,
    0x380, 0x3e0,
];

fn is_guest_physical(access: &GuestPhysicalAccess) -> bool {
    access.linear.is_none() || access.table_walk
}

/// "Virtualizing Memory-Mapped APIC Accesses": whether an access is not virtualized.
fn apic_access_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::ApicAccess { access, size, .. } = event else { return false };
    let offset = access.address.0 % 4096;
    let register_virtualization = on(view, On::Secondary(8));
    let interrupt_delivery = on(view, On::Secondary(9));
    // A read after any write of the same operation, a write after one with another offset or size.
    let follows_other_write = match view.processor.apic_write_virtualized {
        Some((at, bytes)) => !access.write || u64::from(at) != offset || bytes != *size,
        None => false,
    };
    let exits = is_guest_physical(access)
        || !on(view, On::Primary(21))
        || access.fetch
        || *size > 4
        || follows_other_write
        || offset % 16 + u64::from(*size) > 4;
    let register = offset & !0xf;
    let listed = match (register_virtualization, access.write) {
        (true, false) => READABLE.contains(&register),
        (true, true) => WRITABLE.contains(&register),
        (false, true) if interrupt_delivery => [0x080, 0x0b0, 0x300].contains(&register),
        (false, true) if on(view, On::Tertiary(4)) => [0x080, 0x300].contains(&register),
        _ => register == 0x080,
    };
    exits || !listed
}

/// "Exit Qualification for APIC-Access VM Exits from Linear Accesses and Guest-Physical Accesses".
fn apic_access(view: &Seen<'_>, event: &Event) -> Masked {
    let Event::ApicAccess { access, in_delivery, .. } = event else { return Masked::OPEN };
    let asynchronous = u64::from(view.processor.asynchronous) << 16;
    if is_guest_physical(access) {
        let kind = if *in_delivery { 10 } else { 15 };
        return Masked::within(kind << 12 | asynchronous, !0xfff);
    }
    let kind = match (in_delivery, access.fetch, access.write) {
        (true, ..) => 3,
        (false, true, _) => 2,
        (false, false, true) => 1,
        (false, false, false) => 0,
    };
    Masked::exact(access.address.0 % 4096 | kind << 12 | asynchronous)
}

/// TS (bit 3) is set in the mask and in the read shadow.
fn clts_exits(view: &Seen<'_>, _: &Event) -> bool {
    view.controls.cr0_mask & view.controls.cr0_shadow & 8 != 0
}

fn lmsw_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Lmsw { source, .. } = event else { return false };
    let (source, mask, shadow) = (u64::from(*source), view.controls.cr0_mask, view.controls.cr0_shadow);
    let sets_pe = mask & 1 != 0 && source & 1 != 0 && shadow & 1 == 0;
    sets_pe || mask & 0b1110 & (source ^ shadow) != 0
}

fn lmsw(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Lmsw { source, memory } = event else { return Masked::OPEN };
    Masked::exact(3 << 4 | u64::from(memory.is_some()) << 6 | u64::from(*source) << 16)
}

fn cr0_exits(view: &Seen<'_>, event: &Event) -> bool {
    let c = view.controls;
    matches!(event, Event::CrWrite { cr: 0, value, .. } if (value ^ c.cr0_shadow) & c.cr0_mask != 0)
}

fn cr4_exits(view: &Seen<'_>, event: &Event) -> bool {
    let c = view.controls;
    matches!(event, Event::CrWrite { cr: 4, value, .. } if (value ^ c.cr4_shadow) & c.cr4_mask != 0)
}

fn cr3_exits(view: &Seen<'_>, event: &Event) -> bool {
    let count = view.controls.cr3_target_count.min(4) as usize;
    matches!(event, Event::CrWrite { cr: 3, value, .. } if !view.controls.cr3_targets[..count].contains(value))
}

fn mov_cr(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::CrWrite { cr, gpr, .. } => Masked::exact(u64::from(*cr) | (*gpr as u64) << 8),
        Event::CrRead { cr, gpr } => Masked::exact(u64::from(*cr) | 1 << 4 | (*gpr as u64) << 8),
        _ => Masked::OPEN,
    }
}

fn mov_dr(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::DrWrite { dr, gpr, .. } => Masked::exact(u64::from(*dr) | (*gpr as u64) << 8),
        Event::DrRead { dr, gpr } => Masked::exact(u64::from(*dr) | 1 << 4 | (*gpr as u64) << 8),
        _ => Masked::OPEN,
    }
}

/// Bit n for leaf n below 63, bit 63 for the others.
fn leaf_exits(bitmap: u64, event: &Event) -> bool {
    let (Event::Encls { leaf } | Event::Enclv { leaf } | Event::Pconfig { leaf }) = event else {
        return false;
    };
    bitmap >> (*leaf).min(63) & 1 != 0
}

fn pasid_exits(view: &Seen<'_>, event: &Event, of: bool) -> bool {
    matches!(event, Event::Enqcmd { supervisor, .. } if *supervisor == of)
        && view.processor.pasid_translation_failed
}

/// A bit of the I/O bitmaps for any byte of the access, or a wrap from 0xffff to 0.
fn port_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::PortIo(PortAccess { port, size, .. }) = event else { return false };
    (0..u32::from(*size)).any(|i| {
        let port = u32::from(*port) + i;
        let page = if port < 0x8000 { BitmapPage::IoA } else { BitmapPage::IoB };
        port > 0xffff || view.bitmaps.byte(page, (port % 0x8000 / 8) as u16) >> (port % 8) & 1 != 0
    })
}

/// "Exit Qualification for I/O Instructions".
fn port(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::PortIo(a) = event else { return Masked::OPEN };
    let flags = u64::from(a.input) << 3
        | u64::from(a.string) << 4
        | u64::from(a.rep) << 5
        | u64::from(a.immediate) << 6;
    Masked::exact(u64::from(a.size - 1) | flags | u64::from(a.port) << 16)
}

fn invlpg(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Invlpg { linear } = event else { return Masked::OPEN };
    Masked::exact(linear.0)
}

/// Bit 0: the monitor is armed.
fn mwait(_: &Seen<'_>, event: &Event) -> Masked {
    Masked::exact(u64::from(*event == Event::Mwait { armed: true }))
}

/// "PAUSE": only at CPL 0, and only if PAUSE exiting is 0 (its row comes first).
fn pause_loop_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Pause { cpl, tsc } = event else { return false };
    let (Some(first), Some(last)) = (view.processor.pause_loop.first, view.processor.pause_loop.last) else {
        return false;
    };
    let (gap, window) = (u64::from(view.controls.ple_gap), u64::from(view.controls.ple_window));
    *cpl == 0 && tsc.wrapping_sub(last) <= gap && tsc.wrapping_sub(first) > window
}

/// "MSR Bitmaps": read low, read high, write low, write high, 1024 bytes each; no bitmap and other MSRs always exit.
fn msr_exits(view: &Seen<'_>, event: &Event) -> bool {
    let (index, write) = match event {
        Event::Rdmsr { index } => (*index, 0),
        Event::Wrmsr { index, .. } => (*index, 0x800),
        _ => return false,
    };
    let quarter = match index {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x400,
        _ => return true,
    };
    let byte = quarter + write + (index % 0x2000 / 8) as u16;
    !on(view, On::Primary(28)) || view.bitmaps.byte(BitmapPage::Msr, byte) >> (index % 8) & 1 != 0
}

/// "VMCS Shadowing": without the control, for an encoding above bit 14, and by the bitmap.
fn shadow_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Vmx { instruction, value, .. } = event else { return false };
    let page = if *instruction == VmxInstruction::Vmread { BitmapPage::Vmread } else { BitmapPage::Vmwrite };
    let bit = || view.bitmaps.byte(page, (value / 8) as u16) >> (value % 8) & 1 != 0;
    !on(view, On::Secondary(14)) || value >> 15 != 0 || bit()
}

/// "XSS-Exiting Bitmap".
fn xss_exits(view: &Seen<'_>, event: &Event) -> bool {
    let (Event::Xsaves { mask, .. } | Event::Xrstors { mask, .. }) = event else { return false };
    mask & view.processor.xss & view.controls.xss_bitmap.0 != 0
}

/// "VM Functions": a function that is not enabled; EPTP switching (function 0) with ECX beyond the list.
fn vmfunc_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Vmx { instruction: VmxInstruction::Vmfunc, value, .. } = event else { return false };
    let (eax, ecx) = (value & 0xffff_ffff, value >> 32);
    view.controls.vm_functions >> eax & 1 == 0 || eax == 0 && ecx >= 512
}

/// The displacement of a memory operand; bits beyond the address size are undefined. 0 for a register.
fn displacement(_: &Seen<'_>, event: &Event) -> Masked {
    let operand = match event {
        Event::Invpcid { operand, .. } | Event::Xsaves { operand, .. } | Event::Xrstors { operand, .. } => {
            *operand
        }
        Event::DescriptorTable { operand: Operand::Memory(operand), .. }
        | Event::Vmx { operand: Some(Operand::Memory(operand)), .. } => *operand,
        _ => return Masked::exact(0),
    };
    let mask = match operand.address_size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    Masked::within(operand.displacement, mask)
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

//! When an SVM guest exits: one row a cause, from APM Vol. 2 (24593 rev. 3.42, Mar 2024) "Intercept Operation",
//! "Instruction Intercepts", "IOIO Intercepts", "MSR Intercepts", "Exception Intercepts", "Decode Assists" and the
//! appendix "SVM Intercept Exit Codes".

use super::{Answer, ExpectedExit, Masked, When};
use rootmode_arch::EventClass as C;
use rootmode_arch::event::{
    ExceptionSource, GuestPhysicalAccess, PortAccess, TableInstruction, TaskSwitchSource,
};
use rootmode_arch::{Event, Stage};
use rootmode_svm::PermissionMaps;
use rootmode_svm::decide::View;

type Seen<'a> = View<'a, dyn PermissionMaps + 'a>;

/// An intercept: byte offset of its vector in the VMCB and bit number.
#[derive(Clone, Copy, Debug)]
enum On {
    /// No bit: the condition decides.
    Open,
    /// A bit of the vector at a byte offset.
    Bit(usize, u32),
    /// A bit that the event's number is added to.
    Numbered(usize, u32),
}

/// A cause of exits.
struct Row {
    name: &'static str,
    class: C,
    on: On,
    condition: fn(&Seen<'_>, &Event) -> bool,
    /// EXITCODE; for a numbered row that of number 0.
    code: u64,
    /// EXITINFO1 and EXITINFO2.
    infos: fn(&Seen<'_>, &Event) -> [Masked; 2],
    when: When,
}

const NONE: fn(&Seen<'_>, &Event) -> [Masked; 2] = |_, _| [Masked::exact(0); 2];
const ALWAYS: fn(&Seen<'_>, &Event) -> bool = |_, _| true;
const NO_STAGE: When = When::Anytime;
/// "The intercept takes priority over any exceptions".
const FIRST: When = When::At(Stage::BeforeExceptions);
/// "Exceptions are checked before the intercept", those of memory after it.
const CHECKED: When = When::At(Stage::AfterPrivilege);

const fn row(
    name: &'static str,
    class: C,
    on: On,
    condition: fn(&Seen<'_>, &Event) -> bool,
    code: u64,
    infos: fn(&Seen<'_>, &Event) -> [Masked; 2],
    when: When,
) -> Row {
    Row { name, class, on, condition, code, infos, when }
}

/// Every cause; vectors at 0x00 (control registers), 0x04 (debug registers), 0x08 (exceptions), 0x0c, 0x10, 0x14.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("MOV from CR", C::CrRead, On::Numbered(0x00, 0), ALWAYS, 0x000, mov_cr, CHECKED),
    row("SMSW", C::Smsw, On::Bit(0x00, 0), ALWAYS, 0x000, NONE, CHECKED),
    row("MOV to CR", C::CrWrite, On::Numbered(0x00, 16), ALWAYS, 0x010, mov_cr, CHECKED),
    row("CLTS", C::Clts, On::Bit(0x00, 16), ALWAYS, 0x010, NONE, CHECKED),
    row("LMSW", C::Lmsw, On::Bit(0x00, 16), ALWAYS, 0x010, NONE, CHECKED),
    row("MOV to CR0, selectively", C::CrWrite, On::Bit(0x0c, 5), changes_cr0, 0x065, mov_cr, CHECKED),
    // LMSW treats the selective intercept as a non-selective one.
    row("LMSW, selectively", C::Lmsw, On::Bit(0x0c, 5), ALWAYS, 0x065, NONE, CHECKED),
    row("MOV from DR", C::DrRead, On::Numbered(0x04, 0), ALWAYS, 0x020, mov_dr, CHECKED),
    row("MOV to DR", C::DrWrite, On::Numbered(0x04, 16), ALWAYS, 0x030, mov_dr, CHECKED),
    row("INT1", C::Exception, On::Bit(0x10, 8), |_, e| is_int1(e), 0x088, NONE, NO_STAGE),
    row("exception", C::Exception, On::Numbered(0x08, 0), |_, e| !is_int1(e), 0x040, exception, NO_STAGE),
    row("forced #MC", C::Exception, On::Open, |v, e| number(e) == 18 && forces(v), 0x052, exception, NO_STAGE),
    row("INTR", C::ExternalInterrupt, On::Bit(0x0c, 0), ALWAYS, 0x060, NONE, NO_STAGE),
    row("forced INTR", C::ExternalInterrupt, On::Open, |v, _| forces(v), 0x060, NONE, NO_STAGE),
    row("NMI", C::Nmi, On::Bit(0x0c, 1), ALWAYS, 0x061, NONE, NO_STAGE),
    row("forced NMI", C::Nmi, On::Open, |v, _| forces(v), 0x061, NONE, NO_STAGE),
    // "SMI Intercept": bit 0 of EXITINFO1 says asserted from outside, which the event stands for; SMIs of trapped I/O
    // are not offered.
    row("SMI", C::Smi, On::Bit(0x0c, 2), |v, _| !v.controls.traits.smm_locked, 0x062, external_smi, NO_STAGE),
    // "Interaction with SMI and #MC": regardless of the intercept bit.
    row("SMI of SEV-ES", C::Smi, On::Open, |v, _| is_sev_es(v), 0x062, external_smi, NO_STAGE),
    row("INIT", C::Init, On::Bit(0x0c, 3), ALWAYS, 0x063, NONE, NO_STAGE),
    row("forced INIT", C::Init, On::Open, |v, _| forces(v), 0x063, NONE, NO_STAGE),
    row("VINTR", C::VirtualInterrupt, On::Bit(0x0c, 4), ALWAYS, 0x064, NONE, NO_STAGE),
    row("SIDT", C::DescriptorTable, On::Bit(0x0c, 6), |_, e| table(e, TableInstruction::Sidt), 0x066, NONE, CHECKED),
    row("SGDT", C::DescriptorTable, On::Bit(0x0c, 7), |_, e| table(e, TableInstruction::Sgdt), 0x067, NONE, CHECKED),
    row("SLDT", C::DescriptorTable, On::Bit(0x0c, 8), |_, e| table(e, TableInstruction::Sldt), 0x068, NONE, CHECKED),
    row("STR", C::DescriptorTable, On::Bit(0x0c, 9), |_, e| table(e, TableInstruction::Str), 0x069, NONE, CHECKED),
    row("LIDT", C::DescriptorTable, On::Bit(0x0c, 10), |_, e| table(e, TableInstruction::Lidt), 0x06a, NONE, CHECKED),
    row("LGDT", C::DescriptorTable, On::Bit(0x0c, 11), |_, e| table(e, TableInstruction::Lgdt), 0x06b, NONE, CHECKED),
    row("LLDT", C::DescriptorTable, On::Bit(0x0c, 12), |_, e| table(e, TableInstruction::Lldt), 0x06c, NONE, CHECKED),
    row("LTR", C::DescriptorTable, On::Bit(0x0c, 13), |_, e| table(e, TableInstruction::Ltr), 0x06d, NONE, CHECKED),
    row("RDTSC", C::Rdtsc, On::Bit(0x0c, 14), ALWAYS, 0x06e, NONE, CHECKED),
    row("RDPMC", C::Rdpmc, On::Bit(0x0c, 15), ALWAYS, 0x06f, NONE, CHECKED),
    row("PUSHF", C::Pushf, On::Bit(0x0c, 16), ALWAYS, 0x070, NONE, FIRST),
    row("POPF", C::Popf, On::Bit(0x0c, 17), ALWAYS, 0x071, NONE, FIRST),
    // "Running SNP-Active Virtual Machines": both are treated as intercepted whatever the bits say.
    row("CPUID of SNP", C::Cpuid, On::Open, |v, _| is_snp(v), 0x072, NONE, When::BeforeMemory),
    row("I/O of SNP", C::PortIo, On::Open, |v, _| is_snp(v), 0x07b, ioio, CHECKED),
    row("VMSAVE of SNP", C::Vmsave, On::Open, |v, _| is_snp(v), 0x083, NONE, CHECKED),
    row("CPUID", C::Cpuid, On::Bit(0x0c, 18), ALWAYS, 0x072, NONE, When::BeforeMemory),
    row("RSM", C::Rsm, On::Bit(0x0c, 19), ALWAYS, 0x073, NONE, FIRST),
    row("IRET", C::Iret, On::Bit(0x0c, 20), ALWAYS, 0x074, NONE, FIRST),
    row("INT n", C::SoftwareInterrupt, On::Bit(0x0c, 21), ALWAYS, 0x075, software_interrupt, FIRST),
    row("INVD", C::Invd, On::Bit(0x0c, 22), ALWAYS, 0x076, NONE, CHECKED),
    row("PAUSE", C::Pause, On::Bit(0x0c, 23), pause_exits, 0x077, NONE, When::BeforeMemory),
    // With both intercepts active, that of HLT takes priority.
    row("HLT", C::Hlt, On::Bit(0x0c, 24), ALWAYS, 0x078, NONE, CHECKED),
    row("HLT, idle", C::Hlt, On::Bit(0x14, 6), |v, _| !v.state.virtual_interrupt_pending, 0x0a6, NONE, CHECKED),
    row("idle HLT as HLT", C::IdleHlt, On::Bit(0x0c, 24), ALWAYS, 0x078, NONE, CHECKED),
    row("idle HLT", C::IdleHlt, On::Bit(0x14, 6), ALWAYS, 0x0a6, NONE, CHECKED),
    row("INVLPG", C::Invlpg, On::Bit(0x0c, 25), ALWAYS, 0x079, linear, CHECKED),
    row("INVLPGA", C::Invlpga, On::Bit(0x0c, 26), ALWAYS, 0x07a, NONE, CHECKED),
    row("I/O", C::PortIo, On::Bit(0x0c, 27), port_exits, 0x07b, ioio, CHECKED),
    row("RDMSR", C::Rdmsr, On::Bit(0x0c, 28), msr_exits, 0x07c, |_, _| [Masked::exact(0); 2], CHECKED),
    row("WRMSR", C::Wrmsr, On::Bit(0x0c, 28), msr_exits, 0x07c, |_, _| [Masked::exact(1), Masked::exact(0)], CHECKED),
    row("task switch", C::TaskSwitch, On::Bit(0x0c, 29), ALWAYS, 0x07d, task_switch, NO_STAGE),
    row("FERR_FREEZE", C::FerrFreeze, On::Bit(0x0c, 30), ALWAYS, 0x07e, NONE, NO_STAGE),
    row("shutdown", C::TripleFault, On::Bit(0x0c, 31), ALWAYS, 0x07f, NONE, NO_STAGE),
    row("VMRUN", C::Vmrun, On::Bit(0x10, 0), ALWAYS, 0x080, NONE, CHECKED),
    row("VMMCALL", C::Vmmcall, On::Bit(0x10, 1), ALWAYS, 0x081, NONE, FIRST),
    row("VMLOAD", C::Vmload, On::Bit(0x10, 2), ALWAYS, 0x082, NONE, CHECKED),
    row("VMLOAD, not virtualized", C::Vmload, On::Open, |v, _| refuses_virtual_vmload(v), 0x082, NONE, CHECKED),
    row("VMSAVE", C::Vmsave, On::Bit(0x10, 3), ALWAYS, 0x083, NONE, CHECKED),
    row("VMSAVE, not virtualized", C::Vmsave, On::Open, |v, _| refuses_virtual_vmload(v), 0x083, NONE, CHECKED),
    row("STGI", C::Stgi, On::Bit(0x10, 4), ALWAYS, 0x084, NONE, CHECKED),
    row("CLGI", C::Clgi, On::Bit(0x10, 5), ALWAYS, 0x085, NONE, CHECKED),
    row("SKINIT", C::Skinit, On::Bit(0x10, 6), ALWAYS, 0x086, NONE, CHECKED),
    row("RDTSCP", C::Rdtscp, On::Bit(0x10, 7), ALWAYS, 0x087, NONE, CHECKED),
    row("WBINVD", C::Wbinvd, On::Bit(0x10, 9), ALWAYS, 0x089, NONE, CHECKED),
    // MONITOR alone checks its memory operand before the intercept.
    row("MONITOR", C::Monitor, On::Bit(0x10, 10), ALWAYS, 0x08a, NONE, When::At(Stage::AfterOperands)),
    // The conditional intercept is checked first.
    row("MWAIT, armed", C::Mwait, On::Bit(0x10, 12), |_, e| *e == Event::Mwait { armed: true }, 0x08c, NONE, CHECKED),
    row("MWAIT", C::Mwait, On::Bit(0x10, 11), ALWAYS, 0x08b, NONE, CHECKED),
    row("XSETBV", C::Xsetbv, On::Bit(0x10, 13), ALWAYS, 0x08d, NONE, FIRST),
    row("RDPRU", C::Rdpru, On::Bit(0x10, 14), ALWAYS, 0x08e, NONE, CHECKED),
    // "Control Register Write Traps": only for SEV-ES guests.
    row("EFER written", C::EferWritten, On::Bit(0x10, 15), |v, _| is_sev_es(v), 0x08f, written, NO_STAGE),
    row("CR written", C::CrWritten, On::Numbered(0x10, 16), |v, _| is_sev_es(v), 0x090, written, NO_STAGE),
    row("INVLPGB", C::Invlpgb, On::Bit(0x14, 0), ALWAYS, 0x0a0, NONE, CHECKED),
    row("INVLPGB, illegal", C::Invlpgb, On::Bit(0x14, 1), |v, _| v.state.invlpgb_illegal, 0x0a1, NONE, CHECKED),
    row("INVPCID", C::Invpcid, On::Bit(0x14, 2), ALWAYS, 0x0a2, NONE, CHECKED),
    row("MCOMMIT", C::Mcommit, On::Bit(0x14, 3), ALWAYS, 0x0a3, NONE, CHECKED),
    row("TLBSYNC", C::Tlbsync, On::Bit(0x14, 4), ALWAYS, 0x0a4, NONE, CHECKED),
    row("bus lock", C::BusLock, On::Bit(0x14, 5), |v, _| v.state.bus_lock_counter == 0, 0x0a5, NONE, NO_STAGE),
    row("nested page fault", C::SecondStage, On::Open, ALWAYS, 0x400, nested_page_fault, NO_STAGE),
    row("VMGEXIT", C::Vmgexit, On::Open, |v, _| is_sev_es(v), 0x403, NONE, When::BeforeMemory),
    // Outside of SEV-ES, VMGEXIT is VMMCALL.
    row("VMGEXIT as VMMCALL", C::Vmgexit, On::Bit(0x10, 1), |v, _| !is_sev_es(v), 0x081, NONE, FIRST),
    row("vAPIC access", C::ApicAccess, On::Open, vapic_faults, 0x402, vapic_access, NO_STAGE),
    row("IPI", C::ApicWrite, On::Open, ipi_fails, 0x401, ipi, NO_STAGE),
    row("vAPIC write", C::ApicWrite, On::Open, vapic_traps, 0x402, vapic_write, NO_STAGE),
    row("level-triggered EOI", C::VirtualizedEoi, On::Open, |v, _| is_avic(v), 0x402, vapic_eoi, NO_STAGE),
];

/// When the exits of `class` with the exit code `code` happen; `None`: rows differ, or there are none.
pub fn when(class: C, code: u64) -> Option<When> {
    let mut all = ROWS.iter().filter(|row| row.class == class && row.code == code).map(|row| row.when);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// What the manual says about `event`.
pub fn expected(view: &Seen<'_>, event: &Event) -> Answer {
    if is_open(view, event) {
        return Answer::Open;
    }
    let of_class = |row: &&Row| row.class == event.class();
    let Some(row) = ROWS.iter().filter(of_class).find(|row| holds(row, view, event)) else {
        return Answer::Stays;
    };
    let added = if matches!(row.on, On::Numbered(..)) { u64::from(number(event)) } else { 0 };
    let [qualification, second] = (row.infos)(view, event);
    Answer::Exits(ExpectedExit {
        row: row.name,
        reason: row.code + added,
        qualification,
        second,
        information: None,
        interruption: Masked::OPEN,
        error_code: None,
        guest_linear: None,
        guest_physical: None,
        when: row.when,
    })
}

/// Cases to which the manual gives no answer.
fn is_open(view: &Seen<'_>, event: &Event) -> bool {
    match event.class() {
        C::ApicAccess => {
            let Event::ApicAccess { access, size, .. } = event else { return true };
            // "Virtual APIC Register Accesses": bytes 4 to 15 of a register are undefined; nothing is said about
            // fetches and page walks.
            let plain = access.linear.is_some() && !access.table_walk && !access.fetch;
            !plain || access.address.0 % 16 + u64::from(*size) > 4
        }
        // Whether an EOI exits depends on the trigger mode: see the event of its own.
        C::ApicWrite => *event == Event::ApicWrite { offset: 0xb0 },
        // Without nested paging there is no nested page fault.
        C::SecondStage => view.controls.nested.0 & 1 == 0,
        // "Running SNP-Active Virtual Machines": VMSAVE exits in any SEV-ES guest if the processor supports SEV-SNP, which
        // the view does not tell.
        C::Vmsave => is_sev_es(view) && !is_snp(view),
        _ => false,
    }
}

/// SEV (bit 1 at 0x90) and SEV-ES (bit 2), on a processor that has them.
fn is_sev_es(view: &Seen<'_>) -> bool {
    view.controls.traits.sev && view.controls.nested.0 & 0b110 == 0b110
}

/// SEV-ES and bit 0 of SEV_FEATURES.
fn is_snp(view: &Seen<'_>) -> bool {
    is_sev_es(view) && view.controls.sev_features & 1 != 0
}

fn holds(row: &Row, view: &Seen<'_>, event: &Event) -> bool {
    let bit = |vector: usize, bit: u32| view.controls.intercepts.0[vector / 4] >> bit & 1 != 0;
    let on = match row.on {
        On::Open => true,
        On::Bit(vector, at) => bit(vector, at),
        On::Numbered(vector, at) => bit(vector, at + u32::from(number(event))),
    };
    on && (row.condition)(view, event)
}

/// Number of the register or vector.
fn number(event: &Event) -> u8 {
    match event {
        Event::CrRead { cr, .. } | Event::CrWrite { cr, .. } | Event::CrWritten { cr, .. } => *cr,
        Event::DrRead { dr, .. } | Event::DrWrite { dr, .. } => *dr,
        Event::Exception(e) => e.vector,
        _ => 0,
    }
}

fn is_int1(event: &Event) -> bool {
    matches!(event, Event::Exception(e) if e.source == ExceptionSource::Privileged)
}

fn table(event: &Event, wanted: TableInstruction) -> bool {
    matches!(event, Event::DescriptorTable { instruction, .. } if *instruction == wanted)
}

/// SEV-ES with restricted injection (bit 3), alternate injection (4) or secure AVIC (16): see [`View`]'s controls.
fn forces(view: &Seen<'_>) -> bool {
    let c = view.controls;
    is_sev_es(view) && c.sev_features & (1 << 3 | 1 << 4 | 1 << 16) != 0
}

/// "Virtualized VMLOAD and VMSAVE" is enabled (bit 1 at 0xb8) but not for such a guest: both exit.
fn refuses_virtual_vmload(view: &Seen<'_>) -> bool {
    let c = view.controls;
    let sev = c.traits.sev && c.nested.0 & 0b10 != 0;
    let usable = c.traits.host_64_bit && c.nested.0 & 1 != 0 && !sev;
    c.traits.virtual_vmload && c.virt_ext.0 & 0b10 != 0 && !usable
}

/// MOV to CR0 changes a bit other than TS (3) and MP (1).
fn changes_cr0(view: &Seen<'_>, event: &Event) -> bool {
    matches!(event, Event::CrWrite { cr: 0, value, .. } if (value ^ view.state.cr0.0) & !0b1010 != 0)
}

/// "MOV CRx/DRx Intercepts": bit 63 says that it is a MOV, bits 3:0 name the register.
fn mov_cr(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let (Event::CrRead { gpr, .. } | Event::CrWrite { gpr, .. }) = event else { return [Masked::OPEN; 2] };
    assisted(view, 1 << 63 | *gpr as u64)
}

fn mov_dr(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let (Event::DrRead { gpr, .. } | Event::DrWrite { gpr, .. }) = event else { return [Masked::OPEN; 2] };
    assisted(view, *gpr as u64)
}

/// EXITINFO1 that only processors with decode assists fill in.
fn assisted(view: &Seen<'_>, value: u64) -> [Masked; 2] {
    let assists = view.controls.traits.decode_assists;
    [Masked::exact(if assists { value } else { 0 }), Masked::exact(0)]
}

fn software_interrupt(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::SoftwareInterrupt { vector, .. } = event else { return [Masked::OPEN; 2] };
    assisted(view, (*vector).into())
}

/// "INVLPG and INVLPGA Intercepts": INVLPGA's address is in rAX and not here.
fn linear(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::Invlpg { linear } = event else { return [Masked::OPEN; 2] };
    assisted(view, linear.0)
}

/// "Exception Intercepts": #NP, #SS, #GP, #AC, #SX and #CP have an error code, #PF the faulting address as well; the
/// other fields are undefined.
fn exception(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::Exception(e) = event else { return [Masked::OPEN; 2] };
    let code = Masked::exact(e.error_code.unwrap_or(0).into());
    match e.vector {
        14 => [code, Masked::exact(e.detail)],
        11 | 12 | 13 | 17 | 21 | 30 => [code, Masked::OPEN],
        _ => [Masked::OPEN; 2],
    }
}

/// "Pause Intercept Filtering"; whether zero or below zero ends the count is the latitude that `PauseFilter` documents.
fn pause_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Pause { tsc, .. } = event else { return false };
    let (c, filter) = (view.controls, view.state.pause);
    if !c.traits.pause_filter || c.pause_filter_count == 0 {
        return true;
    }
    let with_threshold = c.traits.pause_filter_threshold && c.pause_filter_threshold != 0;
    let close = filter.last.is_some_and(|last| tsc.wrapping_sub(last) <= c.pause_filter_threshold.into());
    (!with_threshold || close) && filter.left == 0
}

/// Any bit of the I/O permission map for the bytes accessed; the map goes on beyond port 0xffff.
fn port_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::PortIo(PortAccess { port, size, .. }) = event else { return false };
    (0..u32::from(*size)).any(|i| view.maps.iopm(u32::from(*port) + i))
}

/// EXITINFO1: port, segment (strings, decode assists), address size, operand size, REP, string, direction. EXITINFO2: the
/// next RIP.
fn ioio(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::PortIo(a) = event else { return [Masked::OPEN; 2] };
    let address_size = match if a.string { a.address_size } else { view.state.address_size } {
        2 => 1 << 7,
        4 => 1 << 8,
        _ => 1 << 9,
    };
    let size = u64::from(a.size) << 4;
    let flags = u64::from(a.rep) << 3 | u64::from(a.string) << 2 | u64::from(a.input);
    // "(REP) OUTS and INS" gives bits 12:10 a meaning; IN and OUT have no segment.
    let mask = if a.string { u64::MAX } else { !(0b111 << 10) };
    let value = u64::from(a.port) << 16 | (a.segment as u64) << 10 | address_size | size | flags;
    [Masked::within(value, mask), Masked::exact(view.state.next_rip)]
}

/// Three ranges of 8192 MSRs at bytes 0, 0x800 and 0x1000, read bit before write bit; other MSRs always exit.
/// SEV_STATUS is never intercepted where SEV is enabled.
fn msr_exits(view: &Seen<'_>, event: &Event) -> bool {
    let (index, write) = match event {
        Event::Rdmsr { index } => (*index, 0),
        Event::Wrmsr { index, .. } => (*index, 1),
        _ => return false,
    };
    if index == 0xc001_0131 && view.controls.traits.sev {
        return false;
    }
    let byte = match index {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x800,
        0xc001_0000..=0xc001_1fff => 0x1000,
        _ => return true,
    };
    view.maps.msrpm(byte * 8 + index % 0x2000 * 2 + write)
}

/// "Task Switch Intercept": the selector; error code, bit 36 IRET, 38 far jump, 44 error code valid, 48 RF.
fn task_switch(view: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::TaskSwitch { selector, source, error_code } = event else { return [Masked::OPEN; 2] };
    let second = u64::from(error_code.unwrap_or(0))
        | u64::from(*source == TaskSwitchSource::Iret) << 36
        | u64::from(*source == TaskSwitchSource::Jmp) << 38
        | u64::from(error_code.is_some()) << 44
        | (view.state.rflags.0 >> 16 & 1) << 48;
    [Masked::exact(selector.0.into()), Masked::exact(second)]
}

fn external_smi(_: &Seen<'_>, _: &Event) -> [Masked; 2] {
    [Masked::exact(1), Masked::OPEN]
}

fn written(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let (Event::EferWritten { value } | Event::CrWritten { value, .. }) = event else {
        return [Masked::OPEN; 2];
    };
    [Masked::exact(*value), Masked::exact(0)]
}

/// "Nested versus Guest Page Faults, Fault Ordering": present, write, user (but for fetches that the guest mode execute
/// trap calls supervisor's), reserved, fetch; bit 32 for the final access, 33 for the guest's tables.
fn nested_page_fault(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::SecondStage(a) = event else { return [Masked::OPEN; 2] };
    let GuestPhysicalAccess { write, fetch, table_walk, misconfigured, permissions, .. } = *a;
    let code = u64::from(misconfigured || permissions & 1 != 0)
        | u64::from(write) << 1
        | u64::from(!a.supervisor_fetch) << 2
        | u64::from(misconfigured) << 3
        | u64::from(fetch) << 4;
    let place = if table_walk { 1 << 33 } else { 1 << 32 };
    [Masked::exact(code | place), Masked::exact(a.address.0)]
}

/// AVIC exists and bit 31 at 0x60 is set.
fn is_avic(view: &Seen<'_>) -> bool {
    view.controls.traits.avic && view.controls.int_ctl.0 >> 31 != 0
}

/// "Guest vAPIC Register Access Behavior": registers whose read faults.
fn read_faults(register: u64, extended_lvt: bool) -> bool {
    match register {
        0x090 | 0x390 | 0x400..=0x420 | 0x480..=0x4f0 | 0x540..=0xff0 => true,
        0x500..=0x530 => !extended_lvt,
        _ => false,
    }
}

/// "Guest vAPIC Register Access Behavior": registers whose write faults.
fn write_faults(register: u64, extended_lvt: bool) -> bool {
    matches!(register, 0x030 | 0x0a0 | 0x100..=0x270) || read_faults(register, extended_lvt)
}

fn vapic_faults(view: &Seen<'_>, event: &Event) -> bool {
    let Event::ApicAccess { access, .. } = event else { return false };
    let register = access.address.0 % 4096 & !0xf;
    let extended = view.controls.traits.extended_lvt;
    is_avic(view)
        && if access.write { write_faults(register, extended) } else { read_faults(register, extended) }
}

/// "Guest vAPIC Register Access Behavior": registers whose write traps.
fn vapic_traps(view: &Seen<'_>, event: &Event) -> bool {
    let Event::ApicWrite { offset } = event else { return false };
    let traps = match offset {
        0x020 | 0x0c0 | 0x0d0 | 0x0e0 | 0x0f0 | 0x280 | 0x320..=0x380 | 0x3e0 => true,
        0x500..=0x530 => view.controls.traits.extended_lvt,
        _ => false,
    };
    is_avic(view) && traps
}

/// EXITINFO1 of AVIC_NOACCEL: bit 32 for a write, offset bits 11:4. EXITINFO2 is for EOI alone.
fn vapic_access(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::ApicAccess { access, .. } = event else { return [Masked::OPEN; 2] };
    [Masked::exact(u64::from(access.write) << 32 | access.address.0 & 0xff0), Masked::OPEN]
}

fn vapic_write(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::ApicWrite { offset } = event else { return [Masked::OPEN; 2] };
    [Masked::exact(1 << 32 | u64::from(offset & 0xff0)), Masked::OPEN]
}

fn vapic_eoi(_: &Seen<'_>, event: &Event) -> [Masked; 2] {
    let Event::VirtualizedEoi { vector } = event else { return [Masked::OPEN; 2] };
    [Masked::exact(1 << 32 | 0xb0), Masked::exact((*vector).into())]
}

fn ipi_fails(view: &Seen<'_>, event: &Event) -> bool {
    is_avic(view) && *event == Event::ApicWrite { offset: 0x300 } && view.state.ipi.failure.is_some()
}

/// "AVIC IPI Delivery Not Completed": ICRH and ICRL; the cause in bits 63:32, for causes 1 to 3 an index in bits 11:0.
fn ipi(view: &Seen<'_>, _: &Event) -> [Masked; 2] {
    let ipi = view.state.ipi;
    let cause = ipi.failure.map_or(0, |cause| cause as u64);
    let index = if (1..=3).contains(&cause) { u64::from(ipi.index) } else { 0 };
    let mask = if (1..=3).contains(&cause) { u64::MAX } else { !0xfff };
    [Masked::exact(ipi.icr), Masked::within(cause << 32 | index, mask)]
}

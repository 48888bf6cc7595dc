//! The manual's causes of VM exits, one by one, as plain numbers: which control bits, which condition, which reason,
//! which stage. Written from SDM Vol. 3C "VMX Non-Root Operation" and Vol. 3D "VMX Basic Exit Reasons", not from the table.

use super::*;
use crate::bitmap::{LeafBitmap, XssBitmap};
use crate::decide::{PauseLoop, Table};
use crate::information::Interruptibility;
use rootmode_arch::event::{
    Exception, ExceptionSource, PortAccess, TableInstruction, TaskSwitchSource, VmxInstruction,
};
use rootmode_arch::{Cr4, Selector, Stage};

/// When, within an instruction, the cause acts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    /// Not an instruction: offered once.
    Event,
    /// Before every exception.
    First,
    /// After privilege checks.
    Privilege,
    /// After operands.
    Operands,
}
use When::{First, Operands, Privilege};

type Change = fn(&mut Controls, &mut Processor);

/// One cause: a situation in which it acts, and what in it must not be missing.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) id: &'static str,
    pub(super) event: Event,
    pub(super) controls: Controls,
    pub(super) processor: Processor,
    pub(super) ones: bool,
    on: Vec<(Word, u32)>,
    off: Vec<(Word, u32)>,
    misses: Vec<Change>,
    other_events: Vec<Event>,
    reason: u16,
    when: When,
    qualification: u64,
    information: Option<u32>,
}

fn cause(id: &'static str, event: Event, reason: u16, when: When) -> Cause {
    let (controls, processor) = (Controls::default(), long_mode());
    let (on, off, misses, other_events) = (vec![], vec![], vec![], vec![]);
    Cause {
        id,
        event,
        controls,
        processor,
        ones: false,
        on,
        off,
        misses,
        other_events,
        reason,
        when,
        qualification: 0,
        information: None,
    }
}

impl Cause {
    /// Needs this control to be 1.
    fn on(mut self, word: Word, bit: u32) -> Self {
        turn(&mut self.controls, word, bit, true);
        self.on.push((word, bit));
        self
    }
    /// Needs this control to be 0.
    fn off(mut self, word: Word, bit: u32) -> Self {
        self.off.push((word, bit));
        self
    }
    /// Sets up the situation.
    fn given(mut self, change: Change) -> Self {
        change(&mut self.controls, &mut self.processor);
        self
    }
    /// The bitmaps are all ones; with all zeros nothing exits.
    fn by_bitmap(mut self) -> Self {
        self.ones = true;
        self
    }
    /// With this change nothing exits.
    fn not_if(mut self, change: Change) -> Self {
        self.misses.push(change);
        self
    }
    /// This event does not exit in the same situation.
    fn nor(mut self, event: Event) -> Self {
        self.other_events.push(event);
        self
    }
    fn says(mut self, qualification: u64) -> Self {
        self.qualification = qualification;
        self
    }
    fn with(mut self, information: u32) -> Self {
        self.information = Some(information);
        self
    }

    /// Every situation of the cause with whether it exits: the hit first.
    fn situations(&self) -> Vec<(Controls, Processor, bool, Event, bool)> {
        let mut all = vec![(self.controls, self.processor, self.ones, self.event, true)];
        for (list, value) in [(&self.on, false), (&self.off, true)] {
            for (word, bit) in list {
                let mut controls = self.controls;
                turn(&mut controls, *word, *bit, value);
                all.push((controls, self.processor, self.ones, self.event, false));
                if *word == Word::Secondary && !value {
                    controls = self.controls;
                    controls.primary = controls.primary.without(PrimaryControls(1 << 31));
                    all.push((controls, self.processor, self.ones, self.event, false));
                }
            }
        }
        for change in &self.misses {
            let (mut controls, mut processor) = (self.controls, self.processor);
            change(&mut controls, &mut processor);
            all.push((controls, processor, self.ones, self.event, false));
        }
        if self.ones {
            all.push((self.controls, self.processor, false, self.event, false));
        }
        all.extend(self.other_events.iter().map(|e| (self.controls, self.processor, self.ones, *e, false)));
        all
    }

    /// What `table` gets wrong about the cause.
    pub(super) fn complaint(&self, table: &Table) -> Option<String> {
        for (controls, processor, ones, event, exits) in self.situations() {
            let view = View { controls: &controls, processor: &processor, bitmaps: &UniformBitmaps(ones) };
            let got = table.decide(&view, &event);
            let facts = got.map(|exit| (exit.reason.0, exit.qualification, exit.instruction_information));
            let expected = exits.then_some((self.reason, self.qualification, self.information));
            if facts != expected {
                return Some(format!("{}: {event:?} gives {facts:x?}, not {expected:x?}", self.id));
            }
            for (stage, when) in [
                (Stage::BeforeExceptions, First),
                (Stage::AfterPrivilege, Privilege),
                (Stage::AfterOperands, Operands),
            ] {
                let expected = if self.when == When::Event || self.when == when { got } else { None };
                if table.decide_at(stage, &view, &event) != expected {
                    return Some(format!("{}: wrong at stage {stage:?}", self.id));
                }
            }
            if exits && !table.interest(&controls).contains(event.class()) {
                return Some(format!("{}: not in the mask of classes that may exit", self.id));
            }
        }
        None
    }
}

fn vmx_value(instruction: VmxInstruction, value: u64) -> Event {
    Event::Vmx { instruction, operand: operand(), register: Some(Gpr::R8), value }
}

fn vmx(instruction: VmxInstruction) -> Event {
    Event::Vmx { instruction, operand: None, register: None, value: 0 }
}

fn exception(vector: u8) -> Event {
    let source = ExceptionSource::Hardware;
    Event::Exception(Exception { vector, error_code: None, detail: 0, source, instruction_length: 0 })
}

fn port(port: u16, size: u8) -> Event {
    Event::PortIo(PortAccess {
        port,
        size,
        input: true,
        string: true,
        rep: true,
        immediate: false,
        address_size: 8,
        segment: SegmentName::Es,
        linear: Linear(0x9000),
    })
}

fn table(instruction: TableInstruction) -> Event {
    Event::DescriptorTable { instruction, operand: Operand::Memory(MEMORY), operand_size: 8 }
}

/// An instruction of VMX operation that exits in every mode in which it is not #UD, whatever the CPL.
fn vmx_operation(id: &'static str, event: Event, reason: u16) -> Cause {
    cause(id, event, reason, First)
        .given(|_, p| p.cpl = 3)
        .not_if(|_, p| p.cr0 = Cr0::empty())
        .not_if(|_, p| p.rflags = RFlags::VM)
        .not_if(|_, p| p.cs_long = false)
}

#[rustfmt::skip]
pub(super) fn causes() -> Vec<Cause> {
    use Gpr::{R8, R9, Rbx, Rcx};
    use Word::{Pin, Primary, Secondary, Tertiary};
    let write = |cr, value| Event::CrWrite { cr, gpr: R9, value };
    let read = |cr| Event::CrRead { cr, gpr: R9 };
    let mut late = read_of(0x1234_5678); // An EPT violation of a data read through a linear address.
    late.permissions = 0b100;
    let memory = |id, instruction, reason| vmx_operation(id, Event::Vmx { instruction, operand: operand(), register: None, value: 0 }, reason).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS);
    let typed = |id, instruction, reason| vmx_operation(id, vmx_value(instruction, 1), reason).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28);
    vec![
        cause("exception", exception(6), 0, When::Event).given(|c, _| c.exception_bitmap = 1 << 6).nor(exception(7)).nor(exception(5)),
        cause("external-interrupt", Event::ExternalInterrupt { vector: 0x31 }, 1, When::Event).on(Pin, 0)
            .given(|c, _| c.posted_interrupt_vector = 0x31).not_if(|c, _| turn(c, Pin, 7, true)),
        cause("nmi", Event::Nmi, 0, When::Event).on(Pin, 3),
        cause("init", Event::Init, 3, When::Event),
        cause("sipi", Event::Sipi { vector: 0x9a }, 4, When::Event).says(0x9a),
        cause("triple-fault", Event::TripleFault, 2, When::Event),
        cause("task-switch", Event::TaskSwitch { selector: Selector(0x50), source: TaskSwitchSource::Jmp, error_code: None }, 9, When::Event).says(0x8000_0050),
        cause("interrupt-window", Event::InterruptWindow, 7, When::Event).on(Primary, 2)
            .not_if(|_, p| p.rflags = RFlags::ONE).not_if(|_, p| p.interruptibility = Interruptibility(1)).not_if(|_, p| p.interruptibility = Interruptibility(2)),
        cause("nmi-window", Event::NmiWindow, 8, When::Event).on(Primary, 22).given(|_, p| p.interruptibility = Interruptibility(1))
            .not_if(|_, p| p.interruptibility = Interruptibility(8)).not_if(|_, p| p.interruptibility = Interruptibility(2))
            .not_if(|c, _| c.traits.sti_blocks_nmi_window = true),
        cause("preemption-timer", Event::PreemptionTimer, 52, When::Event).on(Pin, 6),
        cause("monitor-trap", Event::MonitorTrap, 37, When::Event).on(Primary, 27),
        cause("monitor-trap-injected", Event::MonitorTrap, 37, When::Event).given(|_, p| p.pending_mtf = true).not_if(|_, p| p.pending_mtf = false),
        cause("tpr-below-threshold", Event::TprBelowThreshold, 43, When::Event).on(Primary, 21).off(Secondary, 9)
            .given(|c, p| (c.tpr_threshold, p.vtpr) = (5, 0x4f)).not_if(|_, p| p.vtpr = 0x50),
        cause("bus-lock", Event::BusLock, 74, When::Event).on(Secondary, 30),
        cause("ept-violation", Event::SecondStage(late), 48, When::Event).on(Secondary, 1).says(0x181 | 4 << 3)
            .not_if(|c, _| turn(c, Secondary, 18, true)),
        cause("ept-misconfiguration", Event::SecondStage(GuestPhysicalAccess { misconfigured: true, ..late }), 49, When::Event).on(Secondary, 1),
        cause("apic-access", Event::ApicAccess { access: read_of(0xfee0_0080), size: 4, in_delivery: false }, 44, When::Event).on(Secondary, 0).says(0x80)
            .not_if(|c, _| turn(c, Primary, 21, true)),
        cause("apic-write", Event::ApicWrite { offset: 0x300 }, 56, When::Event).on(Primary, 21).says(0x300),
        cause("virtualized-eoi", Event::VirtualizedEoi { vector: 0xc1 }, 45, When::Event).on(Secondary, 9).says(0xc1)
            .given(|c, _| c.eoi_exit_bitmap = [0, 0, 0, 2]).not_if(|c, _| c.eoi_exit_bitmap = [!0, !0, !0, !2]),
        cause("page-modification-log-full", Event::PageModificationLogFull, 62, When::Event).on(Secondary, 17),
        cause("cpuid", Event::Cpuid { leaf: 1, subleaf: 0 }, 10, Privilege),
        cause("getsec", Event::Getsec, 11, First).given(|_, p| (p.cr4, p.cpl) = (Cr4(1 << 14), 3)).not_if(|_, p| p.cr4 = Cr4(!(1 << 14))),
        cause("hlt", Event::Hlt, 12, Privilege).on(Primary, 7),
        cause("invd", Event::Invd, 13, Privilege),
        cause("wbinvd", Event::Wbinvd { no_invalidate: true }, 54, Privilege).on(Secondary, 6),
        cause("invlpg", Event::Invlpg { linear: Linear(0xffff_8000_1234_5000) }, 14, Privilege).on(Primary, 9).says(0xffff_8000_1234_5000),
        cause("invpcid", Event::Invpcid { kind: R8, operand: MEMORY }, 58, Privilege).on(Secondary, 12).on(Primary, 9).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28),
        cause("rdpmc", Event::Rdpmc { counter: 0 }, 15, Privilege).on(Primary, 11),
        cause("rdtsc", Event::Rdtsc, 16, Privilege).on(Primary, 12),
        cause("rdtscp", Event::Rdtscp, 51, Privilege).on(Secondary, 3).on(Primary, 12),
        cause("rsm", Event::Rsm, 17, Privilege),
        cause("vmcall", vmx(VmxInstruction::Vmcall), 18, First).given(|_, p| *p = Processor { cpl: 3, ..Processor::default() }),
        memory("vmclear", VmxInstruction::Vmclear, 19),
        vmx_operation("vmlaunch", vmx(VmxInstruction::Vmlaunch), 20),
        memory("vmptrld", VmxInstruction::Vmptrld, 21),
        memory("vmptrst", VmxInstruction::Vmptrst, 22),
        vmx_operation("vmread", vmx_value(VmxInstruction::Vmread, 0x681e), 23).off(Secondary, 14).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28),
        vmx_operation("vmread-bitmap", vmx_value(VmxInstruction::Vmread, 0x681e), 23).on_bitmap(14).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28),
        vmx_operation("vmresume", vmx(VmxInstruction::Vmresume), 24),
        vmx_operation("vmwrite", vmx_value(VmxInstruction::Vmwrite, 0x681e), 25).off(Secondary, 14).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28),
        vmx_operation("vmwrite-bitmap", vmx_value(VmxInstruction::Vmwrite, 0x681e), 25).on_bitmap(14).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 8 << 28),
        vmx_operation("vmxoff", vmx(VmxInstruction::Vmxoff), 26),
        memory("vmxon", VmxInstruction::Vmxon, 27),
        typed("invept", VmxInstruction::Invept, 50),
        typed("invvpid", VmxInstruction::Invvpid, 53),
        cause("vmfunc", Event::Vmx { instruction: VmxInstruction::Vmfunc, operand: None, register: None, value: 5 }, 59, First).on(Secondary, 13)
            .given(|c, p| (c.vm_functions, p.cpl) = (!(1 << 5), 3)).not_if(|c, _| c.vm_functions = 1 << 5),
        cause("mov-from-cr3", read(3), 28, Privilege).on(Primary, 16).says(0x913).nor(read(0)).nor(read(4)).nor(read(8)).nor(read(2)),
        cause("mov-from-cr8", read(8), 28, Privilege).on(Primary, 20).says(0x918).nor(read(0)).nor(read(4)).nor(read(3)).nor(read(2)),
        cause("mov-to-cr0", write(0, 0x21), 28, Privilege).given(|c, _| (c.cr0_mask, c.cr0_shadow) = (0x20, 0x11)).says(0x900)
            .not_if(|c, _| c.cr0_shadow = 0x20).not_if(|c, _| c.cr0_mask = !0x30).nor(write(4, 0x21)).nor(write(2, 0x21)),
        cause("mov-to-cr3", write(3, 0x5000), 28, Privilege).on(Primary, 15).says(0x903)
            .given(|c, _| (c.cr3_target_count, c.cr3_targets) = (1, [0x4000, 0x5000, 0, 0])).not_if(|c, _| c.cr3_target_count = 2).nor(write(3, 0x4000)),
        cause("mov-to-cr4", write(4, 0x2000), 28, Privilege).given(|c, _| c.cr4_mask = 0x2000).says(0x904)
            .not_if(|c, _| c.cr4_shadow = 0x2000).nor(write(0, 0x2000)),
        cause("mov-to-cr8", write(8, 3), 28, Privilege).on(Primary, 19).says(0x908).nor(write(2, 3)),
        cause("clts", Event::Clts, 28, Privilege).given(|c, _| (c.cr0_mask, c.cr0_shadow) = (8, 8)).says(0x20)
            .not_if(|c, _| c.cr0_mask = !8).not_if(|c, _| c.cr0_shadow = !8),
        cause("lmsw", Event::Lmsw { source: 0xabc4, memory: Some(Linear(0x88)) }, 28, Operands).given(|c, _| c.cr0_mask = 4).says(0xabc4_0070)
            .not_if(|c, _| c.cr0_shadow = 4).not_if(|c, _| c.cr0_mask = !4 & !1),
        cause("mov-from-dr", Event::DrRead { dr: 6, gpr: Rbx }, 29, First).on(Primary, 23).says(0x316).given(|_, p| p.cpl = 3),
        cause("mov-to-dr", Event::DrWrite { dr: 7, gpr: Rcx, value: 0 }, 29, First).on(Primary, 23).says(0x107).given(|_, p| p.cpl = 3),
        cause("io", port(0x1f0, 4), 30, Privilege).on(Primary, 24).off(Primary, 25).says(0x1f0_003b).with(2 << 7).given(|c, _| c.traits.ins_outs_information = true),
        cause("io-bitmap", port(0x1f0, 4), 30, Privilege).on(Primary, 25).by_bitmap().says(0x1f0_003b).with(2 << 7).given(|c, _| c.traits.ins_outs_information = true),
        cause("rdmsr", Event::Rdmsr { index: 0x10 }, 31, Privilege).off(Primary, 28),
        cause("rdmsr-bitmap", Event::Rdmsr { index: 0x10 }, 31, Privilege).off_would_exit(28).by_bitmap(),
        cause("wrmsr", Event::Wrmsr { index: 0x10, value: 0 }, 32, Privilege).off(Primary, 28),
        cause("wrmsr-bitmap", Event::Wrmsr { index: 0x10, value: 0 }, 32, Privilege).off_would_exit(28).by_bitmap(),
        cause("mwait", Event::Mwait { armed: true }, 36, Privilege).on(Primary, 10).says(1),
        cause("monitor", Event::Monitor, 39, Privilege).on(Primary, 29),
        cause("pause", Event::Pause { cpl: 3, tsc: 0 }, 40, Privilege).on(Primary, 30),
        cause("pause-loop", Event::Pause { cpl: 0, tsc: 1111 }, 40, Privilege).on(Secondary, 10)
            .given(|c, p| (c.ple_gap, c.ple_window, p.pause_loop) = (20, 100, PauseLoop { first: Some(1000), last: Some(1095) }))
            .not_if(|c, _| c.ple_window = 111).not_if(|c, _| c.ple_gap = 15).nor(Event::Pause { cpl: 3, tsc: 1111 }),
        cause("gdtr-idtr", table(TableInstruction::Sidt), 46, Privilege).on(Secondary, 2).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 1 << 28),
        cause("ldtr-tr", table(TableInstruction::Ltr), 47, Privilege).on(Secondary, 2).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS | 3 << 28),
        cause("rdrand", Event::Rdrand { gpr: R8, size: 8 }, 57, Privilege).on(Secondary, 11).with(8 << 3 | 2 << 11),
        cause("rdseed", Event::Rdseed { gpr: R8, size: 4 }, 61, Privilege).on(Secondary, 16).with(8 << 3 | 1 << 11),
        cause("xsetbv", Event::Xsetbv { index: 0, value: 7 }, 55, Privilege),
        cause("xsaves", Event::Xsaves { mask: 0x300, enabled: 0x307, operand: MEMORY }, 63, Privilege).on(Secondary, 20).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS)
            .given(|c, p| (c.xss_bitmap, p.xss) = (XssBitmap(0x100), 0x900)).not_if(|_, p| p.xss = !0x100).not_if(|c, _| c.xss_bitmap = XssBitmap(!0x100)),
        cause("xrstors", Event::Xrstors { mask: 0x300, enabled: 0x307, operand: MEMORY }, 64, Privilege).on(Secondary, 20).says(MEMORY_DISPLACEMENT).with(MEMORY_BITS)
            .given(|c, p| (c.xss_bitmap, p.xss) = (XssBitmap(0x100), 0x900)).not_if(|_, p| p.xss = !0x100).not_if(|c, _| c.xss_bitmap = XssBitmap(!0x100)),
        cause("umwait", Event::Umwait { gpr: R9 }, 67, Privilege).on(Secondary, 26).on(Primary, 12).with(9 << 3 | 1 << 11),
        cause("tpause", Event::Tpause { gpr: R9 }, 68, Privilege).on(Secondary, 26).on(Primary, 12).with(9 << 3 | 1 << 11),
        cause("encls", Event::Encls { leaf: 0x47 }, 60, Privilege).on(Secondary, 15).given(|c, _| c.encls_bitmap = LeafBitmap(1 << 63)).not_if(|c, _| c.encls_bitmap = LeafBitmap(!(1 << 63))),
        cause("enclv", Event::Enclv { leaf: 2 }, 70, Privilege).on(Secondary, 28).given(|c, _| c.enclv_bitmap = LeafBitmap(4)).not_if(|c, _| c.enclv_bitmap = LeafBitmap(!4)),
        cause("pconfig", Event::Pconfig { leaf: 0 }, 65, Privilege).on(Secondary, 27).given(|c, _| c.pconfig_bitmap = LeafBitmap(1)).not_if(|c, _| c.pconfig_bitmap = LeafBitmap(!1)),
        cause("enqcmd-pasid", Event::Enqcmd { supervisor: false, pasid: 9 }, 72, Privilege).on(Secondary, 21).given(|_, p| p.pasid_translation_failed = true).not_if(|_, p| p.pasid_translation_failed = false),
        cause("enqcmds-pasid", Event::Enqcmd { supervisor: true, pasid: 9 }, 73, Operands).on(Secondary, 21).given(|_, p| p.pasid_translation_failed = true).not_if(|_, p| p.pasid_translation_failed = false),
        cause("loadiwkey", Event::Loadiwkey { eax: 0, first: 9, second: 3 }, 69, Privilege).on(Tertiary, 0).with(9 << 3 | 3 << 28),
        cause("seamcall", Event::Seam { tdcall: false }, 76, First).not_if(|_, p| p.cs_long = false),
        cause("tdcall", Event::Seam { tdcall: true }, 77, Privilege).not_if(|_, p| p.cs_long = false),
    ]
}

impl Cause {
    /// With VMCS shadowing on, the bitmap decides; with it off, another row of the same reason does.
    fn on_bitmap(mut self, bit: u32) -> Self {
        turn(&mut self.controls, Word::Secondary, bit, true);
        self.by_bitmap()
    }
    /// With this primary control on, the bitmap decides; with it off, another row of the same reason does.
    fn off_would_exit(mut self, bit: u32) -> Self {
        turn(&mut self.controls, Word::Primary, bit, true);
        self
    }
}

#[test]
fn every_cause_of_the_manual_exits_in_its_situation_and_in_no_neighbouring_one() {
    let complaints: Vec<String> =
        causes().iter().filter_map(|cause| cause.complaint(Table::BUILT_IN)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn every_row_has_a_cause_and_every_cause_a_row() {
    let rows: Vec<&str> = Table::BUILT_IN.rows().iter().map(|row| row.id).collect();
    let causes: Vec<&str> = causes().iter().map(|cause| cause.id).collect();
    assert_eq!(rows, causes);
    let mut unique = rows.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), rows.len());
}

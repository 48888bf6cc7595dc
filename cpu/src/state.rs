//! [`Cpu`]: the architectural state of one logical processor, and what an extension publishes into it.
//!
//! Plain data, not generic over anything. Everything that software can observe is here, including what hardware keeps
//! only inside: the event delivery in progress, shadows, pending debug exceptions, cached translations.

mod code;
mod derived;
mod digest;
mod status;
mod translating;

use crate::apic::{Abilities, LocalApic, OwnPage};
use crate::branches::BranchRecords;
use crate::counters::{Counters, Totals};
use crate::execute::cet::ControlFlow;
use crate::execute::smm::{Interrupted, PortInstruction, RESET_BASE};
use crate::interrupts::Interrupts;
use crate::machine_check::MachineCheck;
use crate::memory_types::MemoryTypes;
use crate::model::Model;
use crate::monitor::Monitor;
use crate::msr::MsrFile;
use crate::vectors::Vectors;
use rootmode_arch::event::ExceptionSource;
use rootmode_arch::record::Level;
use rootmode_arch::{
    AccessRights, Cr0, Cr3, Cr4, DescriptorTable, Efer, EventClasses, Gpr, GuestPhysical, HostPhysical,
    RFlags, Segment, SegmentName, Selector,
};
use rootmode_mmu::{Lookup, Paging, PhysicalMemory, SecondStage, Tag, Tlb, WalkMemo};
use std::sync::Arc;
use translating::{Contexts, Translating};

/// What a processor is doing (SDM Vol. 3C "Guest Non-Register State", activity state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Active = 0,
    /// HLT.
    Halted = 1,
    /// A triple fault or another serious error.
    Shutdown = 2,
    /// Waiting for a start-up IPI.
    WaitForSipi = 3,
    /// MWAIT, UMWAIT or TPAUSE. The VMCS has no name for it: software sees an active processor.
    Waiting = 4,
}

impl Activity {
    /// Whether interrupts and debug exceptions reach the processor: neither shutdown nor wait-for-SIPI
    /// (SDM Vol. 3C "Activity State").
    pub const fn is_awake(self) -> bool {
        !matches!(self, Self::Shutdown | Self::WaitForSipi)
    }
}

/// What is being delivered through the IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeliveryKind {
    /// Maskable external interrupt.
    External = 0,
    /// NMI.
    Nmi = 2,
    /// Exception raised by the processor.
    Hardware = 3,
    /// INT n.
    Software = 4,
    /// INT1.
    Privileged = 5,
    /// INT3, INTO.
    SoftwareException = 6,
}

impl From<ExceptionSource> for DeliveryKind {
    fn from(source: ExceptionSource) -> Self {
        match source {
            ExceptionSource::Hardware => Self::Hardware,
            ExceptionSource::Software => Self::SoftwareException,
            ExceptionSource::Privileged => Self::Privileged,
        }
    }
}

/// An event on its way through the IDT. The numbers of [`DeliveryKind`] are VMX's interruption types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// What it is.
    pub kind: DeliveryKind,
    /// Vector.
    pub vector: u8,
    /// Error code to push.
    pub error_code: Option<u32>,
    /// Instruction length of software interrupts and exceptions: the return address is RIP plus this. Else 0.
    pub length: u8,
    /// The return address to push, where it is not RIP plus `length` (VMRUN's nRIP).
    pub return_rip: Option<u64>,
    /// #PF: the linear address, for CR2 (already written for injected events). Else 0.
    pub detail: u64,
    /// NMIs are blocked once it is delivered: by NMIs themselves, but for those that a VM entry injects without virtual NMIs.
    pub blocks_nmis: bool,
    /// RFLAGS.RF is set in what is pushed, whatever it was.
    pub resumes: bool,
}

impl Delivery {
    /// One that needs nothing else to be known. NMIs block others; nothing asks for RFLAGS.RF.
    pub const fn interruption(kind: DeliveryKind, vector: u8) -> Self {
        let blocks_nmis = matches!(kind, DeliveryKind::Nmi);
        Self {
            kind,
            vector,
            error_code: None,
            length: 0,
            return_rip: None,
            detail: 0,
            blocks_nmis,
            resumes: false,
        }
    }
}

/// Why the fast loop must be left at the next boundary. 0: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Attention(pub u32);

impl Attention {
    /// An interrupt, NMI, SMI, INIT or SIPI is pending and possible.
    pub const INTERRUPT: u32 = 1;
    /// RFLAGS.TF or a pending debug exception.
    pub const DEBUG: u32 = 2;
    /// STI or MOV SS blocks for one more boundary.
    pub const SHADOW: u32 = 4;
    /// An event waits to be injected ([`Cpu::injected`]).
    pub const INJECTED: u32 = 8;
    /// The extension wants [`Virtualization::boundary`](crate::Virtualization::boundary).
    pub const EXTENSION: u32 = 16;
    /// The processor is not active.
    pub const INACTIVE: u32 = 32;
    /// A device access had effects for the board to apply.
    pub const EFFECTS: u32 = 64;
    /// RFLAGS.RF, which the next completed instruction clears.
    pub const RESUME: u32 = 128;
    /// DR7 enables a breakpoint.
    pub const BREAKPOINT: u32 = 256;
    /// Shadow stacks or tracking of indirect branches are in use.
    pub const CONTROL_FLOW: u32 = 512;
    /// Branches are recorded, or counted.
    pub const BRANCHES: u32 = 1024;
    /// The time at which a performance counter may overflow has come nearer.
    pub const COUNTERS: u32 = 2048;
}

/// How the extension gates external interrupts or NMIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Gate {
    /// As without virtualization: RFLAGS.IF, or blocking by NMI.
    #[default]
    Normal,
    /// Accepted whatever RFLAGS.IF (or NMI blocking) says; shadows still hold.
    /// VMX "external-interrupt exiting"; SVM's V_INTR_MASKING with the host's IF set.
    Open,
    /// Held (GIF = 0; V_INTR_MASKING with the host's IF clear).
    Closed,
}

/// A multiplier of the time-stamp counter: the guest's is `host_tsc * multiplier >> shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TscRatio {
    /// Multiplier.
    pub multiplier: u64,
    /// Right shift: 48 for VMX, 32 for SVM.
    pub shift: u8,
}

impl Default for TscRatio {
    fn default() -> Self {
        Self { multiplier: 1, shift: 0 }
    }
}

/// A page whose accesses are offered as [`Event::ApicAccess`](rootmode_arch::Event::ApicAccess).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, u8)]
pub enum ApicWindow {
    /// What lies at this host-physical page, whatever maps it (VMX's APIC-access page).
    Host(HostPhysical),
    /// What the guest sees at this guest-physical page, whatever lies there (AVIC).
    Guest(GuestPhysical),
}

impl Published {
    /// Whether what `at` translates to is an access to a virtual APIC.
    #[inline]
    pub(crate) fn is_apic(&self, at: &Lookup) -> bool {
        match self.apic_access {
            None => false,
            Some(ApicWindow::Host(page)) => page == at.host.page_base(),
            Some(ApicWindow::Guest(page)) => page == at.guest.page_base(),
        }
    }
}

/// A log of pages that writes made dirty in the second stage (SDM Vol. 3C "Page-Modification Logging"). It fills downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ModificationLog {
    /// The page that holds the log.
    pub page: HostPhysical,
    /// Which of its 512 entries is written next; a larger number: it is full.
    pub index: u16,
}

impl ModificationLog {
    /// Logs the page of `guest`. False: the log is full.
    pub(crate) fn add(&mut self, memory: &mut PhysicalMemory, guest: GuestPhysical) -> bool {
        if self.index > 511 {
            return false;
        }
        memory.write_u64(self.page.offset(8 * u64::from(self.index)), guest.0 & !0xfff);
        self.index = self.index.wrapping_sub(1);
        true
    }
}

/// What the extension publishes for handlers to test without calling it. The default is "not virtualized".
/// After a change call [`Cpu::refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Published {
    /// Event classes that may exit or be virtualized. Only these are offered to `raise`.
    pub intercepts: EventClasses,
    /// A guest runs.
    pub guest: bool,
    /// What records say.
    pub level: Level,
    /// The second stage of translation.
    pub second_stage: SecondStage,
    /// VPID or ASID that tags translations; 0 is the host.
    pub space: u32,
    /// Added to the scaled TSC.
    pub tsc_offset: u64,
    /// Scales the TSC.
    pub tsc_ratio: TscRatio,
    /// The C-bit in a guest's page tables, as a mask; 0 without SEV.
    pub c_bit: u64,
    /// Where accesses are accesses to a virtual APIC.
    pub apic_access: Option<ApicWindow>,
    /// Where pages are logged that become dirty in the second stage.
    pub modification_log: Option<ModificationLog>,
    /// Gate of external interrupts.
    pub interrupt_gate: Gate,
    /// Gate of NMIs.
    pub nmi_gate: Gate,
    /// IRET leaves blocking by NMI alone (VMX "NMI exiting" without "virtual NMIs").
    pub iret_keeps_nmi_blocked: bool,
    /// Instructions of these classes are undefined, as if CPUID did not have them.
    pub undefined: EventClasses,
    /// SMI and INIT are held (GIF = 0).
    pub held: bool,
    /// What CR8 is instead of the APIC's task priority (V_TPR), 0 to 15.
    pub virtual_tpr: Option<u8>,
    /// CR8 is the APIC's task priority all the same: writes change both.
    pub tpr_is_shared: bool,
    /// Call `boundary` at every instruction boundary.
    pub boundary: bool,
    /// Call `boundary` at the first boundary at or after this tick (preemption timer).
    pub deadline: Option<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            intercepts: EventClasses::NONE,
            guest: false,
            level: Level::L1,
            second_stage: SecondStage::None,
            space: 0,
            tsc_offset: 0,
            tsc_ratio: TscRatio::default(),
            c_bit: 0,
            apic_access: None,
            modification_log: None,
            interrupt_gate: Gate::Normal,
            nmi_gate: Gate::Normal,
            iret_keeps_nmi_blocked: false,
            undefined: EventClasses::NONE,
            held: false,
            virtual_tpr: None,
            tpr_is_shared: false,
            boundary: false,
            deadline: None,
        }
    }
}

/// The instruction being executed: what exits report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Current {
    /// Its length in bytes; 0 if an event came between instructions or the fetch itself failed.
    pub length: u8,
    /// Its bytes.
    pub bytes: [u8; 15],
}

/// The state of one logical processor.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Cpu {
    /// General-purpose registers by number.
    pub gpr: [u64; 16],
    /// Instruction pointer: of the instruction being executed, or of the next one at a boundary.
    pub rip: u64,
    /// RFLAGS; its status flags only while `pending` is false.
    flags: u64,
    /// The status flags are those of `result` and `carries`.
    pending: bool,
    /// A result, sign-extended to 64 bits: ZF, SF and PF.
    result: u64,
    /// Bit 63: CF. Bit 62: CF exclusive-or OF. Bit 3: AF.
    carries: u64,
    /// Why the fast loop must be left.
    pub attention: Attention,
    /// Privilege level, 0 to 3. Entry sets it (VMX: SS.DPL; SVM: the VMCB's CPL).
    pub cpl: u8,
    /// Activity state.
    pub activity: Activity,
    /// STI blocks interrupts until after the next instruction.
    pub sti_shadow: bool,
    /// MOV SS or POP SS blocks interrupts and debug exceptions until after the next instruction.
    pub mov_ss_shadow: bool,
    /// NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// The IRET in progress ended blocking by NMI: exits during it report that.
    pub unblocked_by_iret: bool,
    /// RIP is at a REP instruction that has done some of its iterations.
    pub repeating: bool,
    /// Time in ticks as this processor sees it: the slice's start plus its own ticks.
    pub tick: u64,
    /// Steps taken, ticks or not; not visible to guests.
    pub steps: u64,
    /// Segment registers by [`SegmentName`].
    pub segments: [Segment; 8],
    /// CR0.
    pub cr0: Cr0,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: Cr3,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
    /// PKRU.
    pub pkru: u32,
    /// IA32_PKRS.
    pub pkrs: u32,
    /// The PDPTE registers. An extension that switches to PAE paging fills them, or calls [`Cpu::reload_pdptes`].
    pub pdptes: [u64; 4],
    /// Debug exceptions that wait for the next boundary: DR6 bits, active high.
    pub pending_debug: u64,
    /// Control-flow enforcement: SSP and its MSRs. Call [`Cpu::refresh`] after changing them from outside.
    pub control_flow: ControlFlow,
    /// In system-management mode.
    pub smm: bool,
    /// SMBASE.
    pub smbase: u32,
    /// What the SMI that led into SMM interrupted.
    pub(crate) before_smm: Interrupted,
    /// The port instruction that completed last.
    pub(crate) last_port: Option<PortInstruction>,
    /// DR6 bits of data and port breakpoints that the instruction in progress matched.
    pub(crate) matched_breakpoints: u64,
    /// The instruction in progress takes no single-step trap, whatever TF was when it began.
    pub(crate) trap_inhibited: bool,
    /// Derived by [`Cpu::update_attention`]: data accesses are compared with breakpoints or checked for alignment.
    pub(crate) checks_data: bool,
    /// Indirect branches are tracked at this privilege level: quick forms of them leave it to the semantic function.
    pub(crate) tracked: bool,
    /// Model-specific registers that the core owns.
    pub msrs: MsrFile,
    /// The local APIC: maskable interrupts, CR8.
    pub apic: LocalApic,
    /// Where control went last (AMD).
    pub branches: BranchRecords,
    /// Performance counters, as they were when they were last settled.
    pub counters: Counters,
    /// What happened since power-up that they may count; its clocks follow from the tick.
    pub(crate) happened: Totals,
    /// The tick at which a counter that interrupts can overflow at the earliest.
    pub(crate) overflow_deadline: u64,
    /// Ticks that passed while the processor was halted or waited for a start-up IPI.
    pub(crate) slept: u64,
    /// The address-range monitor, and what ends the wait in progress.
    pub monitor: Monitor,
    /// The latest tick that any processor of the board was told by a time-stamp counter or a device, as known when this one
    /// began to run. Processors run one after another over the same interval; without this the later one could see time
    /// before what it reads in memory that the earlier one saw.
    pub(crate) told: u64,
    /// Machine-check registers.
    pub machine_check: MachineCheck,
    /// The memory type range registers.
    pub memory_types: MemoryTypes,
    /// What waits at the other interrupt inputs.
    pub interrupts: Interrupts,
    /// The event whose delivery is in progress.
    pub delivering: Option<Delivery>,
    /// An event that is delivered before the next instruction (VM-entry event injection, V_IRQ).
    pub injected: Option<Delivery>,
    /// The instruction being executed.
    pub current: Current,
    /// What the extension publishes.
    pub published: Published,
    /// Derived by [`Cpu::refresh`]: the registers that govern paging.
    pub(crate) paging: Paging,
    /// Derived by [`Cpu::refresh`]: some pointers of 64-bit mode carry metadata (LAM).
    pub(crate) masks_pointers: bool,
    /// Derived by [`Cpu::refresh`]: the tag of translations.
    pub(crate) tag: Tag,
    /// For what the shortcuts in use were made, and the TLB's other ones.
    shortcuts: [Translating; 2],
    /// Contexts of translation that were there before.
    contexts: Contexts,
    /// CR0, CR4 and EFER, as [`Self::paging`] was last made from them.
    paging_from: Option<(Cr0, Cr4, Efer)>,
    /// Number of this processor in its machine.
    pub index: u8,
    /// Which processor this is.
    pub model: Arc<Model>,
    /// x87, MMX and SSE registers.
    pub vectors: Vectors,
    /// Cached translations.
    pub tlb: Tlb,
    /// Walks that may be met again: not state.
    pub(crate) walks: WalkMemo,
}

/// The segment registers after reset, by [`SegmentName`] (SDM Vol. 3A "Processor State After Reset").
pub fn segments_after_reset() -> [Segment; 8] {
    let segment =
        |rights, base| Segment { selector: Selector(0), rights: AccessRights(rights), limit: 0xffff, base };
    let mut segments = [segment(0x93, 0); 8];
    segments[SegmentName::Cs as usize] = Segment { selector: Selector(0xf000), ..segment(0x9b, 0xffff_0000) };
    segments[SegmentName::Ldtr as usize] = segment(0x82, 0);
    segments[SegmentName::Tr as usize] = segment(0x8b, 0);
    segments
}

impl Cpu {
    /// Processor `index` of kind `model`, as after power-up, except that it is active: real mode at the reset vector.
    pub fn new(index: u8, model: Arc<Model>) -> Self {
        let segments = segments_after_reset();
        let mut gpr = [0; 16];
        gpr[Gpr::Rdx as usize] = u64::from(model.signature());
        let table = DescriptorTable { base: 0, limit: 0xffff };
        let mut cpu = Self {
            gpr,
            rip: 0xfff0,
            flags: RFlags::ONE.0,
            pending: false,
            result: 0,
            carries: 0,
            attention: Attention::default(),
            cpl: 0,
            activity: Activity::Active,
            sti_shadow: false,
            mov_ss_shadow: false,
            nmi_blocked: false,
            unblocked_by_iret: false,
            repeating: false,
            tick: 0,
            steps: 0,
            segments,
            cr0: Cr0(0x6000_0010),
            cr2: 0,
            cr3: Cr3(0),
            cr4: Cr4(0),
            efer: Efer(0),
            xcr0: 1,
            xss: 0,
            dr: [0; 4],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            gdtr: table,
            idtr: table,
            pkru: 0,
            pkrs: 0,
            pdptes: [0; 4],
            pending_debug: 0,
            control_flow: ControlFlow::default(),
            smm: false,
            smbase: RESET_BASE,
            before_smm: Interrupted::default(),
            last_port: None,
            matched_breakpoints: 0,
            trap_inhibited: false,
            checks_data: false,
            tracked: false,
            msrs: MsrFile::reset(&model, index),
            apic: LocalApic::new(OwnPage::default(), Abilities::of(&model), index.into()),
            branches: BranchRecords::default(),
            counters: Counters::new(&model),
            happened: Totals::default(),
            overflow_deadline: u64::MAX,
            slept: 0,
            monitor: Monitor::default(),
            told: 0,
            machine_check: MachineCheck::default(),
            memory_types: MemoryTypes::default(),
            interrupts: Interrupts::default(),
            delivering: None,
            injected: None,
            current: Current::default(),
            published: Published::default(),
            paging: Paging::default(),
            masks_pointers: false,
            tag: Tag::default(),
            shortcuts: [Translating::default(); 2],
            contexts: Contexts::default(),
            paging_from: None,
            index,
            model,
            vectors: Vectors::RESET,
            tlb: Tlb::new(),
            walks: WalkMemo::default(),
        };
        cpu.refresh();
        cpu
    }

    /// Puts the processor into 64-bit mode at CPL 0 with flat segments: CS selector 0x08, data selectors 0x10, paging from
    /// `cr3`. For loaders and tests; GDTR, IDTR and TR are the caller's.
    pub fn enter_long_mode(&mut self, cr3: u64, rip: u64, rsp: u64) {
        self.cr0 = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG;
        self.cr3 = Cr3(cr3);
        self.cr4 = Cr4::PAE | Cr4::PGE | Cr4::OSFXSR;
        self.efer = Efer::LME | Efer::LMA | Efer::NXE | Efer::SCE;
        let data =
            Segment { selector: Selector(0x10), rights: AccessRights(0xc093), limit: u32::MAX, base: 0 };
        for name in [SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
            self.segments[name as usize] = data;
        }
        self.segments[SegmentName::Cs as usize] =
            Segment { selector: Selector(8), rights: AccessRights(0xa09b), ..data };
        self.segments[SegmentName::Ldtr as usize] =
            Segment { rights: AccessRights(0x1_0082), ..Segment::default() };
        self.cpl = 0;
        self.rip = rip;
        self.gpr[Gpr::Rsp as usize] = rsp;
        self.refresh();
    }

    /// A general-purpose register.
    pub const fn register(&self, gpr: Gpr) -> u64 {
        self.gpr[gpr as usize]
    }

    /// A segment register.
    pub const fn segment(&self, name: SegmentName) -> &Segment {
        &self.segments[name as usize]
    }

    /// A segment register, to change. Call [`Cpu::refresh`] after changing CS or SS.
    pub const fn segment_mut(&mut self, name: SegmentName) -> &mut Segment {
        &mut self.segments[name as usize]
    }

    /// The registers that govern paging, as last refreshed.
    pub const fn paging(&self) -> &Paging {
        &self.paging
    }

    /// The tag of translations, as last refreshed.
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// The time-stamp counter as the current level reads it.
    pub const fn tsc(&self) -> u64 {
        let tick = if self.told > self.tick { self.told } else { self.tick };
        self.scaled(self.clock_at(tick).tsc).wrapping_add(self.published.tsc_offset)
    }

    /// What the current level reads of a counter that is scaled as the TSC is.
    pub(crate) const fn scaled(&self, count: u64) -> u64 {
        let ratio = self.published.tsc_ratio;
        (count as u128 * ratio.multiplier as u128 >> ratio.shift) as u64
    }

    /// The tick that it is for everybody, when this processor asks what time it is: never before what another one was told.
    pub(crate) fn tell_time(&mut self) -> u64 {
        self.told = self.told.max(self.tick);
        self.told
    }

    /// IA32_MPERF: counts at the rate of the time-stamp counter while the processor is not halted.
    pub(crate) const fn mperf(&self) -> u64 {
        crate::time::TSC.at(self.clocks()).wrapping_add(self.msrs.mperf)
    }

    /// IA32_APERF: clocks of the processor, one a tick, while it is not halted.
    pub(crate) const fn aperf(&self) -> u64 {
        self.clocks().wrapping_add(self.msrs.aperf)
    }

    /// The time-stamp counter without the extension's scaling and offset.
    pub const fn host_tsc(&self) -> u64 {
        self.clock_at(self.tick).tsc
    }
}

impl Cpu {
    /// INIT: the state after it (SDM Vol. 3A "Processor State After Reset"), waiting for a start-up IPI unless this is
    /// the bootstrap processor. Time, MSRs, XCR0, x87 and vector registers stay.
    pub(crate) fn init(&mut self) {
        let mut fresh = Self::new(self.index, self.model.clone());
        fresh.cr0 = Cr0(fresh.cr0.0 & !0x6000_0000 | self.cr0.0 & 0x6000_0000);
        fresh.msrs = self.msrs;
        fresh.branches = self.branches;
        fresh.machine_check = self.machine_check;
        fresh.memory_types = self.memory_types;
        fresh.counters = self.counters;
        fresh.happened = self.happened;
        fresh.overflow_deadline = self.overflow_deadline;
        fresh.slept = self.slept;
        fresh.told = self.told;
        fresh.xcr0 = self.xcr0;
        fresh.xss = self.xss;
        fresh.vectors = self.vectors.clone();
        fresh.tick = self.tick;
        fresh.steps = self.steps;
        fresh.interrupts = self.interrupts;
        fresh.interrupts.init = false;
        fresh.apic = self.apic.clone();
        fresh.apic.init();
        fresh.published = self.published;
        fresh.smbase = self.smbase;
        fresh.activity = if self.is_bootstrap() { Activity::Active } else { Activity::WaitForSipi };
        *self = fresh;
        self.refresh();
    }

    /// A start-up IPI: real mode at `vector` * 0x1000.
    pub(crate) fn start(&mut self, vector: u8) {
        let cs = self.segment_mut(SegmentName::Cs);
        cs.selector = Selector(u16::from(vector) << 8);
        cs.base = u64::from(vector) << 12;
        self.rip = 0;
        self.activity = Activity::Active;
        self.refresh();
    }
}

//! What is derived from the registers: paging, tags, attention.

use super::{Activity, Attention, Cpu, Gate, Published, Translating};
use crate::apic::Local;
use crate::breakpoints::Condition;
use crate::counters::{Counters, Occupation, Register, Totals};
use crate::fault::Fault;
use crate::msr::MEM_ENCRYPTION_MOD_EN;
use rootmode_arch::{Cr0, Cr3, Cr4, DebugCtl, Efer, RFlags, Vendor};
use rootmode_mmu::{Paging, PagingMode, PdpteFault, PhysicalMemory, SecondStage, Tag, load_pdptes};

impl Cpu {
    /// Recomputes what is derived: paging registers, tags, attention. Call it after changing CR0, CR3, CR4, EFER, CPL,
    /// PKRU, segments, pending events, blocking by NMI, activity, shadows or [`Published`](super::Published) from outside the handlers.
    pub fn refresh(&mut self) {
        if self.counters.are_enabled() {
            self.settle_counters();
        }
        let from = (self.cr0, self.cr4, self.efer);
        if self.paging_from != Some(from) {
            self.paging_from = Some(from);
            self.paging = self.paging_registers();
        }
        self.paging.c_bit = self.c_bit();
        self.paging.cr3 = Cr3(self.cr3.0 & !self.paging.c_bit);
        self.paging.pdptes = self.pdptes;
        self.paging.pkru = self.pkru;
        self.paging.pkrs = self.pkrs;
        self.masks_pointers =
            self.cr4.contains(Cr4::LAM_SUP) || self.cr3.0 & (Cr3::LAM_U48 | Cr3::LAM_U57).0 != 0;
        self.tag = Tag {
            space: self.published.space,
            pcid: self.paging.pcid(),
            root: match self.published.second_stage {
                // What AMD documents as the tag is the ASID alone; a tame machine tells roots apart as well.
                SecondStage::Npt(_) if self.tlb.remembers_origins() => 1,
                second => second.root_tag(),
            },
        };
        let Published { second_stage, apic_access, .. } = self.published;
        let (tag, paging) = (self.tag, &self.paging);
        if !self.shortcuts[0].is(tag, &second_stage, &apic_access, paging) {
            let now = Translating { tag, second_stage, apic_access, paging: *paging, number: 0 };
            self.shortcuts.swap(0, 1);
            let known = self.shortcuts[0].is(tag, &second_stage, &apic_access, &now.paging);
            self.tlb.switch_shortcuts(known);
            if !known {
                self.shortcuts[0] = self.contexts.numbered(now);
            }
        }
        self.update_attention();
    }

    /// A number for the paging registers and the second stage, as last refreshed: others never have it.
    pub(crate) fn translation_context(&self) -> u64 {
        let context = &self.shortcuts[0];
        debug_assert_eq!((context.paging, context.second_stage), (self.paging, self.published.second_stage));
        context.number
    }

    /// What governs translation, from the registers.
    fn paging_registers(&self) -> Paging {
        let cr4 = self.cr4;
        Paging {
            cr3: self.cr3,
            pdptes: self.pdptes,
            mode: PagingMode::of(self.cr0, cr4, self.efer),
            write_protect: self.cr0.contains(Cr0::WP),
            no_execute: self.efer.contains(Efer::NXE),
            smep: cr4.contains(Cr4::SMEP),
            smap: cr4.contains(Cr4::SMAP),
            pcide: cr4.contains(Cr4::PCIDE),
            global: cr4.contains(Cr4::PGE),
            huge_pages: self.model.features().has(rootmode_arch::Feature::Page1Gb),
            protection_keys: cr4.contains(Cr4::PKE),
            supervisor_keys: cr4.contains(Cr4::PKS),
            lam_supervisor: cr4.contains(Cr4::LAM_SUP),
            top_global_reserved: self.model.vendor() == Vendor::Amd,
            pkru: self.pkru,
            pkrs: self.pkrs,
            physical_width: self.model.physical_width(),
            c_bit: self.c_bit(),
        }
    }

    /// The C-bit of the physical addresses that the host writes, as a mask; 0 while memory encryption is off
    /// (APM Vol. 2 "Secure Memory Encryption": SYSCFG.MemEncryptionModEn). Encryption is the identity here.
    pub fn host_c_bit(&self) -> u64 {
        if self.msrs.syscfg & MEM_ENCRYPTION_MOD_EN != 0 { self.model.c_bit() } else { 0 }
    }

    /// The C-bit in page tables and CR3: a guest has one only with SEV.
    pub(crate) fn c_bit(&self) -> u64 {
        if self.published.guest { self.published.c_bit } else { self.host_c_bit() }
    }

    /// Reloads the PDPTE registers from the table at CR3 if CR0, CR4 and EFER mean PAE paging, through
    /// [`Published::second_stage`](super::Published). For extensions that have replaced control registers; call [`Cpu::refresh`] afterwards.
    ///
    /// # Errors
    /// [`PdpteFault`]; the registers keep their values.
    pub fn reload_pdptes(&mut self, memory: &mut PhysicalMemory) -> Result<(), PdpteFault> {
        if PagingMode::of(self.cr0, self.cr4, self.efer) == PagingMode::Pae {
            let width = self.model.physical_width();
            let c_bit = self.c_bit();
            self.pdptes = load_pdptes(memory, &self.published.second_stage, self.cr3, width, c_bit)?;
        }
        Ok(())
    }

    /// Changes the privilege level (0 to 3). Paging, tags and attention follow with [`Self::refresh`].
    pub fn set_level(&mut self, level: u8) {
        self.cpl = level;
        if self.counters.are_enabled() {
            self.settle_counters();
        }
    }

    /// Brings the performance counters up to date.
    #[cold]
    pub(crate) fn settle_counters(&mut self) {
        let (counters, interrupts) = self.counted();
        self.counters = counters;
        if interrupts {
            if self.msrs.debugctl & DebugCtl::FREEZE_PERFMON_ON_PMI.0 != 0 {
                self.counters.freeze();
            }
            self.local_interrupt(Local::Performance);
        }
        self.watch_overflow();
    }

    /// Writes a register of the counters.
    ///
    /// # Errors
    /// #GP(0) for what the processor reserves.
    pub(crate) fn write_counters(&mut self, register: Register, value: u64) -> Result<(), Fault> {
        self.settle_counters();
        self.counters.write(register, value)?;
        self.watch_overflow();
        self.update_attention();
        Ok(())
    }

    /// Loads IA32_PERF_GLOBAL_CTRL, as an extension does with a value that it has checked; bits that are not there stay 0.
    pub fn set_perf_global_ctrl(&mut self, value: u64) {
        let value = value & self.counters.global_mask();
        let written = self.write_counters(Register::Enabled, value);
        debug_assert!(written.is_ok(), "only bits that the register has are written");
    }

    /// After the counters were settled or changed: when one can overflow.
    fn watch_overflow(&mut self) {
        let deadline = self.counters.patience().map_or(u64::MAX, |ticks| self.tick.saturating_add(ticks));
        if deadline < self.overflow_deadline {
            self.attention.0 |= Attention::COUNTERS;
        }
        self.overflow_deadline = deadline;
    }

    /// The performance counters as they are now.
    pub(crate) fn settled_counters(&self) -> Counters {
        self.counted().0
    }

    /// The same, and whether an overflow interrupts.
    fn counted(&self) -> (Counters, bool) {
        let mut counters = self.counters;
        let occupation = Occupation {
            user: self.cpl != 0,
            guest: self.published.guest,
            svm: self.efer.contains(Efer::SVME),
        };
        let totals = Totals { clocks: self.clocks(), ..self.happened };
        let interrupts = counters.settle(totals, occupation);
        (counters, interrupts)
    }

    /// Ticks in which the processor was neither halted nor waiting for a start-up IPI.
    pub(crate) const fn clocks(&self) -> u64 {
        self.tick.wrapping_sub(self.slept)
    }

    /// Whether unaligned data accesses raise #AC: at CPL 3 with CR0.AM and RFLAGS.AC.
    pub(crate) const fn checks_alignment(&self) -> bool {
        self.cpl == 3 && self.cr0.contains(Cr0::AM) && self.flags & RFlags::AC.0 != 0
    }

    /// Whether something waits at the interrupt inputs that the processor would take now, shadows aside.
    fn is_interrupted(&self) -> bool {
        let waiting = &self.interrupts;
        if waiting.any() {
            let nmi_open = match self.published.nmi_gate {
                Gate::Normal => !self.nmi_blocked,
                Gate::Open => true,
                Gate::Closed => false,
            };
            let system = (waiting.smi || waiting.init) && !self.smm && !self.published.held;
            if system || waiting.nmi && nmi_open || waiting.sipi.is_some() {
                return true;
            }
        }
        let open = match self.published.interrupt_gate {
            Gate::Normal => self.flags & RFlags::IF.0 != 0,
            Gate::Open => true,
            Gate::Closed => false,
        };
        (open || self.wakes_for_masked()) && self.pending_interrupt().is_some()
    }

    /// Recomputes [`Cpu::attention`] alone.
    pub fn update_attention(&mut self) {
        let mut bits = self.attention.0 & (Attention::EFFECTS | Attention::COUNTERS);
        if self.is_interrupted() {
            bits |= Attention::INTERRUPT;
        }
        if self.flags & RFlags::TF.0 != 0 || self.pending_debug != 0 {
            bits |= Attention::DEBUG;
        }
        if self.sti_shadow || self.mov_ss_shadow {
            bits |= Attention::SHADOW;
        }
        if self.injected.is_some() {
            bits |= Attention::INJECTED;
        }
        if self.published.boundary || self.interrupts.doorbell {
            bits |= Attention::EXTENSION;
        }
        if self.activity != Activity::Active {
            bits |= Attention::INACTIVE;
        }
        if self.flags & RFlags::RF.0 != 0 {
            bits |= Attention::RESUME;
        }
        if self.enforces_control_flow() {
            bits |= Attention::CONTROL_FLOW;
        }
        if self.records_branches() || self.counters.count_branches() {
            bits |= Attention::BRANCHES;
        }
        self.tracked = self.tracks_branches(self.cpl);
        // Quick forms look at shortcuts only, which hostile hardware does not keep.
        self.checks_data = self.checks_alignment() || self.tlb.remembers_origins();
        if self.dr7 & 0xff != 0 {
            bits |= Attention::BREAKPOINT;
            self.checks_data |= self.has_breakpoint(&[Condition::Write, Condition::ReadOrWrite]);
        }
        self.attention = Attention(bits);
    }
}

//! [`View`]: everything that [`decide`](super::decide) may read, as plain public fields.

use crate::bitmap::{Bitmaps, LeafBitmap, XssBitmap};
use crate::definitions::controls::Word;
use crate::information::Interruptibility;
use crate::{
    Control, ExitControls, Field, PinControls, PrimaryControls, SecondaryControls, TertiaryControls, Vmcs,
};
use rootmode_arch::{Cr0, Cr4, Efer, RFlags};

/// What a decision reads: the current VMCS's controls, a few values of the processor, and the bitmaps in place.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, B: Bitmaps + ?Sized> {
    /// VMCS fields and facts of the processor model: they change only while the guest does not run.
    pub controls: &'a Controls,
    /// What changes while the guest runs.
    pub processor: &'a Processor,
    /// The bitmap pages that the VMCS points to.
    pub bitmaps: &'a B,
}

/// The fields of the current VMCS that decide about exits, raw as VMREAD returns them, and what the processor model
/// adds. All zero ([`Default`]) is a VMCS in which nothing conditional exits.
///
/// Secondary controls count as 0 unless "activate secondary controls" is 1, likewise tertiary ones, whatever the
/// fields hold: [`Controls::is_on`] does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Controls {
    /// Pin-based VM-execution controls.
    pub pin: PinControls,
    /// Primary processor-based VM-execution controls.
    pub primary: PrimaryControls,
    /// Secondary processor-based VM-execution controls.
    pub secondary: SecondaryControls,
    /// Tertiary processor-based VM-execution controls.
    pub tertiary: TertiaryControls,
    /// Primary VM-exit controls.
    pub exit: ExitControls,
    /// VM-function controls; read only if "enable VM functions" is 1.
    pub vm_functions: u64,
    /// Exception bitmap: bit *n* for vector *n*.
    pub exception_bitmap: u32,
    /// Page-fault error-code mask.
    pub page_fault_mask: u32,
    /// Page-fault error-code match.
    pub page_fault_match: u32,
    /// CR0 guest/host mask.
    pub cr0_mask: u64,
    /// CR0 read shadow.
    pub cr0_shadow: u64,
    /// CR4 guest/host mask.
    pub cr4_mask: u64,
    /// CR4 read shadow.
    pub cr4_shadow: u64,
    /// CR3-target values.
    pub cr3_targets: [u64; 4],
    /// CR3-target count: how many of the values are considered (more than 4 counts as 4).
    pub cr3_target_count: u32,
    /// TPR threshold: bits 3:0.
    pub tpr_threshold: u32,
    /// EOI-exit bitmaps 0 to 3: bit *v* mod 64 of word *v* / 64 for vector *v*.
    pub eoi_exit_bitmap: [u64; 4],
    /// Posted-interrupt notification vector: bits 7:0.
    pub posted_interrupt_vector: u16,
    /// XSS-exiting bitmap.
    pub xss_bitmap: XssBitmap,
    /// ENCLS-exiting bitmap.
    pub encls_bitmap: LeafBitmap,
    /// ENCLV-exiting bitmap.
    pub enclv_bitmap: LeafBitmap,
    /// PCONFIG-exiting bitmap.
    pub pconfig_bitmap: LeafBitmap,
    /// PLE_Gap, in ticks of the TSC.
    pub ple_gap: u32,
    /// PLE_Window, in ticks of the TSC.
    pub ple_window: u32,
    /// What the processor model adds.
    pub traits: Traits,
}

/// Facts of the processor model that change what an exit reports or when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traits {
    /// INS and OUTS report instruction information (IA32_VMX_BASIC bit 54).
    pub ins_outs_information: bool,
    /// EPT violations report advanced information (IA32_VMX_EPT_VPID_CAP bit 22).
    pub advanced_ept_information: bool,
    /// Latitude: blocking by STI also prevents NMI-window exits (SDM: "may also prevent").
    pub sti_blocks_nmi_window: bool,
}

/// What changes while the guest runs.
///
/// [`Default`] is real-address mode at CPL 0 with all bits 0: set at least CR0.PE for anything newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Processor {
    /// CR0 (the real one, not the read shadow).
    pub cr0: Cr0,
    /// CR4 (the real one).
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// RFLAGS.
    pub rflags: RFlags,
    /// CS.L: with EFER.LMA = 1, the processor is in 64-bit mode.
    pub cs_long: bool,
    /// Current privilege level, 0 to 3. PAUSE brings its own.
    pub cpl: u8,
    /// Interruptibility state; with "virtual NMIs" = 1, bit 3 is virtual-NMI blocking.
    pub interruptibility: Interruptibility,
    /// VTPR: the byte at offset 0x80 of the virtual-APIC page. Its bits 7:4 are compared with the TPR threshold.
    pub vtpr: u8,
    /// IA32_XSS.
    pub xss: u64,
    /// PAUSEs at CPL 0 seen since VM entry.
    pub pause_loop: PauseLoop,
    /// The last VM entry injected a pending MTF VM exit, and it has not happened yet.
    pub pending_mtf: bool,
    /// The event is met while an event is delivered: the exit will set the valid bit of IDT-vectoring information.
    pub in_delivery: bool,
    /// The event is met during IRET, and blocking by NMI (of virtual NMIs if "virtual NMIs" is 1) was in effect before it.
    pub iret_unblocks_nmi: bool,
    /// The write to the APIC-access page that this operation had virtualized before this access: offset and bytes.
    pub apic_write_virtualized: Option<(u16, u8)>,
    /// The 32 bits at offset 4 of the virtualization-exception information area are not all 0 (no #VE possible).
    pub virtualization_exception_busy: bool,
    /// The access that the second stage refused may not become a #VE for its own sake (an asynchronous access).
    pub asynchronous: bool,
    /// ENQCMD, ENQCMDS: the PASID's translation failed (directory or table entry not valid).
    pub pasid_translation_failed: bool,
}

/// The two times that PAUSE-loop exiting keeps, both TSC values; `None` until the first PAUSE at CPL 0 after VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PauseLoop {
    /// When the PAUSE was executed that counts as the first of the loop.
    pub first: Option<u64>,
    /// When the last PAUSE was executed.
    pub last: Option<u64>,
}

impl PauseLoop {
    /// Whether a PAUSE at `tsc` starts a loop: the first at CPL 0 after VM entry, or more than `gap` after the last one.
    pub const fn starts(self, gap: u32, tsc: u64) -> bool {
        match (self.first, self.last) {
            (Some(_), Some(last)) => tsc.wrapping_sub(last) > gap as u64,
            _ => true,
        }
    }
    /// Whether a PAUSE at `tsc` exits: it does not start a loop and comes more than `window` after the loop's first.
    pub const fn exits(self, gap: u32, window: u32, tsc: u64) -> bool {
        match self.first {
            Some(first) => !self.starts(gap, tsc) && tsc.wrapping_sub(first) > window as u64,
            None => false,
        }
    }
    /// The state after a PAUSE at `tsc` that did not exit.
    #[must_use]
    pub const fn after(self, gap: u32, tsc: u64) -> Self {
        let first = if self.starts(gap, tsc) { Some(tsc) } else { self.first };
        Self { first, last: Some(tsc) }
    }
}

impl Controls {
    /// From a VMCS as values; fields that are unknown there count as 0.
    pub fn of(vmcs: &Vmcs, traits: Traits) -> Self {
        let long = |field| vmcs.value(field);
        let word = |field| vmcs.value(field) as u32;
        use Field as F;
        Self {
            pin: PinControls(word(F::PinControls)),
            primary: PrimaryControls(word(F::PrimaryControls)),
            secondary: SecondaryControls(word(F::SecondaryControls)),
            tertiary: TertiaryControls(long(F::TertiaryControls)),
            exit: ExitControls(word(F::ExitControls)),
            vm_functions: long(F::VmFunctionControls),
            exception_bitmap: word(F::ExceptionBitmap),
            page_fault_mask: word(F::PageFaultErrorMask),
            page_fault_match: word(F::PageFaultErrorMatch),
            cr0_mask: long(F::Cr0Mask),
            cr0_shadow: long(F::Cr0Shadow),
            cr4_mask: long(F::Cr4Mask),
            cr4_shadow: long(F::Cr4Shadow),
            cr3_targets: [F::Cr3Target0, F::Cr3Target1, F::Cr3Target2, F::Cr3Target3].map(long),
            cr3_target_count: word(F::Cr3TargetCount),
            tpr_threshold: word(F::TprThreshold),
            eoi_exit_bitmap: [F::EoiExitBitmap0, F::EoiExitBitmap1, F::EoiExitBitmap2, F::EoiExitBitmap3]
                .map(long),
            posted_interrupt_vector: long(F::PostedInterruptVector) as u16,
            xss_bitmap: XssBitmap(long(F::XssExitingBitmap)),
            encls_bitmap: LeafBitmap(long(F::EnclsExitingBitmap)),
            enclv_bitmap: LeafBitmap(long(F::EnclvExitingBitmap)),
            pconfig_bitmap: LeafBitmap(long(F::PconfigExitingBitmap)),
            ple_gap: word(F::PleGap),
            ple_window: word(F::PleWindow),
            traits,
        }
    }

    /// Whether a control is 1 and its word is activated. Entry and secondary exit controls decide no exit: false.
    #[inline]
    pub const fn is_on(&self, control: Control) -> bool {
        let word = match control.word {
            Word::Pin => self.pin.0 as u64,
            Word::Primary => self.primary.0 as u64,
            Word::Secondary if self.primary.contains(PrimaryControls::ACTIVATE_SECONDARY) => {
                self.secondary.0 as u64
            }
            Word::Tertiary if self.primary.contains(PrimaryControls::ACTIVATE_TERTIARY) => self.tertiary.0,
            Word::Exit => self.exit.0 as u64,
            _ => 0,
        };
        word >> (control.bit & 63) & 1 != 0
    }

    /// Whether all of these secondary controls are 1 and activated.
    #[inline]
    pub const fn has_secondary(&self, controls: SecondaryControls) -> bool {
        self.primary.contains(PrimaryControls::ACTIVATE_SECONDARY) && self.secondary.contains(controls)
    }
}

impl Processor {
    /// Whether the processor is in 64-bit mode.
    pub const fn is_64_bit(&self) -> bool {
        self.efer.contains(Efer::LMA) && self.cs_long
    }
}

//! Random VMX views that VM entry would accept as far as decisions are concerned.

use super::draw::{Draw, Mode};
use rootmode_arch::{Cr0, Cr4, Efer, EventClass, RFlags};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps, LeafBitmap, XssBitmap};
use rootmode_vmx::decide::{Controls, PauseLoop, Processor, Traits};
use rootmode_vmx::information::Interruptibility;
use rootmode_vmx::{ExitControls, PinControls, PrimaryControls, SecondaryControls, TertiaryControls};

/// Bitmaps whose bytes are a function of a seed: nothing is filled in advance.
#[derive(Clone, Copy, Debug)]
pub struct HashedBitmaps {
    seed: u64,
    /// 0: all zeros, 1: all ones, 2: sparse, else even.
    density: u64,
}

impl Bitmaps for HashedBitmaps {
    fn byte(&self, page: BitmapPage, offset: u16) -> u8 {
        let mut draw = Draw::new(self.seed ^ (page as u64) << 32 ^ u64::from(offset) << 16);
        match self.density {
            0 => 0,
            1 => 0xff,
            2 => (draw.bits() & draw.bits() & draw.bits()) as u8,
            _ => draw.bits() as u8,
        }
    }
}

/// What a view borrows.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Controls.
    pub controls: Controls,
    /// Processor.
    pub processor: Processor,
    /// Bitmaps.
    pub bitmaps: HashedBitmaps,
}

/// `word` with bit `bit` as `on` says.
const fn with(word: u64, bit: u32, on: bool) -> u64 {
    if on { word | 1 << bit } else { word & !(1 << bit) }
}

/// The four words of execution controls, made consistent (SDM Vol. 3C "VM-Execution Control Fields" of "Checks on VMX
/// Controls"): what VM entry refuses has no decisions.
fn control_words(draw: &mut Draw, exit: &mut u64) -> [u64; 4] {
    let [mut pin, mut primary, mut secondary, mut tertiary] = std::array::from_fn(|_| draw.word());
    primary = with(primary, 31, !draw.one_in(8));
    primary = with(primary, 17, !draw.one_in(3));
    let is_secondary = |secondary: u64, bit: u32| primary >> 31 & 1 != 0 && secondary >> bit & 1 != 0;
    if pin >> 3 & 1 == 0 {
        pin = with(pin, 5, false);
    }
    let nmi_window = primary >> 22 & 1 != 0 && pin >> 5 & 1 != 0;
    if primary >> 21 & 1 == 0 {
        secondary &= !(1 << 4 | 1 << 8 | 1 << 9);
        tertiary = with(tertiary, 4, false);
    }
    if is_secondary(secondary, 4) {
        secondary = with(secondary, 0, false);
    }
    if is_secondary(secondary, 9) {
        pin |= 1;
    } else {
        pin = with(pin, 7, false);
    }
    if pin >> 7 & 1 != 0 {
        *exit = with(*exit, 15, true);
    }
    if secondary >> 1 & 1 == 0 {
        secondary &= !(1 << 7 | 1 << 17 | 1 << 22);
    }
    [pin, with(primary, 22, nmi_window), secondary, tertiary]
}

fn controls(draw: &mut Draw) -> Controls {
    let mut exit = draw.word();
    let [pin, primary, secondary, tertiary] = control_words(draw, &mut exit);
    Controls {
        pin: PinControls(pin as u32),
        primary: PrimaryControls(primary as u32),
        secondary: SecondaryControls(secondary as u32),
        tertiary: TertiaryControls(tertiary),
        exit: ExitControls(exit as u32),
        vm_functions: draw.word(),
        exception_bitmap: draw.word() as u32,
        page_fault_mask: draw.of(&[0, 0x1f, 1, 0x15, u32::MAX]),
        page_fault_match: draw.of(&[0, 0x1f, 1, 5, 0x14, u32::MAX]),
        cr0_mask: draw.word(),
        cr0_shadow: draw.word(),
        cr4_mask: draw.word(),
        cr4_shadow: draw.word(),
        cr3_targets: std::array::from_fn(|_| draw.number()),
        cr3_target_count: draw.below(5) as u32,
        tpr_threshold: draw.below(16) as u32,
        eoi_exit_bitmap: std::array::from_fn(|_| draw.word()),
        posted_interrupt_vector: draw.below(256) as u16,
        xss_bitmap: XssBitmap(draw.word()),
        encls_bitmap: LeafBitmap(draw.word()),
        enclv_bitmap: LeafBitmap(draw.word()),
        pconfig_bitmap: LeafBitmap(draw.word()),
        ple_gap: draw.below(1500) as u32,
        ple_window: draw.below(3000) as u32,
        traits: Traits {
            ins_outs_information: draw.one_in(2),
            advanced_ept_information: draw.one_in(2),
            sti_blocks_nmi_window: draw.one_in(2),
        },
    }
}

fn processor(draw: &mut Draw, class: EventClass) -> Processor {
    let long = draw.one_in(2);
    let protected = long || !draw.one_in(4);
    let paged = long || protected && draw.one_in(2);
    // What belongs to accesses and exceptions is drawn only for those.
    let memory = matches!(
        class,
        EventClass::SecondStage | EventClass::ApicAccess | EventClass::PageModificationLogFull
    );
    let in_delivery = draw.one_in(3);
    let first = draw.below(4000);
    let paused = !draw.one_in(6);
    let last = first + draw.below(4000 - first);
    // Virtual-8086 mode is outside of real-address and long mode.
    let virtual_8086 = protected && !long && draw.one_in(4);
    let flags = if virtual_8086 { u64::MAX } else { !(1 << 17) };
    Processor {
        cr0: Cr0(draw.bits() & !0x8000_0001 | u64::from(protected) | u64::from(paged) << 31),
        cr4: Cr4(draw.word()),
        efer: Efer(if long { 0x500 } else { 0 }),
        rflags: RFlags(draw.word() & flags | 2),
        cs_long: long && !draw.one_in(3),
        cpl: if protected { draw.below(4) as u8 } else { 0 },
        interruptibility: Interruptibility(if draw.one_in(2) { 0 } else { draw.bits() as u32 & 0xf }),
        vtpr: draw.bits() as u8,
        xss: draw.word(),
        pause_loop: PauseLoop {
            first: paused.then_some(998_000 + first),
            last: paused.then_some(998_000 + last),
        },
        pending_mtf: draw.one_in(3),
        in_delivery,
        iret_unblocks_nmi: (memory || class == EventClass::Exception) && draw.one_in(3),
        apic_write_virtualized: (class == EventClass::ApicAccess && draw.one_in(3))
            .then_some((draw.of(&[0x80, 0x300, 0xb0, 0x310]), 4)),
        virtualization_exception_busy: draw.one_in(3),
        asynchronous: memory && !in_delivery && draw.one_in(6),
        pasid_translation_failed: draw.one_in(2),
    }
}

/// A random view, and what the operands of an event of `class` should be near to.
pub fn case(draw: &mut Draw, class: EventClass) -> (Case, Mode) {
    let controls = controls(draw);
    let processor = processor(draw, class);
    let bitmaps = HashedBitmaps { seed: draw.bits(), density: draw.below(5) };
    let targets = controls.cr3_targets;
    let mode = Mode {
        protected: processor.cr0.0 & 1 != 0,
        long: processor.is_64_bit(),
        near: [
            controls.cr0_shadow,
            controls.cr4_shadow,
            targets[0],
            targets[1],
            targets[3],
            u64::from(controls.page_fault_match),
            u64::from(processor.in_delivery),
            controls.posted_interrupt_vector.into(),
        ],
        all_registers: false,
    };
    (Case { controls, processor, bitmaps }, mode)
}

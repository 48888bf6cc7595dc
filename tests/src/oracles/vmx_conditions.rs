//! When a cause of VM exits applies: what its row of [`super::vmx_exits`] asks beside controls that must be 1. The titles are
//! those of SDM Vol. 3C (325384-083, Mar 2024).

use rootmode_arch::Event;
use rootmode_arch::event::{GuestPhysicalAccess, PortAccess, TableInstruction, VmxInstruction};
use rootmode_vmx::bitmap::{BitmapPage, Bitmaps};
use rootmode_vmx::decide::View;

/// A control: word and bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// Pin-based.
    Pin(u32),
    /// Primary processor-based.
    Primary(u32),
    /// Secondary processor-based, if bit 31 of the primary word is 1.
    Secondary(u32),
    /// Tertiary processor-based, if bit 17 of the primary word is 1.
    Tertiary(u32),
}

/// What an event meets.
pub(super) type Seen<'a> = View<'a, dyn Bitmaps + 'a>;

/// Whether a control is 1 and its word counts.
pub(super) fn on(view: &Seen<'_>, control: On) -> bool {
    let c = view.controls;
    match control {
        On::Pin(bit) => c.pin.0 >> bit & 1 != 0,
        On::Primary(bit) => c.primary.0 >> bit & 1 != 0,
        On::Secondary(bit) => c.primary.0 >> 31 & 1 != 0 && c.secondary.0 >> bit & 1 != 0,
        On::Tertiary(bit) => c.primary.0 >> 17 & 1 != 0 && c.tertiary.0 >> bit & 1 != 0,
    }
}

pub(super) fn is_64_bit(view: &Seen<'_>) -> bool {
    view.processor.efer.0 >> 10 & 1 != 0 && view.processor.cs_long
}

pub(super) fn is(event: &Event, wanted: VmxInstruction) -> bool {
    matches!(event, Event::Vmx { instruction, .. } if *instruction == wanted)
}

/// An instruction of VMX operation that is not an invalid opcode in this mode: CR0.PE = 1, RFLAGS.VM = 0, and no
/// compatibility mode ("VMX Instruction Reference", Operation sections; VMCALL and VMFUNC have no such checks).
pub(super) fn is_valid(view: &Seen<'_>, event: &Event, wanted: VmxInstruction) -> bool {
    let p = view.processor;
    let compatibility = p.efer.0 >> 10 & 1 != 0 && !p.cs_long;
    is(event, wanted) && p.cr0.0 & 1 != 0 && p.rflags.0 >> 17 & 1 == 0 && !compatibility
}

pub(super) fn of_gdtr_or_idtr(event: &Event) -> bool {
    use TableInstruction as T;
    matches!(event, Event::DescriptorTable { instruction: T::Sgdt | T::Sidt | T::Lgdt | T::Lidt, .. })
}

pub(super) fn cr(event: &Event) -> u8 {
    match event {
        Event::CrRead { cr, .. } | Event::CrWrite { cr, .. } => *cr,
        _ => u8::MAX,
    }
}

/// "Exception Bitmap": a page fault's bit counts as it is if the masked error code matches, else inverted.
pub(super) fn exception_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Exception(e) = event else { return false };
    let bit = view.controls.exception_bitmap >> e.vector & 1 != 0;
    if e.vector != 14 {
        return bit;
    }
    let code = e.error_code.unwrap_or(0);
    bit == (code & view.controls.page_fault_mask == view.controls.page_fault_match)
}

/// "Posted-Interrupt Processing": the notification vector does not exit.
pub(super) fn interrupt_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::ExternalInterrupt { vector } = event else { return false };
    !(on(view, On::Pin(7)) && u64::from(*vector) == u64::from(view.controls.posted_interrupt_vector) & 0xff)
}

/// RFLAGS.IF = 1, no blocking by STI (bit 0) or by MOV SS (bit 1).
pub(super) fn interrupt_window(view: &Seen<'_>, _: &Event) -> bool {
    view.processor.rflags.0 >> 9 & 1 != 0 && view.processor.interruptibility.0 & 0b11 == 0
}

/// No virtual-NMI blocking (bit 3), no blocking by MOV SS; STI is the processor's choice.
pub(super) fn nmi_window(view: &Seen<'_>, _: &Event) -> bool {
    let sti = u32::from(view.controls.traits.sti_blocks_nmi_window);
    view.processor.interruptibility.0 & (0b1010 | sti) == 0
}

/// "TPR Virtualization": with virtual-interrupt delivery, the PPR is evaluated instead.
pub(super) fn below_threshold(view: &Seen<'_>, _: &Event) -> bool {
    !on(view, On::Secondary(9)) && u32::from(view.processor.vtpr >> 4) < view.controls.tpr_threshold & 0xf
}

pub(super) fn misconfigured(_: &Seen<'_>, event: &Event) -> bool {
    matches!(event, Event::SecondStage(access) if access.misconfigured)
}

/// "Convertible EPT Violations": with bit 18 and bit 63 of the entry 0, protected mode, no event in delivery, and a free
/// information area, it is an exception and no exit.
pub(super) fn violated(view: &Seen<'_>, event: &Event) -> bool {
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

pub(super) fn eoi_exits(view: &Seen<'_>, event: &Event) -> bool {
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

pub(super) fn is_guest_physical(access: &GuestPhysicalAccess) -> bool {
    access.linear.is_none() || access.table_walk
}

/// "Virtualizing Memory-Mapped APIC Accesses": whether an access is not virtualized.
pub(super) fn apic_access_exits(view: &Seen<'_>, event: &Event) -> bool {
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

/// TS (bit 3) is set in the mask and in the read shadow.
pub(super) fn clts_exits(view: &Seen<'_>, _: &Event) -> bool {
    view.controls.cr0_mask & view.controls.cr0_shadow & 8 != 0
}

pub(super) fn lmsw_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Lmsw { source, .. } = event else { return false };
    let (source, mask, shadow) = (u64::from(*source), view.controls.cr0_mask, view.controls.cr0_shadow);
    let sets_pe = mask & 1 != 0 && source & 1 != 0 && shadow & 1 == 0;
    sets_pe || mask & 0b1110 & (source ^ shadow) != 0
}

pub(super) fn cr0_exits(view: &Seen<'_>, event: &Event) -> bool {
    let c = view.controls;
    matches!(event, Event::CrWrite { cr: 0, value, .. } if (value ^ c.cr0_shadow) & c.cr0_mask != 0)
}

pub(super) fn cr4_exits(view: &Seen<'_>, event: &Event) -> bool {
    let c = view.controls;
    matches!(event, Event::CrWrite { cr: 4, value, .. } if (value ^ c.cr4_shadow) & c.cr4_mask != 0)
}

pub(super) fn cr3_exits(view: &Seen<'_>, event: &Event) -> bool {
    let count = view.controls.cr3_target_count.min(4) as usize;
    matches!(event, Event::CrWrite { cr: 3, value, .. } if !view.controls.cr3_targets[..count].contains(value))
}

/// Bit n for leaf n below 63, bit 63 for the others.
pub(super) fn leaf_exits(bitmap: u64, event: &Event) -> bool {
    let (Event::Encls { leaf } | Event::Enclv { leaf } | Event::Pconfig { leaf }) = event else {
        return false;
    };
    bitmap >> (*leaf).min(63) & 1 != 0
}

pub(super) fn pasid_exits(view: &Seen<'_>, event: &Event, of: bool) -> bool {
    matches!(event, Event::Enqcmd { supervisor, .. } if *supervisor == of)
        && view.processor.pasid_translation_failed
}

/// A bit of the I/O bitmaps for any byte of the access, or a wrap from 0xffff to 0.
pub(super) fn port_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::PortIo(PortAccess { port, size, .. }) = event else { return false };
    (0..u32::from(*size)).any(|i| {
        let port = u32::from(*port) + i;
        let page = if port < 0x8000 { BitmapPage::IoA } else { BitmapPage::IoB };
        port > 0xffff || view.bitmaps.byte(page, (port % 0x8000 / 8) as u16) >> (port % 8) & 1 != 0
    })
}

/// "PAUSE": only at CPL 0, and only if PAUSE exiting is 0 (its row comes first).
pub(super) fn pause_loop_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Pause { cpl, tsc } = event else { return false };
    let (Some(first), Some(last)) = (view.processor.pause_loop.first, view.processor.pause_loop.last) else {
        return false;
    };
    let (gap, window) = (u64::from(view.controls.ple_gap), u64::from(view.controls.ple_window));
    *cpl == 0 && tsc.wrapping_sub(last) <= gap && tsc.wrapping_sub(first) > window
}

/// "MSR Bitmaps": read low, read high, write low, write high, 1024 bytes each; no bitmap and other MSRs always exit.
pub(super) fn msr_exits(view: &Seen<'_>, event: &Event) -> bool {
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
pub(super) fn shadow_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Vmx { instruction, value, .. } = event else { return false };
    let page = if *instruction == VmxInstruction::Vmread { BitmapPage::Vmread } else { BitmapPage::Vmwrite };
    let bit = || view.bitmaps.byte(page, (value / 8) as u16) >> (value % 8) & 1 != 0;
    !on(view, On::Secondary(14)) || value >> 15 != 0 || bit()
}

/// "XSS-Exiting Bitmap".
pub(super) fn xss_exits(view: &Seen<'_>, event: &Event) -> bool {
    let (Event::Xsaves { mask, .. } | Event::Xrstors { mask, .. }) = event else { return false };
    mask & view.processor.xss & view.controls.xss_bitmap.0 != 0
}

/// "VM Functions": a function that is not enabled; EPTP switching (function 0) with ECX beyond the list.
pub(super) fn vmfunc_exits(view: &Seen<'_>, event: &Event) -> bool {
    let Event::Vmx { instruction: VmxInstruction::Vmfunc, value, .. } = event else { return false };
    let (eax, ecx) = (value & 0xffff_ffff, value >> 32);
    view.controls.vm_functions >> eax & 1 == 0 || eax == 0 && ecx >= 512
}

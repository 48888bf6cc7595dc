//! Accesses that do not exit although they are special: virtualized accesses to the APIC-access page, and EPT violations that become
//! virtualization exceptions.

use super::view::{Controls, Processor};
use crate::{PrimaryControls, SecondaryControls, TertiaryControls};
use rootmode_arch::Cr0;
use rootmode_arch::event::GuestPhysicalAccess;

/// Whether an EPT violation causes a virtualization exception (#VE) instead of a VM exit.
///
/// The entry's bit 63 (suppress #VE) is taken from `access.entry`: the EPT entry at which the walk ended, present or not.
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "Virtualization Exceptions", "Convertible EPT Violations".
pub fn converts_to_virtualization_exception(
    controls: &Controls,
    processor: &Processor,
    access: &GuestPhysicalAccess,
) -> bool {
    controls.has_secondary(SecondaryControls::ENABLE_EPT.with(SecondaryControls::EPT_VIOLATION_VE))
        && !access.misconfigured
        && access.entry >> 63 == 0
        && processor.cr0.contains(Cr0::PE)
        && !processor.in_delivery
        && !processor.asynchronous
        && !processor.virtualization_exception_busy
}

/// Whether an access of `size` bytes to the APIC-access page is redirected to the virtual-APIC page instead of exiting.
///
/// Only data accesses by a linear address can be, and only those within the low 4 bytes of a 16-byte register.
/// Source: SDM Vol. 3C (325384-083, Mar 2024) "Virtualizing Reads from the APIC-Access Page",
/// "Virtualizing Writes to the APIC-Access Page", "Guest-Physical Accesses to the APIC-Access Page".
pub fn apic_access_is_virtualized(
    controls: &Controls,
    processor: &Processor,
    access: &GuestPhysicalAccess,
    size: u8,
) -> bool {
    let offset = access.address.page_offset() as u16;
    if !controls.primary.contains(PrimaryControls::USE_TPR_SHADOW)
        || access.linear.is_none()
        || access.table_walk
        || access.fetch
        || size == 0
        || u16::from(size) + (offset & 15) > 4
    {
        return false;
    }
    let all_registers = controls.has_secondary(SecondaryControls::APIC_REGISTER_VIRTUALIZATION);
    if access.write {
        // A second write of an operation must be the one that was virtualized first, byte for byte.
        if processor.apic_write_virtualized.is_some_and(|first| first != (offset, size)) {
            return false;
        }
        if all_registers {
            return WRITABLE.contains(&(offset & 0xff0));
        }
        let interrupts = controls.has_secondary(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY);
        let ipis = controls.primary.contains(PrimaryControls::ACTIVATE_TERTIARY)
            && controls.tertiary.contains(TertiaryControls::IPI_VIRTUALIZATION);
        match offset {
            0x080 => true,
            0x0b0 => interrupts,
            0x300 => interrupts || ipis,
            _ => false,
        }
    } else if processor.apic_write_virtualized.is_some() {
        false
    } else if all_registers {
        READABLE.iter().any(|(first, last)| (*first..=*last).contains(&(offset & 0xff0)))
    } else {
        offset == 0x080
    }
}

/// Registers whose reads are virtualized with "APIC-register virtualization": ID, version, TPR, EOI, LDR, DFR and SVR,
/// ISR, TMR, IRR and ESR, ICR, LVT entries and initial count, divide configuration.
const READABLE: [(u16, u16); 8] = [
    (0x020, 0x030),
    (0x080, 0x080),
    (0x0b0, 0x0b0),
    (0x0d0, 0x0f0),
    (0x100, 0x280),
    (0x300, 0x310),
    (0x320, 0x380),
    (0x3e0, 0x3e0),
];

/// Registers whose writes are virtualized with "APIC-register virtualization".
const WRITABLE: [u16; 17] = [
    0x020, 0x080, 0x0b0, 0x0d0, 0x0e0, 0x0f0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370,
    0x380, 0x3e0,
];

//! The embedded guests: a small L1 hypervisor for each vendor, and the L2 that it runs.
//!
//! What L2 does and what L1 intercepts is drawn from [`Choices`](rootmode_arch::Choices), so that one list of choices
//! is one pair of programs. L1 mixes everything that it sees into a checksum, prints it through port 0xE9 and stops
//! the machine.

mod amd;
mod emit;
pub mod encrypted;
mod image;
mod intel;
mod l2;
pub mod layout;
mod tables;
mod workload;

pub use image::{GuestError, GuestImage};
pub use l2::{ABSENT_MSR, END, Sensitive};
pub use workload::{Controls, Initially, MSRS, Operation, PORTS, Workload};

use layout::*;
use rootmode_arch::Vendor;
use rootmode_vmx::Field;

/// Assembles L1 and L2 for `workload`.
///
/// # Errors
/// [`GuestError`] if the program does not fit its place; nothing else can go wrong with drawn workloads.
pub fn assemble(workload: &Workload) -> Result<GuestImage, GuestError> {
    assemble_with(workload, None, false)
}

/// The same, where L1 keeps all that it mixes into its checksum, from [`L1_LOG`] on, and does not look at the time, which is
/// another one on each machine.
///
/// # Errors
/// [`GuestError`] if the program does not fit its place.
pub fn assemble_logged(workload: &Workload) -> Result<GuestImage, GuestError> {
    assemble_with(workload, None, true)
}

/// The same for VMX, where L1 changes fields of its VMCS before each entry: one list an entry.
///
/// # Errors
/// [`GuestError`] if something does not fit its place.
pub fn assemble_edited(workload: &Workload, edits: &[Vec<(Field, u64)>]) -> Result<GuestImage, GuestError> {
    assemble_with(workload, Some(edits), false)
}

fn assemble_with(
    workload: &Workload,
    edits: Option<&[Vec<(Field, u64)>]>,
    logged: bool,
) -> Result<GuestImage, GuestError> {
    let mut image = GuestImage::new(workload.vendor);
    image.place("L1's page tables", L1_PML4, tables::l1_paging(), 0x4000)?;
    image.place("L1's GDT", L1_GDT, tables::gdt(L1_TSS), 0x800)?;
    image.place("the second stage", SECOND_STAGE, second_stage(workload), 0x4000)?;
    match workload.vendor {
        Vendor::Intel => intel::place(&mut image, workload, edits, logged)?,
        Vendor::Amd => amd::place(&mut image, workload, logged)?,
    }
    let (handlers, entries) = l2::handlers()?;
    image.place("L2's page tables", L2_BASE + L2_PML4, tables::l2_paging(), 0x4000)?;
    image.place("L2's GDT", L2_BASE + L2_GDT, tables::gdt(L2_TSS), 0x1000)?;
    image.place("L2's IDT", L2_BASE + L2_IDT, tables::idt(&entries), 0x1000)?;
    image.place("L2's handlers", L2_BASE + L2_HANDLERS, handlers, 0x1000)?;
    image.place("L2's program", L2_BASE + L2_CODE, l2::program(workload)?, (WINDOW - L2_CODE) as usize)?;
    Ok(image)
}

/// Leaf bits of a page with all permissions, beside the address.
const fn leaf(vendor: Vendor, initially: Initially) -> Option<u64> {
    match (vendor, initially) {
        (_, Initially::Absent) => None,
        // EPT: bits 2:0 are execute, write, read; 5:3 the memory type, 6 is write-back.
        (Vendor::Intel, Initially::Mapped) => Some(0x37),
        (Vendor::Intel, Initially::ReadOnly) => Some(0x35),
        (Vendor::Intel, Initially::Malformed) => Some(0x36),
        // NPT: bits 2:0 are user, write, present.
        (Vendor::Amd, Initially::Mapped) => Some(0x07),
        (Vendor::Amd, Initially::ReadOnly) => Some(0x05),
        (Vendor::Amd, Initially::Malformed) => Some(0x07 | 1 << 51),
    }
}

/// Four levels of second-stage tables that map L2's memory as the workload says.
fn second_stage(workload: &Workload) -> Vec<u8> {
    let controls = &workload.controls;
    let mut bytes = Vec::new();
    for level in 1..4 {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&(SECOND_STAGE + level * 0x1000 | 7).to_le_bytes());
        bytes.extend(page);
    }
    for page in 0..L2_MEMORY >> 12 {
        let window = page.wrapping_sub(WINDOW >> 12);
        let initially = if window < WINDOW_PAGES {
            controls.window[window as usize]
        } else if page < 16 && controls.low_absent >> page & 1 != 0 {
            Initially::Absent
        } else {
            Initially::Mapped
        };
        let entry = leaf(workload.vendor, initially).map_or(0, |bits| L2_BASE + (page << 12) | bits);
        bytes.extend(entry.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_arch::choices::{Seeded, Tame};

    #[test]
    fn every_drawn_pair_of_programs_assembles_without_overlap() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            for seed in 0..200 {
                let workload = Workload::draw(vendor, 1 + seed, &mut Seeded::new(seed));
                let image = assemble(&workload).unwrap();
                let mut spans: Vec<_> =
                    image.segments.iter().map(|(at, b)| (*at, at + b.len() as u64)).collect();
                spans.sort_unstable();
                assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "{spans:x?}");
                assert!(spans.last().is_some_and(|s| s.1 <= image.memory));
            }
        }
    }

    #[test]
    fn the_tame_program_does_one_of_everything() {
        let workload = Workload::draw(Vendor::Intel, 15, &mut Tame);
        let kinds: std::collections::BTreeSet<_> =
            workload.operations.iter().map(|o| format!("{:?}", core::mem::discriminant(o))).collect();
        assert_eq!(kinds.len(), 15);
    }
}

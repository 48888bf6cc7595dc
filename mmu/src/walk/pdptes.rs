//! Loading the PDPTE registers (SDM Vol. 3A "PDPTE Registers").

use super::EntryMemory;
use super::second::{SecondStage, translate_guest_physical};
use super::tables::pdpte_reserved;
use super::{AccessKind, WalkFault};
use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Cr3, GuestPhysical};

/// Why the PDPTE registers cannot be loaded. They keep their values, and so does the control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PdpteFault {
    /// A present entry has a reserved bit set: #GP(0) for MOV to a control register.
    Reserved,
    /// The second stage refuses a read of the table, which has no linear address.
    SecondStage(GuestPhysicalAccess),
}

/// Reads the four PDPTEs at `cr3`, as a write to CR0, CR3 or CR4 does that results in PAE paging.
///
/// With EPT the table is read through it; the reads are no accesses to guest paging structures in its sense, and do not
/// count as writes. With nested paging nothing is loaded and nothing checked: PDPTEs are walked at each use
/// (APM Vol. 2 "Nested Paging"), and the answer is four zeroes.
///
/// `c_bit`: the C-bit of memory encryption, which the registers do not get.
///
/// # Errors
/// [`PdpteFault`].
pub fn load_pdptes<M: EntryMemory>(
    memory: &mut M,
    second: &SecondStage,
    cr3: Cr3,
    physical_width: u8,
    c_bit: u64,
) -> Result<[u64; 4], PdpteFault> {
    let mut entries = [0; 4];
    if matches!(second, SecondStage::Npt(_)) {
        return Ok(entries);
    }
    let table = cr3.0 & 0xffff_ffe0;
    for (index, entry) in entries.iter_mut().enumerate() {
        let at = GuestPhysical(table + 8 * index as u64);
        let host =
            translate_guest_physical(memory, second, at, AccessKind::Read).map_err(|fault| match fault {
                WalkFault::SecondStage(access) => PdpteFault::SecondStage(access),
                // Reads are neither refused by the first stage nor logged.
                WalkFault::Page(_) | WalkFault::LogFull => PdpteFault::Reserved,
            })?;
        *entry = memory.entry_u64(host) & !c_bit;
    }
    if are_pdptes_valid(&entries, physical_width) { Ok(entries) } else { Err(PdpteFault::Reserved) }
}

/// Whether no present entry has a reserved bit set.
pub const fn are_pdptes_valid(entries: &[u64; 4], physical_width: u8) -> bool {
    let mut index = 0;
    while index < 4 {
        if entries[index] & 1 != 0 && entries[index] & pdpte_reserved(physical_width) != 0 {
            return false;
        }
        index += 1;
    }
    true
}

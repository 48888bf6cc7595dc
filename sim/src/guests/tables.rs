//! Data that the guests' processors read: descriptor tables, gates and page tables, as little-endian bytes.

use super::layout::{ABSENT, CODE_SELECTOR, L1_MEMORY, L1_PML4, L2_PML4, WINDOW_PAGES};

/// A page-table entry: present, writable.
const TABLE: u64 = 3;
/// A page-directory entry: present, writable, 2 MiB page.
const LARGE: u64 = 0x83;

fn page(entries: impl IntoIterator<Item = (usize, u64)>) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (index, entry) in entries {
        bytes[index * 8..index * 8 + 8].copy_from_slice(&entry.to_le_bytes());
    }
    bytes
}

/// L1's page tables: the first [`L1_MEMORY`] bytes, identity, in 2 MiB pages. Three pages from [`L1_PML4`] on.
pub(super) fn l1_paging() -> Vec<u8> {
    let mut bytes = page([(0, L1_PML4 + 0x1000 | TABLE)]);
    bytes.extend(page([(0, L1_PML4 + 0x2000 | TABLE)]));
    bytes.extend(page((0..L1_MEMORY >> 21).map(|i| (i as usize, i << 21 | LARGE))));
    bytes
}

/// L2's page tables: the first 2 MiB, identity, in 4 KiB pages, the absent window left out. Four pages.
pub(super) fn l2_paging() -> Vec<u8> {
    let absent = ABSENT >> 12..(ABSENT >> 12) + WINDOW_PAGES;
    let mut bytes = Vec::new();
    for level in 1..4 {
        bytes.extend(page([(0, L2_PML4 + level * 0x1000 | TABLE)]));
    }
    bytes.extend(page((0..512u64).filter(|i| !absent.contains(i)).map(|i| (i as usize, i << 12 | TABLE))));
    bytes
}

/// A GDT with null, 64-bit code, data, and a busy 64-bit TSS at `tss` (limit 0x67).
pub(super) fn gdt(tss: u64) -> Vec<u8> {
    let low = 0x67 | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24 & 0xff) << 56;
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, low, tss >> 32]
        .iter()
        .flat_map(|d: &u64| d.to_le_bytes())
        .collect()
}

/// A 64-bit IDT of 64 entries with interrupt gates for the given (vector, handler) pairs.
pub(super) fn idt(handlers: &[(u8, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    for (vector, handler) in handlers {
        let low =
            handler & 0xffff | u64::from(CODE_SELECTOR) << 16 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48;
        let at = usize::from(*vector) * 16;
        bytes[at..at + 8].copy_from_slice(&low.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&(handler >> 32).to_le_bytes());
    }
    bytes
}

//! The pages that an emulator loads beside the ROM: page tables of the guests, second-stage tables, empty areas.

use super::layout::*;

/// The arena, to be loaded at [`ARENA`].
#[must_use]
pub fn arena() -> Vec<u8> {
    let mut arena = Arena { bytes: vec![0; ARENA_SIZE] };
    const ALL: u64 = 7; // present, writable, user; for the second stage: read, write, execute

    // Every guest sees its code page at its own address and nothing else, so that a guest which does not leave on its
    // first instruction leaves with a page fault.
    let code = GUEST_CODE >> 12;
    arena.qword(GUEST_PML4, GUEST_PDPT | ALL);
    arena.qword(GUEST_PDPT, GUEST_PD | ALL);
    arena.qword(GUEST_PD, GUEST_PT | ALL);
    arena.qword(GUEST_PT + 8 * code, GUEST_CODE | ALL);
    arena.qword(GUEST_PAE_TABLE, GUEST_PD | 1);
    arena.dword(GUEST_PD32, GUEST_PT32 as u32 | 7);
    arena.dword(GUEST_PT32 + 4 * code, GUEST_CODE as u32 | 7);

    // Second stage: the 2 MiB pages that hold the code page and the arena, identity, write-back.
    const LARGE: u64 = 1 << 7;
    const WRITE_BACK: u64 = 6 << 3;
    arena.qword(SECOND_STAGE, (SECOND_STAGE + 0x1000) | ALL);
    arena.qword(SECOND_STAGE + 0x1000, (SECOND_STAGE + 0x2000) | ALL);
    for page in [0, ARENA >> 21] {
        arena.qword(SECOND_STAGE + 0x2000 + 8 * page, (page << 21) | ALL | LARGE | WRITE_BACK);
    }
    arena.bytes
}

/// The page of guest code: `CPUID` from end to end.
#[must_use]
pub fn guest_code() -> Vec<u8> {
    [0x0F, 0xA2].repeat(0x800)
}

struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - ARENA) as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn qword(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    fn dword(&mut self, address: u64, value: u32) {
        self.put(address, &value.to_le_bytes());
    }
}

//! The PDPTE registers: what loading them checks and reads, and what nested paging does instead.

use crate::second;
use rootmode_arch::{Cr3, GuestPhysical, HostPhysical, Linear};
use rootmode_mmu::{
    Access, AccessKind, Npt, Paging, PagingMode, PdpteFault, PhysicalMemory, SecondStage, WalkFault,
    load_pdptes, translate,
};

const READ: Access = Access::data(AccessKind::Read, 0, false);

fn memory() -> PhysicalMemory {
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 0x2_0000).unwrap();
    memory
}

#[test]
fn every_reserved_bit_of_a_present_entry_is_refused_and_no_other() {
    for width in [36_u8, 46, 52] {
        for index in 0..4 {
            for bit in 1..64_u32 {
                let mut memory = memory();
                memory.write_u64(HostPhysical(0x1020 + 8 * index), 1 | 1 << bit);
                // CR3's bits 4:0 do not matter, bits 63:32 neither.
                let loaded = load_pdptes(&mut memory, &SecondStage::None, Cr3(0xf_0000_103f), width, 0);
                let reserved = [1, 2, 5, 6, 7, 8].contains(&bit) || bit >= width.into();
                assert_eq!(loaded.is_err(), reserved, "bit {bit} at width {width}");
                memory.write_u64(HostPhysical(0x1020 + 8 * index), 1 << bit);
                let absent = load_pdptes(&mut memory, &SecondStage::None, Cr3(0x1020), width, 0);
                assert_eq!(absent.unwrap()[index as usize], 1 << bit, "not present: nothing is reserved");
            }
        }
    }
}

/// EPT at 0x8000 that maps guest-physical page 1 to 0x4000 with `flags`.
fn through_ept(flags: u64) -> PhysicalMemory {
    let mut memory = memory();
    for (table, next) in [(0x8000, 0x9000), (0x9000, 0xa000), (0xa000, 0xb000)] {
        memory.write_u64(HostPhysical(table), next | 7);
    }
    memory.write_u64(HostPhysical(0xb008), 0x4000 | flags);
    for index in 0..4 {
        memory.write_u64(HostPhysical(0x4000 + 8 * index), (index + 1) << 12 | 1);
    }
    memory
}

#[test]
fn with_ept_the_table_is_read_through_it_as_a_plain_read() {
    let ept = SecondStage::Ept(rootmode_mmu::Ept { accessed_dirty: true, ..second::ept(0x8000) });
    let mut memory = through_ept(0x31);
    let loaded = load_pdptes(&mut memory, &ept, Cr3(0x1000), 46, 0);
    assert_eq!(loaded, Ok([0x1001, 0x2001, 0x3001, 0x4001]));
    let flags = memory.read_u64(HostPhysical(0xb008)) >> 8 & 3;
    assert_eq!(flags, 1, "accessed, but not dirty: loads of PDPTEs do not count as writes");

    let mut memory = through_ept(0x34);
    let Err(PdpteFault::SecondStage(access)) = load_pdptes(&mut memory, &ept, Cr3(0x1000), 46, 0) else {
        panic!("an execute-only page cannot be read");
    };
    assert_eq!((access.address, access.linear), (GuestPhysical(0x1000), None));
    assert!(access.read && !access.write && !access.table_walk && access.permissions & 7 == 4);
}

#[test]
fn with_nested_paging_entries_are_walked_from_memory_and_reserved_bits_fault_at_their_use() {
    let mut memory = memory();
    for (table, next) in [(0x8000, 0x9000), (0x9000, 0xa000), (0xa000, 0xb000)] {
        memory.write_u64(HostPhysical(table), next | 7);
    }
    for page in 0..8 {
        memory.write_u64(HostPhysical(0xb000 + 8 * page), page << 12 | 7);
    }
    let npt = SecondStage::Npt(Npt {
        root: HostPhysical(0x8000),
        mode: PagingMode::Level4,
        no_execute: true,
        smep: false,
        execute_trap: false,
        huge_pages: true,
        physical_width: 46,
        c_bit: 0,
    });
    let paging = Paging {
        cr3: Cr3(0x1000),
        // What the registers would hold is not used.
        pdptes: [0xdead_0001; 4],
        mode: PagingMode::Pae,
        physical_width: 46,
        ..Paging::default()
    };
    memory.write_u64(HostPhysical(0x1008), 0x2001);
    memory.write_u64(HostPhysical(0x2000), 0x3007);
    memory.write_u64(HostPhysical(0x3000), 0x5007);
    let at = Linear(0x4000_0042);
    assert_eq!(load_pdptes(&mut memory, &npt, Cr3(0x1000), 46, 0), Ok([0; 4]));
    assert_eq!(translate(&mut memory, &paging, &npt, at, READ).unwrap().host, HostPhysical(0x5042));
    memory.write_u64(HostPhysical(0x1008), 0x2001 | 1 << 5);
    assert_eq!(load_pdptes(&mut memory, &npt, Cr3(0x1000), 46, 0), Ok([0; 4]), "nothing is checked early");
    assert_eq!(translate(&mut memory, &paging, &npt, at, READ), Err(WalkFault::Page(9)));
    memory.write_u64(HostPhysical(0x1008), 0x2000);
    assert_eq!(translate(&mut memory, &paging, &npt, at, READ), Err(WalkFault::Page(0)));
}

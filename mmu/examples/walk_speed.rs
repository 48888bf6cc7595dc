//! Measures the walkers: `cargo run --release -p rootmode-mmu --example walk_speed`.

use rootmode_arch::{Cr3, HostPhysical, Linear};
use rootmode_mmu::{
    Access, AccessKind, Ept, Npt, Paging, PagingMode, PhysicalMemory, SecondStage, translate,
};
use std::hint::black_box;
use std::time::Instant;

/// RAM of 64 MiB. Tables of every mode at 0x1000.. map linear page n, for n below 512, to page 0x1000 + n.
fn memory() -> PhysicalMemory {
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 64 << 20).expect("an empty memory has room");
    // Guest: 5 levels from 0x1000, 4 from 0x2000, PAE from 0x4000. EPT from 0x8000; nested tables from 0xe000.
    for table in 1..5_u64 {
        memory.write_u64(HostPhysical(table << 12), (table + 1) << 12 | 0x27);
    }
    for (top, accessed) in [(0x8_u64, 0), (0xe, 0x20)] {
        for table in top..top + 3 {
            memory.write_u64(HostPhysical(table << 12), (table + 1) << 12 | 7 | accessed);
        }
    }
    memory.write_u64(HostPhysical(0xa000 + 8), 0xc007);
    memory.write_u64(HostPhysical(0x10_000 + 8), 0x12_027);
    for n in 0..512_u64 {
        memory.write_u64(HostPhysical(0x5000 + 8 * n), (0x1000 + n) << 12 | 0x67);
        for (table, flags) in [(0xb000, 0x37), (0x11_000, 0x67)] {
            memory.write_u64(HostPhysical(table + 8 * n), n << 12 | flags);
        }
    }
    // Guest-physical 0x100_0000..0x120_0000 as one large page of either second stage.
    memory.write_u64(HostPhysical(0xa000 + 8 * 8), 0x100_0000 | 0xb7);
    memory.write_u64(HostPhysical(0x10_000 + 8 * 8), 0x100_0000 | 0xe7);
    // 32-bit paging from 0x6000.
    memory.write_u32(HostPhysical(0x6000), 0x7027);
    for n in 0..512_u32 {
        memory.write_u32(HostPhysical(0x7000 + 4 * u64::from(n)), (0x1000 + n) << 12 | 0x67);
    }
    memory
}

fn main() {
    let mut memory = memory();
    let paging = |mode, cr3| Paging {
        cr3: Cr3(cr3),
        pdptes: [0x4001, 0, 0, 0],
        mode,
        write_protect: true,
        no_execute: true,
        huge_pages: true,
        physical_width: 46,
        ..Paging::default()
    };
    let ept = SecondStage::Ept(Ept {
        root: HostPhysical(0x8000),
        five_level: false,
        accessed_dirty: false,
        mode_based_execute: false,
        execute_only: true,
        huge_pages: true,
        physical_width: 46,
    });
    let npt = SecondStage::Npt(Npt {
        root: HostPhysical(0xe000),
        mode: PagingMode::Level4,
        no_execute: true,
        smep: false,
        execute_trap: false,
        huge_pages: true,
        physical_width: 46,
        c_bit: 0,
    });
    let one = SecondStage::None;
    let rows = [
        ("32-bit", PagingMode::Bits32 { pse: true }, 0x6000, one),
        ("PAE", PagingMode::Pae, 0, one),
        ("4-level", PagingMode::Level4, 0x2000, one),
        ("5-level", PagingMode::Level5, 0x1000, one),
        ("4-level on EPT", PagingMode::Level4, 0x2000, ept),
        ("4-level on nested paging", PagingMode::Level4, 0x2000, npt),
    ];
    let access = Access::data(AccessKind::Read, 0, false);
    for (name, mode, cr3, second) in rows {
        let paging = paging(mode, cr3);
        // The fastest of many short runs: what else the machine does counts least there.
        let walks = 20_000_u64;
        let run = |_| {
            let start = Instant::now();
            for n in 0..walks {
                let linear = Linear(n.wrapping_mul(0x9e37_79b9) & 0x1f_f000);
                let found = translate(&mut memory, black_box(&paging), &second, linear, access);
                assert!(black_box(found).is_ok(), "every page is mapped");
            }
            start.elapsed().as_secs_f64() * 1e9 / walks as f64
        };
        let nanoseconds = (0..200).map(run).fold(f64::INFINITY, f64::min);
        println!("{name}: {nanoseconds:.1} ns a walk");
    }
}

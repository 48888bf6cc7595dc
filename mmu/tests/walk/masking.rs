//! Linear-address masking, bit by bit (SDM Vol. 1 (253665-083, Mar 2024) "Linear-Address Masking (LAM)").

use crate::draw::Draw;
use rootmode_arch::{Cr3, Linear};
use rootmode_mmu::{Paging, PagingMode};

/// Bits from 62 down to `lowest` become copies of the bit below `lowest`.
fn masked(pointer: u64, lowest: u32) -> u64 {
    let sign = pointer >> (lowest - 1) & 1;
    (lowest..=62).fold(pointer, |value, n| value & !(1 << n) | sign << n)
}

#[test]
fn pointers_lose_exactly_the_bits_that_masking_covers() {
    let mut draw = Draw::new(7);
    for case in 0..200_000 {
        let mode = [
            PagingMode::Level4,
            PagingMode::Level5,
            PagingMode::Pae,
            PagingMode::None,
            PagingMode::Bits32 { pse: true },
        ][case % 5];
        let (u57, u48, supervisor) = (draw.one_in(2), draw.one_in(2), draw.one_in(2));
        let paging = Paging {
            cr3: Cr3(u64::from(u57) << 61 | u64::from(u48) << 62),
            mode,
            lam_supervisor: supervisor,
            ..Paging::default()
        };
        // Runs of equal bits around the borders are as likely as noise.
        let noise = draw.bits();
        let pointer = if draw.one_in(2) { (noise as i64 >> draw.below(20)) as u64 } else { noise };
        let expected = match (mode, pointer >> 63) {
            (PagingMode::Level4, 1) if supervisor => masked(pointer, 48),
            (PagingMode::Level5, 1) if supervisor => masked(pointer, 57),
            (PagingMode::Level4 | PagingMode::Level5, 0) if u57 => masked(pointer, 57),
            (PagingMode::Level4 | PagingMode::Level5, 0) if u48 => masked(pointer, 48),
            _ => pointer,
        };
        assert_eq!(paging.untag(Linear(pointer)), Linear(expected), "{pointer:#x} {paging:?}");
    }
}

#[test]
fn masking_keeps_the_boundary_between_user_and_supervisor_pointers() {
    let paging = Paging {
        cr3: Cr3(Cr3::LAM_U48.0),
        mode: PagingMode::Level4,
        lam_supervisor: true,
        ..Paging::default()
    };
    let canonical = |pointer| paging.untag(Linear(pointer)).is_canonical(48);
    assert!(canonical(0x7abc_7fff_ffff_ffff) && canonical(0x8abc_8000_0000_0000));
    assert!(!canonical(0x7abc_8000_0000_0000), "bit 47 of a user pointer must be 0");
    assert!(!canonical(0x8abc_7fff_ffff_ffff), "bit 47 of a supervisor pointer must be 1");
}

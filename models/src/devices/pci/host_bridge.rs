//! What the host bridge makes of the first MiB: programmable attribute maps and compatible SMRAM
//! (Intel 82441FX data sheet, "PAM—Programmable Attribute Map Registers", "SMRAM—System Management RAM Control Register").

use super::function::Function;
use rootmode_arch::HostPhysical;
use rootmode_mmu::{Decode, Shadow};

/// The first attribute map; there are seven.
const PAM: u8 = 0x59;
const PAM_COUNT: u8 = 7;
/// SMRAM control.
const SMRAM: u8 = 0x72;

/// Loads reach RAM.
const RE: u8 = 1;
/// Stores reach RAM.
const WE: u8 = 2;

const D_OPEN: u8 = 0x40;
const D_CLS: u8 = 0x20;
const D_LCK: u8 = 0x10;
const G_SMRAME: u8 = 0x08;
/// The only segment there is, 0xa0000, which cannot be changed.
const C_BASE_SEG: u8 = 0x02;

/// Where the last 128 KiB below 4 GiB, the firmware's, show themselves below 1 MiB as well.
const ROM_LOW: u64 = 0xe_0000;
const ROM_HIGH: u64 = 0xfffe_0000;

/// The function, as it leaves reset.
pub(super) fn function() -> Function {
    let pam = usize::from(PAM);
    Function::new(0x00, 0x8086, 0x1237, 0x06_0000, 2)
        .writable(0x50..0xa0, 0xff)
        .writable(pam..pam + 1, (RE | WE) << 4)
        .writable(pam + 1..pam + usize::from(PAM_COUNT), (RE | WE) << 4 | RE | WE)
        .writable(usize::from(SMRAM)..usize::from(SMRAM) + 1, D_OPEN | D_CLS | D_LCK | G_SMRAME)
        .preset(usize::from(SMRAM), &[C_BASE_SEG])
}

/// As firmware leaves it: RAM below 1 MiB is RAM, SMRAM is for system-management mode.
pub(super) fn function_after_firmware() -> Function {
    let all = (RE | WE) << 4;
    let pam = [all, all | 3, all | 3, all | 3, all | 3, all | 3, all | 3];
    function().preset(usize::from(PAM), &pam).preset(usize::from(SMRAM), &[C_BASE_SEG | G_SMRAME])
}

/// What a write of `value` to register `at` amounts to: a lock ends SMRAM's being open, and keeps it from being opened.
pub(super) fn written(function: &Function, at: u8, value: u8) -> u8 {
    if at != SMRAM {
        return value;
    }
    let old = byte(function, SMRAM);
    let value = if old & D_LCK != 0 { old & !D_CLS | value & D_CLS } else { value };
    if value & D_LCK != 0 { value & !D_OPEN } else { value }
}

fn byte(function: &Function, at: u8) -> u8 {
    (function.read(at & 0xfc) >> (8 * (at & 3))) as u8
}

/// The ranges of RAM that are not simply there.
pub(super) fn shadows(function: &Function) -> Vec<Shadow> {
    let smram = byte(function, SMRAM);
    let decode = match (smram & G_SMRAME != 0, smram & D_OPEN != 0) {
        (false, _) => Decode::Elsewhere,
        (true, false) => Decode::Management,
        (true, true) => Decode::Ram,
    };
    let mut shadows =
        vec![Shadow { base: HostPhysical(0xa_0000), bytes: 0x2_0000, loads: decode, stores: decode }];
    // The upper half of the first is 0xf0000 to 0xfffff; then 16 KiB a half, from 0xc0000 on.
    let halves = (1..PAM_COUNT).flat_map(|n| {
        let byte = byte(function, PAM + n);
        let base = 0xc_0000 + (u64::from(n) - 1) * 0x8000;
        [(base, 0x4000, byte), (base + 0x4000, 0x4000, byte >> 4)]
    });
    for (base, bytes, bits) in halves.chain([(0xf_0000, 0x1_0000, byte(function, PAM) >> 4)]) {
        let elsewhere = match base >= ROM_LOW {
            true => Decode::Alias(HostPhysical(base - ROM_LOW + ROM_HIGH)),
            false => Decode::Elsewhere,
        };
        let loads = if bits & RE != 0 { Decode::Ram } else { elsewhere };
        let stores = if bits & WE != 0 { Decode::Ram } else { Decode::Elsewhere };
        shadows.push(Shadow { base: HostPhysical(base), bytes, loads, stores });
    }
    shadows
}

#[cfg(test)]
mod tests {
    use super::super::{DATA, PciBus};
    use super::*;

    fn write(bus: &mut PciBus, register: u32, value: u8) {
        bus.set_address(0x8000_0000 | register & !3);
        bus.write(DATA + (register & 3) as u16, 1, value.into());
    }

    fn read(bus: &mut PciBus, register: u32) -> u8 {
        bus.set_address(0x8000_0000 | register & !3);
        bus.read(DATA + (register & 3) as u16, 1) as u8
    }

    fn at(bus: &PciBus, address: u64) -> (Decode, Decode) {
        let shadows = bus.shadows();
        let found = shadows.iter().find(|s| (s.base.0..s.base.0 + s.bytes).contains(&address));
        found.map_or((Decode::Ram, Decode::Ram), |s| (s.loads, s.stores))
    }

    #[test]
    fn each_half_of_an_attribute_map_governs_its_range_alone() {
        let ranges = [
            (0x59, 4, 0xf_0000, 0xf_ffff),
            (0x5a, 0, 0xc_0000, 0xc_3fff),
            (0x5a, 4, 0xc_4000, 0xc_7fff),
            (0x5b, 0, 0xc_8000, 0xc_bfff),
            (0x5d, 4, 0xd_c000, 0xd_ffff),
            (0x5e, 0, 0xe_0000, 0xe_3fff),
            (0x5f, 4, 0xe_c000, 0xe_ffff),
        ];
        for (register, shift, first, last) in ranges {
            for bits in 0..4 {
                let mut bus = PciBus::after_reset();
                write(&mut bus, register, bits << shift);
                let rom = |a: u64| match a >= 0xe_0000 {
                    // Of a page's range, the first byte: ranges are 16 KiB, the last 64.
                    true => Decode::Alias(HostPhysical(
                        (a & if a >= 0xf_0000 { !0xffff } else { !0x3fff }) + 0xfff0_0000,
                    )),
                    false => Decode::Elsewhere,
                };
                let loads = |a| if bits & 1 != 0 { Decode::Ram } else { rom(a) };
                let stores = if bits & 2 != 0 { Decode::Ram } else { Decode::Elsewhere };
                for address in [first, last] {
                    assert_eq!(
                        at(&bus, address),
                        (loads(address), stores),
                        "{register:#x} {bits} {address:#x}"
                    );
                }
                for address in [first - 1, last + 1] {
                    let inside = (0xc_0000..0x10_0000).contains(&address);
                    let stores = if address == 0x10_0000 { Decode::Ram } else { Decode::Elsewhere };
                    if inside || address == 0x10_0000 {
                        assert_eq!(at(&bus, address).1, stores, "{register:#x} {address:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn smram_opens_unless_it_is_locked() {
        let mut bus = PciBus::after_reset();
        assert_eq!((read(&mut bus, 0x72), at(&bus, 0xa_0000)), (2, (Decode::Elsewhere, Decode::Elsewhere)));
        write(&mut bus, 0x72, 0x4f);
        assert_eq!((read(&mut bus, 0x72), at(&bus, 0xb_ffff)), (0x4a, (Decode::Ram, Decode::Ram)));
        write(&mut bus, 0x72, 0x08);
        assert_eq!(at(&bus, 0xa_0000), (Decode::Management, Decode::Management));
        write(&mut bus, 0x72, 0x58);
        assert_eq!(read(&mut bus, 0x72), 0x1a, "the lock closes");
        write(&mut bus, 0x72, 0x60);
        assert_eq!(read(&mut bus, 0x72), 0x3a, "only D_CLS still changes");
        assert_eq!(at(&bus, 0xa_0000), (Decode::Management, Decode::Management));
        assert_eq!(at(&bus, 0x9_ffff), (Decode::Ram, Decode::Ram));
        assert_eq!(at(&PciBus::new(), 0xf_fff0), (Decode::Ram, Decode::Ram), "firmware leaves RAM");
    }
}

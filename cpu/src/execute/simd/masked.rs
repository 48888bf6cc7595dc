//! VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ: elements whose mask has its sign bit set; others are not accessed at all.

use super::Halves;
use super::float::{lane, with_lane};
use crate::decode::Decoded;
use crate::execute::flags::mask as mask_of;
use crate::execute::{Exec, Flow};
use crate::fault::Result;
use rootmode_arch::{Linear, Vendor};
use rootmode_mmu::AccessKind;

/// Whether element `n` of `BITS` bits is chosen.
const fn is_chosen<const BITS: u32>(mask: Halves, n: u32) -> bool {
    let lanes = 128 / BITS;
    lane(mask[(n / lanes) as usize & 1], BITS, n % lanes) >> (BITS - 1) != 0
}

/// The address of element `n`.
fn place<const BITS: u32>(x: &Exec<'_, '_>, op: &Decoded, n: u32, kind: AccessKind) -> Result<Linear> {
    let bytes = u64::from(BITS / 8);
    let offset = x.effective(op).wrapping_add(u64::from(n) * bytes);
    // In 64-bit mode Intel's parts go on behind 4 GBytes.
    let wraps = !x.cpu.is_64_bit() || x.cpu.model.vendor() == Vendor::Amd;
    let offset = if wraps { offset & mask_of(op.memory.address_size) } else { offset };
    x.element_address(op.memory.segment, offset, BITS as u8 / 8, kind)
}

/// A load: the other elements become 0.
pub(crate) fn load<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let lanes = 128 / BITS;
    let (access, mask) = (x.data(AccessKind::Read), x.target_halves(op));
    let chosen = (0..lanes * op.halves() as u32).filter(|n| is_chosen::<BITS>(mask, *n));
    if x.cpu.model.vendor() == Vendor::Intel {
        // All addresses are checked before one is translated.
        chosen.clone().try_for_each(|n| place::<BITS>(x, op, n, AccessKind::Read).map(drop))?;
    }
    let mut result = [0; 2];
    for n in chosen {
        let linear = place::<BITS>(x, op, n, AccessKind::Read)?;
        let half = (n / lanes) as usize & 1;
        let value = x.read_element(linear, (BITS / 8) as u8, access)?;
        result[half] = with_lane(result[half], BITS, n % lanes, value);
    }
    x.set_target_halves(op, result);
    Ok(Flow::Next)
}

/// A store, all or nothing.
pub(crate) fn store<const BITS: u32>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_avx()?;
    let (lanes, bytes) = (128 / BITS, (BITS / 8) as u8);
    let (access, mask) = (x.data(AccessKind::Write), x.target_halves(op));
    let intel = x.cpu.model.vendor() == Vendor::Intel;
    let mut places = Vec::new();
    for n in (0..lanes * op.halves() as u32).filter(|n| is_chosen::<BITS>(mask, *n)) {
        let linear = place::<BITS>(x, op, n, AccessKind::Write)?;
        if !intel {
            x.reach(linear, bytes.into(), access)?;
        }
        places.push((n, linear));
    }
    // Intel's parts report a fault of the second page at the last byte.
    if let (Some((_, first)), Some((_, last))) = (places.first(), places.last())
        && intel
    {
        let end = x.along(*last, u64::from(bytes) - 1);
        x.translate(*first, access)?;
        x.translate(end, access)?;
    }
    let value = x.register_halves(op.last_operand());
    for (n, linear) in places {
        x.write_element(linear, bytes, lane(value[(n / lanes) as usize & 1], BITS, n % lanes), access)?;
    }
    Ok(Flow::Next)
}

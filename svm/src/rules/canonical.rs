//! What VMRUN makes legal silently instead of refusing it
//! (APM Vol. 2 (24593 rev. 3.43) "Canonicalization and Consistency Checks", "Loading Guest State").

use crate::capabilities::Processor;
use crate::vmcb::{Field, Vmcb};
use rootmode_arch::{Cr0, Cr4, Efer, Feature, RFlags};

/// A field that VMRUN loads otherwise than the VMCB has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonicalized {
    /// The field.
    pub field: Field,
    /// What the processor loads.
    pub text: &'static str,
}

const SIGN: &str = "sign-extended from the most significant implemented linear-address bit";
const LOW32: &str = "only the low 32 bits are implemented";

/// Every such field. Segment bases of FS, GS, LDTR and TR are VMLOAD's.
pub const CANONICALIZED: &[Canonicalized] = &[
    Canonicalized { field: Field::EsBase, text: LOW32 },
    Canonicalized { field: Field::CsBase, text: LOW32 },
    Canonicalized { field: Field::SsBase, text: LOW32 },
    Canonicalized { field: Field::DsBase, text: LOW32 },
    Canonicalized { field: Field::GdtrBase, text: SIGN },
    Canonicalized { field: Field::IdtrBase, text: SIGN },
    Canonicalized { field: Field::Ssp, text: SIGN },
    Canonicalized { field: Field::IsstAddr, text: SIGN },
    Canonicalized { field: Field::GdtrLimit, text: "only the low 16 bits are implemented" },
    Canonicalized { field: Field::IdtrLimit, text: "only the low 16 bits are implemented" },
    Canonicalized { field: Field::Rflags, text: "reserved bits read as 0, bit 1 as 1" },
    Canonicalized { field: Field::Efer, text: "LMA becomes LME AND CR0.PG" },
    Canonicalized { field: Field::Cpl, text: "0 in real mode, 3 in virtual-8086 mode" },
];

/// The VMCB as the processor loads it. Fields that are not known stay so.
pub fn canonicalize(vmcb: &mut Vmcb, processor: &Processor) {
    let la57 = processor.has(Feature::La57) && vmcb.get(Field::Cr4).is_some_and(|cr4| cr4 & Cr4::LA57.0 != 0);
    let shift = if la57 { 64 - 57 } else { 64 - 48 };
    for row in CANONICALIZED {
        let Some(value) = vmcb.get(row.field) else { continue };
        let loaded = match row.field {
            Field::EsBase | Field::CsBase | Field::SsBase | Field::DsBase => Some(value & 0xffff_ffff),
            Field::GdtrBase | Field::IdtrBase | Field::Ssp | Field::IsstAddr => {
                Some(((value << shift) as i64 >> shift) as u64)
            }
            Field::GdtrLimit | Field::IdtrLimit => Some(value & 0xffff),
            Field::Rflags => Some(value & !RFlags::RESERVED_ZERO | RFlags::ONE.0),
            Field::Efer => vmcb.get(Field::Cr0).map(|cr0| {
                let active = value & Efer::LME.0 != 0 && cr0 & Cr0::PG.0 != 0;
                Efer(value).set(Efer::LMA, active).0
            }),
            Field::Cpl => forced_cpl(vmcb).map(|forced| forced.unwrap_or(value)),
            _ => None,
        };
        if let Some(loaded) = loaded {
            vmcb.set(row.field, loaded);
        }
    }
}

/// The CPL that the mode forces, if the mode is known; the inner `None` leaves the VMCB's.
fn forced_cpl(vmcb: &Vmcb) -> Option<Option<u64>> {
    if vmcb.get(Field::Cr0)? & Cr0::PE.0 == 0 {
        return Some(Some(0));
    }
    Some((vmcb.get(Field::Rflags)? & RFlags::VM.0 != 0).then_some(3))
}

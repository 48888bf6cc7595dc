//! What VMRUN makes legal silently instead of refusing it
//! (APM Vol. 2 (24593 rev. 3.43) "Canonicalization and Consistency Checks", "Loading Guest State").

use crate::capabilities::Processor;
use crate::vmcb::{Field, Vmcb};
use rootmode_arch::{Cr0, Efer, Feature, RFlags};

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

/// One row yields the table's entry and the code for the field.
macro_rules! fields {
    ($($field:ident: $text:expr;)*) => {
        /// Every such field. Segment bases of FS, GS, LDTR and TR are VMLOAD's.
        pub const CANONICALIZED: &[Canonicalized] = &[
            $(Canonicalized { field: Field::$field, text: $text },)*
        ];

        /// The VMCB as the processor loads it. Fields that are not known stay so.
        pub fn canonicalize(vmcb: &mut Vmcb, processor: &Processor) {
            // The processor's width, as LGDT has it, not CR4's: kvm-unit-tests' la57 finds a base of 57 bits unchanged.
            let shift = if processor.has(Feature::La57) { 64 - 57 } else { 64 - 48 };
            $(set_loaded(vmcb, Field::$field, shift);)*
        }
    };
}

fields! {
    EsBase: LOW32;
    CsBase: LOW32;
    SsBase: LOW32;
    DsBase: LOW32;
    GdtrBase: SIGN;
    IdtrBase: SIGN;
    Ssp: SIGN;
    IsstAddr: SIGN;
    GdtrLimit: "only the low 16 bits are implemented";
    IdtrLimit: "only the low 16 bits are implemented";
    Rflags: "reserved bits read as 0, bit 1 as 1";
    Efer: "LMA becomes LME AND CR0.PG";
    Cpl: "0 in real mode, 3 in virtual-8086 mode";
}

/// Replaces what `field` holds by what is loaded. Inlined, so that the field is known where it is used.
#[inline(always)]
fn set_loaded(vmcb: &mut Vmcb, field: Field, shift: u32) {
    let Some(value) = vmcb.get(field) else { return };
    let loaded = match field {
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
    if let Some(loaded) = loaded.filter(|loaded| *loaded != value) {
        vmcb.set(field, loaded);
    }
}

/// The CPL that the mode forces, if the mode is known; the inner `None` leaves the VMCB's.
fn forced_cpl(vmcb: &Vmcb) -> Option<Option<u64>> {
    if vmcb.get(Field::Cr0)? & Cr0::PE.0 == 0 {
        return Some(Some(0));
    }
    Some((vmcb.get(Field::Rflags)? & RFlags::VM.0 != 0).then_some(3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::{Extras, Mode, base};
    use crate::capabilities::MAX_AMD;
    use crate::rules::{Verdict, check_entry};

    fn loaded(mode: Mode, changes: &[(Field, u64)]) -> Vmcb {
        let mut case = base(mode, Extras::NONE);
        for (field, value) in changes {
            case.put(*field, *value);
        }
        assert_eq!(check_entry(&case.context()), Verdict::Enters, "none of this is refused");
        canonicalize(&mut case.vmcb, &MAX_AMD);
        case.vmcb
    }

    #[test]
    fn bases_are_extended_or_cut_and_limits_cut() {
        let vmcb = loaded(
            Mode::Long,
            &[
                (Field::GdtrBase, 0x0100_0000_0000_0000),
                (Field::IdtrBase, 0xfeff_ffff_ffff_ffff),
                (Field::Ssp, 0x1234_0000_0000_1000),
                (Field::DsBase, 0x1234_5678_9abc_def0),
                (Field::GdtrLimit, 0x0001_002f),
                (Field::FsBase, 0x0000_8000_0000_0000),
            ],
        );
        for (field, value) in [
            (Field::GdtrBase, 0xff00_0000_0000_0000),
            (Field::IdtrBase, 0x00ff_ffff_ffff_ffff),
            (Field::Ssp, 0x0034_0000_0000_1000),
            (Field::DsBase, 0x9abc_def0),
            (Field::GdtrLimit, 0x2f),
            (Field::FsBase, 0x0000_8000_0000_0000),
        ] {
            assert_eq!(vmcb.get(field), Some(value), "{}", field.name());
        }
        for cr4 in [0xa0, 0x10a0] {
            let wide = loaded(Mode::Long, &[(Field::Cr4, cr4), (Field::GdtrBase, 0x0000_8000_0000_0000)]);
            assert_eq!(wide.get(Field::GdtrBase), Some(0x0000_8000_0000_0000), "whatever CR4 says");
        }
        let narrow = Processor::new("narrow", MAX_AMD.features().without(Feature::La57), 46);
        let mut vmcb = base(Mode::Long, Extras::NONE).vmcb;
        vmcb.set(Field::GdtrBase, 0x0000_8000_0000_0000);
        canonicalize(&mut vmcb, &narrow);
        assert_eq!(vmcb.get(Field::GdtrBase), Some(0xffff_8000_0000_0000), "48-bit linear addresses");
    }

    #[test]
    fn flags_lma_and_cpl_follow_the_mode() {
        let long = loaded(Mode::Long, &[(Field::Rflags, !(1 << 17)), (Field::Efer, 0x1900), (Field::Cpl, 3)]);
        assert_eq!(long.get(Field::Rflags), Some(0x003d_7fd7));
        assert_eq!(long.get(Field::Efer), Some(0x1d00), "LMA becomes LME AND PG");
        assert_eq!(long.get(Field::Cpl), Some(3), "the VMCB's");
        let legacy = loaded(Mode::Legacy, &[(Field::Efer, 0x1400)]);
        assert_eq!(legacy.get(Field::Efer), Some(0x1000));
        assert_eq!(loaded(Mode::Real, &[(Field::Cpl, 2)]).get(Field::Cpl), Some(0));
        assert_eq!(loaded(Mode::PagedReal, &[(Field::Cpl, 2)]).get(Field::Cpl), Some(0));
        assert_eq!(loaded(Mode::Virtual8086, &[(Field::Cpl, 0)]).get(Field::Cpl), Some(3));
    }

    #[test]
    fn what_is_not_known_stays_unknown() {
        let mut vmcb = Vmcb::unknown();
        canonicalize(&mut vmcb, &MAX_AMD);
        assert_eq!(vmcb, Vmcb::unknown());
        for (index, row) in CANONICALIZED.iter().enumerate() {
            assert!(CANONICALIZED[..index].iter().all(|other| other.field != row.field));
        }
    }
}

//! Rows of what came after the 80386 and works on general registers and cache lines: BMI, ADX, CRC32, prefetches, RDPRU.

use super::table::{Row, end, row, sized, variant};
use crate::execute::{bmi, control, data, line, system};
use iced_x86::{Code, CpuidFeature as C, Instruction, Mnemonic as M, OpKind};
use rootmode_arch::Feature;

/// The row of instruction `i`, whose features the processor has.
pub(super) fn handler(i: &Instruction) -> Option<Row> {
    Some(match i.mnemonic() {
        M::Tzcnt => row(bmi::tzcnt),
        M::Lzcnt => row(bmi::lzcnt),
        M::Andn => row(bmi::andn),
        M::Bextr => row(bmi::bextr),
        M::Blsi => row(bmi::blsi),
        M::Blsmsk => row(bmi::blsmsk),
        M::Blsr => row(bmi::blsr),
        M::Bzhi => row(bmi::bzhi),
        M::Mulx => row(bmi::mulx),
        M::Pdep => row(bmi::pdep),
        M::Pext => row(bmi::pext),
        M::Rorx => row(bmi::rorx),
        M::Sarx => row(bmi::sarx),
        M::Shlx => row(bmi::shlx),
        M::Shrx => row(bmi::shrx),
        M::Adcx => variant(row(bmi::add_with), 0),
        M::Adox => variant(row(bmi::add_with), 1),
        M::Crc32 => row(bmi::crc32),
        M::Movdiri => row(data::mov),
        M::Movdir64b => sized(row(line::movdir64b), 8),
        M::Rdpru => row(system::rdpru),
        M::Clflush | M::Clflushopt | M::Clwb => row(line::flush),
        // Everything is in order and complete here.
        M::Serialize => end(control::nop),
        M::Cldemote
        | M::Prefetch
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchit0
        | M::Prefetchit1 => row(control::nop),
        _ => return None,
    })
}

/// PREFETCH with a register operand: a no-operation on Intel's parts.
pub(super) fn is_undefined_on_amd(i: &Instruction) -> bool {
    let reserved = matches!(
        i.code(),
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    );
    reserved && i.op0_kind() == OpKind::Register
}

/// The feature that an encoding of this file needs. `Some(None)`: none, since processors without it treat it as a no-operation.
pub(super) const fn needs(feature: C) -> Option<Option<Feature>> {
    Some(match feature {
        C::BMI1 => Some(Feature::Bmi1),
        C::BMI2 => Some(Feature::Bmi2),
        C::LZCNT => Some(Feature::Abm),
        C::ADX => Some(Feature::Adx),
        C::MOVDIRI => Some(Feature::Movdiri),
        C::MOVDIR64B => Some(Feature::Movdir64b),
        C::CLFLUSHOPT => Some(Feature::Clflushopt),
        C::CLWB => Some(Feature::Clwb),
        C::RDPRU => Some(Feature::Rdpru),
        C::SERIALIZE => Some(Feature::Serialize),
        C::CLDEMOTE | C::PREFETCHW | C::PREFETCHWT1 | C::PREFETCHITI => None,
        _ => return None,
    })
}

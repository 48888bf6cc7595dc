//! Chooses the quick form of each instruction on XMM registers, if it has one.

use super::wide;
use crate::decode::{Decoded, Operand, Quick};
use crate::engine::moves::{ANY, BASE, INDEXED, by_address};
use crate::engine::select::{Form, MOVES_MEMORY, address, plain};
use crate::engine::{Mode, Run, vector};
use crate::execute::simd::float::{ADD, DIV, MUL, SUB};

/// `$form::<.., M>` for a source in memory (`$memory`), or not.
macro_rules! by_source {
    ($memory:expr, |$m:ident| $form:expr) => {
        if $memory {
            const $m: bool = true;
            $form
        } else {
            const $m: bool = false;
            $form
        }
    };
}

/// `$form::<.., A>` for the way in which the address is made.
macro_rules! by_way {
    ($way:expr, |$a:ident| $form:expr) => {
        by_address(
            [
                {
                    const $a: u8 = BASE;
                    $form
                },
                {
                    const $a: u8 = INDEXED;
                    $form
                },
                {
                    const $a: u8 = ANY;
                    $form
                },
            ],
            $way,
        )
    };
}

/// The quick form of an instruction whose kind is one of the vector registers'. All may fault, and hand over.
pub(in crate::engine) fn form(decoded: &Decoded, mode: Mode) -> Option<Form> {
    let run = match decoded.quick {
        Quick::MovWhole | Quick::MovUnaligned | Quick::MovSingle | Quick::MovDouble | Quick::MovLow => {
            moved(decoded, mode)?
        }
        Quick::WideMov | Quick::WideMovUnaligned | Quick::WideCombine | Quick::ZeroUpper => {
            let run = if decoded.wide { vex::<32>(decoded, mode) } else { vex::<16>(decoded, mode) };
            run?
        }
        _ => computed(decoded, mode)?,
    };
    plain(run, MOVES_MEMORY)
}

fn moved(decoded: &Decoded, mode: Mode) -> Option<Run> {
    use Operand::{Memory, Register, Xmm};
    let way = || address(decoded, mode);
    let bytes = decoded.size.min(decoded.source_size);
    let run: Run = match (decoded.quick, decoded.operands[0], decoded.operands[1]) {
        (Quick::MovWhole | Quick::MovUnaligned, Xmm(_), Xmm(_)) => vector::whole_rr,
        (Quick::MovWhole, Xmm(_), Memory) => by_way!(way()?, |A| vector::whole_load::<true, A>),
        (Quick::MovWhole, Memory, Xmm(_)) => by_way!(way()?, |A| vector::whole_store::<true, A>),
        (Quick::MovUnaligned, Xmm(_), Memory) => by_way!(way()?, |A| vector::whole_load::<false, A>),
        (Quick::MovUnaligned, Memory, Xmm(_)) => by_way!(way()?, |A| vector::whole_store::<false, A>),
        (Quick::MovSingle, Xmm(_), Xmm(_)) => vector::scalar_rr::<32>,
        (Quick::MovDouble, Xmm(_), Xmm(_)) => vector::scalar_rr::<64>,
        (Quick::MovLow, Xmm(_), Xmm(_)) => vector::low_rr,
        (Quick::MovLow, Xmm(_), Register(_)) if bytes == 4 => vector::low_from_gpr::<4>,
        (Quick::MovLow, Xmm(_), Register(_)) => vector::low_from_gpr::<8>,
        (Quick::MovLow, Register(_), Xmm(_)) if bytes == 4 => vector::low_to_gpr::<4>,
        (Quick::MovLow, Register(_), Xmm(_)) => vector::low_to_gpr::<8>,
        (_, Xmm(_), Memory) if bytes == 4 => by_way!(way()?, |A| vector::low_load::<4, A>),
        (_, Xmm(_), Memory) => by_way!(way()?, |A| vector::low_load::<8, A>),
        (_, Memory, Xmm(_)) if bytes == 4 => by_way!(way()?, |A| vector::low_store::<4, A>),
        (_, Memory, Xmm(_)) => by_way!(way()?, |A| vector::low_store::<8, A>),
        _ => return None,
    };
    Some(run)
}

/// VEX encodings on XMM registers (`N` = 16) or YMM registers (32).
fn vex<const N: usize>(decoded: &Decoded, mode: Mode) -> Option<Run> {
    use Operand::Memory;
    let way = || address(decoded, mode);
    let aligned = decoded.quick == Quick::WideMov;
    let run: Run = match (decoded.quick, decoded.operands[0], decoded.last_operand()) {
        (Quick::ZeroUpper, ..) => wide::zero_upper,
        // Lanes that change their width are not combined half by half.
        (Quick::WideCombine, ..) if decoded.size != decoded.source_size => return None,
        (Quick::WideCombine, _, Memory) => {
            way()?;
            wide::combine::<N, true>
        }
        (Quick::WideCombine, ..) => wide::combine::<N, false>,
        (_, _, Memory) if aligned => by_way!(way()?, |A| wide::load::<N, true, A>),
        (_, _, Memory) => by_way!(way()?, |A| wide::load::<N, false, A>),
        (_, Memory, _) if aligned => by_way!(way()?, |A| wide::store::<N, true, A>),
        (_, Memory, _) => by_way!(way()?, |A| wide::store::<N, false, A>),
        _ => wide::move_rr::<N>,
    };
    Some(run)
}

fn computed(decoded: &Decoded, mode: Mode) -> Option<Run> {
    use Operand::{Memory, Register, Xmm};
    let memory = decoded.operands[1] == Memory;
    if memory {
        address(decoded, mode)?;
    }
    let wide = decoded.source_size == 8;
    Some(match (decoded.quick, decoded.operands[0], decoded.operands[1]) {
        (Quick::Combine, Xmm(_), Memory) if decoded.source_size != 16 => return None,
        (Quick::Combine, Xmm(_), Xmm(_) | Memory) => by_source!(memory, |M| vector::combine::<M>),
        (Quick::Addss, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<ADD, 32, M>),
        (Quick::Addsd, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<ADD, 64, M>),
        (Quick::Subss, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<SUB, 32, M>),
        (Quick::Subsd, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<SUB, 64, M>),
        (Quick::Mulss, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<MUL, 32, M>),
        (Quick::Mulsd, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<MUL, 64, M>),
        (Quick::Divss, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<DIV, 32, M>),
        (Quick::Divsd, Xmm(_), _) => by_source!(memory, |M| vector::scalar::<DIV, 64, M>),
        (Quick::Addps, Xmm(_), _) => by_source!(memory, |M| vector::packed::<ADD, 32, M>),
        (Quick::Addpd, Xmm(_), _) => by_source!(memory, |M| vector::packed::<ADD, 64, M>),
        (Quick::Subps, Xmm(_), _) => by_source!(memory, |M| vector::packed::<SUB, 32, M>),
        (Quick::Subpd, Xmm(_), _) => by_source!(memory, |M| vector::packed::<SUB, 64, M>),
        (Quick::Mulps, Xmm(_), _) => by_source!(memory, |M| vector::packed::<MUL, 32, M>),
        (Quick::Mulpd, Xmm(_), _) => by_source!(memory, |M| vector::packed::<MUL, 64, M>),
        (Quick::Divps, Xmm(_), _) => by_source!(memory, |M| vector::packed::<DIV, 32, M>),
        (Quick::Divpd, Xmm(_), _) => by_source!(memory, |M| vector::packed::<DIV, 64, M>),
        (Quick::Comiss, Xmm(_), _) => by_source!(memory, |M| vector::compare::<32, M>),
        (Quick::Comisd, Xmm(_), _) => by_source!(memory, |M| vector::compare::<64, M>),
        (Quick::Cvtsi2ss, Xmm(_), _) if wide => by_source!(memory, |M| vector::from_integer::<8, 32, M>),
        (Quick::Cvtsi2ss, Xmm(_), _) => by_source!(memory, |M| vector::from_integer::<4, 32, M>),
        (Quick::Cvtsi2sd, Xmm(_), _) if wide => by_source!(memory, |M| vector::from_integer::<8, 64, M>),
        (Quick::Cvtsi2sd, Xmm(_), _) => by_source!(memory, |M| vector::from_integer::<4, 64, M>),
        (Quick::Cvttss2si, Register(_), _) if decoded.size == 8 => {
            by_source!(memory, |M| vector::to_integer::<8, 32, M>)
        }
        (Quick::Cvttss2si, Register(_), _) => by_source!(memory, |M| vector::to_integer::<4, 32, M>),
        (Quick::Cvttsd2si, Register(_), _) if decoded.size == 8 => {
            by_source!(memory, |M| vector::to_integer::<8, 64, M>)
        }
        (Quick::Cvttsd2si, Register(_), _) => by_source!(memory, |M| vector::to_integer::<4, 64, M>),
        (Quick::Cvtss2sd, Xmm(_), _) => by_source!(memory, |M| vector::widen::<M>),
        (Quick::Cvtsd2ss, Xmm(_), _) => by_source!(memory, |M| vector::narrow::<M>),
        _ => return None,
    })
}

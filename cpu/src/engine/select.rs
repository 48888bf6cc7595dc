//! Chooses the quick form of each instruction of a block, if it has one.

mod joined;

use super::arithmetic::{
    self, ADC, ADD, AND, BT, BTC, BTR, BTS, CMP, OR, SAR, SBB, SHL, SHR, SUB, TEST, XOR,
};
use super::liveness::{FlagUse, needed};
use super::moves::{self, ANY, BASE, INDEXED, by_address};
use super::{LEAVE, Mode, Op, Run, fields, flow, general, ports, vector};
use crate::decode::{Decoded, NO_REGISTER, Operand, Quick, RIP_BASE};
use crate::execute::flags::STATUS;
use rootmode_arch::SegmentName;
use std::cell::Cell;

/// A quick form: its code when its flags are needed and when they are not, and what it does to them.
pub(super) struct Form {
    run: Run,
    without_flags: Run,
    flags: FlagUse,
}

/// The operations of a block: one for each instruction, and one more if the block falls through.
pub(super) fn operations(block: &[Decoded], mode: Mode) -> Vec<Op> {
    let forms: Vec<Option<Form>> = block.iter().map(|decoded| form(decoded, mode)).collect();
    let uses: Vec<FlagUse> = forms.iter().map(|f| f.as_ref().map_or(FlagUse::ANY, |f| f.flags)).collect();
    let needed = needed(&uses);
    let mut offset = 0;
    let mut operations = Vec::with_capacity(block.len() + 1);
    for (at, (decoded, form)) in block.iter().zip(&forms).enumerate() {
        let run = match form {
            None => general as Run,
            Some(form) => match joined::joined(&block[at..], mode) {
                Some(run) => run,
                None if needed[at] => form.run,
                None => form.without_flags,
            },
        };
        operations.push(operation(decoded, run, offset, block.len() - at, mode));
        offset += u16::from(decoded.current.length);
    }
    if let Some(last) = operations.last().filter(|_| block.last().is_some_and(|d| !d.ends_block)) {
        operations.push(Op { run: flow::end, rest: 0, offset, mask: rip_mask(mode), ..last.clone() });
    }
    operations
}

const fn rip_mask(mode: Mode) -> u64 {
    if mode.is_64_bit() { u64::MAX } else { 0xffff_ffff }
}

fn operation(decoded: &Decoded, run: Run, offset: u16, rest: usize, mode: Mode) -> Op {
    let memory = &decoded.memory;
    let is_branch = matches!(decoded.quick, Quick::Jmp | Quick::Jcc | Quick::Call);
    let narrow = |bytes: u8| u64::MAX >> (64 - 8 * u32::from(bytes));
    let relative = |value: u64| value.wrapping_add(u64::from(offset));
    let number = |operand: Operand| match operand {
        Operand::Register(n) | Operand::High(n) | Operand::Xmm(n) | Operand::Ymm(n) => n,
        _ => NO_REGISTER,
    };
    let has_base = matches!(memory.segment, SegmentName::Fs | SegmentName::Gs);
    let flow = is_branch || matches!(decoded.quick, Quick::JmpIndirect | Quick::CallIndirect | Quick::Ret);
    Op {
        run,
        displacement: if memory.base == RIP_BASE {
            relative(memory.displacement)
        } else {
            memory.displacement
        },
        immediate: match decoded.quick {
            _ if is_branch => relative(decoded.immediate),
            Quick::WideCombine => number(decoded.last_operand()).into(),
            _ => decoded.immediate,
        },
        combine: decoded.combine,
        mask: if flow { rip_mask(mode) } else { narrow(memory.address_size) },
        taken: Cell::new(LEAVE),
        next: Cell::new(LEAVE),
        taken_rest: Cell::new(0),
        next_rest: Cell::new(0),
        offset,
        end: offset + u16::from(decoded.current.length),
        rest: rest as u16,
        a: number(decoded.operands[0]),
        b: number(if number(decoded.operands[1]) != NO_REGISTER {
            decoded.operands[1]
        } else {
            decoded.operands[0]
        }),
        base: memory.base,
        index: memory.index,
        scale: memory.scale,
        segment: if has_base { memory.segment as u8 } else { NO_REGISTER },
    }
}

/// `$form::<.., size, ..>` for the operand size at hand.
macro_rules! sized {
    ($size:expr, |$n:ident| $form:expr) => {
        match $size {
            1 => {
                const $n: usize = 1;
                $form
            }
            2 => {
                const $n: usize = 2;
                $form
            }
            4 => {
                const $n: usize = 4;
                $form
            }
            _ => {
                const $n: usize = 8;
                $form
            }
        }
    };
}

/// `$form` for the arithmetic kind at hand.
macro_rules! by_kind {
    ($kind:expr, |$k:ident| $form:expr; $($name:ident)*) => {
        match $kind {
            $(Quick::$name => { const $k: u8 = kind_of(Quick::$name); $form })*
            _ => return None,
        }
    };
}

macro_rules! alu {
    ($kind:expr, |$k:ident| $form:expr) => {
        by_kind!($kind, |$k| $form; Add Or Adc Sbb And Sub Xor Cmp Test)
    };
}

const fn kind_of(quick: Quick) -> u8 {
    match quick {
        Quick::Add => ADD,
        Quick::Or => OR,
        Quick::Adc => ADC,
        Quick::Sbb => SBB,
        Quick::And => AND,
        Quick::Sub => SUB,
        Quick::Xor => XOR,
        Quick::Cmp => CMP,
        Quick::Test => TEST,
        Quick::Bt => BT,
        Quick::Bts => BTS,
        Quick::Btr => BTR,
        Quick::Btc => BTC,
        Quick::Shl | Quick::Rol => SHL,
        Quick::Shr | Quick::Ror => SHR,
        _ => SAR,
    }
}

/// `$form::<.., C, ..>` for a condition.
macro_rules! by_condition {
    ($condition:expr, |$c:ident| $form:expr) => {
        by_condition!(@ $condition, $c, $form; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $condition:expr, $c:ident, $form:expr; $($n:literal)*) => {
        match $condition {
            $($n => { const $c: u8 = $n; $form })*
            _ => return None,
        }
    };
}

/// How the address of the memory operand is made. `None`: through a segment that needs more than its base.
pub(super) fn address(decoded: &Decoded, mode: Mode) -> Option<u8> {
    let memory = &decoded.memory;
    let based = matches!(memory.segment, SegmentName::Fs | SegmentName::Gs);
    // Through CS nothing may be written, flat or not.
    let checked = based || memory.segment == SegmentName::Cs;
    if !mode.is_flat() || checked && !mode.is_64_bit() {
        return None;
    }
    let plain = memory.base < 16 && memory.address_size == 8 && !based;
    Some(match memory.index {
        NO_REGISTER if plain => BASE,
        n if n < 16 && plain => INDEXED,
        _ => ANY,
    })
}

pub(super) fn plain(run: Run, flags: FlagUse) -> Option<Form> {
    Some(Form { run, without_flags: run, flags })
}

/// A form that may fault or hand over, and replaces all status flags.
const TOUCHES_MEMORY: FlagUse = FlagUse { observable: true, ..FlagUse::ALL };
pub(super) const MOVES_MEMORY: FlagUse = FlagUse { observable: true, ..FlagUse::NONE };

fn form(decoded: &Decoded, mode: Mode) -> Option<Form> {
    use Operand::{High, Immediate, Memory, Register};
    let size = decoded.size;
    let operands = (decoded.operands[0], decoded.operands[1]);
    match decoded.quick {
        // String instructions have no quick form of their own: only their repetition is quick.
        Quick::None | Quick::Movs | Quick::Stos => None,
        Quick::Nop => plain(moves::nop, FlagUse::NONE),
        Quick::Mov | Quick::MovSigned => mov(decoded, mode),
        Quick::Lea => {
            let Register(_) = operands.0 else { return None };
            // LEA makes offsets: no segment's base, but all widths of addresses.
            let memory = &decoded.memory;
            if matches!(memory.segment, SegmentName::Fs | SegmentName::Gs) {
                return None;
            }
            let wide = memory.address_size == 8 && memory.base < 16;
            let way = match memory.index {
                NO_REGISTER if wide => BASE,
                n if n < 16 && wide => INDEXED,
                _ => ANY,
            };
            let run = sized!(size, |N| by_address(
                [moves::lea::<N, BASE>, moves::lea::<N, INDEXED>, moves::lea::<N, ANY>],
                way
            ));
            plain(run, FlagUse::NONE)
        }
        Quick::Push | Quick::Pop | Quick::Leave => stack(decoded, mode),
        Quick::ExtendAccumulator => plain(sized!(size, |N| moves::extend_accumulator::<N>), FlagUse::NONE),
        Quick::ExtendIntoRdx => plain(sized!(size, |N| moves::extend_into_rdx::<N>), FlagUse::NONE),
        Quick::Setcc => {
            let Register(_) = operands.0 else { return None };
            let run: Run = by_condition!(decoded.condition, |C| moves::setcc::<C>);
            plain(run, FlagUse { reads: STATUS, ..FlagUse::NONE })
        }
        Quick::Cmov => {
            let (run, flags): (Run, _) = match operands.1 {
                Register(_) => (
                    by_condition!(decoded.condition, |C| sized!(size, |N| moves::cmov::<C, N>)),
                    FlagUse::NONE,
                ),
                Memory => {
                    address(decoded, mode)?;
                    let run =
                        by_condition!(decoded.condition, |C| sized!(size, |N| moves::cmov_memory::<C, N>));
                    (run, MOVES_MEMORY)
                }
                _ => return None,
            };
            plain(run, FlagUse { reads: STATUS, ..flags })
        }
        Quick::Inc | Quick::Dec if operands.0 == Memory => {
            let way = address(decoded, mode)?;
            let run: Run = if decoded.quick == Quick::Dec {
                sized!(size, |N| by_address(
                    [
                        arithmetic::step_memory::<N, true, BASE>,
                        arithmetic::step_memory::<N, true, INDEXED>,
                        arithmetic::step_memory::<N, true, ANY>
                    ],
                    way
                ))
            } else {
                sized!(size, |N| by_address(
                    [
                        arithmetic::step_memory::<N, false, BASE>,
                        arithmetic::step_memory::<N, false, INDEXED>,
                        arithmetic::step_memory::<N, false, ANY>
                    ],
                    way
                ))
            };
            plain(run, FlagUse { observable: true, ..FlagUse::BUT_CARRY })
        }
        Quick::Inc | Quick::Dec => {
            let Register(_) = operands.0 else { return None };
            let (run, without_flags): (Run, Run) = if decoded.quick == Quick::Dec {
                sized!(size, |N| (arithmetic::step::<N, true, true>, arithmetic::step::<N, true, false>))
            } else {
                sized!(size, |N| (arithmetic::step::<N, false, true>, arithmetic::step::<N, false, false>))
            };
            Some(Form { run, without_flags, flags: FlagUse::BUT_CARRY })
        }
        Quick::Neg => {
            let Register(_) = operands.0 else { return None };
            plain(sized!(size, |N| arithmetic::neg::<N>), FlagUse::ALL)
        }
        Quick::Not => {
            let Register(_) = operands.0 else { return None };
            plain(sized!(size, |N| arithmetic::not::<N>), FlagUse::NONE)
        }
        Quick::Imul => {
            let with_immediate = match decoded.operands[2] {
                Immediate => true,
                Operand::None => false,
                _ => return None,
            };
            let Register(_) = operands.0 else { return None };
            match operands.1 {
                Register(_) => {
                    let run: Run = if with_immediate {
                        sized!(size, |N| arithmetic::imul::<N, true>)
                    } else {
                        sized!(size, |N| arithmetic::imul::<N, false>)
                    };
                    plain(run, FlagUse::ALL)
                }
                Memory => {
                    address(decoded, mode)?;
                    let run: Run = if with_immediate {
                        sized!(size, |N| arithmetic::imul_memory::<N, true>)
                    } else {
                        sized!(size, |N| arithmetic::imul_memory::<N, false>)
                    };
                    plain(run, TOUCHES_MEMORY)
                }
                _ => None,
            }
        }
        Quick::Shl | Quick::Shr | Quick::Sar | Quick::Rol | Quick::Ror => shift(decoded),
        Quick::Bt | Quick::Bts | Quick::Btr | Quick::Btc => bit(decoded),
        Quick::Jmp | Quick::Jcc | Quick::Call | Quick::JmpIndirect | Quick::CallIndirect | Quick::Ret => {
            branch(decoded, mode)
        }
        Quick::In | Quick::Out => {
            let input = decoded.quick == Quick::In;
            let immediate = decoded.operands[usize::from(input)] == Immediate;
            let run: Run = sized!(size, |N| match (input, immediate) {
                (true, true) => ports::port::<N, true, true>,
                (true, false) => ports::port::<N, true, false>,
                (false, true) => ports::port::<N, false, true>,
                (false, false) => ports::port::<N, false, false>,
            });
            // An access may end the chain, where all flags can be seen.
            plain(run, MOVES_MEMORY)
        }
        Quick::Vmread | Quick::Vmwrite => match operands {
            (Register(_), Register(_)) if !mode.is_64_bit() => None,
            (Register(_), Register(_)) if decoded.quick == Quick::Vmread => {
                plain(fields::vmread, TOUCHES_MEMORY)
            }
            (Register(_), Register(_)) => plain(fields::vmwrite, TOUCHES_MEMORY),
            _ => None,
        },
        kind if kind.is_vector() => vector::form(decoded, mode),
        kind => {
            let way = || address(decoded, mode);
            let run = match operands {
                (Register(_), Register(_)) => {
                    let (run, without_flags): (Run, Run) = alu!(kind, |K| sized!(size, |N| (
                        arithmetic::rr::<K, N, true>,
                        arithmetic::rr::<K, N, false>
                    )));
                    return Some(Form { run, without_flags, flags: arithmetic_use(kind) });
                }
                (Register(_), Immediate) => {
                    let (run, without_flags): (Run, Run) = alu!(kind, |K| sized!(size, |N| (
                        arithmetic::ri::<K, N, true>,
                        arithmetic::ri::<K, N, false>
                    )));
                    return Some(Form { run, without_flags, flags: arithmetic_use(kind) });
                }
                (High(_), Immediate) => {
                    let (run, without_flags): (Run, Run) =
                        alu!(kind, |K| (arithmetic::hi::<K, true>, arithmetic::hi::<K, false>));
                    return Some(Form { run, without_flags, flags: arithmetic_use(kind) });
                }
                (Register(_), Memory) => alu!(kind, |K| sized!(size, |N| by_address(
                    [
                        arithmetic::rm::<K, N, BASE>,
                        arithmetic::rm::<K, N, INDEXED>,
                        arithmetic::rm::<K, N, ANY>
                    ],
                    way()?
                ))),
                (Memory, Register(_)) => alu!(kind, |K| sized!(size, |N| by_address(
                    [
                        arithmetic::mr::<K, N, BASE, false>,
                        arithmetic::mr::<K, N, INDEXED, false>,
                        arithmetic::mr::<K, N, ANY, false>
                    ],
                    way()?
                ))),
                (Memory, Immediate) => alu!(kind, |K| sized!(size, |N| by_address(
                    [
                        arithmetic::mr::<K, N, BASE, true>,
                        arithmetic::mr::<K, N, INDEXED, true>,
                        arithmetic::mr::<K, N, ANY, true>
                    ],
                    way()?
                ))),
                _ => return None,
            };
            plain(run, FlagUse { reads: arithmetic_use(kind).reads, ..TOUCHES_MEMORY })
        }
    }
}

const fn arithmetic_use(kind: Quick) -> FlagUse {
    let reads = if matches!(kind, Quick::Adc | Quick::Sbb) { STATUS } else { 0 };
    FlagUse { reads, ..FlagUse::ALL }
}

fn mov(decoded: &Decoded, mode: Mode) -> Option<Form> {
    use Operand::{Immediate, Memory, Register};
    let (size, source) = (decoded.size, decoded.source_size);
    let signed = decoded.quick == Quick::MovSigned;
    macro_rules! from {
        (|$n:ident, $s:ident| $form:expr) => {
            sized!(size, |$n| match source {
                1 => {
                    const $s: usize = 1;
                    $form
                }
                2 => {
                    const $s: usize = 2;
                    $form
                }
                4 => {
                    const $s: usize = 4;
                    $form
                }
                _ => {
                    const $s: usize = 8;
                    $form
                }
            })
        };
    }
    match (decoded.operands[0], decoded.operands[1]) {
        (Register(_), Register(_)) if signed => {
            plain(from!(|N, S| moves::movsx_rr::<N, { S as u8 }>), FlagUse::NONE)
        }
        (Register(_), Register(_)) => plain(from!(|N, S| moves::mov_rr::<N, { S as u8 }>), FlagUse::NONE),
        (Register(_), Operand::High(_)) if !signed => {
            plain(sized!(size, |N| moves::mov_rh::<N>), FlagUse::NONE)
        }
        (Register(_), Immediate) => plain(sized!(size, |N| moves::mov_ri::<N>), FlagUse::NONE),
        (Register(_), Memory) => {
            let way = address(decoded, mode)?;
            let run = if signed {
                from!(|N, S| by_address(
                    [
                        moves::load::<N, S, true, BASE>,
                        moves::load::<N, S, true, INDEXED>,
                        moves::load::<N, S, true, ANY>
                    ],
                    way
                ))
            } else {
                from!(|N, S| by_address(
                    [
                        moves::load::<N, S, false, BASE>,
                        moves::load::<N, S, false, INDEXED>,
                        moves::load::<N, S, false, ANY>
                    ],
                    way
                ))
            };
            plain(run, MOVES_MEMORY)
        }
        (Memory, Register(_)) => {
            let way = address(decoded, mode)?;
            let run = sized!(size, |N| by_address(
                [moves::store::<N, BASE>, moves::store::<N, INDEXED>, moves::store::<N, ANY>],
                way
            ));
            plain(run, MOVES_MEMORY)
        }
        (Memory, Immediate) => {
            let way = address(decoded, mode)?;
            let run = sized!(size, |N| by_address(
                [
                    moves::store_immediate::<N, BASE>,
                    moves::store_immediate::<N, INDEXED>,
                    moves::store_immediate::<N, ANY>
                ],
                way
            ));
            plain(run, MOVES_MEMORY)
        }
        _ => None,
    }
}

/// PUSH, POP and LEAVE as wide as the stack is.
fn stack(decoded: &Decoded, mode: Mode) -> Option<Form> {
    let width = if mode.is_64_bit() { 8 } else { 4 };
    if !mode.is_flat() || decoded.size != width {
        return None;
    }
    let (push, immediate, pop, leave): (Run, Run, Run, Run) = if width == 8 {
        (moves::push::<8>, moves::push_immediate::<8>, moves::pop::<8>, moves::leave::<8>)
    } else {
        (moves::push::<4>, moves::push_immediate::<4>, moves::pop::<4>, moves::leave::<4>)
    };
    let run = match (decoded.quick, decoded.operands[0]) {
        (Quick::Push, Operand::Register(_)) => push,
        (Quick::Push, Operand::Immediate) => immediate,
        (Quick::Pop, Operand::Register(_)) => pop,
        (Quick::Leave, _) => leave,
        _ => return None,
    };
    plain(run, MOVES_MEMORY)
}

/// Shifts of registers by CL; shifts and rotates by an immediate that leaves something of the operand.
fn shift(decoded: &Decoded) -> Option<Form> {
    let Operand::Register(_) = decoded.operands[0] else { return None };
    match decoded.operands[1] {
        Operand::Immediate => {}
        Operand::Register(_) => {
            let run: Run = by_kind!(decoded.quick, |K| sized!(
                decoded.size,
                |N| arithmetic::shift_cl::<K, N>
            ); Shl Shr Sar);
            return plain(run, FlagUse::ANY);
        }
        _ => return None,
    }
    if decoded.immediate == 0 || decoded.immediate >= 8 * u64::from(decoded.size) {
        return None;
    }
    let size = decoded.size;
    let (run, without_flags): (Run, Run) = match decoded.quick {
        Quick::Rol => {
            sized!(size, |N| (arithmetic::rotate::<false, N, true>, arithmetic::rotate::<false, N, false>))
        }
        Quick::Ror => {
            sized!(size, |N| (arithmetic::rotate::<true, N, true>, arithmetic::rotate::<true, N, false>))
        }
        kind => by_kind!(kind, |K| sized!(size, |N| (
            arithmetic::shift::<K, N, true>,
            arithmetic::shift::<K, N, false>
        )); Shl Shr Sar),
    };
    let rotates = matches!(decoded.quick, Quick::Rol | Quick::Ror);
    Some(Form { run, without_flags, flags: if rotates { FlagUse::ROTATE } else { FlagUse::ALL } })
}

/// Bit tests of registers. Of memory they address bit strings.
fn bit(decoded: &Decoded) -> Option<Form> {
    let immediate = match (decoded.operands[0], decoded.operands[1]) {
        (Operand::Register(_), Operand::Immediate) => true,
        (Operand::Register(_), Operand::Register(_)) => false,
        _ => return None,
    };
    let run: Run = by_kind!(decoded.quick, |K| sized!(decoded.size, |N| if immediate {
        arithmetic::bit::<K, N, true>
    } else {
        arithmetic::bit::<K, N, false>
    }); Bt Bts Btr Btc);
    plain(run, FlagUse::CARRY)
}

/// Near branches as wide as RIP is.
pub(super) fn branch(decoded: &Decoded, mode: Mode) -> Option<Form> {
    let wide = mode.is_64_bit();
    if !mode.is_flat() || decoded.size != if wide { 8 } else { 4 } {
        return None;
    }
    let register = matches!(decoded.operands[0], Operand::Register(_));
    // The mask of addresses is then RIP's.
    let memory = decoded.is_memory()
        && decoded.memory.address_size == decoded.size
        && address(decoded, mode).is_some();
    let run: Run = match (decoded.quick, wide) {
        (Quick::Jmp, _) => flow::jmp,
        (Quick::Jcc, _) => by_condition!(decoded.condition, |C| flow::jcc::<C>),
        (Quick::Call, true) => flow::call::<8>,
        (Quick::Call, false) => flow::call::<4>,
        (Quick::Ret, true) => flow::ret::<8>,
        (Quick::Ret, false) => flow::ret::<4>,
        (Quick::JmpIndirect, true) if register => flow::jmp_register::<8>,
        (Quick::JmpIndirect, false) if register => flow::jmp_register::<4>,
        (Quick::CallIndirect, true) if register => flow::call_register::<8>,
        (Quick::CallIndirect, false) if register => flow::call_register::<4>,
        (Quick::JmpIndirect, true) if memory => flow::jmp_memory::<8>,
        (Quick::JmpIndirect, false) if memory => flow::jmp_memory::<4>,
        (Quick::CallIndirect, true) if memory => flow::call_memory::<8>,
        (Quick::CallIndirect, false) if memory => flow::call_memory::<4>,
        _ => return None,
    };
    plain(run, FlagUse { observable: true, reads: STATUS, ..FlagUse::NONE })
}

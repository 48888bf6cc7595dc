//! Cases that are not judged, although their form is: what they do is left to the implementation, or belongs to the host's
//! kernel. Every rule says why; how many cases they took is printed.

use super::draw::memory_index;
use super::state::*;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// State components of user mode that Linux enables where the processor has them: the three of AVX-512, PKRU, the two of
/// AMX (SDM Vol. 1 "XSAVE-Supported Features and State-Component Bitmaps").
const HOST_COMPONENTS: u64 = 7 << 5 | 1 << 9 | 3 << 17;

/// Whether the manuals leave open what a case does, so that it is not judged.
pub fn is_undefined(case: &Case, i: &Instruction, host: &Outcome) -> bool {
    let count = match i.code() {
        Code::Shld_rm16_r16_imm8 | Code::Shrd_rm16_r16_imm8 => u64::from(i.immediate8()),
        Code::Shld_rm16_r16_CL | Code::Shrd_rm16_r16_CL => case.registers.gpr[1],
        _ => 0,
    };
    let faulted = host.vector != COMPLETED;
    if is_extended_save(i) && case.registers.gpr[0] & HOST_COMPONENTS != 0 {
        // The host's kernel may enable them, and the models do not have them.
        return true;
    }
    if is_extended_save(i) && case.registers.gpr[0] & initial_components(&case.registers) != 0 {
        // Such state may count as in use (SDM Vol. 1 "Processor Tracking of XSAVE-Managed State").
        return true;
    }
    if matches!(host.vector, 12 | 13) && is_wrong_twice(case, i) {
        return true;
    }
    if selector(case, i).is_some_and(|selector| (0x38..0x80).contains(&selector)) {
        // Linux has descriptors of its own there.
        return true;
    }
    if selector(case, i).is_some_and(|selector| selector & !3 == 0) && keeps_bases(case, host) {
        // AMD's parts before Zen 2 keep the base where a null selector is loaded; later ones say that they clear it
        // (APM Vol. 3 "Function 8000_0021h", NullSelectorClearsBase).
        return true;
    }
    if i.is_vsib() && !faulted && host.registers.rip == case.registers.rip {
        // The single step came between elements, as traps may.
        return true;
    }
    match i.mnemonic() {
        // Shifts of 16-bit operands by more than 16.
        Mnemonic::Shld | Mnemonic::Shrd => count & 31 > 16,
        // Of 16 bits.
        Mnemonic::Bswap => i.code() == Code::Bswap_r16,
        // Which slots of its frame a far call has touched and written before the fault.
        Mnemonic::Call if i.is_call_far_indirect() || i.is_call_far() => matches!(host.vector, 14 | 17),
        // Repeat prefixes are reserved here; AMD's parts let them choose the condition.
        Mnemonic::Loope | Mnemonic::Loopne => i.has_rep_prefix() || i.has_repne_prefix(),
        // Registers may be loaded before the fault, since the instruction can be restarted.
        Mnemonic::Popa | Mnemonic::Popad => faulted,
        // AMD's parts read the outer stack's slots before they look at the code segment.
        Mnemonic::Retf => matches!(host.vector, 12..=14 | 17) && (i.op_count() == 1 || host.vector == 14),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            case.registers.cs == CODE_32 && host.vector == 14
        }
        // Which of two operands is read first; Zen 4 and its predecessors do not agree.
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => {
            let mask = match i.op0_kind() {
                OpKind::MemorySegSI => 0xffff,
                OpKind::MemorySegESI => 0xffff_ffff,
                _ => u64::MAX,
            };
            let (source, destination) = (host.registers.gpr[6] & mask, host.registers.gpr[7] & mask);
            host.vector == 14 && memory_index(source).is_none() && memory_index(destination).is_none()
        }
        // Whether masked bytes fault is up to the implementation.
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu => faulted,
        // AMD's parts read four bytes, as the other forms do.
        Mnemonic::Movsxd => i.code() == Code::Movsxd_r16_rm16 && faulted,
        // AMD's parts take operands that are not aligned to 16 bytes; the SDM's do not.
        Mnemonic::Sha1rnds4
        | Mnemonic::Sha1nexte
        | Mnemonic::Sha1msg1
        | Mnemonic::Sha1msg2
        | Mnemonic::Sha256rnds2
        | Mnemonic::Sha256msg1
        | Mnemonic::Sha256msg2 => host.vector != 13 && is_unaligned(case, i),
        // #AC for what is not aligned may take the place of #GP (SDM Vol. 2A "FXRSTOR", "FXSAVE", Vol. 2D "XRSTOR", "XSAVE").
        Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64
            if host.vector == 17 =>
        {
            true
        }
        _ if is_extended_save(i) && host.vector == 17 => true,
        // Which of several NaNs goes to which place (SDM Vol. 2A "DPPD", "DPPS").
        Mnemonic::Dppd | Mnemonic::Dpps | Mnemonic::Vdppd | Mnemonic::Vdpps => {
            has_nan(host, i.op0_register(), matches!(i.mnemonic(), Mnemonic::Dppd | Mnemonic::Vdppd))
        }
        // AMD's misaligned-SSE mode, bit 17 of MXCSR, is not modelled.
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => has_misaligned_mode(case, i, 0),
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            has_misaligned_mode(case, i, 24)
        }
        // AMD's parts do not read a ModRM byte here, which matters where it is not there.
        Mnemonic::Ud0 | Mnemonic::Ud1 => case.registers.rip + i.len() as u64 > CODE_END,
        _ => false,
    }
}

/// Whether the host's FS and GS have the bases that they had, one of which is not 0.
const fn keeps_bases(case: &Case, host: &Outcome) -> bool {
    let (before, after) = (&case.registers, &host.registers);
    before.fs_base == after.fs_base && before.gs_base == after.gs_base && before.fs_base | before.gs_base != 0
}

/// The selector that `i` loads or asks about from a register or from [`Case::memory`].
fn selector(case: &Case, i: &Instruction) -> Option<u64> {
    let (operand, beyond) = match i.mnemonic() {
        Mnemonic::Mov if i.op0_register().is_segment_register() => (1, 0),
        Mnemonic::Lar | Mnemonic::Lsl => (1, 0),
        Mnemonic::Verr | Mnemonic::Verw => (0, 0),
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            (1, i.memory_size().size() as u64 - 2)
        }
        Mnemonic::Jmp | Mnemonic::Call if i.is_jmp_far_indirect() || i.is_call_far_indirect() => {
            (0, i.memory_size().size() as u64 - 2)
        }
        Mnemonic::Jmp | Mnemonic::Call
            if i.op0_kind() == OpKind::FarBranch16 || i.op0_kind() == OpKind::FarBranch32 =>
        {
            return Some(u64::from(i.far_branch_selector()));
        }
        Mnemonic::Pop if i.op0_register().is_segment_register() => return read(case, case.registers.gpr[4]),
        Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            let slot = u64::from(
                i.stack_pointer_increment().unsigned_abs()
                    / if i.mnemonic() == Mnemonic::Retf { 2 } else { 3 },
            );
            return read(case, case.registers.gpr[4].wrapping_add(slot));
        }
        _ => return None,
    };
    let register = |r: Register| case.registers.gpr[r.full_register().number()];
    if i.op_kind(operand) == OpKind::Register {
        return Some(register(i.op_register(operand)) & 0xffff);
    }
    read(case, self::operand(case, i, operand)?.wrapping_add(beyond))
}

/// The linear address of a memory operand.
pub(super) fn operand(case: &Case, i: &Instruction, n: u32) -> Option<u64> {
    i.virtual_address(n, 0, |register, _, _| {
        Some(match register {
            Register::FS => case.registers.fs_base,
            Register::GS => case.registers.gs_base,
            r if r.is_segment_register() => 0,
            r => {
                let value = case.registers.gpr[r.full_register().number()];
                if r.size() == 4 {
                    value & 0xffff_ffff
                } else if r.size() == 2 {
                    value & 0xffff
                } else {
                    value
                }
            }
        })
    })
}

/// An operand that has to be aligned, is not, and is not canonical either: #GP or #SS.
fn is_wrong_twice(case: &Case, i: &Instruction) -> bool {
    let canonical = |at: u64| (at as i64) << 16 >> 16 == at as i64;
    is_unaligned(case, i) && memory(case, i).is_some_and(|at| !canonical(at))
}

/// Whether the operand in memory has 16 bytes or more and is not aligned to 16.
fn is_unaligned(case: &Case, i: &Instruction) -> bool {
    i.memory_size().size() >= 16 && memory(case, i).is_some_and(|at| at % 16 != 0)
}

/// The linear address of the operand in memory, if there is one.
fn memory(case: &Case, i: &Instruction) -> Option<u64> {
    (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory).and_then(|n| operand(case, i, n))
}

fn is_extended_save(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Xsave | M::Xsave64 | M::Xsavec | M::Xsavec64 | M::Xrstor | M::Xrstor64)
}

/// Whether vector register `r` holds a NaN, of double or else of single precision.
fn has_nan(outcome: &Outcome, r: Register, double: bool) -> bool {
    let n = r.number();
    let low = &outcome.registers.fx[160 + 16 * n..176 + 16 * n];
    let (quads, _) = low.as_chunks::<8>();
    let (upper, _) = outcome.registers.upper[n].as_chunks::<8>();
    let mut lanes = quads.iter().chain(upper).map(|bytes| u64::from_le_bytes(*bytes));
    lanes.any(|lane| match double {
        true => f64::from_bits(lane).is_nan(),
        false => [lane as u32, (lane >> 32) as u32].into_iter().any(|half| f32::from_bits(half).is_nan()),
    })
}

/// The components of x87, SSE and AVX state that hold their initial values.
fn initial_components(registers: &Registers) -> u64 {
    let fx = &registers.fx;
    let is_clear = |from: usize, to: usize| fx[from..to].iter().all(|byte| *byte == 0);
    let x87 = fx[..2] == [0x7f, 3] && is_clear(2, 5) && is_clear(32, 160);
    let upper = registers.upper.as_flattened().iter().all(|byte| *byte == 0);
    u64::from(x87) | u64::from(is_clear(160, 416)) << 1 | u64::from(upper) << 2
}

/// Whether the MXCSR that is loaded has bit 17.
fn has_misaligned_mode(case: &Case, i: &Instruction, at: u64) -> bool {
    let upper = operand(case, i, 0).and_then(|address| read(case, address.wrapping_add(at + 2)));
    upper.is_some_and(|half| half & 2 != 0)
}

/// Two bytes of [`Case::memory`].
fn read(case: &Case, address: u64) -> Option<u64> {
    let byte = |at| memory_index(at).map(|n| u64::from(case.memory[n]));
    Some(byte(address)? | byte(address.wrapping_add(1))? << 8)
}

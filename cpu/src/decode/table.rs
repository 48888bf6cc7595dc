//! From mnemonic to semantic function: the table of what this engine executes.

use super::{CodeMode, Combine, extended};
use crate::execute::{
    Handler, alu, bits, cet, control, data, decimal, descriptors, extension, frame, inspect, multiply, ports,
    registers, segments, shift, smm, string, system, transfer, wait,
};
use crate::virtualization::Opcode;
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic as M, OpKind};
use rootmode_arch::{Feature, FeatureSet};

/// What the handler needs to know beside the operands.
#[derive(Clone, Copy, Default)]
pub(super) struct Detail {
    /// Operand size, where the first operand does not tell.
    pub(super) size: Option<u8>,
    /// Tells variants of a handler apart.
    pub(super) immediate: Option<u64>,
    pub(super) extension: Option<Opcode>,
    /// What the handler does with the operands, where that is all.
    pub(super) combine: Option<Combine>,
    /// A string instruction: REP prefixes count.
    pub(super) string: bool,
    /// Nothing may follow in a block.
    pub(super) ends_block: bool,
}

/// A row: the semantics and its details.
pub(super) type Row = (Handler, Detail);

pub(super) fn row(handler: Handler) -> Row {
    (handler, Detail::default())
}

/// A row whose instruction ends its block: control flow, or a change of how what follows is decoded, translated or interrupted.
pub(super) fn end(handler: Handler) -> Row {
    (handler, Detail { ends_block: true, ..Detail::default() })
}

pub(super) fn variant((handler, detail): Row, immediate: u64) -> Row {
    (handler, Detail { immediate: Some(immediate), ..detail })
}

pub(super) fn sized((handler, detail): Row, size: u8) -> Row {
    (handler, Detail { size: Some(size), ..detail })
}

/// A row whose handler is [`Exec::packed`](crate::execute::Exec::packed) with `combine`.
pub(super) fn combined(handler: Handler, combine: Combine) -> Row {
    (handler, Detail { combine: Some(combine), ..Detail::default() })
}

fn string(handler: Handler, size: u8) -> Row {
    (handler, Detail { size: Some(size), string: true, ..Detail::default() })
}

fn of_extension(handler: Handler, opcode: Opcode) -> Row {
    (handler, Detail { extension: Some(opcode), ends_block: true, ..Detail::default() })
}

/// The same of an instruction that changes nothing that others depend on.
fn amid_block(handler: Handler, opcode: Opcode) -> Row {
    let (handler, detail) = of_extension(handler, opcode);
    (handler, Detail { ends_block: false, ..detail })
}

/// LOOP, JCXZ and relatives: the size of their counter, which is the address size.
pub(super) fn counter_size(instruction: &Instruction) -> Option<u8> {
    Some(match instruction.code() {
        Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32
        | Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX => 2,
        Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64
        | Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX => 4,
        Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64
        | Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX => 8,
        _ => return None,
    })
}

/// Bytes that a near branch pushes, pops or jumps with.
fn branch_size(instruction: &Instruction) -> u8 {
    match instruction.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        _ => 8,
    }
}

/// Bytes that PUSH and POP move.
fn stack_size(instruction: &Instruction) -> u8 {
    instruction.stack_pointer_increment().unsigned_abs() as u8
}

/// Whether a processor with `features` has no such instruction.
pub(super) fn is_undefined(instruction: &Instruction, mode: CodeMode, features: &FeatureSet) -> bool {
    instruction.is_invalid()
        || mode.amd && extended::is_undefined_on_amd(instruction)
        || instruction.cpuid_features().iter().any(|needed| lacks(*needed, features))
}

/// The semantics of `instruction` on a processor on which it is `undefined` or not.
pub(super) fn handler(instruction: &Instruction, undefined: bool) -> Row {
    if undefined {
        return match instruction.mnemonic() {
            // Without their features these are older instructions with an ignored prefix.
            M::Tzcnt => row(bits::bsf),
            M::Rdsspd | M::Rdsspq => row(control::nop),
            M::Lzcnt => row(bits::bsr),
            M::Wbnoinvd => variant(end(system::cache_control), 1),
            _ => end(control::undefined),
        };
    }
    integer(instruction)
        .or_else(|| extended::handler(instruction))
        .or_else(|| flow(instruction))
        .or_else(|| privileged(instruction))
        .or_else(|| super::vector::handler(instruction))
        .or_else(|| super::stack::handler(instruction))
        .unwrap_or_else(|| end(control::unmodelled))
}

/// Whether an encoding that needs `feature` is undefined on a processor with `features`.
fn lacks(feature: CpuidFeature, features: &FeatureSet) -> bool {
    use CpuidFeature as C;
    if let Some(needs) = extended::needs(feature) {
        return needs.is_some_and(|needed| !features.has(needed));
    }
    let needs = match feature {
        C::INTEL8086
        | C::INTEL186
        | C::INTEL286
        | C::INTEL386
        | C::INTEL486
        | C::X64
        | C::CPUID
        | C::MULTIBYTENOP
        | C::PAUSE
        | C::SMM
        | C::CET_IBT
        | C::RDPMC => return false,
        C::TSC => Feature::Tsc,
        C::MSR => Feature::Msr,
        C::MONITOR => Feature::Monitor,
        C::WAITPKG => Feature::Waitpkg,
        C::CX8 => Feature::Cx8,
        C::CMPXCHG16B => Feature::Cmpxchg16b,
        C::CMOV => Feature::Cmov,
        C::SEP => Feature::Sep,
        C::SYSCALL => Feature::Syscall,
        C::RDTSCP => Feature::Rdtscp,
        C::RDPID => Feature::Rdpid,
        C::RDRAND => Feature::Rdrand,
        C::RDSEED => Feature::Rdseed,
        C::FSGSBASE => Feature::Fsgsbase,
        C::INVPCID => Feature::Invpcid,
        C::CET_SS => Feature::Shstk,
        C::PKU => Feature::Pku,
        C::SMAP => Feature::Smap,
        C::MOVBE => Feature::Movbe,
        C::POPCNT => Feature::Popcnt,
        C::CLFSH => Feature::Clflush,
        C::FXSR => Feature::Fxsr,
        C::XSAVE => Feature::Xsave,
        C::XSAVEOPT => Feature::XsaveOpt,
        C::XSAVEC => Feature::XsaveC,
        C::XSAVES => Feature::Xsaves,
        C::WBNOINVD => Feature::Wbnoinvd,
        C::VMX | C::INVEPT | C::INVVPID => Feature::Vmx,
        // Without SEV-ES VMGEXIT is VMMCALL.
        C::SVM | C::SKINIT_or_SVM | C::SEV_ES => Feature::Svm,
        C::FPU | C::FPU287 | C::FPU387 | C::FPU287XL_ONLY => Feature::Fpu,
        C::MMX => Feature::Mmx,
        C::SSE => Feature::Sse,
        C::SSE2 => Feature::Sse2,
        C::SSE3 => Feature::Sse3,
        C::SSSE3 => Feature::Ssse3,
        C::SSE4_1 => Feature::Sse41,
        C::SSE4_2 => Feature::Sse42,
        C::AES => Feature::Aes,
        C::PCLMULQDQ => Feature::Pclmulqdq,
        C::SHA => Feature::Sha,
        C::AVX => Feature::Avx,
        C::AVX2 => Feature::Avx2,
        C::FMA => Feature::Fma,
        C::F16C => Feature::F16c,
        C::VAES => Feature::Vaes,
        C::VPCLMULQDQ => Feature::Vpclmulqdq,
        _ => return true,
    };
    !features.has(needs)
}

fn integer(i: &Instruction) -> Option<Row> {
    let segment = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n).is_segment_register();
    let control = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n).is_cr();
    let debug = |n: u32| i.op_kind(n) == OpKind::Register && i.op_register(n).is_dr();
    Some(match i.mnemonic() {
        M::Mov if segment(0) => end(segments::write_segment),
        M::Mov if segment(1) => row(data::read_segment),
        M::Mov if control(0) => end(registers::mov_to_cr),
        M::Mov if control(1) => row(registers::mov_from_cr),
        M::Mov if debug(0) => end(registers::mov_to_dr),
        M::Mov if debug(1) => row(registers::mov_from_dr),
        M::Mov | M::Movzx | M::Movnti => row(data::mov),
        M::Movsx | M::Movsxd => row(data::movsx),
        M::Movbe => row(data::movbe),
        M::Lea => row(data::lea),
        M::Xchg => row(data::xchg),
        M::Push => sized(row(data::push), stack_size(i)),
        M::Pop if segment(0) => sized(end(segments::pop_segment), stack_size(i)),
        M::Pop => sized(row(data::pop), stack_size(i)),
        M::Leave => sized(row(frame::leave), leave_size(i)),
        M::Enter => variant(sized(row(frame::enter), enter_size(i)), enter_operands(i)),
        M::Pusha => sized(row(frame::pusha), 2),
        M::Pushad => sized(row(frame::pusha), 4),
        M::Popa => sized(row(frame::popa), 2),
        M::Popad => sized(row(frame::popa), 4),
        M::Xlatb => sized(row(data::xlat), 1),
        M::Salc => row(decimal::salc),
        M::Daa => variant(row(decimal::adjust_packed), 0),
        M::Das => variant(row(decimal::adjust_packed), 1),
        M::Aaa => variant(row(decimal::adjust_unpacked), 0),
        M::Aas => variant(row(decimal::adjust_unpacked), 1),
        M::Aam => row(decimal::aam),
        M::Aad => row(decimal::aad),
        M::Add => row(alu::add),
        M::Adc => row(alu::adc),
        M::Sub => row(alu::sub),
        M::Sbb => row(alu::sbb),
        M::And => row(alu::and),
        M::Or => row(alu::or),
        M::Xor => row(alu::xor),
        M::Cmp => row(alu::cmp),
        M::Test => row(alu::test),
        M::Inc => row(alu::inc),
        M::Dec => row(alu::dec),
        M::Neg => row(alu::neg),
        M::Not => row(alu::not),
        M::Xadd => row(alu::xadd),
        M::Cmpxchg => row(alu::cmpxchg),
        M::Cmpxchg8b => sized(row(alu::cmpxchg_pair), 4),
        M::Cmpxchg16b => sized(row(alu::cmpxchg_pair), 8),
        M::Clc => variant(row(alu::carry), 0),
        M::Stc => variant(row(alu::carry), 1),
        M::Cmc => variant(row(alu::carry), 2),
        M::Lahf => row(alu::lahf),
        M::Sahf => row(alu::sahf),
        M::Mul => row(multiply::mul),
        M::Imul if i.op_count() == 1 => row(multiply::imul_wide),
        M::Imul => row(multiply::imul),
        M::Div => row(multiply::div),
        M::Idiv => row(multiply::idiv),
        M::Cbw => sized(row(multiply::extend_accumulator), 2),
        M::Cwde => sized(row(multiply::extend_accumulator), 4),
        M::Cdqe => sized(row(multiply::extend_accumulator), 8),
        M::Cwd => sized(row(multiply::extend_into_rdx), 2),
        M::Cdq => sized(row(multiply::extend_into_rdx), 4),
        M::Cqo => sized(row(multiply::extend_into_rdx), 8),
        M::Shl | M::Sal => row(shift::shl),
        M::Shr => row(shift::shr),
        M::Sar => row(shift::sar),
        M::Rol => row(shift::rol),
        M::Ror => row(shift::ror),
        M::Rcl => row(shift::rcl),
        M::Rcr => row(shift::rcr),
        M::Shld => row(shift::shld),
        M::Shrd => row(shift::shrd),
        M::Bt => row(bits::bt),
        M::Bts => row(bits::bts),
        M::Btr => row(bits::btr),
        M::Btc => row(bits::btc),
        M::Bsf => row(bits::bsf),
        M::Bsr => row(bits::bsr),
        M::Popcnt => row(bits::popcnt),
        M::Bswap => row(bits::bswap),
        M::Movsb => string(string::movs, 1),
        M::Movsw => string(string::movs, 2),
        M::Movsd if i.is_string_instruction() => string(string::movs, 4),
        M::Movsq => string(string::movs, 8),
        M::Stosb => string(string::stos, 1),
        M::Stosw => string(string::stos, 2),
        M::Stosd => string(string::stos, 4),
        M::Stosq => string(string::stos, 8),
        M::Lodsb => string(string::lods, 1),
        M::Lodsw => string(string::lods, 2),
        M::Lodsd => string(string::lods, 4),
        M::Lodsq => string(string::lods, 8),
        M::Scasb => string(string::scas, 1),
        M::Scasw => string(string::scas, 2),
        M::Scasd => string(string::scas, 4),
        M::Scasq => string(string::scas, 8),
        M::Cmpsb => string(string::cmps, 1),
        M::Cmpsw => string(string::cmps, 2),
        M::Cmpsd if i.is_string_instruction() => string(string::cmps, 4),
        M::Cmpsq => string(string::cmps, 8),
        M::Cld => variant(row(system::direction), 0),
        M::Std => variant(row(system::direction), 1),
        M::Nop | M::Mfence | M::Lfence | M::Sfence | M::Reservednop => row(control::nop),
        _ if i.is_jcc_short_or_near() => sized(end(control::jcc), branch_size(i)),
        _ if is_setcc(i) => sized(row(data::setcc), 1),
        _ if is_cmovcc(i) => row(data::cmov),
        _ => return None,
    })
}

fn leave_size(i: &Instruction) -> u8 {
    match i.code() {
        Code::Leavew => 2,
        Code::Leaved => 4,
        _ => 8,
    }
}

fn enter_size(i: &Instruction) -> u8 {
    match i.code() {
        Code::Enterw_imm16_imm8 => 2,
        Code::Enterd_imm16_imm8 => 4,
        _ => 8,
    }
}

/// Both immediates of ENTER in one.
fn enter_operands(i: &Instruction) -> u64 {
    u64::from(i.immediate16()) | u64::from(i.immediate8_2nd()) << 16
}

fn is_setcc(i: &Instruction) -> bool {
    i.condition_code() != iced_x86::ConditionCode::None && i.op_count() == 1 && {
        matches!(i.op0_kind(), OpKind::Register | OpKind::Memory)
    }
}

fn is_cmovcc(i: &Instruction) -> bool {
    i.condition_code() != iced_x86::ConditionCode::None && i.op_count() == 2
}

fn far_jump(i: &Instruction) -> bool {
    i.is_jmp_far() || i.is_jmp_far_indirect()
}

fn far_call(i: &Instruction) -> bool {
    i.is_call_far() || i.is_call_far_indirect()
}

/// Bytes of a far pointer's offset.
fn far_size(i: &Instruction) -> u8 {
    match i.op0_kind() {
        OpKind::FarBranch16 => 2,
        OpKind::FarBranch32 => 4,
        _ => i.memory_size().size() as u8 - 2,
    }
}

fn far_return_size(i: &Instruction) -> u8 {
    match i.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    }
}

/// Bytes of the register in which MONITOR has its address.
fn address_register(i: &Instruction) -> u8 {
    match i.code() {
        Code::Monitorw => 2,
        Code::Monitord => 4,
        _ => 8,
    }
}

/// Operand size of LGDT and its relatives.
fn table_size(i: &Instruction) -> u8 {
    match i.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 | Code::Sgdt_m1632_16 | Code::Sidt_m1632_16 => 2,
        Code::Lgdt_m1632 | Code::Lidt_m1632 | Code::Sgdt_m1632 | Code::Sidt_m1632 => 4,
        _ => 8,
    }
}

fn flow(i: &Instruction) -> Option<Row> {
    let relative = matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let indirect = |i: &Instruction| {
        if i.op0_kind() == OpKind::Memory {
            i.memory_size().size() as u8
        } else {
            i.op0_register().size() as u8
        }
    };
    Some(match i.mnemonic() {
        M::Jmp if relative => sized(end(control::jmp), branch_size(i)),
        M::Jmp if far_jump(i) => sized(end(transfer::jmp_far), far_size(i)),
        M::Call if far_call(i) => sized(end(transfer::call_far), far_size(i)),
        M::Jmp => sized(end(control::jmp_indirect), indirect(i)),
        M::Call if relative => sized(end(control::call), branch_size(i)),
        M::Call => sized(end(control::call_indirect), indirect(i)),
        M::Ret => {
            let size = match i.code() {
                Code::Retnw | Code::Retnw_imm16 => 2,
                Code::Retnd | Code::Retnd_imm16 => 4,
                _ => 8,
            };
            sized(end(control::ret), size)
        }
        M::Retf => sized(end(transfer::ret_far), far_return_size(i)),
        M::Jrcxz | M::Jecxz | M::Jcxz => sized(end(control::jrcxz), branch_size(i)),
        M::Loop | M::Loope | M::Loopne => sized(end(control::loop_), branch_size(i)),
        M::Int => end(control::int),
        M::Int3 => variant(end(control::breakpoint), 3),
        M::Int1 => variant(end(control::breakpoint), 1),
        M::Into => variant(end(control::into), 4),
        M::Bound => end(control::bound),
        M::Ud0 | M::Ud1 | M::Ud2 => end(control::undefined),
        M::Iretq => sized(end(transfer::iret), 8),
        M::Iretd => sized(end(transfer::iret), 4),
        M::Iret => sized(end(transfer::iret), 2),
        M::Syscall => end(transfer::syscall),
        M::Sysretq => sized(end(transfer::sysret), 8),
        M::Sysret => sized(end(transfer::sysret), 4),
        M::Rsm => end(smm::rsm),
        M::Endbr64 | M::Endbr32 => row(cet::endbranch),
        M::Rdsspd | M::Rdsspq => end(cet::read_pointer),
        M::Incsspd | M::Incsspq => end(cet::increment),
        M::Saveprevssp => end(cet::save_previous),
        M::Rstorssp => end(cet::restore),
        M::Wrssd => sized(end(cet::write), 4),
        M::Wrssq => sized(end(cet::write), 8),
        M::Wrussd => sized(end(cet::write_user), 4),
        M::Wrussq => sized(end(cet::write_user), 8),
        M::Setssbsy => end(cet::set_busy),
        M::Clrssbsy => end(cet::clear_busy),
        M::Sysenter => end(transfer::sysenter),
        M::Sysexitq => sized(end(transfer::sysexit), 8),
        M::Sysexit => sized(end(transfer::sysexit), 4),
        _ => return None,
    })
}

fn privileged(i: &Instruction) -> Option<Row> {
    let pushes = || stack_size(i);
    Some(match i.mnemonic() {
        M::Pushf | M::Pushfd | M::Pushfq => sized(row(data::pushf), pushes()),
        M::Popf | M::Popfd | M::Popfq => sized(end(data::popf), pushes()),
        M::Cli => end(system::cli),
        M::Sti => end(system::sti),
        M::Clac => variant(end(system::alignment_check), 0),
        M::Stac => variant(end(system::alignment_check), 1),
        M::Hlt => end(system::hlt),
        M::Pause => row(system::pause),
        M::Monitor => sized(row(wait::monitor), address_register(i)),
        M::Mwait => end(wait::mwait),
        M::Umonitor => row(wait::user_monitor),
        M::Umwait => variant(end(wait::user_wait), 0),
        M::Tpause => variant(end(wait::user_wait), 1),
        M::Cpuid => row(system::cpuid),
        M::Rdtsc => row(system::rdtsc),
        M::Rdtscp => row(system::rdtscp),
        M::Rdpid => row(system::rdpid),
        M::Rdpmc => row(system::rdpmc),
        M::Rdmsr => row(system::rdmsr),
        M::Wrmsr => end(system::wrmsr),
        M::Invlpg => end(system::invlpg),
        M::Invpcid => end(system::invpcid),
        M::Invd => variant(end(system::cache_control), 0),
        M::Wbinvd => variant(end(system::cache_control), 1),
        M::Wbnoinvd => variant(end(system::cache_control), 2),
        M::Swapgs => end(system::swapgs),
        M::Rdrand => variant(end(system::random), 0),
        M::Rdseed => variant(end(system::random), 1),
        M::Rdfsbase => variant(row(system::segment_base), 0),
        M::Rdgsbase => variant(row(system::segment_base), 1),
        M::Wrfsbase => variant(row(system::segment_base), 2),
        M::Wrgsbase => variant(row(system::segment_base), 3),
        M::Rdpkru => variant(row(system::protection_keys), 0),
        M::Wrpkru => variant(end(system::protection_keys), 1),
        M::Clts => end(registers::clts),
        M::Lmsw => end(registers::lmsw),
        M::Smsw => end(registers::smsw),
        M::Xgetbv => end(registers::xgetbv),
        M::Xsetbv => end(registers::xsetbv),
        M::Lgdt => sized(variant(end(descriptors::load_table), 0), table_size(i)),
        M::Lidt => sized(variant(end(descriptors::load_table), 1), table_size(i)),
        M::Sgdt => sized(variant(end(descriptors::store_table), 0), table_size(i)),
        M::Sidt => sized(variant(end(descriptors::store_table), 1), table_size(i)),
        M::Les => variant(end(segments::load_far_pointer), 0),
        M::Lss => variant(end(segments::load_far_pointer), 2),
        M::Lds => variant(end(segments::load_far_pointer), 3),
        M::Lfs => variant(end(segments::load_far_pointer), 4),
        M::Lgs => variant(end(segments::load_far_pointer), 5),
        M::Lar => end(inspect::lar),
        M::Lsl => end(inspect::lsl),
        M::Verr => variant(end(inspect::verify), 0),
        M::Verw => variant(end(inspect::verify), 1),
        M::Arpl => end(inspect::arpl),
        M::Sldt => variant(end(descriptors::store_selector), 0),
        M::Str => variant(end(descriptors::store_selector), 1),
        M::Lldt => variant(end(descriptors::load_system_segment), 0),
        M::Ltr => variant(end(descriptors::load_system_segment), 1),
        M::In => row(ports::in_),
        M::Out => sized(row(ports::out), i.op1_register().size() as u8),
        M::Insb => string(ports::ins, 1),
        M::Insw => string(ports::ins, 2),
        M::Insd => string(ports::ins, 4),
        M::Outsb => string(ports::outs, 1),
        M::Outsw => string(ports::outs, 2),
        M::Outsd => string(ports::outs, 4),
        M::Vmxon => of_extension(extension::vmx_pointer, Opcode::Vmxon),
        M::Vmclear => of_extension(extension::vmx_pointer, Opcode::Vmclear),
        M::Vmptrld => of_extension(extension::vmx_pointer, Opcode::Vmptrld),
        M::Vmptrst => of_extension(extension::vmx_pointer, Opcode::Vmptrst),
        M::Vmread => amid_block(extension::vmread, Opcode::Vmread),
        M::Vmwrite => amid_block(extension::vmwrite, Opcode::Vmwrite),
        M::Vmxoff => of_extension(extension::vmx_plain, Opcode::Vmxoff),
        M::Vmlaunch => of_extension(extension::vmx_plain, Opcode::Vmlaunch),
        M::Vmresume => of_extension(extension::vmx_plain, Opcode::Vmresume),
        M::Vmcall => of_extension(extension::vmx_plain, Opcode::Vmcall),
        M::Vmfunc => of_extension(extension::vmx_plain, Opcode::Vmfunc),
        M::Invept => of_extension(extension::invalidate, Opcode::Invept),
        M::Invvpid => of_extension(extension::invalidate, Opcode::Invvpid),
        M::Vmrun => of_extension(extension::svm, Opcode::Vmrun),
        M::Vmload => of_extension(extension::svm, Opcode::Vmload),
        M::Vmsave => of_extension(extension::svm, Opcode::Vmsave),
        M::Vmmcall => of_extension(extension::svm, Opcode::Vmmcall),
        M::Vmgexit => of_extension(extension::svm, Opcode::Vmgexit),
        M::Stgi => of_extension(extension::svm, Opcode::Stgi),
        M::Clgi => of_extension(extension::svm, Opcode::Clgi),
        M::Invlpga => of_extension(extension::svm, Opcode::Invlpga),
        M::Skinit => of_extension(extension::svm, Opcode::Skinit),
        _ => return None,
    })
}

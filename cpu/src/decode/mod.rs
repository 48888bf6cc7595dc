//! Decoding: iced-x86's instructions become our own form, with operands resolved and a function pointer to the semantics.
//!
//! A decoded instruction does not depend on its linear address (RIP-relative parts are kept relative), so that blocks can be
//! cached by physical page.

mod extended;
mod quick;
mod stack;
mod table;
mod vector;

pub(crate) use quick::Quick;

use crate::execute::Handler;
use crate::state::Current;
use crate::virtualization::Opcode;
use iced_x86::{Code, Instruction, OpKind, Register};
use rootmode_arch::SegmentName;

/// No register.
pub(crate) const NO_REGISTER: u8 = 0xff;
/// The base is the address of the instruction (the displacement includes its length).
pub(crate) const RIP_BASE: u8 = 0xfe;

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// There is none.
    None,
    /// A general-purpose register, from its low end.
    Register(u8),
    /// AH, CH, DH, BH: bits 15:8 of registers 0 to 3.
    High(u8),
    /// The memory operand.
    Memory,
    /// [`Decoded::immediate`].
    Immediate,
    /// An XMM register.
    Xmm(u8),
    /// A YMM register.
    Ymm(u8),
    /// An MMX register.
    Mmx(u8),
    /// ST(i).
    Stack(u8),
    /// A segment register by number, a control register or a debug register: the handler knows which.
    Special(u8),
}

/// The memory operand, or the addressing of a string instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Displacement, sign-extended.
    pub(crate) displacement: u64,
    /// Register number, [`NO_REGISTER`] or [`RIP_BASE`].
    pub(crate) base: u8,
    /// Register number or [`NO_REGISTER`].
    pub(crate) index: u8,
    /// log2 of the scale.
    pub(crate) scale: u8,
    /// 2, 4 or 8 bytes.
    pub(crate) address_size: u8,
    /// The segment.
    pub(crate) segment: SegmentName,
}

/// REP prefixes of string instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// None.
    None,
    /// REP, REPE.
    WhileEqual,
    /// REPNE.
    WhileNotEqual,
}

/// A pure function of an instruction's destination and source.
pub(crate) type Combine = fn(u128, u128) -> u128;

/// A decoded instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    /// The semantics.
    pub(crate) handler: Handler,
    /// Up to three operands; the first is the destination.
    pub(crate) operands: [Operand; 3],
    /// Operand size in bytes.
    pub(crate) size: u8,
    /// Size of the second operand in bytes, where it differs (MOVZX, MOVSX).
    pub(crate) source_size: u8,
    /// Condition code, as encoded in Jcc.
    pub(crate) condition: u8,
    /// REP prefix.
    pub(crate) repeat: Repeat,
    /// Which instruction of an extension.
    pub(crate) extension: Option<Opcode>,
    /// Nothing may follow in a block.
    pub(crate) ends_block: bool,
    /// A branch, taken or not.
    pub(crate) branches: bool,
    /// An access to memory is locked: by the prefix, or because it is XCHG's.
    pub(crate) locked: bool,
    /// A near branch: what follows runs as what went before.
    pub(crate) keeps_mode: bool,
    /// What the engine may run instead of the handler.
    pub(crate) quick: Quick,
    /// What the handler does with the destination and the source, where that is all.
    pub(crate) combine: Option<Combine>,
    /// Encoded with a VEX prefix: what is above the result is cleared, and operands in memory need no alignment.
    pub(crate) vex: bool,
    /// An operand is a YMM register, or as wide as one.
    pub(crate) wide: bool,
    /// The last operand that is not an immediate: 1, or 2 with VEX's third one. The first source is the operand before it.
    pub(crate) last: u8,
    /// The memory operand.
    pub(crate) memory: Memory,
    /// The immediate; a branch's target relative to the instruction; or a number that tells variants of a handler apart.
    pub(crate) immediate: u64,
    /// Length and bytes.
    pub(crate) current: Current,
}

impl Decoded {
    /// Whether the first operand is in memory.
    pub(crate) fn is_memory(&self) -> bool {
        self.operands[0] == Operand::Memory
    }

    /// How many halves of YMM registers the instruction works on.
    pub(crate) const fn halves(&self) -> usize {
        1 + self.wide as usize
    }

    /// The last source's operand.
    pub(crate) const fn last_operand(&self) -> Operand {
        self.operands[self.last as usize % 3]
    }

    /// The first source's operand: of forms with two operands it is the destination.
    pub(crate) const fn first_operand(&self) -> Operand {
        self.operands[(self.last as usize).saturating_sub(1) % 3]
    }
}

/// What decoding depends on beside the bytes. Part of the key of cached blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeMode {
    /// 16, 32 or 64: the default operand and address size of the code segment, or 64-bit mode.
    pub(crate) bits: u8,
    /// AMD's rules for prefixes of near branches.
    pub(crate) amd: bool,
}

/// Decodes the first instruction of `bytes`. `None`: more bytes are needed; of 15 bytes or more, the instruction is longer
/// than the architecture allows.
pub(crate) fn decode(bytes: &[u8], mode: CodeMode) -> Option<Instruction> {
    let options = if mode.amd { iced_x86::DecoderOptions::AMD } else { iced_x86::DecoderOptions::NONE };
    let mut decoder = iced_x86::Decoder::with_ip(u32::from(mode.bits), bytes, 0, options);
    let instruction = decoder.decode();
    if mode.amd
        && instruction.code() == Code::Pause
        && instruction.len() > 2
        && bytes[instruction.len() - 2] & 0xf1 == 0x41
    {
        return Some(exchange_with_r8(bytes, instruction.len(), options));
    }
    let invalid = instruction.code() == Code::INVALID;
    if invalid && instruction.len() == MAX_LENGTH && is_too_long(bytes, mode, options) {
        return None;
    }
    (decoder.last_error() != iced_x86::DecoderError::NoMoreBytes).then_some(instruction)
}

/// The longest instruction.
const MAX_LENGTH: usize = 15;

/// Whether the instruction at `bytes`, of which iced says after 15 bytes that it is not valid, is only longer than that.
#[cold]
fn is_too_long(bytes: &[u8], mode: CodeMode, options: u32) -> bool {
    let is_prefix = |byte: &u8| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
    };
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let rest = &bytes[prefixes..];
    let opcode = match rest {
        [0x0f, 0x38 | 0x3a, ..] => 3,
        [0x0f, ..] => 2,
        _ => 1,
    };
    if prefixes + opcode > MAX_LENGTH {
        return true;
    }
    // Each prefix once: without the others, which say nothing, it fits, and shows whether it is defined.
    let mut once: Vec<u8> = Vec::new();
    for prefix in &bytes[..prefixes] {
        if !once.contains(prefix) {
            once.push(*prefix);
        }
    }
    once.extend(rest.iter().take(MAX_LENGTH));
    let mut decoder = iced_x86::Decoder::with_ip(u32::from(mode.bits), &once, 0, options);
    decoder.decode().code() != Code::INVALID
}

/// `bytes` of `length` that iced takes for PAUSE: on AMD's parts they are XCHG with R8 with REX.B, and the F3 prefix means nothing.
#[cold]
fn exchange_with_r8(bytes: &[u8], length: usize, options: u32) -> Instruction {
    let mut plain = [0x3e; 15];
    for (to, from) in plain.iter_mut().zip(&bytes[..length]) {
        if *from != 0xf3 {
            *to = *from;
        }
    }
    iced_x86::Decoder::with_ip(64, &plain[..length], 0, options).decode()
}

/// Our form of `instruction`, whose bytes start `bytes`.
pub(crate) fn resolve(
    instruction: &Instruction,
    bytes: &[u8],
    mode: CodeMode,
    features: &rootmode_arch::FeatureSet,
) -> Decoded {
    let undefined = table::is_undefined(instruction, mode, features)
        || mode.amd && has_wrong_width(instruction, bytes, mode);
    let (handler, detail) = table::handler(instruction, undefined);
    let length = instruction.len().clamp(1, 15);
    let mut current = Current { length: length as u8, bytes: [0; 15] };
    let known = length.min(bytes.len());
    current.bytes[..known].copy_from_slice(&bytes[..known]);
    let mut operands = [Operand::None; 3];
    for (n, operand) in operands.iter_mut().enumerate().take(instruction.op_count().min(3) as usize) {
        *operand = self::operand(instruction, n as u32);
    }
    let vex = instruction.code().encoding() == iced_x86::EncodingKind::VEX;
    let last = if vex && !matches!(operands[2], Operand::None | Operand::Immediate) { 2 } else { 1 };
    let quick = if undefined {
        Quick::None
    } else if vex {
        quick::with_vex(instruction, detail.combine.is_some())
    } else if detail.combine.is_some() {
        Quick::Combine
    } else {
        quick::quick(instruction)
    };
    let size = detail.size.unwrap_or_else(|| operand_size(instruction, 0));
    let source_size =
        if instruction.op_count() > 1 { operand_size(instruction, u32::from(last)) } else { size };
    Decoded {
        handler,
        operands,
        size,
        source_size: if source_size == 0 { size } else { source_size },
        condition: condition(instruction),
        repeat: if instruction.has_repne_prefix() && detail.string {
            Repeat::WhileNotEqual
        } else if instruction.has_rep_prefix() && detail.string {
            Repeat::WhileEqual
        } else {
            Repeat::None
        },
        extension: detail.extension,
        ends_block: detail.ends_block,
        branches: detail.extension.is_none() && is_branch(instruction),
        locked: instruction.has_lock_prefix() || instruction.mnemonic() == iced_x86::Mnemonic::Xchg,
        keeps_mode: quick.is_near_branch(),
        quick,
        combine: detail.combine,
        vex,
        wide: operands.iter().any(|operand| matches!(operand, Operand::Ymm(_))) || vex && source_size == 32,
        last,
        memory: memory(instruction, mode),
        immediate: detail
            .immediate
            .or_else(|| stack::opcode(&bytes[..known]))
            .unwrap_or_else(|| immediate(instruction)),
        current,
    }
}

/// Whether VPEXTRD or VPINSRD has VEX.W outside 64-bit mode: Intel's parts ignore it (SDM Vol. 2 "PINSRB/PINSRD/PINSRQ"), AMD's
/// have no such instruction.
fn has_wrong_width(instruction: &Instruction, bytes: &[u8], mode: CodeMode) -> bool {
    let affected =
        matches!(instruction.code(), Code::VEX_Vpextrd_rm32_xmm_imm8 | Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8);
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67);
    // The prefix of three bytes: its last one has W.
    let last = || bytes.iter().skip_while(|byte| is_prefix(byte)).nth(2);
    affected && mode.bits != 64 && last().is_some_and(|byte| byte >> 7 != 0)
}

/// Whether control may go elsewhere, other than by a fault.
fn is_branch(instruction: &Instruction) -> bool {
    use iced_x86::FlowControl as F;
    matches!(
        instruction.flow_control(),
        F::UnconditionalBranch
            | F::IndirectBranch
            | F::ConditionalBranch
            | F::Return
            | F::Call
            | F::IndirectCall
            | F::Interrupt
    )
}

fn operand(instruction: &Instruction, n: u32) -> Operand {
    match instruction.op_kind(n) {
        OpKind::Register => register(instruction.op_register(n)),
        OpKind::Memory => Operand::Memory,
        kind if is_immediate(kind) => Operand::Immediate,
        _ => Operand::None,
    }
}

fn register(register: Register) -> Operand {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            Operand::High(register as u8 - Register::AH as u8)
        }
        r if r.is_gpr() => Operand::Register(r.full_register().number() as u8),
        r if r.is_segment_register() || r.is_cr() || r.is_dr() => Operand::Special(r.number() as u8),
        r if r.is_xmm() => Operand::Xmm(r.number() as u8),
        r if r.is_ymm() => Operand::Ymm(r.number() as u8),
        r if r.is_mm() => Operand::Mmx(r.number() as u8),
        r if r.is_st() => Operand::Stack(r.number() as u8),
        _ => Operand::None,
    }
}

const fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate64
    )
}

/// Bytes of operand `n`; for immediates, of the first operand.
fn operand_size(instruction: &Instruction, n: u32) -> u8 {
    if instruction.op_count() <= n {
        return 8;
    }
    match instruction.op_kind(n) {
        OpKind::Register => instruction.op_register(n).size() as u8,
        kind if is_immediate(kind) && n > 0 => operand_size(instruction, 0),
        kind if is_immediate(kind) => instruction.stack_pointer_increment().unsigned_abs() as u8,
        _ => instruction.memory_size().size().min(255) as u8,
    }
}

fn immediate(instruction: &Instruction) -> u64 {
    match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            return instruction.near_branch_target();
        }
        OpKind::FarBranch16 => return far_pointer(instruction, u32::from(instruction.far_branch16())),
        OpKind::FarBranch32 => return far_pointer(instruction, instruction.far_branch32()),
        _ => {}
    }
    (0..instruction.op_count())
        .find(|n| is_immediate(instruction.op_kind(*n)))
        .map_or(0, |n| instruction.immediate(n))
}

/// An immediate far pointer: the selector above 32 bits of offset.
fn far_pointer(instruction: &Instruction, offset: u32) -> u64 {
    u64::from(instruction.far_branch_selector()) << 32 | u64::from(offset)
}

/// Jcc, SETcc, CMOVcc: the condition as encoded. LOOPE and LOOPNE likewise.
fn condition(instruction: &Instruction) -> u8 {
    use iced_x86::ConditionCode as C;
    match instruction.condition_code() {
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
        C::None => 0xff,
    }
}

fn memory(instruction: &Instruction, mode: CodeMode) -> Memory {
    let number = |r: Register| match r {
        Register::RIP | Register::EIP => RIP_BASE,
        r if r.is_gpr() => r.full_register().number() as u8,
        _ => NO_REGISTER,
    };
    let segment = match segment_register(instruction, mode) {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => SegmentName::Ds,
    };
    Memory {
        displacement: instruction.memory_displacement64(),
        base: number(instruction.memory_base()),
        index: number(instruction.memory_index()),
        scale: instruction.memory_index_scale().trailing_zeros() as u8,
        address_size: address_size(instruction, mode),
        segment,
    }
}

/// The segment of the memory operand. In 64-bit mode prefixes other than FS and GS are ignored, so that they do not choose
/// between #SS and #GP either (SDM Vol. 1 "Segmentation in 64-bit Mode").
fn segment_register(instruction: &Instruction, mode: CodeMode) -> Register {
    let is_ignored =
        matches!(instruction.segment_prefix(), Register::ES | Register::CS | Register::SS | Register::DS);
    if mode.bits == 64 && is_ignored {
        return match instruction.memory_base() {
            Register::RSP | Register::RBP | Register::ESP | Register::EBP => Register::SS,
            _ => Register::DS,
        };
    }
    instruction.memory_segment()
}

/// The address size in bytes: of the memory operand, of a string instruction's registers, or of LOOP's counter.
fn address_size(instruction: &Instruction, mode: CodeMode) -> u8 {
    let string = (0..instruction.op_count()).find_map(|n| match instruction.op_kind(n) {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(2),
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(4),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(8),
        _ => None,
    });
    if let Some(size) = string.or_else(|| table::counter_size(instruction)) {
        return size;
    }
    let register = [instruction.memory_base(), instruction.memory_index()];
    // The offsets of a gather have a width of their own.
    match register.iter().find(|r| **r != Register::None && !r.is_vector_register()) {
        Some(Register::EIP) => 4,
        Some(Register::RIP) => 8,
        Some(r) => r.size().min(8) as u8,
        None if (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory) => {
            match instruction.memory_displ_size() {
                2 => 2,
                // In 64-bit mode an absolute 32-bit displacement is sign-extended; only with an address-size prefix is it not.
                4 if mode.bits == 64 && instruction.memory_displacement64() >> 31 != 1 => 8,
                4 => 4,
                _ => mode.bits / 8,
            }
        }
        None => mode.bits / 8,
    }
}

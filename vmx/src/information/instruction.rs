//! [`InstructionInformation`]: what the VM-exit instruction-information field says, in each of its formats.
//!
//! Source: SDM Vol. 3C (325384-083, Mar 2024) "Information for VM Exits Due to Instruction Execution".

use rootmode_arch::event::{Event, MemoryOperand, Operand, TableInstruction};
use rootmode_arch::{Gpr, SegmentName};

/// The formats of the field: one table of the manual each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Format {
    /// INS and OUTS: address size and segment.
    InsOuts,
    /// INVEPT, INVPCID, INVVPID: memory operand, and the register that holds the type.
    Invalidate,
    /// LIDT, LGDT, SIDT, SGDT: memory operand, operand size, identity.
    GdtrIdtr,
    /// LLDT, LTR, SLDT, STR: register or memory operand, identity.
    LdtrTr,
    /// RDRAND, RDSEED, TPAUSE, UMWAIT: register and its size.
    Register,
    /// VMCLEAR, VMPTRLD, VMPTRST, VMXON, XRSTORS, XSAVES: memory operand.
    Memory,
    /// VMREAD and VMWRITE: register or memory operand, and the register that holds the field encoding.
    VmcsField,
    /// LOADIWKEY: two XMM registers.
    Loadiwkey,
}

impl Format {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::InsOuts,
        Self::Invalidate,
        Self::GdtrIdtr,
        Self::LdtrTr,
        Self::Register,
        Self::Memory,
        Self::VmcsField,
        Self::Loadiwkey,
    ];
}

/// The parts of a memory operand that the field reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Segment, ES to GS.
    pub segment: SegmentName,
    /// Base register.
    pub base: Option<Gpr>,
    /// Index register and log2 of its scale (0 to 3).
    pub index: Option<(Gpr, u8)>,
    /// Address size in bytes: 2, 4 or 8.
    pub size: u8,
}

impl From<&MemoryOperand> for Address {
    fn from(operand: &MemoryOperand) -> Self {
        Self {
            segment: operand.segment,
            base: operand.base,
            index: operand.index.map(|index| (index, operand.scale)),
            size: operand.address_size,
        }
    }
}

/// The operand that the field reports. Register numbers of LOADIWKEY are XMM numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionOperand {
    /// Register (bit 10 = 1 where the format has both).
    Register(Gpr),
    /// Memory.
    Memory(Address),
}

/// The contents of the field. Members that the format does not have are `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstructionInformation {
    /// The operand. INS and OUTS: base and index are `None`.
    pub operand: InstructionOperand,
    /// Second register: type, field encoding, or second XMM register.
    pub register: Option<Gpr>,
    /// GDTR/IDTR: 2 or 4 (any other size is encoded as 2: undefined in 64-bit mode). Register format: 2, 4 or 8.
    pub operand_size: Option<u8>,
    /// Which descriptor-table instruction.
    pub identity: Option<TableInstruction>,
}

const fn size_code(bytes: u8) -> u32 {
    match bytes {
        8 => 2,
        4 => 1,
        _ => 0,
    }
}

const fn size_bytes(code: u32) -> Option<u8> {
    match code {
        0 => Some(2),
        1 => Some(4),
        2 => Some(8),
        _ => None,
    }
}

const fn gpr(value: u32, shift: u32) -> Gpr {
    Gpr::from_number((value >> shift & 15) as u8)
}

const fn identity_code(instruction: TableInstruction) -> u32 {
    match instruction {
        TableInstruction::Sgdt | TableInstruction::Sldt => 0,
        TableInstruction::Sidt | TableInstruction::Str => 1,
        TableInstruction::Lgdt | TableInstruction::Lldt => 2,
        TableInstruction::Lidt | TableInstruction::Ltr => 3,
    }
}

const fn identity(format: Format, code: u32) -> Option<TableInstruction> {
    use TableInstruction::{Lgdt, Lidt, Lldt, Ltr, Sgdt, Sidt, Sldt, Str};
    Some(match format {
        Format::GdtrIdtr => [Sgdt, Sidt, Lgdt, Lidt][(code & 3) as usize],
        Format::LdtrTr => [Sldt, Str, Lldt, Ltr][(code & 3) as usize],
        _ => return None,
    })
}

impl Address {
    fn encode(self) -> u32 {
        let index = match self.index {
            Some((register, scale)) => u32::from(scale & 3) | u32::from(register.number()) << 18,
            None => 1 << 22,
        };
        let base = match self.base {
            Some(register) => u32::from(register.number()) << 23,
            None => 1 << 27,
        };
        index | base | size_code(self.size) << 7 | (self.segment as u32) << 15
    }

    fn decode(value: u32) -> Option<Self> {
        let segment = value >> 15 & 7;
        if segment > 5 {
            return None;
        }
        Some(Self {
            segment: SegmentName::ALL[segment as usize],
            base: (value >> 27 & 1 == 0).then(|| gpr(value, 23)),
            index: (value >> 22 & 1 == 0).then(|| (gpr(value, 18), (value & 3) as u8)),
            size: size_bytes(value >> 7 & 7)?,
        })
    }
}

impl InstructionInformation {
    /// What `event` reports in `format`; `None` if the event has no such operands.
    pub fn of(format: Format, event: &Event) -> Option<Self> {
        let memory = |operand: &MemoryOperand| InstructionOperand::Memory(Address::from(operand));
        let blank = |operand| Self { operand, register: None, operand_size: None, identity: None };
        let either = |operand: &Operand| match operand {
            Operand::Register(register) => InstructionOperand::Register(*register),
            Operand::Memory(operand) => memory(operand),
        };
        Some(match (format, event) {
            (Format::InsOuts, Event::PortIo(access)) if access.string => {
                // The segment is undefined for INS, which always uses ES.
                blank(InstructionOperand::Memory(Address {
                    segment: access.segment,
                    base: None,
                    index: None,
                    size: access.address_size,
                }))
            }
            (Format::Invalidate, Event::Invpcid { kind, operand }) => {
                Self { register: Some(*kind), ..blank(memory(operand)) }
            }
            (Format::Invalidate | Format::VmcsField, Event::Vmx { operand: Some(operand), register, .. }) => {
                Self { register: Some((*register)?), ..blank(either(operand)) }
            }
            (Format::Memory, Event::Vmx { operand: Some(operand), .. }) => blank(either(operand)),
            (Format::Memory, Event::Xsaves { operand, .. } | Event::Xrstors { operand, .. }) => {
                blank(memory(operand))
            }
            (Format::GdtrIdtr, Event::DescriptorTable { instruction, operand, operand_size }) => Self {
                identity: Some(*instruction),
                operand_size: Some(*operand_size),
                ..blank(either(operand))
            },
            (Format::LdtrTr, Event::DescriptorTable { instruction, operand, .. }) => {
                Self { identity: Some(*instruction), ..blank(either(operand)) }
            }
            (Format::Register, Event::Rdrand { gpr, size } | Event::Rdseed { gpr, size }) => {
                Self { operand_size: Some(*size), ..blank(InstructionOperand::Register(*gpr)) }
            }
            // UMWAIT and TPAUSE have a 32-bit operand in every mode.
            (Format::Register, Event::Umwait { gpr } | Event::Tpause { gpr }) => {
                Self { operand_size: Some(4), ..blank(InstructionOperand::Register(*gpr)) }
            }
            (Format::Loadiwkey, Event::Loadiwkey { first, second, .. }) => Self {
                register: Some(Gpr::from_number(*second)),
                ..blank(InstructionOperand::Register(Gpr::from_number(*first)))
            },
            _ => return None,
        })
    }

    /// The field's value in `format`; undefined bits are 0.
    pub fn encode(self, format: Format) -> u32 {
        let operand = match (format, self.operand) {
            (Format::InsOuts, InstructionOperand::Memory(address)) => {
                size_code(address.size) << 7 | (address.segment as u32) << 15
            }
            (_, InstructionOperand::Memory(address)) => address.encode(),
            (Format::Register | Format::Loadiwkey, InstructionOperand::Register(register)) => {
                u32::from(register.number()) << 3
            }
            (_, InstructionOperand::Register(register)) => 1 << 10 | u32::from(register.number()) << 3,
        };
        let size = match (format, self.operand_size) {
            (Format::GdtrIdtr, Some(4)) => 1 << 11,
            (Format::Register, Some(bytes)) => size_code(bytes) << 11,
            _ => 0,
        };
        let top = match (self.register, self.identity) {
            (Some(register), _) => u32::from(register.number()) << 28,
            (None, Some(instruction)) => identity_code(instruction) << 28,
            (None, None) => 0,
        };
        operand | size | top
    }

    /// From the field's value in `format`; `None` if a part has a value that is not used.
    pub fn decode(format: Format, value: u32) -> Option<Self> {
        let register = InstructionOperand::Register(gpr(value, 3));
        let is_register = value >> 10 & 1 != 0;
        let operand = match format {
            Format::InsOuts => {
                let address = Address::decode(value)?;
                InstructionOperand::Memory(Address { base: None, index: None, ..address })
            }
            Format::Register | Format::Loadiwkey => register,
            Format::LdtrTr | Format::VmcsField if is_register => register,
            _ => InstructionOperand::Memory(Address::decode(value)?),
        };
        let second = matches!(format, Format::Invalidate | Format::VmcsField | Format::Loadiwkey);
        Some(Self {
            operand,
            register: second.then(|| gpr(value, 28)),
            operand_size: match format {
                Format::GdtrIdtr => Some(if value >> 11 & 1 != 0 { 4 } else { 2 }),
                Format::Register => Some(size_bytes(value >> 11 & 3)?),
                _ => None,
            },
            identity: identity(format, value >> 28),
        })
    }
}

#[cfg(test)]
mod tests;

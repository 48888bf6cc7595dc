//! VM-exit instruction information, from the tables of SDM Vol. 3C (325384-083, Mar 2024) "Information for VM Exits Due
//! to Instruction Execution": every field that a table leaves undefined is masked out.

use super::Masked;
use rootmode_arch::event::{MemoryOperand, Operand, TableInstruction, VmxInstruction};
use rootmode_arch::{Event, Gpr};

/// Collects fields of a format: what is put is defined, the rest is not.
#[derive(Clone, Copy)]
struct Fields(Masked);

impl Fields {
    const fn new() -> Self {
        Self(Masked::OPEN)
    }
    const fn put(self, high: u32, low: u32, value: u64) -> Self {
        let mask = (1 << (high - low + 1)) - 1;
        Self(Masked::within(self.0.value | (value & mask) << low, self.0.mask | mask << low))
    }
    fn gpr(self, low: u32, gpr: Gpr) -> Self {
        self.put(low + 3, low, gpr as u64)
    }
    /// Scaling, address size, segment, index, base: the same bits in every format with a memory operand. Bit 10 is 0.
    fn memory(self, operand: &MemoryOperand) -> Self {
        let mut fields = self.put(9, 7, address_size(operand.address_size));
        fields = fields.put(10, 10, 0).put(17, 15, operand.segment as u64);
        fields = fields.put(22, 22, u64::from(operand.index.is_none()));
        if let Some(index) = operand.index {
            fields = fields.put(1, 0, operand.scale.into()).gpr(18, index);
        }
        fields = fields.put(27, 27, u64::from(operand.base.is_none()));
        if let Some(base) = operand.base {
            fields = fields.gpr(23, base);
        }
        fields
    }
    /// A register in bits 6:3 and bit 10 set, or a memory operand.
    fn operand(self, operand: &Operand) -> Self {
        match operand {
            Operand::Register(gpr) => self.gpr(3, *gpr).put(10, 10, 1),
            Operand::Memory(memory) => self.memory(memory),
        }
    }
}

/// 0 for 16-bit, 1 for 32-bit, 2 for 64-bit.
const fn address_size(bytes: u8) -> u64 {
    match bytes {
        2 => 0,
        4 => 1,
        _ => 2,
    }
}

/// The instruction information of an exit due to `event`, `None` if its exit has none.
pub fn information(event: &Event, is_64_bit: bool, reports_strings: bool) -> Option<Masked> {
    let fields = Fields::new();
    let fields = match event {
        // "Format of the VM-Exit Instruction-Information Field as Used for INS and OUTS"
        Event::PortIo(access) if access.string && reports_strings => {
            let fields = fields.put(9, 7, address_size(access.address_size));
            if access.input { fields } else { fields.put(17, 15, access.segment as u64) }
        }
        // "... as Used for INVEPT, INVPCID, and INVVPID"
        Event::Invpcid { kind, operand } => fields.memory(operand).gpr(28, *kind),
        Event::Vmx {
            instruction: VmxInstruction::Invept | VmxInstruction::Invvpid,
            operand,
            register,
            ..
        } => match (operand, register) {
            (Some(operand), Some(register)) => fields.operand(operand).gpr(28, *register),
            _ => return None,
        },
        // "... as Used for LIDT, LGDT, SIDT, or SGDT", "... as Used for LLDT, LTR, SLDT, and STR"
        Event::DescriptorTable { instruction, operand, operand_size } => {
            let fields = fields.operand(operand);
            let wide = u64::from(*operand_size == 4);
            match instruction {
                TableInstruction::Sgdt
                | TableInstruction::Sidt
                | TableInstruction::Lgdt
                | TableInstruction::Lidt => {
                    let fields = if is_64_bit { fields } else { fields.put(11, 11, wide) };
                    fields.put(29, 28, *instruction as u64)
                }
                TableInstruction::Sldt => fields.put(29, 28, 0),
                TableInstruction::Str => fields.put(29, 28, 1),
                TableInstruction::Lldt => fields.put(29, 28, 2),
                TableInstruction::Ltr => fields.put(29, 28, 3),
            }
        }
        // "... as Used for RDRAND, RDSEED, TPAUSE, and UMWAIT"
        Event::Rdrand { gpr, size } | Event::Rdseed { gpr, size } => {
            fields.gpr(3, *gpr).put(12, 11, address_size(*size))
        }
        Event::Umwait { gpr } | Event::Tpause { gpr } => fields.gpr(3, *gpr).put(12, 11, 1),
        // "... as Used for VMCLEAR, VMPTRLD, VMPTRST, VMXON, XRSTORS, and XSAVES"
        Event::Xsaves { operand, .. } | Event::Xrstors { operand, .. } => fields.memory(operand),
        Event::Vmx {
            instruction:
                VmxInstruction::Vmclear
                | VmxInstruction::Vmptrld
                | VmxInstruction::Vmptrst
                | VmxInstruction::Vmxon,
            operand: Some(operand),
            ..
        } => fields.operand(operand),
        // "... as Used for VMREAD and VMWRITE"
        Event::Vmx {
            instruction: VmxInstruction::Vmread | VmxInstruction::Vmwrite,
            operand: Some(operand),
            register: Some(register),
            ..
        } => fields.operand(operand).gpr(28, *register),
        // "... as Used for LOADIWKEY"
        Event::Loadiwkey { first, second, .. } => {
            fields.put(6, 3, (*first).into()).put(31, 28, (*second).into())
        }
        _ => return None,
    };
    Some(fields.0)
}

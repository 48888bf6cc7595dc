//! Draws cases of one form: random encodings, operands that meet the edges of pages and values.

mod values;

use super::encodings::{Map, Template};
use super::scope::Form;
use super::state::*;
use super::undefined::operand;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register,
    UsedMemory,
};
use rootmode_arch::choices::Seeded;

/// Draws.
#[derive(Debug)]
pub struct Draw {
    random: Seeded,
    /// For upper halves of registers, so that they are no reason for other cases.
    upper: Seeded,
    options: u32,
    info: InstructionInfoFactory,
}

/// A case and what it executes.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The case.
    pub case: Box<Case>,
    /// Its instruction.
    pub instruction: Instruction,
}

impl Draw {
    /// Draws from `seed`, for AMD's processors or Intel's.
    pub fn new(seed: u64, amd: bool) -> Self {
        let options = if amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
        let (random, upper) = (Seeded::new(seed), Seeded::new(!seed));
        Self { random, upper, options, info: InstructionInfoFactory::new() }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An address for an access of `size` bytes, in code of `bits` bits.
    fn target(&mut self, size: u64, bits: u32) -> u64 {
        let page = |n: u64| ARENA + n * PAGE;
        let inside = 1 + self.below(size.max(2) - 1);
        match self.below(24) {
            0..8 => page(4) + self.below(2 * PAGE - size.min(PAGE)),
            8..13 => page(4) + self.below((2 * PAGE - size.min(PAGE)) / 64) * 64,
            13..17 => page(5) - inside,
            17 => page(6) - inside,
            18 => page(7) - inside,
            19 => page(8) - inside,
            20 => READ_ONLY + self.below(PAGE - size.min(PAGE - 1)) / 16 * 16,
            21 => page(6) + self.below(PAGE),
            22 if bits == 64 => match self.below(5) {
                0 => 0x8000_0000_0000 - inside,
                1 => 0x8000_0000_0000 + self.below(64),
                2 => 0xffff_8000_0000_0000_u64.wrapping_sub(inside),
                3 => 0xffff_8000_0000_0000 + self.below(64),
                _ => self.random.next() | 1 << 62,
            },
            23 if bits == 64 => 0_u64.wrapping_sub(inside),
            _ => page(4) + self.below(2 * PAGE - size.min(PAGE)) / 16 * 16,
        }
    }

    /// A case of `form` over memory like `template`'s. `None`: no encoding was met in many attempts.
    pub fn case(&mut self, form: &Form, template: &[u8; MEMORY]) -> Option<Drawn> {
        (0..64).find_map(|_| self.attempt(form, template))
    }

    fn attempt(&mut self, form: &Form, memory: &[u8; MEMORY]) -> Option<Drawn> {
        let template = form.templates[self.below(form.templates.len() as u64) as usize];
        let mut bytes = self.encode(&template, form.bits);
        let instruction = self.decode(&bytes, form)?;
        let code_address = self.code_address(instruction.len() as u64);
        let mut registers = Registers {
            gpr: std::array::from_fn(|_| self.value()),
            rip: code_address,
            rflags: self.flags(),
            fs_base: 0,
            gs_base: 0,
            selectors: SELECTORS,
            cs: if form.bits == 64 { CODE_64 } else { CODE_32 },
            fx: self.fx(),
            upper: [[0; 16]; 16],
        };
        std::mem::swap(&mut self.random, &mut self.upper);
        self.fill(registers.upper.as_flattened_mut());
        std::mem::swap(&mut self.random, &mut self.upper);
        if form.bits == 64 && self.one_in(2) {
            registers.fs_base = self.below(16) * 0x1001;
            registers.gs_base = ARENA + self.below(PAGE);
        }
        self.place(&instruction, &mut bytes, &mut registers, form);
        let instruction = self.decode_at(&bytes, form, code_address)?;
        if form.bits == 32 {
            for register in &mut registers.gpr {
                *register &= 0xffff_ffff;
            }
            // User mode outside 64-bit code neither sees nor keeps them.
            registers.gpr[8..].fill(0);
        }
        let behind = code_address + instruction.len() as u64;
        let together = instruction.flow_control() == FlowControl::Next && behind < CODE_END && self.one_in(2);
        let steps = 1 + self.below(6);
        let mut case = Box::new(Case { registers, code: [0xcc; 16], steps, together, memory: *memory });
        case.code[..instruction.len()].copy_from_slice(&bytes[..instruction.len()]);
        for _ in 0..4 {
            self.patch(&instruction, &mut case);
        }
        self.far_pointer(&instruction, &mut case);
        Some(Drawn { case, instruction })
    }

    fn encode(&mut self, template: &Template, bits: u32) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.one_in(8) {
            extra.push([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65][self.below(6) as usize]);
        }
        if self.one_in(16) {
            extra.push(0x67);
        }
        if self.one_in(12) {
            extra.push(0xf0);
        }
        if self.one_in(16) {
            extra.push([0xf2, 0xf3, 0x66][self.below(3) as usize]);
        }
        let (rxb, vvvv) = if self.one_in(2) {
            (self.below(8) as u8, self.below(16) as u8)
        } else {
            (0, self.below(8) as u8)
        };
        let raw = self.random.next() as u8;
        // The form of the operand (register or memory) stays, and often the middle field, which may select the instruction.
        let modrm = match (template.modrm >= 0xc0, self.below(4)) {
            (_, 0) => template.modrm,
            (true, 1) => template.modrm & 0xf8 | raw & 7,
            (true, _) => 0xc0 | raw & 0x3f,
            (false, 1) => template.modrm & 0x38 | (raw & 0xc7) % 0xc0,
            (false, _) => raw % 0xc0,
        };
        let mut tail = [0; 12];
        match self.below(3) {
            0 => tail.copy_from_slice(&[[0, 1, 0x7f, 0x80, 0xff][self.below(5) as usize]; 12]),
            _ => self.fill(&mut tail),
        }
        // Forms without a register in VEX.vvvv have 0 there.
        let vvvv = if matches!(template.map, Map::Vex(..)) && self.one_in(4) { 0 } else { vvvv };
        template.bytes(bits, &extra, rxb, vvvv, modrm, &tail)
    }

    fn decode(&self, bytes: &[u8], form: &Form) -> Option<Instruction> {
        self.decode_at(bytes, form, CODE)
    }

    fn decode_at(&self, bytes: &[u8], form: &Form, address: u64) -> Option<Instruction> {
        let instruction = Decoder::with_ip(form.bits, bytes, address, self.options).decode();
        (instruction.code() == form.code).then_some(instruction)
    }

    fn code_address(&mut self, length: u64) -> u64 {
        match self.below(24) {
            0 => CODE + PAGE - self.below(length.max(1)),
            1 => CODE_END - length,
            // The last bytes are missing.
            2 if length > 1 => CODE_END - 1 - self.below(length - 1),
            _ => CODE + self.below(2 * PAGE - 16),
        }
    }

    /// Makes the memory operands, implicit ones included, lie where they are interesting.
    fn place(&mut self, i: &Instruction, bytes: &mut [u8], registers: &mut Registers, form: &Form) {
        // String instructions count; others with RCX do not mind.
        if i.is_string_instruction() && !self.one_in(8) {
            registers.gpr[1] = self.below(6);
        }
        if !self.one_in(16) {
            registers.gpr[4] = self.target(8, form.bits);
        }
        if !self.one_in(4) {
            registers.gpr[5] = self.target(8, form.bits);
        }
        if i.is_vsib() {
            self.offsets(i, registers);
        }
        let used: Vec<UsedMemory> = self.info.info(i).used_memory().to_vec();
        for memory in used {
            let size = (memory.memory_size().size() as u64).clamp(1, 512);
            let target = self.target(size, form.bits);
            let base = match memory.segment() {
                Register::FS => registers.fs_base,
                Register::GS => registers.gs_base,
                _ => 0,
            };
            let offset = target.wrapping_sub(base).wrapping_sub(memory.displacement());
            let number = |r: Register| r.full_register().number();
            let has = |r: Register| r.is_gpr();
            if has(memory.index()) && self.one_in(2) {
                registers.gpr[number(memory.index())] = self.below(64).wrapping_sub(16);
            }
            let scaled = if has(memory.index()) {
                registers.gpr[number(memory.index())].wrapping_mul(u64::from(memory.scale()))
            } else {
                0
            };
            if has(memory.base()) {
                let garbage = if memory.base().size() < 8 { self.value() << 32 } else { 0 };
                registers.gpr[number(memory.base())] = offset.wrapping_sub(scaled) ^ garbage;
            } else {
                let offset = target.wrapping_sub(base).wrapping_sub(scaled);
                self.displace(form.bits, i, bytes, offset, registers.rip);
            }
        }
    }

    /// Makes most offsets of a gather small.
    fn offsets(&mut self, i: &Instruction, registers: &mut Registers) {
        let n = i.memory_index().number();
        let bytes = if i.is_vsib32() { 4 } else { 8 };
        let keeps = self.below(40);
        for at in (0..32).step_by(bytes).filter(|at| *at as u64 != keeps) {
            let offset = self.below(64).wrapping_sub(16).to_le_bytes();
            let half =
                if at < 16 { &mut registers.fx[160 + n * 16..][..16] } else { &mut registers.upper[n][..] };
            half[at % 16..][..bytes].copy_from_slice(&offset[..bytes]);
        }
    }

    /// Writes the displacement of an operand without a base, so that it lies at `target`.
    fn displace(&self, bits: u32, i: &Instruction, bytes: &mut [u8], target: u64, rip: u64) {
        let mut decoder = Decoder::with_ip(bits, bytes, rip, self.options);
        let decoded = decoder.decode();
        let offsets = decoder.get_constant_offsets(&decoded);
        if !offsets.has_displacement() || decoded.code() == Code::INVALID {
            return;
        }
        let value = if i.is_ip_rel_memory_operand() {
            target.wrapping_sub(rip.wrapping_add(decoded.len() as u64))
        } else {
            target
        };
        let (at, size) = (offsets.displacement_offset(), offsets.displacement_size());
        let end = (at + size).min(bytes.len());
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    }

    /// Puts interesting values where the instruction will look.
    fn patch(&mut self, i: &Instruction, case: &mut Case) {
        let used: Vec<UsedMemory> = self.info.info(i).used_memory().to_vec();
        for memory in used {
            let gpr =
                |r: Register| if r.is_gpr() { case.registers.gpr[r.full_register().number()] } else { 0 };
            let segment = match memory.segment() {
                Register::FS => case.registers.fs_base,
                Register::GS => case.registers.gs_base,
                _ => 0,
            };
            let index = gpr(memory.index()).wrapping_mul(u64::from(memory.scale()));
            let address = segment
                .wrapping_add(gpr(memory.base()))
                .wrapping_add(index)
                .wrapping_add(memory.displacement());
            let at = address.wrapping_add(self.below(4) * 8);
            let value = self.value().to_le_bytes();
            for (n, byte) in value.into_iter().enumerate() {
                if let Some(place) = memory_index(at.wrapping_add(n as u64)) {
                    case.memory[place] = byte;
                }
            }
        }
    }

    /// Half of the far pointers and frames that are loaded from memory are good ones.
    fn far_pointer(&mut self, i: &Instruction, case: &mut Case) {
        use Mnemonic as M;
        let is_branch = i.is_jmp_far_indirect() || i.is_call_far_indirect();
        let loads = matches!(i.mnemonic(), M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss);
        let slot = i.stack_pointer_increment().unsigned_abs() as u64;
        let (at, size) = match i.mnemonic() {
            _ if self.one_in(2) => return,
            M::Retf => (Some(case.registers.gpr[4]), if i.op_count() == 0 { slot / 2 } else { 4 }),
            _ if is_branch || loads => {
                (operand(case, i, u32::from(loads)), i.memory_size().size() as u64 - 2)
            }
            _ => return,
        };
        let selectors = [CODE_64, CODE_32, case.registers.cs, DATA_SELECTOR, DATA_SELECTOR - 1, 0x10, 0x30];
        let values = [CODE + self.below(2 * PAGE), selectors[self.below(7) as usize]];
        for (n, value) in values.into_iter().enumerate() {
            let width = if n == 1 && i.mnemonic() != M::Retf { 2 } else { size };
            for (k, byte) in value.to_le_bytes().into_iter().take(width as usize).enumerate() {
                let place = at.and_then(|at| memory_index(at.wrapping_add(n as u64 * size + k as u64)));
                if let Some(place) = place {
                    case.memory[place] = byte;
                }
            }
        }
    }

    /// Memory to start from.
    pub fn memory(&mut self) -> Box<[u8; MEMORY]> {
        let mut memory = Box::new([0; MEMORY]);
        self.fill(&mut memory[..]);
        memory
    }
}

/// Where `address` lies in [`Case::memory`].
pub fn memory_index(address: u64) -> Option<usize> {
    let page = address.wrapping_sub(ARENA) / PAGE;
    let n = DATA_PAGES.iter().position(|p| *p == page)?;
    Some(n * PAGE as usize + (address % PAGE) as usize)
}

//! A machine in 32-bit protected mode for tests: flat segments and one descriptor of every kind, an IDT whose handlers halt.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "every test file uses a part of it"
)]

use crate::support::Rig;
use iced_x86::code_asm::CodeAssembler;
use rootmode_arch::{
    AccessRights, Cr0, DescriptorTable, HostPhysical, RFlags, Segment, SegmentName, Selector,
};
use rootmode_cpu::{Cpu, Model, RunEnd};
use std::ops::{Deref, DerefMut};

pub const GDT: u64 = 0x5000;
pub const IDT: u64 = 0x6000;
pub const LDT: u64 = 0x6900;
/// The TSS in use, another one, and one of 16 bits.
pub const TSS: u64 = 0x7000;
pub const TSS_B: u64 = 0x7200;
pub const TSS_16: u64 = 0x7400;
pub const CODE: u64 = 0x1_0000;
/// Handler `v` is an HLT at `HANDLERS + 16 * v`.
pub const HANDLERS: u64 = 0x1_8000;
pub const DATA: u64 = 0x2_0000;
pub const STACK: u64 = 0x3_8000;
pub const STACK_0: u64 = 0x3_c000;
pub const USER_STACK: u64 = 0x3_4000;

// Selectors.
pub const CODE_0: u16 = 0x08;
pub const DATA_0: u16 = 0x10;
pub const CODE_3: u16 = 0x1b;
pub const DATA_3: u16 = 0x23;
pub const TASK_A: u16 = 0x28;
pub const TASK_B: u16 = 0x30;
pub const TASK_16: u16 = 0x38;
pub const LOCAL: u16 = 0x40;
pub const CODE_16: u16 = 0x48;
pub const DATA_16: u16 = 0x50;
pub const CONFORMING: u16 = 0x58;
pub const ABSENT_CODE: u16 = 0x60;
pub const CALL_GATE: u16 = 0x68;
pub const CALL_GATE_16: u16 = 0x70;
pub const TASK_GATE: u16 = 0x78;
pub const ABSENT_DATA: u16 = 0x80;
pub const READ_ONLY: u16 = 0x88;
pub const EXPAND_DOWN: u16 = 0x90;
pub const EXECUTE_ONLY: u16 = 0x98;
pub const ABSENT_TASK: u16 = 0xa0;
pub const SHORT_TASK: u16 = 0xa8;
/// Beyond the GDT's limit.
pub const OUTSIDE: u16 = 0x100;

pub const fn descriptor(base: u64, limit: u64, rights: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (rights & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (rights >> 12 & 0xf) << 52
        | (base >> 24 & 0xff) << 56
}

/// A gate: `kind` 4, 5, 6, 7, 0xc, 0xe, 0xf; `extra` is the parameter count.
pub const fn gate(selector: u16, offset: u64, kind: u64, dpl: u64, extra: u64) -> u64 {
    offset & 0xffff
        | (selector as u64) << 16
        | extra << 32
        | kind << 40
        | dpl << 45
        | 1 << 47
        | (offset >> 16 & 0xffff) << 48
}

pub struct Legacy(pub Rig);

impl Deref for Legacy {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &self.0
    }
}

impl DerefMut for Legacy {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.0
    }
}

impl Legacy {
    pub fn new() -> Self {
        Self::with_model(Model::max_intel())
    }

    pub fn with_model(model: Model) -> Self {
        let mut rig = Self(Rig::with_model(model));
        let table = [
            0,
            descriptor(0, 0xf_ffff, 0xc09b),
            descriptor(0, 0xf_ffff, 0xc093),
            descriptor(0, 0xf_ffff, 0xc0fb),
            descriptor(0, 0xf_ffff, 0xc0f3),
            descriptor(TSS, 0x1ff, 0x008b),
            descriptor(TSS_B, 0x67, 0x0089),
            descriptor(TSS_16, 0x2b, 0x0081),
            descriptor(LDT, 0x1f, 0x0082),
            descriptor(0, 0xffff, 0x009b),
            descriptor(0, 0xffff, 0x0093),
            descriptor(0, 0xf_ffff, 0xc09f),
            descriptor(0, 0xf_ffff, 0xc01b),
            gate(CODE_0, CODE + 0x400, 0xc, 3, 2),
            gate(CODE_0, CODE + 0x400, 4, 3, 0),
            gate(TASK_B, 0, 5, 3, 0),
            descriptor(0, 0xf_ffff, 0xc013),
            descriptor(0, 0xf_ffff, 0xc091),
            descriptor(0, 0xf, 0xc097),
            descriptor(0, 0xf_ffff, 0xc099),
            descriptor(TSS_B, 0x67, 0x0009),
            descriptor(TSS_B, 0x66, 0x0089),
        ];
        for (n, value) in table.iter().enumerate() {
            rig.put(GDT + n as u64 * 8, *value);
        }
        rig.put(TSS + 4, STACK_0 | u64::from(DATA_0) << 32);
        rig.put(TSS + 0x66, 0x88);
        for v in 0..=255_u64 {
            rig.put(IDT + v * 8, gate(CODE_0, HANDLERS + 16 * v, 0xe, 0, 0));
            rig.memory.write_u8(HostPhysical(HANDLERS + 16 * v), 0xf4);
        }
        let cpu = rig.cpu();
        cpu.efer = rootmode_arch::Efer(0);
        cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
        cpu.cr4 = rootmode_arch::Cr4(0);
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0xff };
        cpu.idtr = DescriptorTable { base: IDT, limit: 0x7ff };
        *cpu.segment_mut(SegmentName::Tr) =
            Segment { selector: Selector(TASK_A), rights: AccessRights(0x8b), limit: 0x1ff, base: TSS };
        rig.level(0);
        rig
    }

    /// Flat 32-bit code at [`CODE`] and privilege level 0 or 3.
    pub fn level(&mut self, cpl: u8) {
        let user = cpl == 3;
        let (cs, ss) = if user { (CODE_3, DATA_3) } else { (CODE_0, DATA_0) };
        let cpu = self.cpu();
        let dpl = u32::from(cpl) << 5;
        let data =
            Segment { selector: Selector(ss), rights: AccessRights(0xc093 | dpl), limit: u32::MAX, base: 0 };
        for name in [SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs] {
            *cpu.segment_mut(name) = data;
        }
        *cpu.segment_mut(SegmentName::Cs) =
            Segment { selector: Selector(cs), rights: AccessRights(0xc09b | dpl), ..data };
        cpu.cpl = cpl;
        cpu.rip = CODE;
        cpu.gpr[4] = if user { USER_STACK } else { STACK };
        cpu.refresh();
    }

    /// Virtual-8086 mode with segments of base 0 except CS, at [`CODE`]; `flags` beside VM.
    pub fn virtual_8086(&mut self, flags: u64) {
        let cpu = self.cpu();
        for index in 0..6 {
            let selector = if index == 1 { (CODE >> 4) as u16 } else { 0 };
            cpu.segments[index] = Segment {
                selector: Selector(selector),
                rights: AccessRights(0xf3),
                limit: 0xffff,
                base: u64::from(selector) << 4,
            };
        }
        cpu.cpl = 3;
        cpu.rip = 0;
        cpu.gpr[4] = 0x4000;
        cpu.set_rflags(RFlags(flags | RFlags::VM.0));
        cpu.refresh();
    }

    /// Real mode with segments of base 0 except CS, at [`CODE`]; the vector table at 0 with handlers that halt.
    pub fn real(&mut self) {
        for v in 0..256_u64 {
            let handler = HANDLERS + 16 * v;
            let pointer = (handler & 0xf) | (handler >> 4) << 16;
            self.memory.write_u32(HostPhysical(v * 4), pointer as u32);
        }
        let cpu = self.cpu();
        cpu.cr0 = Cr0::ET;
        for index in 0..6 {
            let selector = if index == 1 { (CODE >> 4) as u16 } else { 0 };
            cpu.segments[index] = Segment {
                selector: Selector(selector),
                rights: AccessRights(if index == 1 { 0x9b } else { 0x93 }),
                limit: 0xffff,
                base: u64::from(selector) << 4,
            };
        }
        cpu.cpl = 0;
        cpu.rip = 0;
        cpu.gpr[4] = 0x4000;
        cpu.idtr = DescriptorTable { base: 0, limit: 0x3ff };
        cpu.refresh();
    }

    pub fn put(&mut self, at: u64, value: u64) {
        self.memory.write_u64(HostPhysical(at), value);
    }

    pub fn put32(&mut self, at: u64, value: u64) {
        self.memory.write_u32(HostPhysical(at), value as u32);
    }

    pub fn get(&self, at: u64) -> u64 {
        u64::from(self.memory.read_u32(HostPhysical(at)))
    }

    pub fn get16(&self, at: u64) -> u64 {
        u64::from(self.memory.read_u16(HostPhysical(at)))
    }

    pub fn bytes(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(HostPhysical(at), bytes);
    }

    /// Assembles 16- or 32-bit code.
    pub fn assemble(&mut self, bits: u32, at: u64, build: impl FnOnce(&mut CodeAssembler)) {
        let mut assembler = CodeAssembler::new(bits).unwrap();
        build(&mut assembler);
        let bytes = assembler.assemble(if bits == 16 { 0 } else { at }).unwrap();
        self.memory.write(HostPhysical(at), &bytes);
    }

    /// Runs to an HLT. `Ok`: the linear address behind it, outside the handlers. `Err`: the vector of the handler and the
    /// word on top of its stack (the error code, if the vector has one).
    pub fn outcome(&mut self) -> Result<u64, (u8, u64)> {
        assert_eq!(self.run(200), RunEnd::Asleep, "the program halts");
        let cpu = &self.processor.cpu;
        let at = cpu.segment(SegmentName::Cs).base + cpu.rip;
        if (HANDLERS..HANDLERS + 0x1000).contains(&at) {
            let ss = cpu.segment(SegmentName::Ss);
            let wide = ss.rights.contains(AccessRights::DB);
            let top = ss.base + cpu.gpr[4] & if wide { 0xffff_ffff } else { 0xffff };
            return Err((((at - HANDLERS) / 16) as u8, self.get(top)));
        }
        Ok(at)
    }

    /// Like [`Self::outcome`], after one instruction given as bytes (and an HLT behind it).
    pub fn instruction(&mut self, bytes: &[u8]) -> Result<u64, (u8, u64)> {
        let mut code = bytes.to_vec();
        code.push(0xf4);
        let at = self.cpu_code();
        self.bytes(at, &code);
        self.outcome()
    }

    fn cpu_code(&mut self) -> u64 {
        let cpu = self.cpu();
        cpu.segment(SegmentName::Cs).base + cpu.rip
    }

    pub fn selector(&self, name: SegmentName) -> u16 {
        self.processor.cpu.segment(name).selector.0
    }
}

/// JMP ptr16:32.
pub fn far_jmp(selector: u16, offset: u64) -> Vec<u8> {
    far(0xea, selector, offset)
}

/// CALL ptr16:32.
pub fn far_call(selector: u16, offset: u64) -> Vec<u8> {
    far(0x9a, selector, offset)
}

fn far(opcode: u8, selector: u16, offset: u64) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend((offset as u32).to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

pub const fn cpu_flags(cpu: &Cpu) -> u64 {
    cpu.rflags().0
}

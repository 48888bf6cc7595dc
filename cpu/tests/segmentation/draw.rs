//! Random machines: descriptor tables, a mode, a level, a selector, and offsets near the edges.

use crate::oracle::{Mode, Register, Tables};
use crate::support::{CODE, CR3, GDT, STACK};
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{
    AccessRights, Cr0, Cr4, DescriptorTable, Efer, HostPhysical, RFlags, Segment, SegmentName, Selector, Site,
};
use rootmode_cpu::Cpu;

pub(crate) const LDT: u64 = 0x6000;
/// Descriptors a table holds; its limit may end it earlier.
const ENTRIES: usize = 12;
/// Where the pattern begins that accesses find.
pub(crate) const PATTERN: u64 = 0x4_0000;

/// A random machine, and the instructions to try.
pub(crate) struct Case {
    pub(crate) mode: Mode,
    pub(crate) cpl: u8,
    pub(crate) global: Vec<[u8; 8]>,
    pub(crate) global_limit: u64,
    pub(crate) local: Vec<[u8; 8]>,
    pub(crate) local_limit: Option<u64>,
    pub(crate) selector: u16,
    /// The register to load: its number.
    pub(crate) target: usize,
    /// The limit that segments have before.
    pub(crate) old_limit: u64,
}

pub(crate) struct Draw(pub(crate) Seeded);

impl Draw {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.choose(Site::State, n)
    }
    pub(crate) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
    pub(crate) fn bits(&mut self, bits: u32) -> u64 {
        self.below(1 << bits)
    }

    /// Mostly plausible, always any.
    pub(crate) fn descriptor(&mut self) -> [u8; 8] {
        let limit = match self.below(5) {
            0 => self.of(&[0, 1, 0xff, 0xffe]),
            1 => self.of(&[0xffff, 0xfffe, 0x1_0000]),
            2 => 0xf_ffff,
            3 => self.bits(8),
            _ => self.bits(20),
        };
        let base = match self.below(4) {
            0 => 0,
            1 => PATTERN + self.bits(20),
            2 => 0xffff_ffff - self.bits(17),
            _ => self.bits(32),
        };
        let ordinary = if self.below(8) == 0 { 0 } else { 0x10 };
        let present = if self.below(8) == 0 { 0 } else { 0x80 };
        let rights = self.bits(4) | ordinary | present | self.bits(2) << 5;
        let high = self.bits(4) << 4 | limit >> 16;
        let mut bytes = [0; 8];
        bytes[0..2].copy_from_slice(&(limit as u16).to_le_bytes());
        bytes[2..5].copy_from_slice(&base.to_le_bytes()[..3]);
        (bytes[5], bytes[6], bytes[7]) = (rights as u8, high as u8, (base >> 24) as u8);
        bytes
    }

    pub(crate) fn case(&mut self) -> Case {
        let mode = self.of(&Mode::ALL);
        let cpl = match mode {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => self.bits(2) as u8,
        };
        let mut global: Vec<_> = (0..ENTRIES).map(|_| self.descriptor()).collect();
        global[0] = [0; 8];
        let local = (0..ENTRIES).map(|_| self.descriptor()).collect();
        let whole = ENTRIES as u64 * 8 - 1;
        let global_limit = if self.below(2) == 0 { whole } else { self.below(whole + 1) };
        let local_limit = (self.below(4) != 0).then(|| self.below(whole + 1));
        let selector = match mode {
            Mode::Real | Mode::Virtual8086 => self.bits(16),
            _ => self.below(ENTRIES as u64) << 3 | self.bits(1) << 2 | self.bits(2),
        };
        Case {
            mode,
            cpl,
            global,
            global_limit,
            local,
            local_limit,
            selector: selector as u16,
            target: self.of(&[0, 2, 3, 3, 4, 5]),
            old_limit: self.of(&[0xffff, 0xffff_ffff, 0x1_2345]),
        }
    }

    /// An offset near an edge of what `register` holds.
    pub(crate) fn offset(&mut self, mode: Mode, register: &Register) -> u64 {
        let limit = match register {
            Register::Null => 0,
            Register::Plain(_, limit) => *limit,
            Register::Loaded(descriptor) => descriptor.limit,
        };
        let edge = match self.below(5) {
            0 | 1 => limit,
            2 => self.of(&[0, 0xffff, 0xffff_ffff]),
            3 if mode == Mode::Long => self.of(&[1 << 47, u64::MAX << 47, 0, u64::MAX]),
            _ => self.bits(32),
        };
        let offset = edge.wrapping_add(self.below(20)).wrapping_sub(10);
        if mode == Mode::Long { offset } else { offset & 0xffff_ffff }
    }
}

impl Case {
    pub(crate) fn tables(&self) -> Tables<'_> {
        Tables {
            global: &self.global,
            global_limit: self.global_limit,
            local: &self.local,
            local_limit: self.local_limit,
        }
    }

    /// The machine in front of an instruction at [`CODE`].
    pub(crate) fn prepare(&self, memory: &mut rootmode_mmu::PhysicalMemory, cpu: &mut Cpu) {
        for (table, at) in [(&self.global, GDT), (&self.local, LDT)] {
            memory.write(HostPhysical(at), table.concat().as_slice());
        }
        cpu.gdtr = DescriptorTable { base: GDT, limit: self.global_limit as u16 };
        *cpu.segment_mut(SegmentName::Ldtr) = match self.local_limit {
            Some(limit) => {
                Segment { rights: AccessRights(0x82), limit: limit as u32, base: LDT, ..Segment::default() }
            }
            None => Segment { rights: AccessRights(0x1_0082), ..Segment::default() },
        };
        let dpl = u32::from(self.cpl) << 5;
        let (code, data) = match self.mode {
            Mode::Real => (0x9b, 0x93),
            Mode::Virtual8086 => (0xf3, 0xf3),
            Mode::Protected16 => (0x809b, 0x8093),
            Mode::Protected32 | Mode::Compatibility => (0xc09b, 0xc093),
            Mode::Long => (0xa09b, 0xc093),
        };
        let limit = if self.mode == Mode::Virtual8086 { 0xffff } else { self.old_limit as u32 };
        let flat = Segment { selector: Selector(8), rights: AccessRights(data | dpl), limit, base: 0 };
        for name in SegmentName::ALL.into_iter().take(6) {
            *cpu.segment_mut(name) = flat;
        }
        // Virtual-8086 code reaches 64 KiB from its base.
        let base = CODE;
        *cpu.segment_mut(SegmentName::Cs) =
            Segment { rights: AccessRights(code | dpl), limit: 0xffff, base, ..flat };
        if self.mode == Mode::Long {
            cpu.segment_mut(SegmentName::Cs).base = 0;
        }
        cpu.cpl = self.cpl;
        (cpu.cr0, cpu.cr4, cpu.efer) = match self.mode {
            Mode::Real => (Cr0::ET, Cr4(0), Efer(0)),
            Mode::Virtual8086 | Mode::Protected16 | Mode::Protected32 => (Cr0::PE | Cr0::ET, Cr4(0), Efer(0)),
            _ => (Cr0::PE | Cr0::ET | Cr0::PG, Cr4::PAE, Efer::LME | Efer::LMA),
        };
        cpu.cr3 = rootmode_arch::Cr3(CR3);
        cpu.set_rflags(if self.mode == Mode::Virtual8086 { RFlags::VM } else { RFlags(2) });
        cpu.rip = if self.mode == Mode::Long { CODE } else { 0 };
        cpu.gpr[4] = STACK;
    }
}

//! The state-save areas (SDM Vol. 3C "SMRAM State Save Map for Intel 64 Architecture", APM Vol. 2 "AMD64 Architecture
//! SMM State-Save Area"). Intel leaves hidden parts of segment registers to the implementation: they are in reserved bytes.

use super::{PortInstruction, revision};
use crate::Cpu;
use crate::state::Activity;
use Field as F;
use SegmentName as S;
use rootmode_arch::{AccessRights, Cr0, Cr3, Cr4, Efer, Gpr, RFlags, SegmentName, Selector, Vendor};

/// What one place of the area holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Gpr(u8),
    Rip,
    Flags,
    Cr0,
    Cr3,
    Cr4,
    Efer,
    Dr6,
    Dr7,
    Selector(S),
    /// Access rights in 32 bits, as in a VMCS.
    Rights(S),
    /// Access rights in 12 bits, as in a VMCB.
    Attributes(S),
    Limit(S),
    Base(S),
    /// The upper half of a base that lies apart.
    BaseHigh(S),
    GdtBase,
    GdtBaseHigh,
    GdtLimit,
    IdtBase,
    IdtBaseHigh,
    IdtLimit,
    /// CPL in bits 1:0, blocking by STI in 2, by MOV SS in 3.
    Inner,
    NmiMask,
    HaltRestart,
    PortRestart,
    PortMisc,
    PortRip,
    PortRcx,
    PortRsi,
    PortRdi,
    Revision,
    Smbase,
}

/// A place: offset from SMBASE, bytes, contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) offset: u16,
    pub(super) size: u8,
    pub(super) field: Field,
}

const fn row(offset: u16, size: u8, field: Field) -> Row {
    Row { offset, size, field }
}

/// The area of `vendor`.
pub(super) const fn rows(vendor: Vendor) -> &'static [Row] {
    match vendor {
        Vendor::Intel => INTEL,
        Vendor::Amd => AMD,
    }
}

/// The manual's offsets are from SMBASE + 8000H.
const fn intel(offset: u16, size: u8, field: Field) -> Row {
    row(0x8000 + offset, size, field)
}

const INTEL: &[Row] = &[
    intel(0x7ff8, 8, F::Cr0),
    intel(0x7ff0, 8, F::Cr3),
    intel(0x7fe8, 8, F::Flags),
    intel(0x7fe0, 8, F::Efer),
    intel(0x7fd8, 8, F::Rip),
    intel(0x7fd0, 8, F::Dr6),
    intel(0x7fc8, 8, F::Dr7),
    intel(0x7fc4, 4, F::Selector(S::Tr)),
    intel(0x7fc0, 4, F::Selector(S::Ldtr)),
    intel(0x7fbc, 4, F::Selector(S::Gs)),
    intel(0x7fb8, 4, F::Selector(S::Fs)),
    intel(0x7fb4, 4, F::Selector(S::Ds)),
    intel(0x7fb0, 4, F::Selector(S::Ss)),
    intel(0x7fac, 4, F::Selector(S::Cs)),
    intel(0x7fa8, 4, F::Selector(S::Es)),
    intel(0x7fa4, 4, F::PortMisc),
    intel(0x7f94, 8, F::Gpr(7)),
    intel(0x7f8c, 8, F::Gpr(6)),
    intel(0x7f84, 8, F::Gpr(5)),
    intel(0x7f7c, 8, F::Gpr(4)),
    intel(0x7f74, 8, F::Gpr(3)),
    intel(0x7f6c, 8, F::Gpr(2)),
    intel(0x7f64, 8, F::Gpr(1)),
    intel(0x7f5c, 8, F::Gpr(0)),
    intel(0x7f54, 8, F::Gpr(8)),
    intel(0x7f4c, 8, F::Gpr(9)),
    intel(0x7f44, 8, F::Gpr(10)),
    intel(0x7f3c, 8, F::Gpr(11)),
    intel(0x7f34, 8, F::Gpr(12)),
    intel(0x7f2c, 8, F::Gpr(13)),
    intel(0x7f24, 8, F::Gpr(14)),
    intel(0x7f1c, 8, F::Gpr(15)),
    intel(0x7f02, 2, F::HaltRestart),
    intel(0x7f00, 2, F::PortRestart),
    intel(0x7efc, 4, F::Revision),
    intel(0x7ef8, 4, F::Smbase),
    intel(0x7e9c, 4, F::Base(S::Ldtr)),
    intel(0x7e94, 4, F::IdtBase),
    intel(0x7e8c, 4, F::GdtBase),
    intel(0x7e40, 8, F::Cr4),
    intel(0x7de8, 8, F::PortRip),
    intel(0x7dd8, 4, F::IdtBaseHigh),
    intel(0x7dd4, 4, F::BaseHigh(S::Ldtr)),
    intel(0x7dd0, 4, F::GdtBaseHigh),
    // Reserved bytes from here on.
    intel(0x7c00, 8, F::Base(S::Es)),
    intel(0x7c08, 4, F::Limit(S::Es)),
    intel(0x7c0c, 4, F::Rights(S::Es)),
    intel(0x7c10, 8, F::Base(S::Cs)),
    intel(0x7c18, 4, F::Limit(S::Cs)),
    intel(0x7c1c, 4, F::Rights(S::Cs)),
    intel(0x7c20, 8, F::Base(S::Ss)),
    intel(0x7c28, 4, F::Limit(S::Ss)),
    intel(0x7c2c, 4, F::Rights(S::Ss)),
    intel(0x7c30, 8, F::Base(S::Ds)),
    intel(0x7c38, 4, F::Limit(S::Ds)),
    intel(0x7c3c, 4, F::Rights(S::Ds)),
    intel(0x7c40, 8, F::Base(S::Fs)),
    intel(0x7c48, 4, F::Limit(S::Fs)),
    intel(0x7c4c, 4, F::Rights(S::Fs)),
    intel(0x7c50, 8, F::Base(S::Gs)),
    intel(0x7c58, 4, F::Limit(S::Gs)),
    intel(0x7c5c, 4, F::Rights(S::Gs)),
    intel(0x7c60, 4, F::Limit(S::Ldtr)),
    intel(0x7c64, 4, F::Rights(S::Ldtr)),
    intel(0x7c70, 8, F::Base(S::Tr)),
    intel(0x7c78, 4, F::Limit(S::Tr)),
    intel(0x7c7c, 4, F::Rights(S::Tr)),
    intel(0x7c80, 2, F::GdtLimit),
    intel(0x7c82, 2, F::IdtLimit),
    intel(0x7c84, 1, F::Inner),
    intel(0x7c85, 1, F::NmiMask),
    intel(0x7c88, 8, F::PortRcx),
    intel(0x7c90, 8, F::PortRsi),
    intel(0x7c98, 8, F::PortRdi),
];

const AMD: &[Row] = &[
    row(0xfe00, 2, F::Selector(S::Es)),
    row(0xfe02, 2, F::Attributes(S::Es)),
    row(0xfe04, 4, F::Limit(S::Es)),
    row(0xfe08, 8, F::Base(S::Es)),
    row(0xfe10, 2, F::Selector(S::Cs)),
    row(0xfe12, 2, F::Attributes(S::Cs)),
    row(0xfe14, 4, F::Limit(S::Cs)),
    row(0xfe18, 8, F::Base(S::Cs)),
    row(0xfe20, 2, F::Selector(S::Ss)),
    row(0xfe22, 2, F::Attributes(S::Ss)),
    row(0xfe24, 4, F::Limit(S::Ss)),
    row(0xfe28, 8, F::Base(S::Ss)),
    row(0xfe30, 2, F::Selector(S::Ds)),
    row(0xfe32, 2, F::Attributes(S::Ds)),
    row(0xfe34, 4, F::Limit(S::Ds)),
    row(0xfe38, 8, F::Base(S::Ds)),
    row(0xfe40, 2, F::Selector(S::Fs)),
    row(0xfe42, 2, F::Attributes(S::Fs)),
    row(0xfe44, 4, F::Limit(S::Fs)),
    row(0xfe48, 8, F::Base(S::Fs)),
    row(0xfe50, 2, F::Selector(S::Gs)),
    row(0xfe52, 2, F::Attributes(S::Gs)),
    row(0xfe54, 4, F::Limit(S::Gs)),
    row(0xfe58, 8, F::Base(S::Gs)),
    row(0xfe64, 4, F::GdtLimit),
    row(0xfe68, 8, F::GdtBase),
    row(0xfe70, 2, F::Selector(S::Ldtr)),
    row(0xfe72, 2, F::Attributes(S::Ldtr)),
    row(0xfe74, 4, F::Limit(S::Ldtr)),
    row(0xfe78, 8, F::Base(S::Ldtr)),
    row(0xfe84, 4, F::IdtLimit),
    row(0xfe88, 8, F::IdtBase),
    row(0xfe90, 2, F::Selector(S::Tr)),
    row(0xfe92, 2, F::Attributes(S::Tr)),
    row(0xfe94, 4, F::Limit(S::Tr)),
    row(0xfe98, 8, F::Base(S::Tr)),
    row(0xfea0, 8, F::PortRip),
    row(0xfea8, 8, F::PortRcx),
    row(0xfeb0, 8, F::PortRsi),
    row(0xfeb8, 8, F::PortRdi),
    row(0xfec0, 4, F::PortMisc),
    row(0xfec8, 1, F::PortRestart),
    row(0xfec9, 1, F::HaltRestart),
    row(0xfeca, 1, F::NmiMask),
    row(0xfecb, 1, F::Inner),
    row(0xfed0, 8, F::Efer),
    row(0xfefc, 4, F::Revision),
    row(0xff00, 4, F::Smbase),
    row(0xff48, 8, F::Cr4),
    row(0xff50, 8, F::Cr3),
    row(0xff58, 8, F::Cr0),
    row(0xff60, 8, F::Dr7),
    row(0xff68, 8, F::Dr6),
    row(0xff70, 8, F::Flags),
    row(0xff78, 8, F::Rip),
    row(0xff80, 8, F::Gpr(15)),
    row(0xff88, 8, F::Gpr(14)),
    row(0xff90, 8, F::Gpr(13)),
    row(0xff98, 8, F::Gpr(12)),
    row(0xffa0, 8, F::Gpr(11)),
    row(0xffa8, 8, F::Gpr(10)),
    row(0xffb0, 8, F::Gpr(9)),
    row(0xffb8, 8, F::Gpr(8)),
    row(0xffc0, 8, F::Gpr(7)),
    row(0xffc8, 8, F::Gpr(6)),
    row(0xffd0, 8, F::Gpr(5)),
    row(0xffd8, 8, F::Gpr(4)),
    row(0xffe0, 8, F::Gpr(3)),
    row(0xffe8, 8, F::Gpr(2)),
    row(0xfff0, 8, F::Gpr(1)),
    row(0xfff8, 8, F::Gpr(0)),
];

/// An area's contents, row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    rows: &'static [Row],
    values: [u64; 96],
}

const _: () = assert!(INTEL.len() <= 96 && AMD.len() <= 96, "Values has room for every row");

impl Values {
    /// What an SMI saves.
    pub(super) fn of(cpu: &Cpu) -> Self {
        let rows = rows(cpu.model.vendor());
        let mut all = Self { rows, values: [0; 96] };
        for (value, row) in all.values.iter_mut().zip(rows) {
            *value = save(cpu, row.field);
        }
        all
    }

    /// The area of `vendor`, whose rows `read` reads.
    pub(super) fn read(vendor: Vendor, mut read: impl FnMut(&Row) -> u64) -> Self {
        let rows = rows(vendor);
        let mut all = Self { rows, values: [0; 96] };
        for (value, row) in all.values.iter_mut().zip(rows) {
            *value = read(row);
        }
        all
    }

    /// Every row with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Row, u64)> + '_ {
        self.rows.iter().zip(self.values)
    }

    /// The value of `field`; 0 if the area does not have it.
    pub(super) fn get(&self, field: Field) -> u64 {
        self.iter().find(|(row, _)| row.field == field).map_or(0, |(_, value)| value)
    }

    /// Loads everything into `cpu`, as RSM does.
    pub(super) fn load(&self, cpu: &mut Cpu) {
        for (row, value) in self.iter() {
            load(cpu, row.field, value);
        }
        // The handler asked for the port instruction to be repeated.
        if self.get(F::PortRestart) & 0xff == 0xff && self.get(F::PortMisc) != 0 {
            cpu.rip = self.get(F::PortRip);
            cpu.gpr[Gpr::Rcx as usize] = self.get(F::PortRcx);
            cpu.gpr[Gpr::Rsi as usize] = self.get(F::PortRsi);
            cpu.gpr[Gpr::Rdi as usize] = self.get(F::PortRdi);
        }
    }
}

/// The port instruction that completed at this very boundary, if one did.
fn port_instruction(cpu: &Cpu) -> Option<PortInstruction> {
    cpu.last_port.filter(|last| last.tick == cpu.tick)
}

fn save(cpu: &Cpu, field: Field) -> u64 {
    let port = port_instruction(cpu);
    let of_port = |get: fn(&PortInstruction) -> u64| port.as_ref().map_or(0, get);
    match field {
        F::Gpr(n) => cpu.gpr[usize::from(n)],
        F::Rip => cpu.rip,
        F::Flags => cpu.rflags().0,
        F::Cr0 => cpu.cr0.0,
        F::Cr3 => cpu.cr3.0,
        F::Cr4 => cpu.cr4.0,
        F::Efer => cpu.efer.0,
        F::Dr6 => cpu.dr6,
        F::Dr7 => cpu.dr7,
        F::Selector(name) => u64::from(cpu.segment(name).selector.0),
        F::Rights(name) => u64::from(cpu.segment(name).rights.0),
        F::Attributes(name) => u64::from(cpu.segment(name).rights.to_vmcb()),
        F::Limit(name) => u64::from(cpu.segment(name).limit),
        F::Base(name) => cpu.segment(name).base,
        F::BaseHigh(name) => cpu.segment(name).base >> 32,
        F::GdtBase => cpu.gdtr.base,
        F::GdtBaseHigh => cpu.gdtr.base >> 32,
        F::GdtLimit => u64::from(cpu.gdtr.limit),
        F::IdtBase => cpu.idtr.base,
        F::IdtBaseHigh => cpu.idtr.base >> 32,
        F::IdtLimit => u64::from(cpu.idtr.limit),
        F::Inner => u64::from(cpu.cpl) | u64::from(cpu.sti_shadow) << 2 | u64::from(cpu.mov_ss_shadow) << 3,
        F::NmiMask => u64::from(cpu.nmi_blocked),
        F::HaltRestart => u64::from(cpu.activity == Activity::Halted),
        F::PortRestart => 0,
        F::PortMisc => port.as_ref().map_or(0, |port| match cpu.model.vendor() {
            Vendor::Intel => intel_port(port),
            Vendor::Amd => amd_port(port),
        }),
        F::PortRip => of_port(|port| port.rip),
        F::PortRcx => of_port(|port| port.rcx),
        F::PortRsi => of_port(|port| port.rsi),
        F::PortRdi => of_port(|port| port.rdi),
        F::Revision => revision(cpu.model.vendor()),
        F::Smbase => u64::from(cpu.smbase),
    }
}

/// IO_MISC: bit 0 valid, 3:1 bytes, 7:4 type, 31:16 port (SDM Vol. 3C "I/O State Implementation").
fn intel_port(port: &PortInstruction) -> u64 {
    let kind = u64::from(port.input)
        | u64::from(port.string) << 1
        | u64::from(port.string && port.rep) << 2
        | u64::from(port.immediate) << 3;
    1 | u64::from(port.size) << 1 | kind << 4 | u64::from(port.port) << 16
}

/// The I/O restart doubleword: bit 0 input, 1 valid, 2 string, 3 REP, 6:4 size, 31:16 port
/// (APM Vol. 2 "I/O Instruction Restart", "SMM I/O Trap Dword").
fn amd_port(port: &PortInstruction) -> u64 {
    u64::from(port.input)
        | 2
        | u64::from(port.string) << 2
        | u64::from(port.string && port.rep) << 3
        | u64::from(port.size) << 4
        | u64::from(port.port) << 16
}

fn load(cpu: &mut Cpu, field: Field, value: u64) {
    match field {
        F::Gpr(n) => cpu.gpr[usize::from(n)] = value,
        F::Rip => cpu.rip = value,
        F::Flags => cpu.set_rflags(RFlags(value)),
        F::Cr0 => cpu.cr0 = Cr0(value & Cr0::NAMED.0) | Cr0::ET,
        F::Cr3 => cpu.cr3 = Cr3(value),
        F::Cr4 => cpu.cr4 = Cr4(value),
        F::Efer => cpu.efer = Efer(value),
        F::Dr6 => cpu.dr6 = value & 0xe00f | cpu.dr6_ones(value),
        F::Dr7 => cpu.dr7 = value & 0xffff_2bff | 0x400,
        F::Selector(name) => cpu.segment_mut(name).selector = Selector(value as u16),
        F::Rights(name) => cpu.segment_mut(name).rights = AccessRights(value as u32),
        F::Attributes(name) => cpu.segment_mut(name).rights = AccessRights::from_vmcb(value as u16),
        F::Limit(name) => cpu.segment_mut(name).limit = value as u32,
        F::Base(name) => cpu.segment_mut(name).base = value,
        F::BaseHigh(name) => cpu.segment_mut(name).base |= value << 32,
        F::GdtBase => cpu.gdtr.base = value,
        F::GdtBaseHigh => cpu.gdtr.base |= value << 32,
        F::GdtLimit => cpu.gdtr.limit = value as u16,
        F::IdtBase => cpu.idtr.base = value,
        F::IdtBaseHigh => cpu.idtr.base |= value << 32,
        F::IdtLimit => cpu.idtr.limit = value as u16,
        F::Inner => {
            cpu.set_level((value & 3) as u8);
            cpu.sti_shadow = value & 4 != 0;
            cpu.mov_ss_shadow = value & 8 != 0;
        }
        F::NmiMask => cpu.nmi_blocked = value & 1 != 0,
        F::HaltRestart => {
            cpu.activity = if value & 1 != 0 { Activity::Halted } else { Activity::Active };
        }
        F::Smbase => cpu.smbase = value as u32,
        F::PortRestart | F::PortMisc | F::PortRip | F::PortRcx | F::PortRsi | F::PortRdi | F::Revision => {}
    }
}

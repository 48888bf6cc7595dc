//! Whether L2's segment registers are ones that KVM can run without emulating: its own test, on its own cache.

use rootmode_arch::SegmentName;
use rootmode_vmx::{Field, SecondaryControls};

use super::super::machine::HostBug;
use super::VmxVcpu;
use crate::kvm::Regression;

/// Access rights: type, S, DPL, P, unusable.
const CODE: u64 = 8;
const ACCESSED: u64 = 1;
const CONFORMING: u64 = 4;
const SYSTEM: u64 = 1 << 4;
const PRESENT: u64 = 1 << 7;
const UNUSABLE: u64 = 1 << 16;

/// A selector and access rights.
struct Register {
    selector: u64,
    rights: u64,
}

impl Register {
    const fn rpl(&self) -> u64 {
        self.selector & 3
    }

    const fn dpl(&self) -> u64 {
        self.rights >> 5 & 3
    }

    const fn kind(&self) -> u64 {
        self.rights & 0xf
    }

    const fn usable(&self) -> bool {
        self.rights & UNUSABLE == 0
    }

    /// A code or data segment that is present.
    const fn present(&self) -> bool {
        self.rights & SYSTEM != 0 && self.rights & PRESENT != 0
    }

    const fn code_is_valid(&self) -> bool {
        let kind = self.kind();
        let level = if kind & CONFORMING != 0 { self.dpl() <= self.rpl() } else { self.dpl() == self.rpl() };
        self.usable() && kind & CODE != 0 && kind & ACCESSED != 0 && self.present() && level
    }

    const fn stack_is_valid(&self) -> bool {
        !self.usable() || matches!(self.kind(), 3 | 7) && self.present() && self.dpl() == self.rpl()
    }

    const fn data_is_valid(&self) -> bool {
        let conforming_code = self.kind() & (CODE | CONFORMING) == CODE | CONFORMING;
        !self.usable() || self.present() && (conforming_code || self.dpl() >= self.rpl())
    }

    /// TR, or LDTR with other types.
    const fn in_gdt(&self) -> bool {
        self.selector & 4 == 0 && self.rights & PRESENT != 0
    }
}

impl VmxVcpu {
    fn register_of(&self, name: SegmentName) -> Result<Register, HostBug> {
        Ok(Register { selector: self.segment(name, 0)?, rights: self.segment(name, 2)? })
    }

    /// KVM's test of guests in protected mode.
    fn segments_are_valid(&self) -> Result<bool, HostBug> {
        let (cs, ss) = (self.register_of(SegmentName::Cs)?, self.register_of(SegmentName::Ss)?);
        let mut valid = cs.code_is_valid() && cs.rpl() == ss.rpl() && ss.stack_is_valid();
        for name in [SegmentName::Ds, SegmentName::Es, SegmentName::Fs, SegmentName::Gs] {
            valid &= self.register_of(name)?.data_is_valid();
        }
        let (tr, ldtr) = (self.register_of(SegmentName::Tr)?, self.register_of(SegmentName::Ldtr)?);
        valid &= tr.usable() && tr.in_gdt() && matches!(tr.kind(), 3 | 11);
        valid &= !ldtr.usable() || ldtr.in_gdt() && ldtr.kind() == 2;
        Ok(valid)
    }

    /// Whether the processor would take L2's segment registers. `by_the_rules`: none of the manual's rules about them is
    /// broken, which KVM leaves to the processor where the guest is unrestricted.
    pub(super) fn takes_segments(&self, by_the_rules: bool) -> Result<bool, HostBug> {
        let virtual_8086 = self.vmread(Field::GuestRflags)? >> 17 & 1 != 0;
        if self.secondary12(SecondaryControls::UNRESTRICTED_GUEST) || virtual_8086 {
            return Ok(by_the_rules);
        }
        if !self.emulate_invalid && self.config.regressions.has(Regression::ValidityAskedOfEmulation) {
            return Ok(true);
        }
        Ok(by_the_rules && self.segments_are_valid()?)
    }
}

//! Fields of VMCBs in memory.

use rootmode_arch::{GuestPhysical, HostPhysical};
use rootmode_svm::Vmcb;
use rootmode_svm::vmcb::Field;

use super::SvmVcpu;

impl SvmVcpu {
    /// A field of a VMCB; 0 for fields that are elsewhere or longer than 8 bytes.
    pub(super) fn get(&self, vmcb: HostPhysical, field: Field) -> u64 {
        let Some(offset) = field.vmcb_offset() else { return 0 };
        let mut bytes = [0; 8];
        let size = field.size().min(8);
        self.m().board.memory.read(vmcb.offset(offset as u64), &mut bytes[..size]);
        u64::from_le_bytes(bytes)
    }

    /// Stores a field of a VMCB.
    pub(super) fn set(&self, vmcb: HostPhysical, field: Field, value: u64) {
        let Some(offset) = field.vmcb_offset() else { return };
        let size = field.size().min(8);
        self.m().board.memory.write(vmcb.offset(offset as u64), &value.to_le_bytes()[..size]);
    }

    /// Copies fields from one VMCB to another.
    pub(super) fn copy(&self, from: HostPhysical, to: HostPhysical, fields: &[Field]) {
        let mut m = self.m();
        let mut bytes = [0; 16];
        for field in fields {
            let Some(offset) = field.vmcb_offset() else { continue };
            let part = &mut bytes[..field.size().min(16)];
            m.board.memory.read(from.offset(offset as u64), part);
            m.board.memory.write(to.offset(offset as u64), part);
        }
    }

    /// The VMCB at `at`.
    pub(super) fn read_vmcb(&self, at: HostPhysical) -> Vmcb {
        let mut bytes = [0; rootmode_svm::vmcb::SIZE];
        self.m().board.memory.read(at, &mut bytes);
        Vmcb::from_bytes(bytes)
    }

    /// Where a VMCB of L1 is, if L1 may use the address.
    pub(super) fn vmcb12_at(&self, address: u64) -> Option<HostPhysical> {
        let legal = address & 0xfff == 0 && address < self.processor.physical_limit();
        if !legal {
            return None;
        }
        self.m().place(GuestPhysical(address), true)
    }
}

/// What VMRUN and #VMEXIT switch.
pub(super) const SWITCHED: &[Field] = &[
    Field::EsSelector,
    Field::EsAttrib,
    Field::EsLimit,
    Field::EsBase,
    Field::CsSelector,
    Field::CsAttrib,
    Field::CsLimit,
    Field::CsBase,
    Field::SsSelector,
    Field::SsAttrib,
    Field::SsLimit,
    Field::SsBase,
    Field::DsSelector,
    Field::DsAttrib,
    Field::DsLimit,
    Field::DsBase,
    Field::GdtrBase,
    Field::GdtrLimit,
    Field::IdtrBase,
    Field::IdtrLimit,
    Field::Cpl,
    Field::Efer,
    Field::Cr0,
    Field::Cr2,
    Field::Cr3,
    Field::Cr4,
    Field::Dr6,
    Field::Dr7,
    Field::Rflags,
    Field::Rip,
    Field::Rsp,
    Field::Rax,
    Field::InterruptState,
];

/// What VMLOAD and VMSAVE move.
pub(super) const MOVED: &[Field] = &[
    Field::FsSelector,
    Field::FsAttrib,
    Field::FsLimit,
    Field::FsBase,
    Field::GsSelector,
    Field::GsAttrib,
    Field::GsLimit,
    Field::GsBase,
    Field::LdtrSelector,
    Field::LdtrAttrib,
    Field::LdtrLimit,
    Field::LdtrBase,
    Field::TrSelector,
    Field::TrAttrib,
    Field::TrLimit,
    Field::TrBase,
    Field::KernelGsBase,
    Field::Star,
    Field::Lstar,
    Field::Cstar,
    Field::Sfmask,
    Field::SysenterCs,
    Field::SysenterEsp,
    Field::SysenterEip,
];

//! [`State`]: the registers that a back end moves in and out of its control structure, in nobody's format.

use std::sync::Arc;

use rootmode_arch::{Cr0, Cr3, Cr4, DescriptorTable, Efer, Gpr, RFlags, Segment, SegmentName};
use rootmode_cpu::msr::MsrFile;
use rootmode_cpu::{Activity, Cpu, Model, segments_after_reset};

/// A guest's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// General-purpose registers by number.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Segment registers by [`SegmentName`].
    pub segments: [Segment; 8],
    /// Privilege level.
    pub cpl: u8,
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
    /// CR0, as the guest reads it.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4, as the guest reads it.
    pub cr4: u64,
    /// IA32_EFER, as the guest reads it.
    pub efer: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// The PDPTE registers, where the back end has them.
    pub pdptes: [u64; 4],
    /// IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP.
    pub sysenter: [u64; 3],
    /// STI blocks interrupts.
    pub sti_shadow: bool,
    /// MOV SS blocks interrupts. SVM does not tell it from `sti_shadow`.
    pub mov_ss_shadow: bool,
    /// NMIs are blocked.
    pub nmi_blocked: bool,
}

/// What a vCPU starts with: of a processor all but its translations and its local APIC, which are large.
pub(crate) struct Start {
    /// The processor that it is.
    pub(crate) model: Arc<Model>,
    /// Its registers.
    pub(crate) state: State,
    /// Its MSRs.
    pub(crate) msrs: MsrFile,
}

impl From<&Cpu> for Start {
    fn from(cpu: &Cpu) -> Self {
        Self { model: cpu.model.clone(), state: State::of(cpu), msrs: cpu.msrs }
    }
}

impl State {
    /// The registers of `cpu`.
    pub fn of(cpu: &Cpu) -> Self {
        Self {
            gpr: cpu.gpr,
            rip: cpu.rip,
            rflags: cpu.rflags().0,
            segments: cpu.segments,
            cpl: cpu.cpl,
            gdtr: cpu.gdtr,
            idtr: cpu.idtr,
            cr0: cpu.cr0.0,
            cr2: cpu.cr2,
            cr3: cpu.cr3.0,
            cr4: cpu.cr4.0,
            efer: cpu.efer.0,
            dr7: cpu.dr7,
            dr6: cpu.dr6,
            pat: cpu.msrs.pat,
            pdptes: cpu.pdptes,
            sysenter: [cpu.msrs.sysenter_cs, cpu.msrs.sysenter_esp, cpu.msrs.sysenter_eip],
            sti_shadow: cpu.sti_shadow,
            mov_ss_shadow: cpu.mov_ss_shadow,
            nmi_blocked: cpu.nmi_blocked,
        }
    }

    /// Gives `cpu` these registers.
    pub fn load_into(&self, cpu: &mut Cpu) {
        cpu.gpr = self.gpr;
        cpu.rip = self.rip;
        cpu.set_rflags(RFlags(self.rflags));
        cpu.segments = self.segments;
        cpu.cpl = self.cpl;
        (cpu.gdtr, cpu.idtr) = (self.gdtr, self.idtr);
        (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) = (Cr0(self.cr0), self.cr2, Cr3(self.cr3), Cr4(self.cr4));
        cpu.efer = Efer(self.efer);
        (cpu.dr6, cpu.dr7) = (self.dr6, self.dr7);
        cpu.msrs.pat = self.pat;
        cpu.pdptes = self.pdptes;
        [cpu.msrs.sysenter_cs, cpu.msrs.sysenter_esp, cpu.msrs.sysenter_eip] = self.sysenter;
        (cpu.sti_shadow, cpu.mov_ss_shadow) = (self.sti_shadow, self.mov_ss_shadow);
        cpu.nmi_blocked = self.nmi_blocked;
        cpu.activity = Activity::Active;
        cpu.refresh();
    }

    /// A vCPU as it is created: the state after reset, with EDX saying which processor it is
    /// (SDM Vol. 3A "Processor State After Reset").
    pub fn reset(signature: u32) -> Self {
        let mut gpr = [0; 16];
        gpr[Gpr::Rdx as usize] = signature.into();
        let table = DescriptorTable { base: 0, limit: 0xffff };
        Self {
            gpr,
            rip: 0xfff0,
            rflags: RFlags::ONE.0,
            segments: segments_after_reset(),
            cpl: 0,
            gdtr: table,
            idtr: table,
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr7: 0x400,
            dr6: 0xffff_0ff0,
            pat: 0x0007_0406_0007_0406,
            pdptes: [0; 4],
            sysenter: [0; 3],
            sti_shadow: false,
            mov_ss_shadow: false,
            nmi_blocked: false,
        }
    }

    /// A segment register.
    pub const fn segment(&self, name: SegmentName) -> &Segment {
        &self.segments[name as usize]
    }

    /// Whether an interrupt would be taken now, were one there.
    pub const fn interruptible(&self) -> bool {
        self.rflags & RFlags::IF.0 != 0 && !self.sti_shadow && !self.mov_ss_shadow
    }
}

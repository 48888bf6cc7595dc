//! Nested VMX: vmcs02's MSR bitmap, and who handles the exits of RDMSR and WRMSR.

use rootmode_arch::msr;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{GuestMemory, Handler, MergedMsr};
use crate::kvm::interception::{Access, Accesses, InterceptMap, Intercepts, Kernel, or_into};
use crate::kvm::{Regression, Regressions};

/// The virtual-APIC controls that L1 gives L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct VirtualApic {
    /// "Virtualize x2APIC mode".
    pub x2apic: bool,
    /// "APIC-register virtualization".
    pub registers: bool,
    /// "Virtual-interrupt delivery".
    pub interrupts: bool,
}

/// What L1's VMCS says about MSR accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Vmcs12 {
    /// "Use MSR bitmaps".
    pub use_bitmaps: bool,
    /// Guest-physical address of the bitmap.
    pub bitmap: u64,
    /// Virtual-APIC controls.
    pub apic: VirtualApic,
    /// An enlightened VMCS is in use, and its `msr_bitmap` enlightenment is on.
    pub enlightened: bool,
    /// Clean field bit 1: L1 promises that the bitmap is unchanged.
    pub clean: bool,
}

/// MSRs whose pass-through reaches L2 if both hypervisors let it, with the first kernel that does so.
pub(crate) const VMX_MERGED: &[MergedMsr] = &[
    MergedMsr::new(msr::IA32_FS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_GS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_KERNEL_GS_BASE, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_SPEC_CTRL, Accesses::RW, Kernel::V6_12),
    MergedMsr::new(msr::IA32_PRED_CMD, Accesses::W, Kernel::V6_12),
    MergedMsr::new(msr::IA32_FLUSH_CMD, Accesses::W, Kernel::V6_12),
    MergedMsr::new(msr::IA32_APERF, Accesses::R, Kernel::V6_17),
    MergedMsr::new(msr::IA32_MPERF, Accesses::R, Kernel::V6_17),
];

/// A register of L2's x2APIC that the processor virtualizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualRegister {
    /// The MSR.
    pub msr: u32,
    /// The accesses that do not exit if L1 lets them.
    pub accesses: Accesses,
    /// Only with virtual-interrupt delivery.
    pub interrupts: bool,
}

/// How the bits of L2's x2APIC registers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X2apicRules {
    /// First byte of the registers' read bits, and the byte behind the last. With APIC-register virtualization they are L1's.
    pub bytes: [usize; 2],
    /// Distance from the read bits to the write bits, in bytes.
    pub write: usize,
    /// What is open whenever L1 lets it.
    pub open: &'static [VirtualRegister],
}

/// KVM's rules.
pub(crate) const VMX_X2APIC: X2apicRules = X2apicRules {
    bytes: [0x100, 0x120],
    write: 0x800,
    open: &[
        VirtualRegister { msr: msr::IA32_X2APIC_TPR, accesses: Accesses::RW, interrupts: false },
        VirtualRegister { msr: msr::IA32_X2APIC_EOI, accesses: Accesses::W, interrupts: true },
        VirtualRegister { msr: msr::IA32_X2APIC_SELF_IPI, accesses: Accesses::W, interrupts: true },
    ],
};

/// A vCPU's bitmap for nested guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedBitmap {
    /// vmcs02's bitmap.
    pub map: MsrBitmap,
    /// vmcs02's "use MSR bitmaps".
    pub in_use: bool,
}

impl Default for NestedBitmap {
    fn default() -> Self {
        Self { map: MsrBitmap::INTERCEPT_ALL, in_use: false }
    }
}

impl NestedBitmap {
    /// VM entry by L1: prepares the bitmap; the result is vmcs02's "use MSR bitmaps". Without, every access exits.
    pub fn prepare(
        &mut self,
        vcpu: &mut Intercepts<MsrBitmap>,
        vmcs12: &Vmcs12,
        kernel: Kernel,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> bool {
        self.in_use = self.try_prepare(vcpu, vmcs12, kernel, memory, bugs);
        self.in_use
    }

    fn try_prepare(
        &mut self,
        vcpu: &mut Intercepts<MsrBitmap>,
        vmcs12: &Vmcs12,
        kernel: Kernel,
        memory: &mut dyn GuestMemory,
        bugs: Regressions,
    ) -> bool {
        if !vmcs12.use_bitmaps {
            if bugs.has(Regression::L1WithoutBitmapsUsesVmcs01) {
                self.map = vcpu.map.clone();
                return true;
            }
            return false;
        }
        if !vcpu.force_merge && vmcs12.enlightened && vmcs12.clean {
            return true;
        }
        let mut page = [0; 4096];
        if memory.read(vmcs12.bitmap, &mut page).is_err() {
            return false;
        }
        let l1 = MsrBitmap::from_page(&page);
        self.x2apic(&l1, vmcs12.apic, bugs);
        let left_out = |msr| bugs.has(Regression::NestedVmxLacksAperfMperf) && matches!(msr, 0xe7 | 0xe8);
        for &MergedMsr { msr, accesses, since } in bugs.tables().vmx_merged {
            if since > kernel || left_out(msr) {
                continue;
            }
            for access in accesses.iter() {
                let both = vcpu.map.intercepts(msr, access, bugs) || l1.intercepts(msr, access, bugs);
                self.map.put(msr, access, both, bugs);
            }
        }
        vcpu.force_merge = false;
        true
    }

    /// L2's x2APIC accesses reach the virtual-APIC page or nothing; vmcs01's bits for L1's own APIC do not matter.
    fn x2apic(&mut self, l1: &MsrBitmap, apic: VirtualApic, bugs: Regressions) {
        if !apic.x2apic && bugs.has(Regression::StaleX2apicBits) {
            return;
        }
        let rules = &bugs.tables().vmx_x2apic;
        let [first, end] = rules.bytes;
        let page = self.map.as_page_mut();
        page[first..end].fill(0xff);
        page[first + rules.write..end + rules.write].fill(0xff);
        if !apic.x2apic {
            return;
        }
        if apic.registers {
            page[first..end].copy_from_slice(&l1.as_page()[first..end]);
        }
        for register in rules.open.iter().filter(|register| apic.interrupts || !register.interrupts) {
            self.open_if_l1_does(l1, register.msr, register.accesses, bugs);
        }
    }

    fn open_if_l1_does(&mut self, l1: &MsrBitmap, msr: u32, accesses: Accesses, bugs: Regressions) {
        for access in accesses.iter() {
            if !l1.intercepts(msr, access, bugs) {
                self.map.put(msr, access, false, bugs);
            }
        }
    }

    /// vmcs01's bitmap was recalculated while L2 runs: what it now intercepts, L2 must not reach any more. The x2APIC
    /// bits are about another APIC, and stay.
    pub fn tighten(&mut self, vcpu: &Intercepts<MsrBitmap>, bugs: Regressions) {
        if bugs.has(Regression::NestedMapNotRefiltered) {
            return;
        }
        let own = self.map.clone();
        let page = self.map.as_page_mut();
        or_into(page, vcpu.map.as_page());
        let X2apicRules { bytes: [first, end], write, .. } = bugs.tables().vmx_x2apic;
        for half in [0, write] {
            let range = first + half..end + half;
            page[range.clone()].copy_from_slice(&own.as_page()[range]);
        }
    }
}

/// Who handles an exit by RDMSR or WRMSR of L2. Reads one byte of L1's bitmap at most.
pub fn msr_exit_handler(
    vmcs12: &Vmcs12,
    msr: u32,
    access: Access,
    memory: &mut dyn GuestMemory,
    bugs: Regressions,
) -> Handler {
    if !vmcs12.use_bitmaps {
        return Handler::L1;
    }
    let Some(position) = MsrBitmap::locate(msr, access, bugs) else { return Handler::L1 };
    let mut byte = [0];
    match memory.read(vmcs12.bitmap + position.byte as u64, &mut byte) {
        Ok(()) if byte[0] & position.mask == 0 => Handler::L0,
        _ => Handler::L1,
    }
}

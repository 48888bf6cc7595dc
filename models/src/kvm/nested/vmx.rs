//! Nested VMX: vmcs02's MSR bitmap, and who handles the exits of RDMSR and WRMSR.

use rootmode_arch::msr;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{GuestMemory, Handler};
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
pub const VMX_MERGED: &[(u32, Accesses, Kernel)] = &[
    (msr::IA32_FS_BASE, Accesses::RW, Kernel::V6_12),
    (msr::IA32_GS_BASE, Accesses::RW, Kernel::V6_12),
    (msr::IA32_KERNEL_GS_BASE, Accesses::RW, Kernel::V6_12),
    (msr::IA32_SPEC_CTRL, Accesses::RW, Kernel::V6_12),
    (msr::IA32_PRED_CMD, Accesses::W, Kernel::V6_12),
    (msr::IA32_FLUSH_CMD, Accesses::W, Kernel::V6_12),
    (msr::IA32_APERF, Accesses::R, Kernel::V6_17),
    (msr::IA32_MPERF, Accesses::R, Kernel::V6_17),
];

/// x2APIC registers: bytes of a quarter of the bitmap.
const X2APIC_BYTES: core::ops::Range<usize> = 0x100..0x120;
/// Distance from the read half to the write half.
const WRITE: usize = 0x800;

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
        for &(msr, accesses, since) in VMX_MERGED {
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
        let page = self.map.as_page_mut();
        page[X2APIC_BYTES].fill(0xff);
        page[X2APIC_BYTES.start + WRITE..X2APIC_BYTES.end + WRITE].fill(0xff);
        if !apic.x2apic {
            return;
        }
        if apic.registers {
            page[X2APIC_BYTES].copy_from_slice(&l1.as_page()[X2APIC_BYTES]);
        }
        self.open_if_l1_does(l1, msr::IA32_X2APIC_TPR, Accesses::RW, bugs);
        if apic.interrupts {
            self.open_if_l1_does(l1, msr::IA32_X2APIC_EOI, Accesses::W, bugs);
            self.open_if_l1_does(l1, msr::IA32_X2APIC_SELF_IPI, Accesses::W, bugs);
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
        for half in [0, WRITE] {
            let range = X2APIC_BYTES.start + half..X2APIC_BYTES.end + half;
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

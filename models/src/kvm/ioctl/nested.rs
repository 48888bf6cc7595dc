//! The nested state of a vCPU that does not nest: its processor has neither VMX nor SVM.

use rootmode_arch::Vendor;

use crate::kvm::Errno;
use crate::kvm::abi::{NestedStateHead, Plain, SvmNestedStateHdr, VmxNestedStateHdr};

/// `KVM_STATE_NESTED_FORMAT_VMX`, `KVM_STATE_NESTED_FORMAT_SVM`.
const FORMAT_VMX: u16 = 0;
const FORMAT_SVM: u16 = 1;
/// `KVM_STATE_NESTED_GIF_SET`.
const GIF_SET: u16 = 1 << 8;
/// No address.
const NOWHERE: u64 = u64::MAX;

/// What `KVM_GET_NESTED_STATE` answers: a head without data.
pub(super) fn idle(vendor: Vendor) -> NestedStateHead {
    let (format, flags, header) = match vendor {
        Vendor::Intel => {
            let header = VmxNestedStateHdr { vmxon_pa: NOWHERE, vmcs12_pa: NOWHERE, ..Default::default() };
            (FORMAT_VMX, 0, header.to_bytes())
        }
        Vendor::Amd => (FORMAT_SVM, GIF_SET, SvmNestedStateHdr::default().to_bytes()),
    };
    let mut state =
        NestedStateHead { flags, format, size: NestedStateHead::SIZE as u32, ..Default::default() };
    state.hdr[..header.len()].copy_from_slice(&header);
    state
}

/// `KVM_SET_NESTED_STATE`: nothing but that state can be set.
///
/// # Errors
/// [`Errno::Einval`].
pub(super) fn check(vendor: Vendor, asked: &NestedStateHead) -> Result<(), Errno> {
    let idle = idle(vendor);
    let addresses = match vendor {
        // Where the VMXON region and the current VMCS are: nowhere.
        Vendor::Intel => asked.hdr[..16] == idle.hdr[..16],
        Vendor::Amd => true,
    };
    let same = (asked.format, asked.flags) == (idle.format, idle.flags);
    if asked.size >= idle.size && same && addresses { Ok(()) } else { Err(Errno::Einval) }
}

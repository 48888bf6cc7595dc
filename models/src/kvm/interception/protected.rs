//! Host-initiated accesses to MSRs of a guest whose state is encrypted.

use super::{Access, Configuration, InterceptMap};
use crate::kvm::Errno;

/// What becomes of a host-initiated access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectedAccess {
    /// The access is handled as for any guest.
    Handled,
    /// The value is in encrypted state: reads give 0, writes do nothing, and this is returned.
    Refused(Result<(), Errno>),
}

/// Userspace reads or writes `msr` of a vCPU through KVM_GET_MSRS or KVM_SET_MSRS. An MSR that the guest writes without
/// an exit lives in encrypted state. `strict`: the VM's type declares protected state, which makes the refusal an error.
pub fn host_access<M: InterceptMap>(
    config: &Configuration,
    map: &M,
    msr: u32,
    encrypted: bool,
    strict: bool,
) -> ProtectedAccess {
    let passed_through = !map.intercepts(msr, Access::Write, config.regressions);
    if config.confidential.has_protected_state() && encrypted && passed_through {
        return ProtectedAccess::Refused(if strict { Err(Errno::Einval) } else { Ok(()) });
    }
    ProtectedAccess::Handled
}

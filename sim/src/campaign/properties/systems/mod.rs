//! KVM's systems beside MSR interception.

mod containment;
mod controls;
mod nested_entries;
mod posted;
mod rtit;
mod trace;
mod user_return;

use rootmode_models::kvm::vm::{Failure, Vm};

pub(super) use containment::PROPERTIES as CONTAINMENT;
pub(super) use controls::PROPERTIES as CONTROLS;
pub(super) use nested_entries::PROPERTIES as NESTED_ENTRIES;
pub(super) use posted::PROPERTIES as POSTED;
pub(super) use rtit::PROPERTIES as RTIT;
pub(super) use trace::PROPERTIES as TRACE;
pub(super) use user_return::PROPERTIES as USER_RETURN;

/// Starts a vCPU in real mode at `rip`, its code segment at 0.
fn start_at(vm: &mut Vm, vcpu: usize, rip: u64) -> Result<(), Failure> {
    let mut sregs = vm.sregs(vcpu)?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vm.set_sregs(vcpu, &sregs)?;
    let mut regs = vm.regs(vcpu)?;
    (regs.rip, regs.rflags) = (rip, 2);
    vm.set_regs(vcpu, &regs)
}

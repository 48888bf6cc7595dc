//! L1's VMX operation as it is saved and restored.

use rootmode_arch::{Cr4, GuestPhysical};
use rootmode_vmx::definitions::field::Kind;
use rootmode_vmx::{ExitControls, Field};

use super::super::machine::HostBug;
use super::super::nested_state::VmxState;
use super::VmxVcpu;
use crate::kvm::Errno;

impl VmxVcpu {
    /// Whether L1 is in VMX operation and a CR4 of `value` would end that.
    pub(super) fn leaves_vmx(&self, value: u64) -> bool {
        self.nested.vmxon.is_some() && value & Cr4::VMXE.0 == 0
    }

    /// What `KVM_GET_NESTED_STATE` saves: L1's current VMCS, with the state that L2 has now.
    pub(super) fn state_of_nesting(&mut self) -> Result<Option<VmxState>, HostBug> {
        let Some(vmxon) = self.nested.vmxon else { return Ok(None) };
        let mut vmcs12 = self.nested.vmcs12.clone();
        if self.nested.running {
            for field in Field::ALL {
                let kept = matches!(field, Field::LinkPointer | Field::GuestSmbase);
                if field.kind() == Kind::Guest && self.fields12.has(field) && !kept {
                    vmcs12.set(field, self.vmread(field)?);
                }
            }
        }
        let running = self.nested.running.then_some(self.nested.pending);
        let current = self.nested.current.map(|at| (at.0, vmcs12, self.nested.launched));
        Ok(Some(VmxState { vmxon, current, running, trap: self.trap_waits() }))
    }

    /// `KVM_SET_NESTED_STATE`.
    pub(super) async fn restore_nesting(
        &mut self,
        state: Option<VmxState>,
    ) -> Result<Result<(), Errno>, HostBug> {
        if !state.as_ref().is_none_or(|state| self.can_be(state)) {
            return Ok(Err(Errno::Einval));
        }
        self.leave_guest();
        self.free_nested().await?;
        let Some(VmxState { vmxon, current, running, trap }) = state else { return Ok(Ok(())) };
        self.nested.vmxon = Some(vmxon);
        let Some((at, vmcs12, launched)) = current else { return Ok(Ok(())) };
        self.nested.current = Some(GuestPhysical(at));
        (self.nested.vmcs12, self.nested.launched) = (vmcs12, launched);
        let Some(pending) = running else { return Ok(Ok(())) };
        if !self.prepare_vmcs02(pending).await? {
            self.load_vmcs(false).await?;
            return Ok(Err(Errno::Einval));
        }
        (self.nested.running, self.nested.pending) = (true, pending);
        *self.nested.trap.get_mut() = trap;
        Ok(Ok(()))
    }

    /// Whether pointers are legal, and L1's entry would succeed if L2 is to run.
    fn can_be(&mut self, state: &VmxState) -> bool {
        let VmxState { vmxon, current, running, .. } = state;
        let pointers =
            self.is_page(*vmxon) && current.as_ref().is_none_or(|(at, ..)| self.is_page(*at) && at != vmxon);
        let (true, Some((at, vmcs12, launched)), Some(_)) = (pointers, current, running) else {
            return pointers && running.is_none();
        };
        let old = std::mem::replace(&mut self.nested.vmcs12, vmcs12.clone());
        let old_current = self.nested.current.replace(GuestPhysical(*at));
        let old_launched = std::mem::replace(&mut self.nested.launched, *launched);
        // Of L1 it is only known to what mode it will return.
        let exit = ExitControls(self.nested.vmcs12.value(Field::ExitControls) as u32);
        let long_mode = exit.contains(ExitControls::HOST_ADDRESS_SPACE_SIZE);
        let enters = self.check12(*launched, 0, long_mode).is_none() && self.apic_page12() != Some(None);
        (self.nested.vmcs12, self.nested.current, self.nested.launched) = (old, old_current, old_launched);
        enters
    }
}

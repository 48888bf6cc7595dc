//! L1's use of SVM as it is saved and restored, and how it begins and ends from outside.

use rootmode_arch::{Cr0, GuestPhysical, RFlags};
use rootmode_svm::Vmcb;
use rootmode_svm::vmcb::{Field, IntCtl};

use super::super::machine::HostBug;
use super::super::nested_state::SvmState;
use super::SvmVcpu;
use super::vmcb::SWITCHED;
use crate::kvm::Errno;

impl SvmVcpu {
    /// L1's EFER.SVME. Without it, there is no L2 and interrupts are enabled globally.
    pub(super) fn set_enabled(&mut self, on: bool) {
        self.nested.gif |= self.nested.enabled && !on;
        self.nested.enabled = on;
    }

    /// Whether RFLAGS.IF lets interrupts come: L1's own if virtual interrupts are masked otherwise.
    pub(super) fn interrupts_enabled(&self) -> bool {
        let masked = self.field12(Field::IntCtl) & u64::from(IntCtl::V_INTR_MASKING.0) != 0;
        let own = self.nested.running.is_some() && masked;
        let vmcb = if own { self.vmcb01 } else { self.vmcb() };
        self.get(vmcb, Field::Rflags) & RFlags::IF.0 != 0
    }

    /// L2 no longer runs, and L1 sees no exit.
    pub(super) fn stop_nesting(&mut self) {
        if self.nested.running.take().is_some() {
            self.nested.pending = false;
            self.m().set_nested(false);
        }
        self.drop_shadow();
    }

    /// What `KVM_GET_NESTED_STATE` saves: L1's controls, and L1's own state.
    pub(super) fn state_of_nesting(&self) -> SvmState {
        let running = self.nested.running.map(|address| {
            let mut image = self.nested.vmcb12.clone();
            image.set(Field::IntCtl, self.virtual_interrupts());
            if !self.nested.pending {
                image.set(Field::EventInj, 0);
                image.set(Field::EventInjError, 0);
            }
            for field in SWITCHED {
                image.set(*field, self.get(self.vmcb01, *field));
            }
            (address.0, image, self.nested.pending)
        });
        SvmState { gif: self.nested.gif, running }
    }

    /// `KVM_SET_NESTED_STATE`. The registers are L2's by then, if it runs.
    pub(super) fn restore_nesting(&mut self, state: &SvmState) -> Result<Result<(), Errno>, HostBug> {
        let uses = state.running.is_some() || !state.gif;
        if uses && !self.nested.enabled && self.nested.running.is_none() {
            return Ok(Err(Errno::Einval));
        }
        let Some((address, image, pending)) = &state.running else {
            self.stop_nesting();
            self.nested.gif = state.gif;
            return Ok(Ok(()));
        };
        let own = |field| image.get(field).unwrap_or(0);
        let (cr0, flags) = (Cr0(own(Field::Cr0)), RFlags(own(Field::Rflags)));
        let mut l2 = image.clone();
        for field in SWITCHED {
            l2.set(*field, self.get(self.vmcb(), *field));
        }
        // Checked: L1's own state, as VMRUN would have found it, and then L2's registers with L1's controls.
        let before = self.read_vmcb(self.vmcb01);
        for field in SWITCHED {
            self.set(self.vmcb01, *field, own(*field));
        }
        let legal = cr0.contains(Cr0::PG | Cr0::PE)
            && !flags.contains(RFlags::VM)
            && self.enters(image)
            && self.enters(&l2);
        if !legal {
            self.m().board.memory.write(self.vmcb01, before.as_bytes());
            return Ok(Err(Errno::Einval));
        }
        self.stop_nesting();
        self.nested.vmcb12 = l2;
        if !self.prepare_vmcb02(GuestPhysical(*address))? {
            self.stop_nesting();
            self.m().board.memory.write(self.vmcb01, before.as_bytes());
            return Ok(Err(Errno::Einval));
        }
        self.nested.gif = state.gif;
        self.nested.pending = *pending;
        Ok(Ok(()))
    }

    /// Whether VMRUN of `image` would enter.
    fn enters(&mut self, image: &Vmcb) -> bool {
        let before = std::mem::replace(&mut *self.nested.vmcb12, image.clone());
        let verdict = self.check12();
        *self.nested.vmcb12 = before;
        verdict.is_none()
    }
}

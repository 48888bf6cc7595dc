//! L1's SVM instructions, as KVM emulates them.

use rootmode_arch::{Cr0, vector};
use rootmode_svm::vmcb::{Field, Intercept};

use super::super::machine::{HostBug, Machine};
use super::super::point::Point;
use super::SvmVcpu;
use super::vmcb::MOVED;

impl SvmVcpu {
    pub(super) async fn nested_instruction(&mut self, intercept: Intercept) -> Result<(), HostBug> {
        // The processor does not know that L1 has not enabled SVM. VMMCALL is for no one: no hypercall is offered.
        let protected = self.get(self.vmcb01, Field::Cr0) & Cr0::PE.0 != 0;
        if !self.nested.enabled || !protected || intercept == Intercept::VMMCALL {
            self.inject(vector::UD, None);
            return Ok(());
        }
        if self.get(self.vmcb01, Field::Cpl) != 0 {
            self.inject(vector::GP, Some(0));
            return Ok(());
        }
        self.tasks.point(Point::GuestMemory).await;
        let address = self.get(self.vmcb01, Field::Rax);
        match intercept {
            Intercept::VMRUN => return self.nested_entry(address).await,
            Intercept::VMLOAD | Intercept::VMSAVE => {
                let Some(vmcb12) = self.vmcb12_at(address) else {
                    self.inject(vector::GP, Some(0));
                    return Ok(());
                };
                if intercept == Intercept::VMLOAD {
                    self.copy(vmcb12, self.vmcb01, MOVED);
                } else {
                    self.copy(self.vmcb01, vmcb12, MOVED);
                }
            }
            Intercept::STGI => self.nested.gif = true,
            Intercept::CLGI => self.nested.gif = false,
            // Coarser than L1 asked for.
            _ => self.drop_shadow(),
        }
        self.skip();
        Ok(())
    }

    /// Everything that was derived from L1's tables is invalid; L2's translations are flushed by the next entry.
    pub(super) fn drop_shadow(&mut self) {
        self.nested.shadow_of = None;
        let mut m = self.m();
        if let Some(mut shadow) = m.shadow.take() {
            let root = shadow.root();
            let Machine { board, frames, .. } = &mut *m;
            shadow.clear(&mut board.memory, frames);
            m.frames.give_back(root);
        }
        m.flush_requested = true;
    }
}

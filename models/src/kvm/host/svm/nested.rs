//! L1's SVM instructions, as KVM emulates them.

use rootmode_arch::{Cr0, vector};
use rootmode_cpu::DeliveryKind;
use rootmode_svm::vmcb::{Field, Intercept};

use super::super::backend::{Injection, Nested};
use super::super::machine::HostBug;
use super::super::point::Point;
use super::SvmVcpu;
use super::vmcb::MOVED;

/// The instruction ends in a hardware exception.
pub(super) const fn raises(vector: u8, error_code: Option<u32>) -> Nested {
    Nested::Raises(Injection { kind: DeliveryKind::Hardware, vector, error_code, length: 0 })
}

impl SvmVcpu {
    pub(super) async fn nested_instruction(&mut self, intercept: Intercept) -> Result<Nested, HostBug> {
        // The processor does not know that L1 has not enabled SVM. SKINIT is offered to nobody.
        let protected = self.get(self.vmcb01, Field::Cr0) & Cr0::PE.0 != 0;
        if !self.nested.enabled || !protected || intercept == Intercept::SKINIT {
            return Ok(raises(vector::UD, None));
        }
        if self.get(self.vmcb01, Field::Cpl) != 0 {
            return Ok(raises(vector::GP, Some(0)));
        }
        self.tasks.point(Point::GuestMemory).await;
        let address = self.get(self.vmcb01, Field::Rax);
        match intercept {
            Intercept::VMRUN => return self.nested_entry(address).await,
            Intercept::VMLOAD | Intercept::VMSAVE => {
                let Some(vmcb12) = self.vmcb12_at(address) else {
                    return Ok(raises(vector::GP, Some(0)));
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
        Ok(Nested::Resumes)
    }

    /// Everything that was derived from L1's tables is invalid; L2's translations are flushed by the next entry.
    pub(super) fn drop_shadow(&mut self) {
        self.nested.shadow_of = None;
        self.nested.flush = true;
        self.m().take_shadow();
    }
}

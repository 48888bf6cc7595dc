//! The processor's interrupt inputs past the local APIC: NMI, SMI, INIT and start-up IPIs, latched.

use rootmode_mmu::Digest;

/// What waits at the inputs. Maskable interrupts wait in [`Cpu::apic`](crate::Cpu::apic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Interrupts {
    /// An NMI is pending.
    pub nmi: bool,
    /// A second NMI is pending behind it.
    second_nmi: bool,
    /// An SMI is pending.
    pub smi: bool,
    /// INIT is pending.
    pub init: bool,
    /// A start-up IPI with this vector is pending.
    pub sipi: Option<u8>,
    /// AVIC's doorbell rang while a guest ran. The extension takes it at the next boundary.
    pub doorbell: bool,
}

impl Interrupts {
    /// Latches an NMI. While one is handled (`blocked`) one more can wait. While none is, two can that arrived since the last
    /// boundary: between two instructions the first would have been taken at once, and the second waited behind it.
    pub const fn post_nmi(&mut self, blocked: bool) {
        self.second_nmi = self.nmi && !blocked;
        self.nmi = true;
    }

    /// Takes the first pending NMI.
    pub const fn take_nmi(&mut self) {
        self.nmi = self.second_nmi;
        self.second_nmi = false;
    }

    /// Latches INIT. A start-up IPI that came before it is void.
    pub const fn post_init(&mut self) {
        self.init = true;
        self.sipi = None;
    }

    /// Whether anything waits.
    pub const fn any(&self) -> bool {
        self.nmi || self.smi || self.init || self.sipi.is_some()
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        let sipi = self.sipi.map_or(0, |vector| 0x100 | u64::from(vector));
        let flags = [self.nmi, self.smi, self.init, self.second_nmi, self.doorbell];
        let flags = flags.iter().enumerate().fold(0, |all, (n, flag)| all | u64::from(*flag) << n);
        digest.u64(flags | sipi << 8);
    }
}

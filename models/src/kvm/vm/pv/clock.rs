//! kvmclock: the wall clock and each vCPU's system time, in guest memory (Linux 6.12, Documentation/virt/kvm/x86/msr.rst;
//! arch/x86/kvm/x86.c, `kvm_write_wall_clock`, `kvm_write_system_time`, `kvm_setup_guest_pvclock`).
//!
//! The processors' time-stamp counters go together, so a time is written when the guest asks for it or moves its counter, and
//! holds for good.

use super::ENABLED;
use crate::devices::rtc::Date;
use crate::kvm::host::HostBug;
use crate::kvm::vm::Shared;
use crate::kvm::vm::vcpu::Vcpu;

/// `PVCLOCK_TSC_STABLE_BIT`.
const STABLE: u8 = 1;
/// The counter's 4 counts a nanosecond, as `kvm_get_time_scale` says it: half of them, times a half of 2^32, over 2^32.
const SHIFT: i8 = -1;
const MULTIPLIER: u32 = 1 << 31;
const _: () = assert!(rootmode_cpu::time::TSC.counts == 4 * rootmode_cpu::time::TSC.ticks);

impl Vcpu {
    /// What the guest's counter shows at the machine's time in nanoseconds.
    fn moment(&self, shared: &Shared) -> Result<(u64, u64), HostBug> {
        let now = shared.with(self.processor, |machine, _| machine.cpu().host_tsc())
            / rootmode_cpu::time::TSC.counts;
        Ok((self.tsc(shared)?, now))
    }

    /// Writes `fields` behind a version at `address`, which is odd meanwhile; the version before decides where it begins.
    pub(super) fn write_versioned(&self, shared: &Shared, address: u64, fields: &[u8]) {
        shared.memory(self.processor, |memory, below| {
            let mut version = [0; 4];
            if !memory.read(below, address, &mut version) {
                return;
            }
            let begun = u32::from_le_bytes(version).wrapping_add(1) | 1;
            memory.write(below, address, &begun.to_le_bytes());
            memory.write(below, address + 4, fields);
            memory.write(below, address, &begun.wrapping_add(1).to_le_bytes());
        });
    }

    /// WRMSR of the wall clock: when the machine's time was 0.
    pub(super) fn write_wall_clock(&self, shared: &Shared, address: u64) {
        shared.rooms().wall_clock = address;
        if address == 0 {
            return;
        }
        let epoch = Date { year: 1970, ..Date::default() };
        let seconds = (Date::default().seconds() - epoch.seconds()) as u32;
        self.write_versioned(shared, address, &[seconds.to_le_bytes(), [0; 4]].concat());
    }

    /// Writes the system time anew, if the guest has asked for it.
    pub(in crate::kvm::vm) fn update_clock(&self, shared: &Shared) -> Result<(), HostBug> {
        let value = self.pv.system_time;
        if value & ENABLED == 0 {
            return Ok(());
        }
        let (counter, now) = self.moment(shared)?;
        let mut fields = vec![0; 4];
        fields.extend(counter.to_le_bytes());
        fields.extend(now.to_le_bytes());
        fields.extend(MULTIPLIER.to_le_bytes());
        fields.extend([SHIFT as u8, STABLE, 0, 0]);
        self.write_versioned(shared, value & !ENABLED, &fields);
        Ok(())
    }
}

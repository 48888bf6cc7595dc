//! Ioctls of a VM.

use super::{Answer, DONE, Instance, Outcome, copy_in, copy_list, copy_out};
use crate::kvm::Errno;
use crate::kvm::abi::request as r;
use crate::kvm::abi::{
    ClearDirtyLog, ClockData, CoalescedMmioZone, DirtyLog, EnableCap, PAGE, UserspaceMemoryRegion,
    UserspaceMemoryRegion2, cap, capability,
};
use crate::kvm::filter::{Layout, UserFault, UserMemory, prepare};
use crate::kvm::vm::{ClientMemory, EntryPoint, Failure};

/// The time-stamp counters of all processors tick alike (`KVM_CLOCK_TSC_STABLE`).
const TSC_STABLE: u32 = 2;

struct Reader<'a>(&'a mut dyn ClientMemory);

impl UserMemory for Reader<'_> {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), UserFault> {
        self.0.read(address, buffer).map_err(|fault| UserFault { address: fault.address })
    }
}

impl Instance {
    /// An ioctl of the VM.
    ///
    /// # Errors
    /// Linux's.
    pub fn vm_ioctl(&mut self, number: u32, argument: u64, client: &mut dyn ClientMemory) -> Outcome {
        self.vm.alive(EntryPoint::Native)?;
        self.vm_call(number, argument, client).map_err(Failure::errno)
    }

    /// An ioctl of the VM by a 32-bit client: the filter has a number and a layout of its own there.
    ///
    /// # Errors
    /// Linux's.
    pub fn vm_compat_ioctl(&mut self, number: u32, argument: u64, client: &mut dyn ClientMemory) -> Outcome {
        self.vm.alive(EntryPoint::Compat)?;
        let call = match Layout::of_ioctl(number) {
            Some(layout) => self.set_filter(layout, argument, client).map(|()| DONE),
            None => self.vm_call(number, argument, client),
        };
        call.map_err(Failure::errno)
    }

    fn set_filter(
        &mut self,
        layout: Layout,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<(), Failure> {
        let filter = prepare(layout, argument, &mut Reader(client)).map_err(|error| error.errno())?;
        self.vm.set_msr_filter(filter)
    }

    fn vm_call(
        &mut self,
        number: u32,
        argument: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<Answer, Failure> {
        match number {
            r::CHECK_EXTENSION => {
                let vendor = self.vm.host().vendor();
                return Ok(Answer::Value(
                    u32::try_from(argument).map_or(0, |number| capability(number, vendor)),
                ));
            }
            r::CREATE_VCPU => {
                let id = u32::try_from(argument).map_err(|_| Errno::Einval)?;
                return Ok(Answer::NewVcpu(self.vm.create_vcpu(id)?));
            }
            r::SET_USER_MEMORY_REGION => self.vm.set_memory_region(&copy_in(client, argument)?)?,
            r::SET_USER_MEMORY_REGION2 => self.set_region2(&copy_in(client, argument)?)?,
            r::GET_DIRTY_LOG => {
                let log: DirtyLog = copy_in(client, argument)?;
                let words = self.vm.dirty_log(log.slot)?;
                super::write_list(client, log.dirty_bitmap, &words)?;
            }
            r::CLEAR_DIRTY_LOG => {
                let log: ClearDirtyLog = copy_in(client, argument)?;
                let place = (log.slot, log.first_page, log.num_pages.into());
                self.vm.clear_dirty_log(place, |words| Ok(copy_list(client, log.dirty_bitmap, words)?))?;
            }
            r::RESET_DIRTY_RINGS if self.vm.dirty_ring_entries() == 0 => return Err(Errno::Einval.into()),
            r::RESET_DIRTY_RINGS => return Ok(Answer::ResetRings),
            r::GET_STATS_FD => return Ok(Answer::NewStatistics),
            r::SET_TSS_ADDR => {
                // Three pages below 4 GBytes. Nothing lies there: real mode needs no help.
                if argument > (1 << 32) - 3 * PAGE {
                    return Err(Errno::Einval.into());
                }
            }
            r::SET_IDENTITY_MAP_ADDR => {
                let _: u64 = copy_in(client, argument)?;
                if self.vm.has_vcpus() {
                    return Err(Errno::Einval.into());
                }
            }
            r::SET_BOOT_CPU_ID => self.vm.set_bootstrap(argument as u32)?,
            r::SET_NR_MMU_PAGES => {
                if argument < 64 {
                    return Err(Errno::Einval.into());
                }
                self.mmu_pages = argument;
            }
            r::GET_NR_MMU_PAGES => return Ok(Answer::Value(self.mmu_pages as i32)),
            r::REGISTER_COALESCED_MMIO => {
                self.vm.register_coalesced(&copy_in::<CoalescedMmioZone>(client, argument)?)?;
            }
            r::UNREGISTER_COALESCED_MMIO => {
                self.vm.unregister_coalesced(&copy_in::<CoalescedMmioZone>(client, argument)?)?;
            }
            r::X86_SET_MSR_FILTER => {
                self.set_filter(Layout::of_ioctl(number).ok_or(Errno::Enotty)?, argument, client)?;
            }
            r::CREATE_DEVICE => return self.create_device(argument, client),
            r::ENABLE_CAP => self.enable(&copy_in(client, argument)?)?,
            r::GET_CLOCK => {
                let clock = self.now(client).wrapping_add(self.clock);
                let flags = TSC_STABLE;
                copy_out(client, argument, &ClockData { clock, flags, ..ClockData::default() })?;
            }
            r::SET_CLOCK => {
                let data: ClockData = copy_in(client, argument)?;
                if data.flags & !TSC_STABLE != 0 {
                    return Err(Errno::Einval.into());
                }
                self.clock = data.clock.wrapping_sub(self.now(client));
            }
            _ => return self.chip_call(number, argument, client),
        }
        Ok(DONE)
    }

    fn set_region2(&mut self, region: &UserspaceMemoryRegion2) -> Result<(), Failure> {
        let UserspaceMemoryRegion2 { slot, flags, guest_phys_addr, memory_size, userspace_addr, .. } =
            *region;
        self.vm.set_memory_region(&UserspaceMemoryRegion {
            slot,
            flags,
            guest_phys_addr,
            memory_size,
            userspace_addr,
        })
    }

    fn enable(&mut self, wanted: &EnableCap) -> Result<(), Failure> {
        if wanted.flags != 0 {
            return Err(Errno::Einval.into());
        }
        match wanted.cap {
            cap::X86_USER_SPACE_MSR => self.vm.set_msr_exits(wanted.args[0]),
            cap::DIRTY_LOG_RING | cap::DIRTY_LOG_RING_ACQ_REL => self.vm.set_dirty_rings(wanted.args[0]),
            cap::MANUAL_DIRTY_LOG_PROTECT2 => self.vm.set_manual_log(wanted.args[0]),
            cap::SPLIT_IRQCHIP => self.vm.split_irqchip(wanted.args[0]),
            cap::EXIT_HYPERCALL => self.vm.set_hypercall_exits(wanted.args[0]),
            _ => Err(Errno::Einval.into()),
        }
    }

    /// The client's time, or the machine's.
    fn now(&self, client: &mut dyn ClientMemory) -> u64 {
        client.nanoseconds().unwrap_or_else(|| self.vm.ticks())
    }
}

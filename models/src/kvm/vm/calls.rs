//! The ioctls of a [`Vm`] and its vCPUs that are one call each.

use super::containment::EntryPoint;
use super::vcpu::Vcpu;
use super::{Failure, Shared, Statistic, Vm, statistics};
use crate::devices::GuestMemory;
use crate::kvm::abi::{
    CoalescedMmio, CoalescedMmioZone, CpuidEntry2, DebugRegs, DirtyGfn, Fpu, GuestDebug, LapicState, MpState,
    MsrEntry, Regs, Sregs, Sregs2, Translation, UserspaceMemoryRegion, VcpuEvents, Xcrs,
};
use crate::kvm::filter::ExitMask;
use crate::kvm::host::{NestedState, lock};
use crate::kvm::slots::ring;
use crate::kvm::{Errno, Filter};
use rootmode_mmu::Digest;

/// One method a vCPU ioctl: the name, the call, what it is.
macro_rules! vcpu_calls {
    ($($(#[$meta:meta])* $name:ident($($argument:ident: $type:ty),*) -> $answer:ty = |$vcpu:ident, $shared:ident| $call:expr;)*) => {
        impl Vm {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// Linux's; [`Errno::Ebusy`] while the vCPU is in `KVM_RUN`.
                pub fn $name(&mut self, vcpu: usize $(, $argument: $type)*) -> Result<$answer, Failure> {
                    self.call(vcpu, |$vcpu: &mut Vcpu, $shared: &Shared| $call)
                }
            )*
        }
    };
}

vcpu_calls! {
    /// `KVM_GET_REGS`.
    regs() -> Regs = |vcpu, _shared| Ok(vcpu.regs()?);
    /// `KVM_SET_REGS`.
    set_regs(regs: &Regs) -> () = |vcpu, _shared| Ok(vcpu.set_regs(regs)?);
    /// `KVM_GET_SREGS`.
    sregs() -> Sregs = |vcpu, shared| Ok(vcpu.sregs(shared)?);
    /// `KVM_SET_SREGS`.
    set_sregs(sregs: &Sregs) -> () = |vcpu, shared| vcpu.set_sregs(shared, sregs);
    /// `KVM_GET_SREGS2`.
    sregs2() -> Sregs2 = |vcpu, shared| Ok(vcpu.sregs2(shared)?);
    /// `KVM_SET_SREGS2`.
    set_sregs2(sregs: &Sregs2) -> () = |vcpu, shared| vcpu.set_sregs2(shared, sregs);
    /// `KVM_GET_CPUID2`.
    cpuid2() -> Vec<CpuidEntry2> = |vcpu, _shared| Ok(vcpu.cpuid().to_vec());
    /// `KVM_SET_CPUID2`.
    set_cpuid2(entries: &[CpuidEntry2]) -> () = |vcpu, shared| vcpu.set_cpuid(shared, entries);
    /// `KVM_GET_MSRS`: how many were read.
    get_msrs(entries: &mut [MsrEntry]) -> usize = |vcpu, shared| Ok(vcpu.get_msrs(shared, entries)?);
    /// `KVM_SET_MSRS`: how many were written.
    set_msrs(entries: &[MsrEntry]) -> usize = |vcpu, shared| Ok(vcpu.set_msrs(shared, entries)?);
    /// `KVM_GET_FPU`.
    fpu() -> Fpu = |vcpu, shared| Ok(vcpu.fpu(shared));
    /// `KVM_SET_FPU`.
    set_fpu(fpu: &Fpu) -> () = |vcpu, shared| { vcpu.set_fpu(shared, fpu); Ok(()) };
    /// `KVM_GET_XSAVE`, `KVM_GET_XSAVE2`: 4096 bytes.
    xsave() -> Vec<u8> = |vcpu, shared| Ok(vcpu.xsave(shared));
    /// `KVM_SET_XSAVE`: 4096 bytes.
    set_xsave(bytes: &[u8]) -> () = |vcpu, shared| Ok(vcpu.set_xsave(shared, bytes)?);
    /// `KVM_GET_XCRS`.
    xcrs() -> Xcrs = |vcpu, shared| Ok(vcpu.xcrs(shared));
    /// `KVM_SET_XCRS`.
    set_xcrs(xcrs: &Xcrs) -> () = |vcpu, shared| Ok(vcpu.set_xcrs(shared, xcrs)?);
    /// `KVM_GET_DEBUGREGS`.
    debug_regs() -> DebugRegs = |vcpu, shared| Ok(vcpu.debug_regs(shared)?);
    /// `KVM_SET_DEBUGREGS`.
    set_debug_regs(regs: &DebugRegs) -> () = |vcpu, shared| vcpu.set_debug_regs(shared, regs);
    /// `KVM_GET_VCPU_EVENTS`.
    vcpu_events() -> VcpuEvents = |vcpu, shared| { vcpu.take_inputs(shared)?; Ok(vcpu.vcpu_events()?) };
    /// `KVM_SET_VCPU_EVENTS`.
    set_vcpu_events(events: &VcpuEvents) -> () = |vcpu, _shared| vcpu.set_vcpu_events(events);
    /// `KVM_GET_MP_STATE`.
    mp_state() -> MpState = |vcpu, shared| vcpu.mp_state(shared);
    /// `KVM_SET_MP_STATE`.
    set_mp_state(state: &MpState) -> () = |vcpu, shared| Ok(vcpu.set_mp_state(shared, state)?);
    /// `KVM_GET_LAPIC`.
    lapic() -> LapicState = |vcpu, shared| Ok(vcpu.lapic(shared)?);
    /// `KVM_SET_LAPIC`.
    set_lapic(state: &LapicState) -> () = |vcpu, shared| Ok(vcpu.set_lapic(shared, state)?);
    /// `KVM_INTERRUPT`: a vector from the client's interrupt controller.
    interrupt(vector: u32) -> () = |vcpu, shared| {
        if vector > 255 {
            return Err(Errno::Einval.into());
        }
        if vcpu.has_apic(shared) {
            return Ok(shared.rooms().irqchip.external(vcpu.processor.into(), vector as u8)?);
        }
        vcpu.events.interrupt = Some(vector as u8);
        Ok(())
    };
    /// `KVM_TRANSLATE`.
    translate(linear: u64) -> Translation = |vcpu, shared| {
        let answer = vcpu.translate(shared, linear)?;
        shared.memory(vcpu.processor, |memory, below| memory.copy_out(below))?;
        Ok(answer)
    };
    /// `KVM_SET_GUEST_DEBUG`.
    set_guest_debug(asked: &GuestDebug) -> () = |vcpu, _shared| vcpu.set_guest_debug(asked);
    /// `KVM_GET_NESTED_STATE`.
    nested_state() -> NestedState = |vcpu, _shared| vcpu.nested_state();
    /// `KVM_SET_NESTED_STATE`.
    set_nested_state(state: NestedState) -> () = |vcpu, shared| vcpu.set_nested_state(shared, state);
    /// `KVM_NMI`.
    nmi() -> () = |vcpu, _shared| { vcpu.events.nmi = true; Ok(()) };
    /// `kvm_run.ready_for_interrupt_injection`, `kvm_run.if_flag`, `kvm_run.cr8`, `kvm_run.apic_base`.
    run_state() -> (bool, bool, u64, u64) = |vcpu, shared| {
        let state = vcpu.backend.save()?;
        let number = usize::from(vcpu.processor);
        let takes = if vcpu.has_apic(shared) {
            shared.rooms().irqchip.accepts_external(number)
        } else {
            vcpu.events.interrupt.is_none()
        };
        Ok((state.interruptible() && takes, state.rflags >> 9 & 1 != 0, vcpu.cr8(shared), vcpu.apic_base))
    };
    /// `kvm_run.cr8`, as the client left it.
    set_cr8(value: u64) -> () = |vcpu, shared| {
        // With the local APIC in the kernel, it is only shown.
        if vcpu.has_apic(shared) {
            return Ok(());
        }
        if value > 15 {
            return Err(Errno::Einval.into());
        }
        vcpu.cr8 = value;
        Ok(())
    };
}

impl Vm {
    fn call<T>(
        &mut self,
        vcpu: usize,
        f: impl FnOnce(&mut Vcpu, &Shared) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (vcpu, shared) = self.vcpu(vcpu)?;
        f(vcpu, shared).map_err(|failure| self.note(failure))
    }

    /// `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// # Errors
    /// Linux's.
    pub fn set_memory_region(&mut self, region: &UserspaceMemoryRegion) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        Ok(self.shared.memory(0, |memory, below| memory.set_region(below, region))?)
    }

    /// Whether a vCPU was created.
    pub const fn has_vcpus(&self) -> bool {
        !self.vcpus.is_empty()
    }

    /// The machine's time in ticks, which are nanoseconds.
    pub fn ticks(&self) -> u64 {
        lock(&self.shared.machine).board.now()
    }

    /// The time of a vCPU: that of its processor, which may be ahead of the machine's within a slice.
    pub fn ticks_of(&self, vcpu: usize) -> u64 {
        let machine = lock(&self.shared.machine);
        machine
            .board
            .processors()
            .get(vcpu)
            .map_or(0, |processor| processor.cpu.tick)
            .max(machine.board.now())
    }

    /// How often guests were left.
    pub fn exits(&self) -> u64 {
        self.shared.rooms().statistics.iter().map(|of| of.get(Statistic::Exits)).sum()
    }

    /// The fingerprint of the host's state with everything in it, chips in the kernel included.
    pub fn digest(&self) -> u128 {
        let (below, mut digest) = (lock(&self.shared.machine).board.digest(), Digest::new());
        digest.u128(below);
        self.shared.rooms().irqchip.digest(&mut digest);
        digest.finish()
    }

    /// `KVM_GET_DIRTY_LOG`: one bit a page, 64 pages a word.
    ///
    /// # Errors
    /// Linux's.
    pub fn dirty_log(&mut self, slot: u32) -> Result<Vec<u64>, Failure> {
        self.alive(EntryPoint::Native)?;
        Ok(self.shared.memory(0, |memory, below| memory.take_log(below, slot))?)
    }

    /// `KVM_CLEAR_DIRTY_LOG` of `pages` pages from `first` on: `bits` reads the words of its bitmap.
    ///
    /// # Errors
    /// Linux's.
    pub fn clear_dirty_log(
        &mut self,
        (slot, first, pages): (u32, u64, u64),
        bits: impl FnOnce(usize) -> Result<Vec<u64>, Errno>,
    ) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        self.shared.memory(0, |memory, _| memory.check_clear(slot, first, pages))?;
        let bits = bits(pages.div_ceil(64) as usize)?;
        Ok(self.shared.memory(0, |memory, below| memory.clear_log(below, slot, first, &bits))?)
    }

    /// `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`: whether the client clears the log by itself, and whether it begins full.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a log that begins full without the former.
    pub fn set_manual_log(&mut self, flags: u64) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        if !matches!(flags, 0 | 1 | 3) {
            return Err(Errno::Einval.into());
        }
        self.shared.memory(0, |memory, _| {
            (memory.manual, memory.initially_dirty) = (flags & 1 != 0, flags & 2 != 0);
        });
        Ok(())
    }

    /// `KVM_CAP_DIRTY_LOG_RING`: every vCPU gets a ring of so many bytes, which takes the place of the logs.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a size that cannot be, the second time, and behind the first vCPU; [`Errno::E2big`].
    pub fn set_dirty_rings(&mut self, bytes: u64) -> Result<(), Failure> {
        let entries = ring::entries(bytes)?;
        let vcpus = self.has_vcpus();
        self.shared.memory(0, |memory, _| {
            if memory.ring_entries > 0 || vcpus {
                return Err(Errno::Einval.into());
            }
            memory.ring_entries = entries;
            Ok(())
        })
    }

    /// Entries of a vCPU's ring; 0: there are none.
    pub fn dirty_ring_entries(&self) -> u32 {
        self.shared.memory(0, |memory, _| memory.ring_entries)
    }

    /// The entries of a vCPU's ring that its mapping does not show yet, with their places.
    pub fn take_dirty(&mut self, vcpu: usize) -> Vec<(u32, DirtyGfn)> {
        self.shared.memory(0, |memory, _| memory.ring(vcpu).map_or_else(Vec::new, |ring| ring.take_fresh()))
    }

    /// `KVM_RESET_DIRTY_RINGS` of one vCPU: `entry` takes an entry out of its place in the mapping if the client has
    /// harvested it. How many came back.
    ///
    /// # Errors
    /// What `entry` says.
    pub fn reset_dirty_ring(
        &mut self,
        vcpu: usize,
        mut entry: impl FnMut(u32) -> Result<DirtyGfn, Errno>,
    ) -> Result<u32, Failure> {
        let mut pages = Vec::new();
        loop {
            let mut machine = lock(&self.shared.machine);
            let Some(ring) = machine.memory.ring(vcpu) else { return Err(Errno::Einval.into()) };
            let Some(place) = ring.oldest() else { break };
            let found = entry(place)?;
            if !ring.take_back(&found) {
                break;
            }
            pages.push((found.slot, found.offset));
        }
        self.shared.memory(0, |memory, below| memory.watch(below, &pages))?;
        Ok(pages.len() as u32)
    }

    /// What `KVM_GET_STATS_FD`'s descriptor reads as: of a vCPU, or of the VM. `process` is the client's number.
    ///
    /// # Errors
    /// [`Errno::Einval`] if there is no such vCPU.
    pub fn statistics(&self, vcpu: Option<usize>, process: u32) -> Result<Vec<u8>, Failure> {
        let Some(vcpu) = vcpu else {
            let generation = self.shared.memory(0, |memory, _| memory.generation);
            return Ok(statistics::of_vm(&format!("kvm-{process}"), generation));
        };
        let rooms = self.shared.rooms();
        let found = rooms.statistics.get(vcpu).zip(self.ids.get(vcpu)).ok_or(Errno::Einval)?;
        Ok(found.0.file(&format!("kvm-{process}/vcpu-{}", found.1)))
    }

    /// Reads guest memory as a device does. False: not all of it is memory.
    pub fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.shared.memory(0, |memory, below| memory.read(below, address, bytes))
    }

    /// Writes guest memory as a loader does. False: not all of it is memory.
    pub fn write_memory(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.shared.memory(0, |memory, below| memory.write(below, address, bytes))
    }

    /// `KVM_X86_SET_MSR_FILTER`: every vCPU goes by it from its next entry on.
    ///
    /// # Errors
    /// [`Errno::Ebusy`] while a vCPU is in `KVM_RUN`: a change under running vCPUs is not modelled yet.
    pub fn set_msr_filter(&mut self, filter: Filter) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        let configuration = {
            let mut rooms = self.shared.rooms();
            rooms.filter = filter.clone();
            rooms.configuration
        };
        for vcpu in 0..self.vcpus.len() {
            self.vcpu(vcpu)?.0.backend.configure(&configuration, &filter)?;
        }
        Ok(())
    }

    /// `KVM_CAP_X86_USER_SPACE_MSR`: the failures that the client wants to see.
    ///
    /// # Errors
    /// [`Errno::Einval`] for an undefined bit.
    pub fn set_msr_exits(&mut self, mask: u64) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        self.shared.rooms().exit_mask = ExitMask::enable(mask)?;
        Ok(())
    }

    /// `KVM_CAP_EXIT_HYPERCALL`: the hypercalls that the client wants to see.
    ///
    /// # Errors
    /// [`Errno::Einval`] for any but `KVM_HC_MAP_GPA_RANGE`.
    pub fn set_hypercall_exits(&mut self, mask: u64) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        if mask & !super::HYPERCALL_EXITS != 0 {
            return Err(Errno::Einval.into());
        }
        self.shared.rooms().hypercall_exits = mask;
        Ok(())
    }

    /// `KVM_REGISTER_COALESCED_MMIO`.
    ///
    /// # Errors
    /// [`Errno::Einval`].
    pub fn register_coalesced(&mut self, zone: &CoalescedMmioZone) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        Ok(self.shared.rooms().coalesced.register(zone)?)
    }

    /// `KVM_UNREGISTER_COALESCED_MMIO`.
    ///
    /// # Errors
    /// [`Errno::Einval`].
    pub fn unregister_coalesced(&mut self, zone: &CoalescedMmioZone) -> Result<(), Failure> {
        self.alive(EntryPoint::Native)?;
        Ok(self.shared.rooms().coalesced.unregister(zone)?)
    }

    /// The writes that were collected since the last call.
    pub fn take_coalesced(&mut self) -> Vec<CoalescedMmio> {
        self.shared.rooms().coalesced.take()
    }
}

impl GuestMemory for Vm {
    fn load(&mut self, address: u64, bytes: &mut [u8]) {
        if !self.read_memory(address, bytes) {
            bytes.fill(0xff);
        }
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.write_memory(address, bytes);
    }
}

//! The pages that a vCPU shares with its client: `struct kvm_run`, port data, the ring of coalesced writes.

use super::Instance;
use crate::kvm::Errno;
use crate::kvm::abi::{
    COALESCED_MMIO_PAGE_OFFSET, CoalescedMmio, CoalescedMmioRing, DIRTY_LOG_PAGE_OFFSET, Debug, DirtyGfn,
    EXIT_BYTES, Eoi, FailEntry, Hypercall, Io, Mmio, Msr, PAGE, PIO_PAGE_OFFSET, Plain, Run, SyncRegs,
    VCPU_MMAP_SIZE,
};
use crate::kvm::vm::{ClientExit, ClientMemory, Failure, RING_ENTRIES};

/// Where port data lies in the mapping.
const PORT_DATA: u64 = PIO_PAGE_OFFSET * PAGE;
/// `KVM_SYNC_X86_REGS`, `KVM_SYNC_X86_SREGS`, `KVM_SYNC_X86_EVENTS`, and all of them, as `KVM_CAP_SYNC_REGS` answers.
const SYNC_REGS: u64 = 1;
const SYNC_SREGS: u64 = 2;
const SYNC_EVENTS: u64 = 4;
const SYNC_ALL: u64 = 7;
/// `KVM_DIRTY_GFN_F_RESET`.
const HARVESTED: u32 = 2;

/// Where entry `place` of the dirty ring lies in the mapping at `address`.
const fn dirty_entry(address: u64, place: u32) -> u64 {
    address + DIRTY_LOG_PAGE_OFFSET * PAGE + place as u64 * DirtyGfn::SIZE as u64
}

/// Where the ring lies.
const RING: u64 = COALESCED_MMIO_PAGE_OFFSET * PAGE;

impl Instance {
    /// Takes over what the client left in the mapping at `address`, before `KVM_RUN`.
    ///
    /// # Errors
    /// If the mapping cannot be read, or CR8 cannot be what it says.
    pub fn take_page(
        &mut self,
        vcpu: usize,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<(), Failure> {
        let mut run: Run = super::copy_in(client, address)?;
        self.take_registers(vcpu, &mut run)?;
        // What was taken over is no longer news.
        let news = core::mem::offset_of!(Run, kvm_dirty_regs) as u64;
        super::copy_out(client, address + news, &run.kvm_dirty_regs)?;
        self.vm.request(vcpu, run.request_interrupt_window != 0, run.immediate_exit != 0)?;
        self.vm.set_cr8(vcpu, run.cr8)?;
        match self.vm.exit(vcpu)? {
            ClientExit::Io { input: true, data, .. } => client.read(address + PORT_DATA, data)?,
            ClientExit::Mmio { data, .. } => *data = Mmio::from_bytes(&run.exit).data,
            ClientExit::Hypercall { ret, .. } => *ret = Hypercall::from_bytes(&run.exit).ret,
            ClientExit::Rdmsr { error, data, .. } | ClientExit::Wrmsr { error, data, .. } => {
                let msr = Msr::from_bytes(&run.exit);
                (*error, *data) = (msr.error, msr.data);
            }
            _ => {}
        }
        Ok(())
    }

    /// Shows the client why `KVM_RUN` returned, in the mapping at `address`.
    ///
    /// # Errors
    /// If the mapping cannot be written.
    pub fn show_page(
        &mut self,
        vcpu: usize,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<(), Failure> {
        let mut run: Run = super::copy_in(client, address)?;
        let (ready, interrupts, cr8, apic_base) = self.vm.run_state(vcpu)?;
        (run.ready_for_interrupt_injection, run.if_flag) = (ready.into(), interrupts.into());
        (run.cr8, run.apic_base) = (cr8, apic_base);
        self.show_registers(vcpu, &mut run)?;
        let exit = self.vm.exit(vcpu)?;
        run.exit_reason = exit.reason();
        if let ClientExit::Io { data, .. } = exit {
            client.write(address + PORT_DATA, data)?;
        }
        let record = record(exit);
        run.exit[..record.len()].copy_from_slice(&record);
        super::copy_out(client, address, &run)?;
        for (place, entry) in self.vm.take_dirty(vcpu) {
            super::copy_out(client, dirty_entry(address, place), &entry)?;
        }
        self.fill_ring(address + RING, client)
    }

    /// `KVM_RESET_DIRTY_RINGS` of the ring in the mapping at `address`: how many entries came back.
    ///
    /// # Errors
    /// If the mapping cannot be read or written.
    pub fn reset_ring(
        &mut self,
        vcpu: usize,
        address: u64,
        client: &mut dyn ClientMemory,
    ) -> Result<u32, Failure> {
        self.vm.reset_dirty_ring(vcpu, |place| {
            let at = dirty_entry(address, place);
            let entry: DirtyGfn = super::copy_in(client, at)?;
            if entry.flags & HARVESTED != 0 {
                super::copy_out(client, at, &DirtyGfn { flags: 0, ..entry })?;
            }
            Ok(entry)
        })
    }

    /// Bytes of a vCPU's mapping, its dirty ring included.
    pub fn mapping_size(&self) -> u64 {
        match self.vm.dirty_ring_entries() {
            0 => VCPU_MMAP_SIZE,
            entries => dirty_entry(0, entries),
        }
    }

    /// Sets the registers that the client changed in the mapping (`KVM_CAP_SYNC_REGS`).
    fn take_registers(&mut self, vcpu: usize, run: &mut Run) -> Result<(), Failure> {
        if (run.kvm_valid_regs | run.kvm_dirty_regs) & !SYNC_ALL != 0 {
            return Err(Errno::Einval.into());
        }
        let registers = SyncRegs::from_bytes(&run.s);
        if run.kvm_dirty_regs & SYNC_REGS != 0 {
            self.vm.set_regs(vcpu, &registers.regs)?;
            run.kvm_dirty_regs &= !SYNC_REGS;
        }
        if run.kvm_dirty_regs & SYNC_SREGS != 0 {
            self.vm.set_sregs(vcpu, &registers.sregs)?;
            run.kvm_dirty_regs &= !SYNC_SREGS;
        }
        if run.kvm_dirty_regs & SYNC_EVENTS != 0 {
            self.vm.set_vcpu_events(vcpu, &registers.events)?;
            run.kvm_dirty_regs &= !SYNC_EVENTS;
        }
        Ok(())
    }

    /// Shows the registers that the client asked for in the mapping.
    fn show_registers(&mut self, vcpu: usize, run: &mut Run) -> Result<(), Failure> {
        if run.kvm_valid_regs & SYNC_ALL == 0 {
            return Ok(());
        }
        let mut registers = SyncRegs::from_bytes(&run.s);
        if run.kvm_valid_regs & SYNC_REGS != 0 {
            registers.regs = self.vm.regs(vcpu)?;
        }
        if run.kvm_valid_regs & SYNC_SREGS != 0 {
            registers.sregs = self.vm.sregs(vcpu)?;
        }
        if run.kvm_valid_regs & SYNC_EVENTS != 0 {
            registers.events = self.vm.vcpu_events(vcpu)?;
        }
        let bytes = registers.to_bytes();
        run.s[..bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    /// Moves what was collected into the client's ring, as far as it has room.
    fn fill_ring(&mut self, address: u64, client: &mut dyn ClientMemory) -> Result<(), Failure> {
        let collected = self.vm.take_coalesced();
        if collected.is_empty() {
            return Ok(());
        }
        let entries = RING_ENTRIES as u32;
        let mut ring: CoalescedMmioRing = super::copy_in(client, address)?;
        ring.last %= entries;
        for entry in collected {
            let at = CoalescedMmioRing::SIZE + CoalescedMmio::SIZE * ring.last as usize;
            super::copy_out(client, address + at as u64, &entry)?;
            ring.last = (ring.last + 1) % entries;
        }
        super::copy_out(client, address, &ring)?;
        Ok(())
    }
}

/// The member of the union that belongs to an exit.
fn record(exit: &ClientExit) -> Vec<u8> {
    let mut bytes = match exit {
        ClientExit::Io { input, port, size, data } => Io {
            direction: u8::from(!input),
            size: *size,
            port: *port,
            count: (data.len() / usize::from(*size).max(1)) as u32,
            data_offset: PORT_DATA,
        }
        .to_bytes(),
        ClientExit::Mmio { address, data, len, write } => Mmio {
            phys_addr: *address,
            data: *data,
            len: u32::from(*len),
            is_write: u8::from(*write),
            pad: [0; 3],
        }
        .to_bytes(),
        ClientExit::Hypercall { nr, args, ret, flags } => {
            Hypercall { nr: *nr, args: *args, ret: *ret, flags: *flags }.to_bytes()
        }
        ClientExit::FailEntry { reason, cpu } => {
            FailEntry { hardware_entry_failure_reason: *reason, cpu: *cpu, pad: 0 }.to_bytes()
        }
        ClientExit::InternalError { suberror, data } => {
            let mut bytes = suberror.to_bytes();
            (data.len() as u32).put(&mut bytes);
            for word in data {
                word.put(&mut bytes);
            }
            bytes
        }
        ClientExit::Rdmsr { error, reason, index, data }
        | ClientExit::Wrmsr { error, reason, index, data } => {
            Msr { error: *error, pad: [0; 7], reason: *reason, index: *index, data: *data }.to_bytes()
        }
        ClientExit::Debug { exception, pc, dr6, dr7 } => {
            let exception = u32::from(*exception);
            Debug { exception, pad: 0, pc: *pc, dr6: *dr6, dr7: *dr7 }.to_bytes()
        }
        ClientExit::IoapicEoi { vector } => Eoi { vector: *vector }.to_bytes(),
        ClientExit::Unknown
        | ClientExit::Hlt
        | ClientExit::IrqWindowOpen
        | ClientExit::DirtyRingFull
        | ClientExit::Shutdown
        | ClientExit::Intr
        | ClientExit::SetTpr => Vec::new(),
    };
    bytes.truncate(EXIT_BYTES);
    bytes
}

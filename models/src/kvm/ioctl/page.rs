//! The pages that a vCPU shares with its client: `struct kvm_run`, port data, the ring of coalesced writes.

use super::Instance;
use crate::kvm::abi::{
    COALESCED_MMIO_PAGE_OFFSET, CoalescedMmio, CoalescedMmioRing, EXIT_BYTES, Eoi, FailEntry, Hypercall, Io,
    Mmio, Msr, PAGE, PIO_PAGE_OFFSET, Plain, Run,
};
use crate::kvm::vm::{ClientExit, ClientMemory, Failure, RING_ENTRIES};

/// Where port data lies in the mapping.
const PORT_DATA: u64 = PIO_PAGE_OFFSET * PAGE;
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
        let run: Run = super::copy_in(client, address)?;
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
        let exit = self.vm.exit(vcpu)?;
        run.exit_reason = exit.reason();
        if let ClientExit::Io { data, .. } = exit {
            client.write(address + PORT_DATA, data)?;
        }
        let record = record(exit);
        run.exit[..record.len()].copy_from_slice(&record);
        super::copy_out(client, address, &run)?;
        self.fill_ring(address + RING, client)
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
        ClientExit::IoapicEoi { vector } => Eoi { vector: *vector }.to_bytes(),
        ClientExit::Unknown
        | ClientExit::Hlt
        | ClientExit::IrqWindowOpen
        | ClientExit::Shutdown
        | ClientExit::Intr
        | ClientExit::SetTpr => Vec::new(),
    };
    bytes.truncate(EXIT_BYTES);
    bytes
}

//! A guest hypervisor in a VM of the model of KVM, as a client of its interface runs it.

use std::sync::Arc;

use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Level, Observer, Payload, Record, Stop};
use rootmode_arch::{HostPhysical, SegmentName, Vendor, msr};
use rootmode_cpu::time;
use rootmode_cpu::{Bus, Cpu, Effects};
use rootmode_models::devices::TestPorts;
use rootmode_models::kvm::abi::{MsrEntry, Regs, Segment, UserspaceMemoryRegion};
use rootmode_models::kvm::host::NestedState;
use rootmode_models::kvm::vm::{ClientExit, Failure, HostKernel, Progress, Vm, VmConfig, supported};
use rootmode_models::kvm::{Errno, Regressions};

use super::bare::{model, start_state};
use super::run::{Contents, Recorder, Run};
use crate::guests::GuestImage;

/// A VM with the image in its memory and one vCPU that is about to start it.
///
/// # Errors
/// [`Failure`] if a call fails that should not.
pub fn vm_of(
    image: &GuestImage,
    choices: Box<dyn Choices + Send>,
    regressions: Regressions,
) -> Result<Vm, Failure> {
    let mut vm = empty_vm(image.vendor, choices, regressions, image.memory)?;
    for (address, bytes) in &image.segments {
        vm.write_memory(*address, bytes);
    }
    let start = start_state(image, model(image.vendor));
    put_registers(&mut vm, 0, &start)?;
    Ok(vm)
}

/// The same without anything in memory and registers.
///
/// # Errors
/// [`Failure`] if a call fails that should not.
pub fn empty_vm(
    vendor: Vendor,
    choices: Box<dyn Choices + Send>,
    regressions: Regressions,
    memory: u64,
) -> Result<Vm, Failure> {
    let model = model(vendor);
    let mut cpuid = supported(&model);
    // A bare machine has no hypervisor's leaves.
    cpuid.retain(|entry| entry.function >> 28 != 4);
    let host = Arc::new(model);
    let mut vm =
        Vm::new(VmConfig { host, client: None, choices, kernel: HostKernel::default(), regressions })?;
    vm.set_memory_region(&UserspaceMemoryRegion { memory_size: memory, ..Default::default() })?;
    vm.create_vcpu(0)?;
    vm.set_cpuid2(0, &cpuid)?;
    Ok(vm)
}

/// Gives the vCPU the registers of `cpu`.
pub(crate) fn put_registers(vm: &mut Vm, vcpu: usize, cpu: &Cpu) -> Result<(), Failure> {
    let mut sregs = vm.sregs(vcpu)?;
    let segment = |from: &rootmode_arch::Segment| {
        let rights = from.rights.0;
        let bit = |at: u32| (rights >> at & 1) as u8;
        Segment {
            base: from.base,
            limit: from.limit,
            selector: from.selector.0,
            type_: (rights & 15) as u8,
            present: bit(7),
            dpl: (rights >> 5 & 3) as u8,
            db: bit(14),
            s: bit(4),
            l: bit(13),
            g: bit(15),
            avl: bit(12),
            unusable: bit(16),
            padding: 0,
        }
    };
    let [es, cs, ss, ds, fs, gs, ldt, tr] = [
        &mut sregs.es,
        &mut sregs.cs,
        &mut sregs.ss,
        &mut sregs.ds,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ldt,
        &mut sregs.tr,
    ];
    for (to, name) in [
        (es, SegmentName::Es),
        (cs, SegmentName::Cs),
        (ss, SegmentName::Ss),
        (ds, SegmentName::Ds),
        (fs, SegmentName::Fs),
        (gs, SegmentName::Gs),
        (ldt, SegmentName::Ldtr),
        (tr, SegmentName::Tr),
    ] {
        *to = segment(cpu.segment(name));
    }
    (sregs.gdt.base, sregs.gdt.limit) = (cpu.gdtr.base, cpu.gdtr.limit);
    (sregs.idt.base, sregs.idt.limit) = (cpu.idtr.base, cpu.idtr.limit);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (cpu.cr0.0, cpu.cr3.0, cpu.cr4.0, cpu.efer.0);
    vm.set_sregs(vcpu, &sregs)?;
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = cpu.gpr;
    let (rip, rflags) = (cpu.rip, cpu.rflags().0);
    let regs =
        Regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags };
    vm.set_regs(vcpu, &regs)
}

/// A VM's client that has the test ports, and what it sees.
pub struct Client {
    recorder: Recorder,
    ports: TestPorts,
    /// Accesses to addresses without memory: where, bytes, whether it was a write.
    pub mmio: Vec<(u64, u8, bool)>,
}

impl Default for Client {
    fn default() -> Self {
        Self { recorder: Recorder::default(), ports: TestPorts, mmio: Vec::new() }
    }
}

/// L1's time.
fn ticks(vm: &mut Vm) -> Result<u64, Failure> {
    let mut tsc = [MsrEntry { index: msr::IA32_TSC, ..Default::default() }];
    vm.get_msrs(0, &mut tsc)?;
    Ok(tsc[0].data / time::TSC.counts)
}

impl Client {
    /// Watches `vm` from now on.
    pub fn attach(&self, vm: &mut Vm) {
        vm.set_observer(Box::new(self.recorder.clone()));
    }

    /// Runs the vCPU until it stops for good, or for at most `limit` ticks.
    ///
    /// # Errors
    /// [`Failure`] if `KVM_RUN` fails.
    pub fn run(&mut self, vm: &mut Vm, limit: u64) -> Result<Stop, Failure> {
        loop {
            let left = limit.saturating_sub(ticks(vm)?);
            vm.start(0)?;
            match vm.advance(0, left)? {
                Progress::Exit => {}
                Progress::Failed(failure) => return Err(failure),
                Progress::Budget => return Ok(Stop::Limit),
                Progress::Idle => return Ok(Stop::Idle),
            }
            if let Some(stop) = self.serve(vm)? {
                return Ok(stop);
            }
        }
    }

    /// Answers an exit; `Some`: the run is over.
    fn serve(&mut self, vm: &mut Vm) -> Result<Option<Stop>, Failure> {
        let tick = ticks(vm)?;
        let level = level(vm)?;
        let mut effects = Effects::default();
        let exit = vm.exit(0)?;
        match exit {
            ClientExit::Io { input, port, size, data } => {
                let mut word = [0; 4];
                if *input {
                    word = self.ports.read_port(*port, *size, tick, &mut effects).to_le_bytes();
                    data.copy_from_slice(&word[..usize::from(*size)]);
                } else {
                    word[..data.len()].copy_from_slice(data);
                    self.ports.write_port(*port, *size, u32::from_le_bytes(word), tick, &mut effects);
                }
                let mut shown = [0; 4];
                shown[..data.len()].copy_from_slice(data);
                let value = u32::from_le_bytes(shown);
                let payload = Payload::Port { port: *port, size: *size, write: !*input, value };
                self.recorder.observe(&Record { tick, vcpu: 0, level, payload });
            }
            ClientExit::Mmio { address, data, len, write } => {
                let at = HostPhysical(*address);
                if *write {
                    self.ports.write_mmio(at, *len, u64::from_le_bytes(*data), tick, &mut effects);
                } else {
                    *data = self.ports.read_mmio(at, *len, tick, &mut effects).to_le_bytes();
                }
                self.mmio.push((*address, *len, *write));
            }
            ClientExit::Hlt => return Ok(Some(Stop::Idle)),
            // This client has no interrupt controller that would go by it.
            ClientExit::SetTpr => {}
            ClientExit::Shutdown => return Ok(Some(Stop::TripleFault)),
            _ => return Ok(Some(Stop::NoProgress)),
        }
        if effects.stop.is_some() {
            // The instruction is completed by the next call.
            vm.request(0, false, true)?;
            match vm.run(0) {
                Err(Failure::Errno(Errno::Eintr)) => {}
                Err(failure) => return Err(failure),
                Ok(_) => return Ok(Some(Stop::NoProgress)),
            }
            vm.request(0, false, false)?;
        }
        Ok(effects.stop)
    }

    /// What a run that stopped leaves behind.
    ///
    /// # Errors
    /// [`Failure`] if the vCPU cannot be read.
    pub fn finish(&self, vm: &mut Vm, image: &GuestImage, stop: Stop) -> Result<Run, Failure> {
        let ticks = ticks(vm)?;
        let regs = vm.regs(0)?;
        let registers = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9,
            regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rip,
        ];
        let memory = Contents::read(image.memory, |at, page| {
            vm.read_memory(at, page);
        });
        Ok(Run { stop, ticks, records: self.recorder.take(), memory, registers })
    }
}

/// Who runs on the vCPU.
fn level(vm: &mut Vm) -> Result<Level, Failure> {
    let nested = match vm.nested_state(0)? {
        NestedState::Vmx(state) => state.is_some_and(|state| state.running.is_some()),
        NestedState::Svm(state) => state.running.is_some(),
    };
    Ok(if nested { Level::L2 } else { Level::L1 })
}

/// Runs `image` in a VM for at most `limit` ticks.
///
/// # Errors
/// [`Failure`] if `KVM_RUN` or another call fails.
pub fn run_in_vm(
    image: &GuestImage,
    choices: Box<dyn Choices + Send>,
    regressions: Regressions,
    limit: u64,
) -> Result<Run, Failure> {
    let mut vm = vm_of(image, choices, regressions)?;
    let mut client = Client::default();
    client.attach(&mut vm);
    let stop = client.run(&mut vm, limit)?;
    client.finish(&mut vm, image, stop)
}

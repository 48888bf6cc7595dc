//! A vCPU on SVM: vmcb01 for L1, vmcb02 for L2, and the loop that runs them.
//!
//! VMCBs, permission maps and tables lie in L0's memory; the processor is driven by VMLOAD, VMRUN and VMSAVE only. State
//! that VMRUN does not switch (FS, GS, TR, LDTR and their MSRs) lives in vmcb01 whoever runs. `exits` handles what L1
//! does, `nested` L1's SVM instructions, `entry` and `exit` the transitions to and from L2, `l2` the exits of L2, `msrs`
//! the MSRs, `vmcb` access to VMCBs.

mod backend;
mod entry;
mod exit;
mod exits;
mod l2;
mod msrs;
mod nested;
mod state;
mod vmcb;

use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::record::Stop;
use rootmode_arch::{Cr4, Efer, Gpr, GuestPhysical, HostPhysical, Linear, RFlags, SegmentName, msr};
use rootmode_cpu::{Instruction, Model, gate_address};
use rootmode_svm::bitmap::Msrpm;
use rootmode_svm::vmcb::{EventInfo, EventKind, Field, Intercept, Intercepts, NestedControl};
use rootmode_svm::{ExitCode, Processor, Vmcb};

use super::backend::Own;
use super::executor::{Lock, Tasks};
use super::machine::{HostBug, Machine};
use super::point::{Point, Wait};
use super::state::Start;
use super::vmx::lock;
use crate::kvm::Filter;
use crate::kvm::interception::{Cause, Configuration, Intercepts as MsrIntercepts};
use crate::kvm::nested::{ChunkList, ChunkSize, NestedMsrpm};

/// L1's use of SVM, as L0 keeps it.
struct Nested {
    /// L1's EFER.SVME.
    enabled: bool,
    vm_cr: u64,
    hsave: u64,
    /// L1's global interrupt flag.
    gif: bool,
    /// L2 runs, with this VMCB of L1.
    running: Option<GuestPhysical>,
    /// What vmcb12 said when L2 was entered.
    vmcb12: Box<Vmcb>,
    /// L1 entered L2, which has not run yet.
    pending: bool,
    /// What the shadow was built from: nested CR3 and ASID.
    shadow_of: Option<(u64, u64)>,
    /// L2's translations are flushed by its next entry.
    flush: bool,
}

/// A vCPU on SVM.
pub(super) struct SvmVcpu {
    machine: Arc<Mutex<Machine>>,
    /// The physical processor that it is on.
    physical: u8,
    tasks: Tasks,
    mmu: Lock,
    model: Arc<Model>,
    /// What L1's processor can do.
    processor: Processor,
    config: Configuration,
    filter: Filter,
    intercepts: MsrIntercepts<Msrpm>,
    nested_map: NestedMsrpm,
    chunks: ChunkList,
    vmcb01: HostPhysical,
    vmcb02: HostPhysical,
    msrpm01: HostPhysical,
    msrpm02: HostPhysical,
    iopm: HostPhysical,
    nested: Nested,
    /// L2's virtual interrupts, while L0 has made one of its own to hear of a window.
    window: Option<u64>,
    /// What the last entry injected.
    injected: EventInfo,
    /// Where it returns to if it is a software interrupt: exits change the field.
    injected_return: u64,
    /// NMIs are blocked until IRET: an NMI was injected.
    nmi_blocked: bool,
    /// Where the IRET is that will end blocking by NMI, once it is complete.
    iret: Option<u64>,
    /// It is stepped over.
    stepping: bool,
    /// The guest's, while the debugger's are in their place; with them DR6.
    debugged: Option<(Own, u64)>,
}

/// ASIDs of L1 and of L2.
const ASID01: u64 = 1;
const ASID02: u64 = 2;

/// What L0 intercepts, whoever runs.
const INTERCEPTS: [Intercept; 15] = [
    Intercept::CPUID,
    Intercept::HLT,
    Intercept::IOIO_PROT,
    Intercept::MSR_PROT,
    Intercept::SHUTDOWN,
    Intercept::VMRUN,
    Intercept::VMMCALL,
    Intercept::VMLOAD,
    Intercept::VMSAVE,
    Intercept::STGI,
    Intercept::CLGI,
    Intercept::SKINIT,
    Intercept::INVLPGA,
    Intercept::INTR,
    Intercept::NMI,
];

impl SvmVcpu {
    /// A vCPU on physical processor `physical` that starts in the state `start`.
    pub(super) fn new(
        machine: Arc<Mutex<Machine>>,
        physical: u8,
        tasks: Tasks,
        mmu: Lock,
        start: &Start,
        config: Configuration,
        filter: Filter,
    ) -> Result<Self, HostBug> {
        let bugs = config.regressions;
        let mut intercepts = MsrIntercepts::closed();
        intercepts.recalculate(&config, &filter, Cause::Created);
        intercepts.set_apic_mode(&config, &filter);
        let capacity = ChunkList::upstream_capacity(config.kernel);
        let chunks = ChunkList::new(config.kernel, ChunkSize::Eight, capacity, bugs)
            .map_err(|_| HostBug::OutOfFrames)?;
        let model = start.model.clone();
        let processor = Processor::new("l1", *model.features(), model.physical_width());
        let [vmcb01, vmcb02, msrpm01, msrpm02, iopm] = {
            let mut m = lock(&machine);
            m.current = physical;
            m.add_shadow();
            let pages = [1, 1, 2, 2, 3];
            let mut frames = [HostPhysical(0); 5];
            for (frame, count) in frames.iter_mut().zip(pages) {
                *frame = m.frame(count)?;
            }
            frames
        };
        let vcpu = Self {
            nested_map: NestedMsrpm::new(bugs),
            machine,
            physical,
            tasks,
            mmu,
            model,
            processor,
            config,
            filter,
            intercepts,
            chunks,
            vmcb01,
            vmcb02,
            msrpm01,
            msrpm02,
            iopm,
            nested: Nested {
                enabled: false,
                vm_cr: 0,
                hsave: 0,
                gif: true,
                running: None,
                vmcb12: Box::new(Vmcb::zeroed()),
                pending: false,
                shadow_of: None,
                flush: false,
            },
            window: None,
            injected: EventInfo::NONE,
            injected_return: 0,
            nmi_blocked: false,
            iret: None,
            stepping: false,
            debugged: None,
        };
        vcpu.set_up(start)?;
        Ok(vcpu)
    }

    fn m(&self) -> MutexGuard<'_, Machine> {
        let mut m = lock(&self.machine);
        m.current = self.physical;
        m
    }

    /// Enables SVM, and fills vmcb01 with L1's start state.
    fn set_up(&self, start: &Start) -> Result<(), HostBug> {
        let Start { state, msrs, .. } = start;
        let mut vmcb = Vmcb::zeroed();
        vmcb.set_intercepts(INTERCEPTS.into_iter().fold(Intercepts::NONE, Intercepts::with));
        for name in SegmentName::ALL {
            vmcb.set_segment(name, state.segment(name));
        }
        let root = self.m().tables01.root();
        for (field, value) in [
            (Field::IopmBase, self.iopm.0),
            (Field::MsrpmBase, self.msrpm01.0),
            (Field::Asid, ASID01),
            (Field::NestedControl, NestedControl::NP_ENABLE.0),
            (Field::NestedCr3, root.0),
            (Field::KernelGsBase, msrs.kernel_gs_base),
            (Field::Star, msrs.star),
            (Field::Lstar, msrs.lstar),
            (Field::Cstar, msrs.cstar),
            (Field::Sfmask, msrs.fmask),
        ]
        .into_iter()
        .chain(backend::fields(state))
        .chain(backend::SYSENTER.into_iter().zip(state.sysenter))
        {
            vmcb.set(field, value);
        }
        let mut m = self.m();
        m.board.memory.write(self.vmcb01, vmcb.as_bytes());
        m.board.memory.write(self.msrpm01, self.intercepts.map.as_bytes());
        m.board.memory.write(self.iopm, &[0xff; 0x3000]);
        let page_table = m.frame(1)?;
        let hsave = m.frame(1)?;
        let cpu = m.cpu_mut();
        cpu.enter_long_mode(page_table.0, gate_address(self.physical.into()).0, 0);
        cpu.cr4 = Cr4::PAE;
        cpu.efer = cpu.efer.with(Efer::SVME);
        cpu.gpr = state.gpr;
        cpu.refresh();
        m.execute(Instruction::Wrmsr { index: msr::VM_HSAVE_PA, value: hsave.0 })?;
        m.execute(Instruction::Clgi)?;
        Ok(())
    }

    /// The VMCB of whoever runs.
    fn vmcb(&self) -> HostPhysical {
        if self.nested.running.is_some() { self.vmcb02 } else { self.vmcb01 }
    }

    /// The vCPU's thread.
    pub(super) async fn run(mut self) {
        if let Err(bug) = self.run_until_stopped().await {
            self.m().bug = Some(bug);
        }
    }

    async fn run_until_stopped(&mut self) -> Result<(), HostBug> {
        loop {
            self.tasks.point(Point::Reschedule).await;
            if self.m().stop.is_some() {
                self.remember_registers();
                return Ok(());
            }
            self.intercepts.before_entry(&self.config, &self.filter);
            self.tasks.point(Point::BeforeEntry).await;
            self.enter()?;
            self.tasks.wait(Wait::Gate(self.physical)).await;
            self.m().execute(Instruction::Vmsave { vmcb: self.vmcb01.0 })?;
            self.tasks.point(Point::AfterExit).await;
            self.handle_exit().await?;
        }
    }

    /// VMLOAD and VMRUN.
    fn enter(&mut self) -> Result<(), HostBug> {
        let vmcb = self.vmcb();
        self.serve_flush();
        self.nested.pending = false;
        self.injected = EventInfo::from_halves(
            self.get(vmcb, Field::EventInj) as u32,
            self.get(vmcb, Field::EventInjError) as u32,
        );
        self.injected_return = self.get(vmcb, Field::NextRip);
        let mut m = self.m();
        m.park();
        m.execute(Instruction::Vmload { vmcb: self.vmcb01.0 })?;
        m.execute(Instruction::Vmrun { vmcb: vmcb.0 })?;
        Ok(())
    }

    /// Translations of L2 that may be stale go with its next entry.
    fn serve_flush(&mut self) {
        let unlinked = std::mem::take(&mut self.m().flush_requested);
        if std::mem::take(&mut self.nested.flush) || unlinked {
            self.set(self.vmcb02, Field::TlbControl, 3);
        }
    }

    async fn handle_exit(&mut self) -> Result<(), HostBug> {
        let vmcb = self.vmcb();
        let code = ExitCode(self.get(vmcb, Field::ExitCode));
        if code.is_entry_failure() {
            return Err(HostBug::Refused { code: code.0, detail: self.get(vmcb, Field::ExitInfo1) });
        }
        self.set(vmcb, Field::TlbControl, 0);
        if self.nested.running.is_some() {
            self.handle_l2_exit(code).await
        } else {
            self.handle_l1_exit(code).await
        }
    }

    /// L1's registers, for whoever looks at the stopped machine.
    fn remember_registers(&self) {
        let (rax, rsp, rip) = (
            self.get(self.vmcb01, Field::Rax),
            self.get(self.vmcb01, Field::Rsp),
            self.get(self.vmcb01, Field::Rip),
        );
        let mut m = self.m();
        let mut registers = [0; 17];
        registers[..16].copy_from_slice(&m.cpu().gpr);
        registers[Gpr::Rax as usize] = rax;
        registers[Gpr::Rsp as usize] = rsp;
        registers[16] = rip;
        m.last_registers = registers;
    }

    /// RIP moves on to `rip`, shadows end.
    fn advance(&self, rip: u64) {
        let vmcb = self.vmcb();
        self.set(vmcb, Field::Rip, rip);
        self.set(vmcb, Field::InterruptState, 0);
        self.set(vmcb, Field::Rflags, self.get(vmcb, Field::Rflags) & !RFlags::RF.0);
    }

    /// Completes the instruction that exited.
    fn skip(&self) {
        self.advance(self.get(self.vmcb(), Field::NextRip));
        self.m().charge();
    }

    /// Something that this model of KVM does not do.
    fn unmodelled(&self) {
        let rip = self.get(self.vmcb(), Field::Rip);
        self.m().stop = Some(Stop::Unmodelled(Linear(rip)));
    }

    /// Injects an exception into whoever runs.
    fn inject(&self, vector: u8, code: Option<u32>) {
        let event = EventInfo::new(EventKind::Exception, vector, code);
        self.set(self.vmcb(), Field::EventInj, event.0 & 0xffff_ffff);
        self.set(self.vmcb(), Field::EventInjError, event.0 >> 32);
    }

    /// An event whose delivery the exit interrupted is injected again by the next entry; software events that were not
    /// injected happen again by themselves.
    fn requeue_interrupted(&self) {
        let vmcb = self.vmcb();
        let (info, error) = (self.get(vmcb, Field::ExitIntInfo), self.get(vmcb, Field::ExitIntInfoError));
        let event = EventInfo::from_halves(info as u32, error as u32);
        if !event.is_valid() {
            return;
        }
        let software = event.kind() == Some(EventKind::SoftwareInterrupt)
            || event.kind() == Some(EventKind::Exception) && matches!(event.vector(), 3 | 4);
        let ours = self.injected.is_valid()
            && self.injected.vector() == event.vector()
            && self.injected.kind() == event.kind();
        if !software || ours {
            if event.kind() == Some(EventKind::SoftwareInterrupt) {
                self.set(vmcb, Field::NextRip, self.injected_return);
            }
            self.set(vmcb, Field::EventInj, info);
            self.set(vmcb, Field::EventInjError, error);
        }
    }
}

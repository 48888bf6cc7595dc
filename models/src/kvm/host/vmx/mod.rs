//! A vCPU on VMX: vmcs01 for L1, vmcs02 for L2, and the loop that enters them.
//!
//! Everything goes through the processor's own instructions: VMCSs, bitmaps and tables lie in L0's memory, fields move by
//! VMREAD and VMWRITE. `setup` fills the constant fields, `exits` handles what L1 does, `operands` reads what L1's VMX
//! instructions point to, `nested` is L1's VMX operation, `entry` and `exit` are the transitions to and from L2, `msrs`
//! the MSRs.

mod backend;
mod cache;
mod capabilities;
mod entry;
mod exit;
mod exits;
mod l2;
mod msrs;
mod nested;
mod operands;
mod segments;
mod setup;
mod state;
mod teardown;
mod trace;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rootmode_arch::record::Stop;
use rootmode_arch::{Cr4, GuestPhysical, HostPhysical, Linear, RFlags, SegmentName, Vendor};
use rootmode_cpu::{Instruction, Model, Outcome};
use rootmode_vmx::bitmap::MsrBitmap;
use rootmode_vmx::drive::{offered, segment_fields};
use rootmode_vmx::{Capabilities, ExitReason, Field, FieldSet, PrimaryControls, Vmcs};

use super::backend::{Arrival, Own};
use super::executor::{Flag, Lock, Tasks};
use super::machine::{HostBug, Machine};
use super::point::{Point, Wait};
use super::second_stage::Tables;
use super::state::Start;
use crate::kvm::interception::{Cause, Configuration, Intercepts};
use crate::kvm::nested::NestedBitmap;
use crate::kvm::{Filter, Regression};
use cache::{Asked, Cache, Late};
pub(crate) use capabilities::nested_capabilities;

/// A VMCS of L0's.
#[derive(Clone, Copy, Debug)]
struct OwnVmcs {
    region: HostPhysical,
    launched: bool,
}

/// L1's VMX operation, as L0 keeps it.
#[derive(Debug)]
struct Nested {
    /// L1 executed VMXON with this pointer.
    vmxon: Option<u64>,
    /// L1's current-VMCS pointer.
    current: Option<GuestPhysical>,
    /// Data of L1's current VMCS.
    vmcs12: Box<Vmcs>,
    launched: bool,
    /// L2 runs.
    running: bool,
    /// L1 entered L2, which has not run yet.
    pending: bool,
    /// The primary controls that L2 runs under, before what single entries add.
    primary02: u32,
    /// L0 completed an instruction of L2's while L1's monitor trap flag was on.
    trap: AtomicBool,
    /// What the shadow was built from.
    shadow_of: Option<u64>,
    /// The VPID that L1 last gave L2.
    vpid12: Option<u64>,
}

/// A vCPU on VMX.
pub(super) struct VmxVcpu {
    machine: Arc<Mutex<Machine>>,
    /// The physical processor that it is on.
    processor: u8,
    tasks: Tasks,
    mmu: Lock,
    model: Arc<Model>,
    /// What L0 uses of the processor.
    capabilities: Capabilities,
    /// What L1 sees as VMX capabilities, and the fields that its VMCSs have.
    offered: Capabilities,
    fields12: FieldSet,
    config: Configuration,
    filter: Filter,
    intercepts: Intercepts<MsrBitmap>,
    nested_bitmap: NestedBitmap,
    vmcs01: OwnVmcs,
    vmcs02: OwnVmcs,
    /// vmcs02 is current.
    loaded02: bool,
    cache: Mutex<Cache>,
    /// Module parameter `emulate_invalid_guest_state`.
    emulate_invalid: bool,
    /// Goes up when a stopped vCPU may run again.
    resumed: Flag,
    bitmap01: HostPhysical,
    bitmap02: HostPhysical,
    /// What is added to the host's TSC for L1.
    tsc_offset01: u64,
    /// IA32_FEATURE_CONTROL of L1.
    feature_control: u64,
    /// The guest's, while the debugger's are in their place.
    debugged: Option<Own>,
    nested: Nested,
}

/// VPIDs of L1 and of L2.
const VPID01: u64 = 1;
const VPID02: u64 = 2;

impl VmxVcpu {
    /// A vCPU on physical processor `processor` that starts in the state `start`.
    pub(super) fn new(
        machine: Arc<Mutex<Machine>>,
        processor: u8,
        tasks: Tasks,
        mmu: Lock,
        start: &Start,
        config: Configuration,
        filter: Filter,
    ) -> Result<Self, HostBug> {
        let model = start.model.clone();
        let mut intercepts = Intercepts::closed();
        intercepts.recalculate(&config, &filter, Cause::Created);
        intercepts.set_apic_mode(&config, &filter);
        let (vmcs01, vmcs02, bitmap01, bitmap02) = {
            let mut m = lock(&machine);
            m.current = processor;
            m.add_shadow();
            (m.frame(1)?, m.frame(1)?, m.frame(1)?, m.frame(1)?)
        };
        let resumed = tasks.new_flag();
        let offered = nested_capabilities(&model);
        let own = |region| OwnVmcs { region, launched: false };
        let mut vcpu = Self {
            machine,
            processor,
            tasks,
            mmu,
            fields12: offered::fields(&offered),
            offered,
            capabilities: capabilities::own_capabilities(&model),
            model,
            config,
            filter,
            intercepts,
            nested_bitmap: NestedBitmap::default(),
            vmcs01: own(vmcs01),
            vmcs02: own(vmcs02),
            loaded02: false,
            cache: Mutex::default(),
            emulate_invalid: true,
            resumed,
            bitmap01,
            bitmap02,
            tsc_offset01: 0,
            feature_control: start.msrs.feature_control,
            debugged: None,
            nested: Nested {
                vmxon: None,
                current: None,
                vmcs12: Box::new(Vmcs::zeroed()),
                launched: false,
                running: false,
                pending: false,
                primary02: 0,
                trap: AtomicBool::new(false),
                shadow_of: None,
                vpid12: None,
            },
        };
        vcpu.set_up(start)?;
        Ok(vcpu)
    }

    /// Module parameter `emulate_invalid_guest_state`.
    pub(super) const fn set_emulate_invalid(&mut self, on: bool) {
        self.emulate_invalid = on;
    }

    fn m(&self) -> MutexGuard<'_, Machine> {
        let mut m = lock(&self.machine);
        m.current = self.processor;
        m
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("no task panics while it holds the cache")
    }

    fn vmread(&self, field: Field) -> Result<u64, HostBug> {
        if let Some(asked) = asked(field) {
            if let Some(value) = self.cache().information(asked) {
                return Ok(value);
            }
            let value = self.vmread_now(field)?;
            self.cache().fill_information(asked, value);
            return Ok(value);
        }
        let Some(late) = late(field) else { return self.vmread_now(field) };
        if let Some(value) = self.cache().register(late) {
            return Ok(value);
        }
        let value = self.vmread_now(field)?;
        self.cache().fill(late, value);
        Ok(value)
    }

    fn vmread_now(&self, field: Field) -> Result<u64, HostBug> {
        if field == Field::ExitInterruptionErrorCode {
            self.m().error_code_reads += 1;
        }
        match self.m().vmx(Instruction::Vmread { encoding: field.encoding().into() })? {
            Outcome::Value(value) => Ok(value),
            _ => Ok(0),
        }
    }

    fn vmwrite(&self, field: Field, value: u64) -> Result<(), HostBug> {
        if let Some(asked) = asked(field) {
            self.cache().fill_information(asked, value);
        }
        match late(field) {
            Some(late) => self.cache().change(late, value),
            None => self.vmwrite_now(field, value)?,
        }
        Ok(())
    }

    fn vmwrite_now(&self, field: Field, value: u64) -> Result<(), HostBug> {
        self.m().vmx(Instruction::Vmwrite { encoding: field.encoding().into(), value })?;
        Ok(())
    }

    /// Makes vmcs01 or vmcs02 current. Nothing happens if it is.
    async fn load_vmcs(&mut self, nested: bool) -> Result<(), HostBug> {
        if self.loaded02 == nested && !self.config.regressions.has(Regression::RedundantSwitchForgets) {
            return Ok(());
        }
        let region = if nested { self.vmcs02.region } else { self.vmcs01.region };
        self.m().vmx(Instruction::Vmptrld { region: region.0 })?;
        self.loaded02 = nested;
        self.cache().forget();
        self.m().set_nested(nested);
        self.point(Point::SwitchControl).await
    }

    /// Stands at `point`. If others ran meanwhile, the vCPU was put, which looks at its privilege level.
    async fn point(&self, point: Point) -> Result<(), HostBug> {
        let before = self.tasks.steps();
        self.tasks.point(point).await;
        if self.tasks.steps() > before + 1 {
            self.segment(SegmentName::Ss, 2)?;
        }
        Ok(())
    }

    /// A field of a segment register, through the cache.
    fn segment(&self, name: SegmentName, field: usize) -> Result<u64, HostBug> {
        if let Some(value) = self.cache().segment(name, field) {
            return Ok(value);
        }
        let value = self.vmread_now(segment_fields(name)[field])?;
        self.cache().fill_segment(name, field, value);
        Ok(value)
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
            let request = self.m().request.take();
            if let Some(request) = request {
                return self.serve(request).await;
            }
            if self.m().stop.is_some() {
                self.remember_registers()?;
                self.resumed.set(false);
                self.m().resumed = Some(self.resumed.clone());
                self.resumed.up().await;
                continue;
            }
            self.intercepts.before_entry(&self.config, &self.filter);
            self.tasks.point(Point::BeforeEntry).await;
            if self.trap_waits() {
                let nested = self.exit_for(Arrival::Trap).await?;
                self.settle(nested)?;
                continue;
            }
            self.serve_flush()?;
            self.enter()?;
            self.tasks.wait(Wait::Gate(self.processor)).await;
            self.tasks.point(Point::AfterExit).await;
            self.handle_exit().await?;
        }
    }

    /// L1's registers, for whoever looks at the stopped machine.
    fn remember_registers(&self) -> Result<(), HostBug> {
        let (rsp, rip) = (self.vmread(Field::GuestRsp)?, self.vmread(Field::GuestRip)?);
        let mut m = self.m();
        let mut registers = [0; 17];
        registers[..16].copy_from_slice(&m.cpu().gpr);
        registers[4] = rsp;
        registers[16] = rip;
        m.last_registers = registers;
        Ok(())
    }

    /// Flushes what a worker unlinked.
    fn serve_flush(&self) -> Result<(), HostBug> {
        let mut m = self.m();
        if std::mem::take(&mut m.flush_requested)
            && let Some(root) = m.shadow().map(Tables::root)
        {
            m.vmx(Instruction::Invept { kind: 1, descriptor: [root.0 | EPTP_BITS, 0] })?;
        }
        Ok(())
    }

    /// VMLAUNCH or VMRESUME of the current VMCS.
    fn enter(&mut self) -> Result<(), HostBug> {
        let own = if self.nested.running { &mut self.vmcs02 } else { &mut self.vmcs01 };
        let instruction = if own.launched { Instruction::Vmresume } else { Instruction::Vmlaunch };
        own.launched = true;
        self.trace_entry()?;
        let dirty = self.cache().take_dirty();
        for (late, value) in dirty {
            self.vmwrite_now(if late == Late::Rip { Field::GuestRip } else { Field::GuestRsp }, value)?;
        }
        self.cache().forget_after_entry(self.config.regressions.has(Regression::ExitInformationKept));
        self.m().vmx(instruction)?;
        Ok(())
    }

    async fn handle_exit(&mut self) -> Result<(), HostBug> {
        self.trace_exit()?;
        self.nested.pending = false;
        let reason = self.vmread(Field::ExitReason)?;
        if reason & u64::from(ExitReason::ENTRY_FAILURE) != 0 {
            let detail = self.vmread(Field::ExitQualification)?;
            return Err(HostBug::Refused { code: reason, detail });
        }
        let reason = ExitReason(reason as u16);
        if reason == ExitReason::EXTERNAL_INTERRUPT {
            // The host's own: somebody wants the vCPU out of the guest.
            return Ok(());
        }
        if self.nested.running {
            self.handle_l2_exit(reason).await
        } else {
            self.handle_l1_exit(reason).await
        }
    }

    /// RFLAGS.RF of the guest, as the processor would save it.
    fn set_resume_flag(&self, on: bool) -> Result<(), HostBug> {
        let flags = RFlags(self.vmread(Field::GuestRflags)?);
        if flags.contains(RFlags::RF) == on {
            return Ok(());
        }
        self.vmwrite(Field::GuestRflags, flags.set(RFlags::RF, on).0)
    }

    /// Completes the instruction that exited: RIP moves on, shadows end, a tick passes.
    fn skip(&self) -> Result<(), HostBug> {
        if self.vmread(Field::GuestRflags)? & RFlags::TF.0 != 0 {
            self.vmwrite(Field::GuestPendingDebug, 1 << 14)?;
        }
        self.complete()
    }

    /// The same without the trap that RFLAGS.TF asks for.
    fn complete(&self) -> Result<(), HostBug> {
        let rip = self.vmread(Field::GuestRip)?;
        let length = self.vmread(Field::ExitInstructionLength)?;
        self.vmwrite(Field::GuestRip, rip.wrapping_add(length))?;
        self.vmwrite(Field::GuestInterruptibility, self.vmread(Field::GuestInterruptibility)? & !3)?;
        self.m().charge();
        self.note_completed();
        Ok(())
    }

    /// L0 completed an instruction for whoever runs: L1's monitor trap flag would have seen it.
    fn note_completed(&self) {
        if self.nested.running && self.primary12().contains(PrimaryControls::MONITOR_TRAP_FLAG) {
            self.nested.trap.store(true, Ordering::Relaxed);
        }
    }

    /// Whether L1 is to see that L0 completed an instruction of L2's.
    fn trap_waits(&self) -> bool {
        self.nested.trap.load(Ordering::Relaxed)
    }

    /// Something that this model of KVM does not do.
    fn unmodelled(&self) -> Result<(), HostBug> {
        let rip = self.vmread(Field::GuestRip)?;
        self.m().stop = Some(Stop::Unmodelled(Linear(rip)));
        Ok(())
    }

    /// L1's CR4 as L1 reads it.
    fn cr4_of_l1(&self) -> Result<Cr4, HostBug> {
        let mask = self.vmread(Field::Cr4Mask)?;
        Ok(Cr4(self.vmread(Field::GuestCr4)? & !mask | self.vmread(Field::Cr4Shadow)? & mask))
    }

    const VENDOR: Vendor = Vendor::Intel;
}

/// The fields that are read only when somebody asks.
const fn asked(field: Field) -> Option<Asked> {
    match field {
        Field::ExitQualification => Some(Asked::Qualification),
        Field::ExitInterruptionInfo => Some(Asked::Interruption),
        _ => None,
    }
}

/// The registers that are written late.
const fn late(field: Field) -> Option<Late> {
    match field {
        Field::GuestRip => Some(Late::Rip),
        Field::GuestRsp => Some(Late::Rsp),
        _ => None,
    }
}

/// EPTP bits beside the root: write-back, four levels.
const EPTP_BITS: u64 = 0x1e;

pub(crate) fn lock(machine: &Arc<Mutex<Machine>>) -> MutexGuard<'_, Machine> {
    machine.lock().expect("no task panics while it holds the machine")
}

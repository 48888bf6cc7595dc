//! Task switches (SDM Vol. 3A "Task Switching", table "Exception Conditions Checked During a Task Switch").
//!
//! Up to the moment when TR names the new task, a fault belongs to the old one and nothing has changed. What fails from then
//! on belongs to the new task: its registers are loaded, the segment registers that were not reached are unusable.

use super::super::Exec;
use super::super::access::within_limit;
use super::super::descriptors::Descriptor;
use super::super::flags::mask;
use super::super::inspect::is_conforming;
use super::super::segments::virtual_8086_segment;
use super::{is_code, is_stack, selector_code};
use crate::fault::{Fault, Result};
use rootmode_arch::event::TaskSwitchSource;
use rootmode_arch::{
    AccessRights, Cr0, Dr6, Event, EventClass, Linear, RFlags, Segment, SegmentName, Selector, Stage, vector,
};
use rootmode_mmu::{Access, AccessKind};

/// Where things lie in a TSS (SDM Vol. 3A "32-Bit Task-State Segment (TSS)", "16-Bit Task-State Segment (TSS)").
struct Layout {
    /// Bytes of a register's slot.
    size: u8,
    /// EIP; EFLAGS and the general registers follow.
    ip: u64,
    /// ES, CS, SS, DS (and FS, GS).
    segments: u64,
    /// How many segment registers it has.
    count: usize,
    ldt: u64,
    /// The smallest limit.
    limit: u32,
}

const WIDE: Layout = Layout { size: 4, ip: 0x20, segments: 0x48, count: 6, ldt: 0x60, limit: 0x67 };
const NARROW: Layout = Layout { size: 2, ip: 0x0e, segments: 0x22, count: 4, ldt: 0x2a, limit: 0x2b };

impl Layout {
    const fn of(rights: AccessRights) -> &'static Self {
        if rights.kind() & 8 != 0 { &WIDE } else { &NARROW }
    }
}

/// What a task switch is about, beside the new task.
pub(super) struct Switch {
    pub(super) source: TaskSwitchSource,
    /// Where the old task goes on.
    pub(super) next: u64,
    /// The old task's flags as its TSS keeps them.
    pub(super) flags: RFlags,
    /// Pushed on the new task's stack.
    pub(super) error_code: Option<u32>,
    /// The EXT bit of faults' error codes.
    pub(super) ext: u32,
}

/// A task's registers as its TSS holds them.
struct Task {
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    gpr: [u64; 8],
    /// ES, CS, SS, DS, FS, GS.
    segments: [Selector; 6],
    ldt: Selector,
    trap: bool,
}

impl Exec<'_, '_> {
    /// Switches to the task of the TSS `descriptor`, whose type and presence are checked.
    ///
    /// # Errors
    /// Faults of the old or of the new task, see the module.
    pub(super) fn switch_task(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        switch: Switch,
    ) -> Result {
        let Switch { source, next, flags, error_code, ext } = switch;
        let layout = Layout::of(descriptor.rights());
        if descriptor.limit() < layout.limit {
            return Err(Fault::with_code(vector::TS, selector_code(selector) | ext));
        }
        let event = Event::TaskSwitch { selector, source, error_code };
        self.offer(EventClass::TaskSwitch, Stage::AfterOperands, |_| event)?;
        let old = *self.cpu.segment(SegmentName::Tr);
        let old_layout = Layout::of(old.rights);
        if !old.rights.is_usable() || old.limit < old_layout.limit {
            return Err(Fault::with_code(vector::TS, selector_code(old.selector) | ext));
        }
        let nests = matches!(source, TaskSwitchSource::Call | TaskSwitchSource::IdtGate);
        self.probe_tasks(&old, old_layout, descriptor, layout)?;
        let task = self.read_task(descriptor.base(), layout)?;

        // From here on nothing can be refused.
        let flags = if source == TaskSwitchSource::Iret { flags.without(RFlags::NT) } else { flags };
        self.save_task(&old, old_layout, next, flags.0)?;
        if nests {
            let write = Access::implicit(AccessKind::Write);
            self.write(Linear(descriptor.base()), 2, u64::from(old.selector.0), write)?;
        } else {
            self.clear_busy(old.selector)?;
        }
        if source != TaskSwitchSource::Iret {
            self.mark(descriptor, 2)?;
        }
        *self.cpu.segment_mut(SegmentName::Tr) = descriptor.segment(selector, AccessRights(2));
        self.load_task(&task, layout, nests)?;
        self.load_task_segments(&task, ext)?;
        let code = *self.cpu.segment(SegmentName::Cs);
        if let Some(error_code) = error_code {
            let mut stack = self.current_stack(ext);
            self.check_room(&stack, 1, layout.size)?;
            self.push_all(&mut stack, &[u64::from(error_code)], layout.size)?;
            self.take_pointer(&stack);
        }
        if !within_limit(&code, task.ip, 1) {
            return Err(Fault::with_code(vector::GP, ext));
        }
        if task.trap {
            self.cpu.pending_debug |= Dr6::BT.0;
        }
        self.cpu.trap_inhibited = true;
        self.cpu.refresh();
        Ok(())
    }

    /// Both TSSs and the old one's descriptor are mapped, or the switch has not begun.
    fn probe_tasks(
        &mut self,
        old: &Segment,
        old_layout: &Layout,
        new: Descriptor,
        layout: &Layout,
    ) -> Result {
        let (read, write) = (Access::implicit(AccessKind::Read), Access::implicit(AccessKind::Write));
        for last in [0, u64::from(layout.limit)] {
            self.translate(Linear(new.base().wrapping_add(last)), read)?;
        }
        self.translate(Linear(new.base()), write)?;
        let saved = old_layout.segments + old_layout.count as u64 * u64::from(old_layout.size) - 1;
        for at in [old_layout.ip, saved] {
            self.translate(Linear(old.base.wrapping_add(at)), write)?;
        }
        self.translate(new.linear.offset(5), write)?;
        let descriptor = self.cpu.gdtr.base.wrapping_add(old.selector.offset() + 5);
        self.translate(Linear(descriptor), write)?;
        Ok(())
    }

    fn clear_busy(&mut self, selector: Selector) -> Result {
        let at = Linear(self.cpu.gdtr.base.wrapping_add(selector.offset() + 5));
        let kind = self.read(at, 1, Access::implicit(AccessKind::Read))?;
        self.write(at, 1, kind & !2, Access::implicit(AccessKind::Write))
    }

    fn read_task(&mut self, base: u64, layout: &Layout) -> Result<Task> {
        let access = Access::implicit(AccessKind::Read);
        let size = layout.size;
        let step = u64::from(size);
        let slot = |x: &mut Self, offset: u64| x.read(Linear(base.wrapping_add(offset)), size, access);
        let wide = size == 4;
        let mut gpr = [0; 8];
        for (index, register) in gpr.iter_mut().enumerate() {
            *register = slot(self, layout.ip + (2 + index as u64) * step)?;
        }
        let mut segments = [Selector(0); 6];
        for (index, selector) in segments.iter_mut().enumerate().take(layout.count) {
            *selector = Selector(slot(self, layout.segments + index as u64 * step)? as u16);
        }
        Ok(Task {
            cr3: if wide { Some(slot(self, 0x1c)?) } else { None },
            ip: slot(self, layout.ip)?,
            flags: slot(self, layout.ip + step)?,
            gpr,
            segments,
            ldt: Selector(slot(self, layout.ldt)? as u16),
            trap: wide && slot(self, 0x64)? & 1 != 0,
        })
    }

    fn save_task(&mut self, tr: &Segment, layout: &Layout, next: u64, flags: u64) -> Result {
        let access = Access::implicit(AccessKind::Write);
        let size = layout.size;
        let step = u64::from(size);
        let gpr = self.cpu.gpr;
        let registers = [next, flags].into_iter().chain(gpr.into_iter().take(8));
        for (index, value) in registers.enumerate() {
            let at = tr.base.wrapping_add(layout.ip + index as u64 * step);
            self.write(Linear(at), size, value & mask(size), access)?;
        }
        for index in 0..layout.count {
            let selector = self.cpu.segments[index].selector.0;
            let at = tr.base.wrapping_add(layout.segments + index as u64 * step);
            self.write(Linear(at), 2, u64::from(selector), access)?;
        }
        Ok(())
    }

    /// Everything but the hidden parts of segment registers, which stay unusable until they are loaded.
    fn load_task(&mut self, task: &Task, layout: &Layout, nests: bool) -> Result {
        self.cpu.cr0 = self.cpu.cr0.with(Cr0::TS);
        if let Some(cr3) = task.cr3
            && self.cpu.cr0.contains(Cr0::PG)
            && self.cpu.cr3.0 != cr3
        {
            self.load_cr3(cr3)?;
        }
        // The local breakpoints are the old task's.
        self.cpu.dr7 &= !0x155;
        self.cpu.rip = task.ip;
        for (register, value) in self.cpu.gpr.iter_mut().zip(task.gpr) {
            // A 16-bit TSS has no upper halves: they become ones.
            *register = if layout.size == 4 { value } else { value | 0xffff_0000 };
        }
        let virtual_8086 = task.flags & RFlags::VM.0 != 0 && layout.size == 4;
        for (index, selector) in task.segments.into_iter().enumerate() {
            self.cpu.segments[index] = if virtual_8086 {
                virtual_8086_segment(selector)
            } else {
                Segment { selector, rights: AccessRights::UNUSABLE, ..Segment::default() }
            };
        }
        *self.cpu.segment_mut(SegmentName::Ldtr) =
            Segment { selector: task.ldt, rights: AccessRights(0x1_0082), ..Segment::default() };
        self.cpu.set_level(if virtual_8086 { 3 } else { task.segments[1].rpl() });
        let flags = RFlags(task.flags & mask(layout.size));
        self.cpu.set_rflags(if nests { flags.with(RFlags::NT) } else { flags });
        self.cpu.refresh();
        Ok(())
    }

    fn load_task_segments(&mut self, task: &Task, ext: u32) -> Result {
        self.load_task_ldt(task.ldt, ext)?;
        if self.cpu.rflags().contains(RFlags::VM) {
            return Ok(());
        }
        let [es, cs, ss, ds, fs, gs] = task.segments;
        let level = cs.rpl();
        let bad = |selector| Fault::with_code(vector::TS, selector_code(selector) | ext);
        if cs.is_null() {
            return Err(bad(cs));
        }
        let code = self.descriptor(cs, vector::TS, ext)?;
        let rights = code.rights();
        let level_fits = if is_conforming(rights) { rights.dpl() <= level } else { rights.dpl() == level };
        if !is_code(rights) || !level_fits {
            return Err(bad(cs));
        }
        if ss.is_null() {
            return Err(bad(ss));
        }
        let stack = self.descriptor(ss, vector::TS, ext)?;
        let stack_rights = stack.rights();
        if !is_stack(stack_rights) || ss.rpl() != level || stack_rights.dpl() != level {
            return Err(bad(ss));
        }
        if !stack_rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::SS, selector_code(ss) | ext));
        }
        self.mark(stack, 1)?;
        *self.cpu.segment_mut(SegmentName::Ss) = stack.segment(ss, AccessRights::ACCESSED);
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, selector_code(cs) | ext));
        }
        let code = self.code_segment(code, cs, level)?;
        *self.cpu.segment_mut(SegmentName::Cs) = code;
        for (name, selector) in
            [(SegmentName::Ds, ds), (SegmentName::Es, es), (SegmentName::Fs, fs), (SegmentName::Gs, gs)]
        {
            self.load_task_data(name, selector, ext)?;
        }
        Ok(())
    }

    fn load_task_ldt(&mut self, selector: Selector, ext: u32) -> Result {
        if selector.is_null() {
            return Ok(());
        }
        let bad = Fault::with_code(vector::TS, selector_code(selector) | ext);
        if selector.is_local() {
            return Err(bad);
        }
        let descriptor = self.descriptor(selector, vector::TS, ext)?;
        let rights = descriptor.rights();
        if rights.contains(AccessRights::S) || rights.kind() != 2 || !rights.contains(AccessRights::P) {
            return Err(bad);
        }
        *self.cpu.segment_mut(SegmentName::Ldtr) = descriptor.segment(selector, AccessRights(0));
        Ok(())
    }

    fn load_task_data(&mut self, name: SegmentName, selector: Selector, ext: u32) -> Result {
        if selector.is_null() {
            return Ok(());
        }
        let code = selector_code(selector) | ext;
        let descriptor = self.descriptor(selector, vector::TS, ext)?;
        let rights = descriptor.rights();
        let readable = !rights.contains(AccessRights::CODE) || rights.contains(AccessRights::WRITABLE);
        let near = is_conforming(rights) || rights.dpl() >= self.cpu.cpl.max(selector.rpl());
        if !rights.contains(AccessRights::S) || !readable || !near {
            return Err(Fault::with_code(vector::TS, code));
        }
        if !rights.contains(AccessRights::P) {
            return Err(Fault::with_code(vector::NP, code));
        }
        self.mark(descriptor, 1)?;
        *self.cpu.segment_mut(name) = descriptor.segment(selector, AccessRights::ACCESSED);
        Ok(())
    }
}

//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS (SDM Vol. 1 "Managing State Using the XSAVE Feature Set").
//!
//! Choices where the manual leaves one. A component counts as in use unless it holds its initial values. XSAVEOPT and XSAVES use the init optimisation and never the modified optimisation: every component counts as
//! modified, so that what is in memory does not depend on what was restored from where.

use super::{Exec, MXCSR, word};
use crate::components::{
    self, AVX_NUMBER, CET_S, CET_U, Component, EXTENDED, LARGEST, LEGACY, PKRU, SSE, X87,
};
use crate::decode::Decoded;
use crate::execute::Flow;
use crate::execute::flags::mask;
use crate::fault::{Fault, Result};
use crate::msr;
use crate::vectors::{MXCSR_MASK, Vectors};
use rootmode_arch::{Cr0, Cr4, Event, EventClass, Feature, Stage, Vendor, vector};
use rootmode_mmu::AccessKind;

/// Bit 63 of XCOMP_BV: the compacted format.
const COMPACTED: u64 = 1 << 63;
/// MXCSR's initial value.
const MXCSR_INITIAL: u32 = 0x1f80;

impl Exec<'_, '_> {
    /// # Errors
    /// #UD without XSAVE and CR4.OSXSAVE.
    pub(crate) fn require_xsave(&self) -> Result {
        if self.cpu.model.has(Feature::Xsave) && self.cpu.cr4.contains(Cr4::OSXSAVE) {
            Ok(())
        } else {
            Err(Fault::UD)
        }
    }

    fn require_xsave_state(&self) -> Result {
        self.require_xsave()?;
        if self.cpu.cr0.contains(Cr0::TS) { Err(Fault::exception(vector::NM)) } else { Ok(()) }
    }

    /// Components that do not hold their initial values. MXCSR counts for the compacted format, which has no other place
    /// that says whether it is there.
    pub(crate) fn in_use(&self, with_mxcsr: bool) -> u64 {
        let Vectors { ymm, mxcsr, x87 } = &self.cpu.vectors;
        let x87 = if *x87 == crate::vectors::X87::INITIAL { 0 } else { X87 };
        let clear = ymm[..self.xmm_count()].iter().all(|words| words[..2] == [0; 2]);
        let sse = if clear && (*mxcsr == MXCSR_INITIAL || !with_mxcsr) { 0 } else { SSE };
        let extended = components::present(self.cpu.model.features());
        let used =
            extended.filter(|component| self.component(component.number).iter().any(|word| *word != 0));
        used.fold(x87 | sse, |all, component| all | 1 << component.number)
    }

    /// The words of a component of the extended region. All are 0 initially. Outside 64-bit mode there are eight YMM registers.
    fn component(&self, number: u32) -> [u64; LARGEST] {
        let flow = &self.cpu.control_flow;
        let mut words = [0; LARGEST];
        match number {
            AVX_NUMBER => {
                let registers = &self.cpu.vectors.ymm[..self.xmm_count()];
                let (pairs, _) = words.as_chunks_mut::<2>();
                pairs.iter_mut().zip(registers).for_each(|(to, from)| to.copy_from_slice(&from[2..]));
            }
            PKRU => words[0] = self.cpu.pkru.into(),
            CET_U => words[..2].copy_from_slice(&[flow.user, flow.levels[3]]),
            CET_S => words[..3].copy_from_slice(&flow.levels[..3]),
            _ => {}
        }
        words
    }

    /// Bytes of a component that the running code can name: outside 64-bit mode half of the YMM registers.
    fn visible_bytes(&self, component: &Component) -> usize {
        if component.number == AVX_NUMBER { 16 * self.xmm_count() } else { component.size as usize }
    }

    /// # Errors
    /// #GP(0) if WRMSR would not write these words of a component.
    fn check_component(&self, number: u32, words: &[u64; LARGEST]) -> Result {
        let pointers = match number {
            CET_U => {
                msr::check_cet(self.cpu, words[0])?;
                &words[1..2]
            }
            CET_S => &words[..3],
            _ => &[],
        };
        pointers.iter().try_for_each(|pointer| msr::check_shadow_pointer(self.cpu, *pointer))
    }

    /// Loads a component of the extended region.
    fn set_component(&mut self, number: u32, words: &[u64; LARGEST]) {
        let count = self.xmm_count();
        let flow = &mut self.cpu.control_flow;
        match number {
            AVX_NUMBER => {
                let registers = &mut self.cpu.vectors.ymm[..count];
                let (pairs, _) = words.as_chunks::<2>();
                registers.iter_mut().zip(pairs).for_each(|(to, from)| to[2..].copy_from_slice(from));
            }
            PKRU => self.cpu.pkru = words[0] as u32,
            CET_U => [flow.user, flow.levels[3]] = [words[0], words[1]],
            CET_S => flow.levels[..3].copy_from_slice(&words[..3]),
            _ => {}
        }
    }

    /// Components of the extended region in `mask`, with their places.
    fn places(&self, mask: u64, compacted: bool) -> Vec<(&'static Component, u64)> {
        let (features, vendor) = (self.cpu.model.features(), self.cpu.model.vendor());
        if compacted {
            components::compacted(features, mask).0
        } else {
            let wanted = components::present(features).filter(|c| mask >> c.number & 1 != 0);
            wanted.map(|c| (c, c.standard(vendor))).collect()
        }
    }
}

/// Which instruction saves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Optimised,
    Compacted,
}

/// XSAVE, XSAVE64.
pub(crate) fn save<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave_state()?;
    let mask = x.edx_eax() & x.cpu.xcr0;
    write(x, op, mask, Form::Plain, LONG)
}

/// XSAVEOPT, XSAVEOPT64.
pub(crate) fn save_optimised<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave_state()?;
    let mask = x.edx_eax() & x.cpu.xcr0;
    write(x, op, mask, Form::Optimised, LONG)
}

/// XSAVEC, XSAVEC64.
pub(crate) fn save_compacted<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave_state()?;
    let mask = x.edx_eax() & x.cpu.xcr0;
    write(x, op, mask, Form::Compacted, LONG)
}

/// Saves the components of `requested`; all checks come before the first byte is written.
fn write(x: &mut Exec<'_, '_>, op: &Decoded, requested: u64, form: Form, long: bool) -> Result<Flow> {
    let compacted = form == Form::Compacted;
    let places = x.places(requested, compacted);
    let end = places.last().map_or(EXTENDED, |(c, at)| at + c.size);
    let linear = x.area(op, end, 64, AccessKind::Write)?;
    if x.cpu.model.vendor() == Vendor::Intel {
        // The end of the header, in the compacted format of all, is looked at first, as the addresses of page faults tell.
        let first = if compacted { end } else { EXTENDED } - 1;
        let offset = x.effective(op).wrapping_add(first) & mask(op.memory.address_size);
        let (at, access) = (x.unchecked(op.memory.segment, offset), x.data(AccessKind::Write));
        x.translate(at, access)?;
    }
    x.probe(linear, end, AccessKind::Write)?;
    let in_use = x.in_use(compacted);
    let saved = if form == Form::Plain { requested } else { requested & in_use };
    let mut bytes = [0; 512];
    x.put_x87(&mut bytes, long);
    x.put_xmm(&mut bytes);
    bytes[MXCSR..MXCSR + 4].copy_from_slice(&x.cpu.vectors.mxcsr.to_le_bytes());
    bytes[MXCSR + 4..MXCSR + 8].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    if saved & X87 != 0 {
        x.write_area(linear, 0, &bytes[..MXCSR])?;
        x.write_area(linear, 32, &bytes[32..super::XMM])?;
    }
    // Without compaction MXCSR goes with SSE or AVX as soon as one of them is asked for.
    let mxcsr = if compacted { saved & SSE != 0 } else { requested & 6 != 0 };
    if mxcsr {
        x.write_area(linear, MXCSR as u64, &bytes[MXCSR..MXCSR + 8])?;
    }
    if saved & SSE != 0 {
        let last = super::XMM + 16 * x.xmm_count();
        x.write_area(linear, super::XMM as u64, &bytes[super::XMM..last])?;
    }
    for (component, at) in places.iter().filter(|(c, _)| saved >> c.number & 1 != 0) {
        let bytes = x.component(component.number).map(u64::to_le_bytes);
        x.write_area(linear, *at, &bytes.as_flattened()[..x.visible_bytes(component)])?;
    }
    if compacted {
        let header = [requested & in_use, requested | COMPACTED];
        x.write_area(linear, LEGACY, header.map(u64::to_le_bytes).as_flattened())?;
    } else {
        let mut old = [0; 8];
        x.fetch_area(linear, LEGACY, &mut old)?;
        let header = u64::from_le_bytes(old) & !requested | requested & in_use;
        x.write_area(linear, LEGACY, &header.to_le_bytes())?;
    }
    Ok(Flow::Next)
}

/// XRSTOR, XRSTOR64.
pub(crate) fn restore<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave_state()?;
    let enabled = x.cpu.xcr0;
    let requested = x.edx_eax() & enabled;
    read(x, op, [requested, enabled], false, LONG)
}

/// XSAVES, XSAVES64.
pub(crate) fn save_supervisor<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave()?;
    x.require_defined(EventClass::Xsaves)?;
    let (mask, enabled) = (x.edx_eax(), x.cpu.xcr0 | x.cpu.xss);
    let event = |x: &Exec<'_, '_>| Event::Xsaves { mask, enabled, operand: x.memory_operand(op) };
    x.offer(EventClass::Xsaves, Stage::BeforeExceptions, |x| event(x))?;
    x.require_cpl0()?;
    x.require_xsave_state()?;
    x.offer(EventClass::Xsaves, Stage::AfterPrivilege, |x| event(x))?;
    write(x, op, mask & enabled, Form::Compacted, LONG)
}

/// XRSTORS, XRSTORS64.
pub(crate) fn restore_supervisor<const LONG: bool>(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_xsave()?;
    x.require_defined(EventClass::Xrstors)?;
    let (mask, enabled) = (x.edx_eax(), x.cpu.xcr0 | x.cpu.xss);
    let event = |x: &Exec<'_, '_>| Event::Xrstors { mask, enabled, operand: x.memory_operand(op) };
    x.offer(EventClass::Xrstors, Stage::BeforeExceptions, |x| event(x))?;
    x.require_cpl0()?;
    x.require_xsave_state()?;
    x.offer(EventClass::Xrstors, Stage::AfterPrivilege, |x| event(x))?;
    read(x, op, [mask & enabled, enabled], true, LONG)
}

/// Restores the components of `requested`: from memory if XSTATE_BV has them, else to their initial values.
fn read(
    x: &mut Exec<'_, '_>,
    op: &Decoded,
    [requested, enabled]: [u64; 2],
    only_compacted: bool,
    long: bool,
) -> Result<Flow> {
    let linear = x.area(op, EXTENDED, 64, AccessKind::Read)?;
    let mut bytes = [0; 576];
    // The header is read early, as the addresses of page faults tell: on Intel's parts XCOMP_BV first, on AMD's after the first
    // bytes.
    if x.cpu.model.vendor() == Vendor::Intel {
        let access = x.data(AccessKind::Read);
        x.translate(x.along(linear, LEGACY + 8), access)?;
    }
    x.fetch_area(linear, 0, &mut bytes[..8])?;
    x.fetch_area(linear, LEGACY, &mut bytes[LEGACY as usize..])?;
    x.fetch_area(linear, 0, &mut bytes[..LEGACY as usize])?;
    let header = |n: usize| word::<8>(&bytes, 512 + 8 * n);
    let (present, format) = (header(0), header(1));
    let compacted = format & COMPACTED != 0;
    let valid = if compacted {
        // Bytes 63:16 of the header must be 0.
        let rest = (2..8).all(|n| header(n) == 0);
        let has = only_compacted || x.cpu.model.has(Feature::XsaveC);
        has && rest && format & !(enabled | COMPACTED) == 0 && present & !(format & !COMPACTED) == 0
    } else {
        !only_compacted && present & !enabled == 0 && format == 0 && header(2) == 0
    };
    let mxcsr = word::<4>(&bytes, MXCSR) as u32;
    let loads = requested & present;
    // Without compaction MXCSR is loaded with SSE or AVX, whatever XSTATE_BV says.
    let loads_mxcsr = if compacted { loads & SSE != 0 } else { requested & 6 != 0 };
    if !valid || loads_mxcsr && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    let places = x.places(if compacted { format } else { requested }, compacted);
    let mut extended = [[0; LARGEST]; components::TABLE.len()];
    for (component, at) in places.iter().filter(|(c, _)| loads >> c.number & 1 != 0) {
        let mut value = [[0; 8]; LARGEST];
        x.fetch_area(linear, *at, &mut value.as_flattened_mut()[..x.visible_bytes(component)])?;
        let words = value.map(u64::from_le_bytes);
        x.check_component(component.number, &words)?;
        if let Some(place) = components::TABLE.iter().position(|row| row.number == component.number) {
            extended[place] = words;
        }
    }
    if loads & X87 != 0 {
        x.take_x87(&bytes, long);
    } else if requested & X87 != 0 {
        x.cpu.vectors.x87 = crate::vectors::X87::INITIAL;
    }
    if loads & SSE != 0 {
        x.take_xmm(&bytes);
    } else if requested & SSE != 0 {
        (0..x.xmm_count()).for_each(|n| x.cpu.vectors.set_xmm(n as u8, 0));
    }
    if loads_mxcsr {
        x.cpu.vectors.mxcsr = mxcsr;
    } else if requested & SSE != 0 {
        x.cpu.vectors.mxcsr = MXCSR_INITIAL;
    }
    for (component, words) in components::TABLE.iter().zip(&extended) {
        if requested >> component.number & 1 != 0 {
            x.set_component(component.number, words);
        }
    }
    x.cpu.refresh();
    Ok(Flow::Next)
}

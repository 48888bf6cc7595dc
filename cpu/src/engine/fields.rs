//! Quick forms of VMREAD and VMWRITE between registers in 64-bit mode: where nobody wants to see them, and nothing stands
//! against them.

use super::{LEAVE, Op, general, go_on};
use crate::execute::Exec;
use crate::execute::flags::STATUS;
use rootmode_arch::EventClass;

/// VMREAD register, register.
pub(super) fn vmread(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let encoding = x.gpr(op.b);
    let value = match x.extension.as_deref() {
        Some(extension) if !x.cpu.published.intercepts.contains(EventClass::Vmx) => {
            extension.field(x.cpu, encoding)
        }
        _ => None,
    };
    let Some(value) = value else { return general(x, op, behind) };
    x.set::<8>(op.a, value);
    // VMsucceed.
    x.cpu.set_status(STATUS, 0);
    go_on(x, behind)
}

/// VMWRITE register, register.
pub(super) fn vmwrite(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    let (encoding, value) = (x.gpr(op.a), x.gpr(op.b));
    let written = match x.extension.as_deref_mut() {
        Some(extension) if !x.cpu.published.intercepts.contains(EventClass::Vmx) => {
            extension.set_field(x.cpu, x.ctx, encoding, value)
        }
        _ => false,
    };
    if !written {
        return general(x, op, behind);
    }
    x.cpu.set_status(STATUS, 0);
    if x.ctx.memory.code_writes() == x.run.code_writes {
        return go_on(x, behind);
    }
    x.cpu.advance_rip(u64::from(op.end));
    x.run.left += i64::from(op.rest) - 1;
    LEAVE
}

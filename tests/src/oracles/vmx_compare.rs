//! A VMX case on both sides.

use super::compare::{Actual, Sides};
use super::draw::Draw;
use super::{vmx_draw, vmx_exits};
use rootmode_arch::{EventClass, Stage};
use rootmode_vmx::bitmap::Bitmaps;
use rootmode_vmx::decide::{Exit, Table, View, decide};

/// Draws a case of `class` and asks both sides.
pub fn sides(draw: &mut Draw, class: EventClass) -> Sides {
    sides_of(None, draw, class)
}

/// The same with another table behind `decide`.
pub fn sides_of(table: Option<&Table>, draw: &mut Draw, class: EventClass) -> Sides {
    let (case, mode) = vmx_draw::case(draw, class);
    let event = draw.event(class, &mode);
    let bitmaps: &dyn Bitmaps = &case.bitmaps;
    let view = View { controls: &case.controls, processor: &case.processor, bitmaps };
    let at = |stage| table.unwrap_or(Table::BUILT_IN).decide_at(stage, &view, &event).is_some();
    Sides {
        expected: vmx_exits::expected(&view, &event),
        actual: table.map_or_else(|| decide(&view, &event), |table| table.decide(&view, &event)).map(plain),
        stages: [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands].map(at),
    }
}

/// The case in words.
pub fn describe(draw: &mut Draw, class: EventClass) -> String {
    let (case, mode) = vmx_draw::case(draw, class);
    let event = draw.event(class, &mode);
    format!("{event:x?}\n  {:x?}\n  {:x?}", case.controls, case.processor)
}

fn plain(exit: Exit) -> Actual {
    Actual {
        reason: exit.reason.0.into(),
        qualification: exit.qualification,
        second: 0,
        information: exit.instruction_information,
        interruption: exit.interruption_information.into(),
        error_code: exit.error_code,
        guest_linear: exit.guest_linear.map(|linear| linear.0),
        guest_physical: exit.guest_physical.map(|physical| physical.0),
    }
}

//! An SVM case on both sides.

use super::compare::{Actual, Sides};
use super::draw::Draw;
use super::{svm_draw, svm_exits};
use rootmode_arch::{EventClass, Stage};
use rootmode_svm::PermissionMaps;
use rootmode_svm::decide::{Exit, Table, View, decide};

/// Draws a case of `class` and asks both sides.
pub fn sides(draw: &mut Draw, class: EventClass) -> Sides {
    sides_of(None, draw, class)
}

/// The same with another table behind `decide`.
pub fn sides_of(table: Option<&Table>, draw: &mut Draw, class: EventClass) -> Sides {
    let (case, mode) = svm_draw::case(draw, class);
    let event = draw.event(class, &mode);
    let maps: &dyn PermissionMaps = &case.maps;
    let view = View { controls: &case.controls, state: &case.state, maps };
    let at = |stage| table.unwrap_or(Table::BUILT_IN).decide_at(stage, &view, &event).is_some();
    Sides {
        expected: svm_exits::expected(&view, &event),
        actual: table.map_or_else(|| decide(&view, &event), |table| table.decide(&view, &event)).map(plain),
        stages: [Stage::BeforeExceptions, Stage::AfterPrivilege, Stage::AfterOperands].map(at),
    }
}

/// The case in words.
pub fn describe(draw: &mut Draw, class: EventClass) -> String {
    let (case, mode) = svm_draw::case(draw, class);
    let event = draw.event(class, &mode);
    format!("{event:x?}\n  {:x?}\n  {:x?}", case.controls, case.state)
}

fn plain(exit: Exit) -> Actual {
    Actual {
        reason: exit.code.0,
        qualification: exit.info1,
        second: exit.info2,
        information: None,
        interruption: 0,
        error_code: None,
        guest_linear: None,
        guest_physical: None,
    }
}

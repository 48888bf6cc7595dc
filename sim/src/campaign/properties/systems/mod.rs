//! KVM's systems beside MSR interception.

mod containment;
mod controls;
mod nested_entries;
mod posted;
mod rtit;
mod trace;
mod user_return;

pub(super) use containment::PROPERTIES as CONTAINMENT;
pub(super) use controls::PROPERTIES as CONTROLS;
pub(super) use nested_entries::PROPERTIES as NESTED_ENTRIES;
pub(super) use posted::PROPERTIES as POSTED;
pub(super) use rtit::PROPERTIES as RTIT;
pub(super) use trace::PROPERTIES as TRACE;
pub(super) use user_return::PROPERTIES as USER_RETURN;

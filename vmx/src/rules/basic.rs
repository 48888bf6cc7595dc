//! "Basic VM-Entry Checks": mode, privilege, current VMCS, MOV SS, launch state.

use super::{InstructionError, Report, rules};
use crate::context::Item;
use rootmode_arch::vector;

/// The current-VMCS pointer when there is no current VMCS.
const NONE: u64 = !0;

rules! {
    group Basic;

    "vmx.basic.vmx-operation", [] @items [InVmxRoot] @report Report::Exception(vector::UD);
    "The processor must be in VMX root operation (outside VMX operation: #UD; in non-root operation the instruction exits).",
    |v| v.is(Item::InVmxRoot)?;

    "vmx.basic.mode", [] @items [CompatibilityOrVirtual] @report Report::Exception(vector::UD);
    "VMLAUNCH and VMRESUME must not be executed in real-address, virtual-8086 or compatibility mode.",
    |v| !v.is(Item::CompatibilityOrVirtual)?;

    "vmx.basic.cpl", [] @items [Cpl] @report Report::Exception(vector::GP);
    "The current privilege level must be 0.",
    |v| v.item(Item::Cpl)? == 0;

    "vmx.basic.current-vmcs", [] @items [CurrentVmcs]
    "There must be a current VMCS.",
    |v| v.item(Item::CurrentVmcs)? != NONE;

    "vmx.basic.shadow-vmcs", [] @items [CurrentIsShadow]
    "The current VMCS must not be a shadow VMCS.",
    |v| v.item(Item::CurrentVmcs)? == NONE || !v.is(Item::CurrentIsShadow)?;

    "vmx.basic.mov-ss", [] @items [MovSsBlocking] @report Report::Fail(InstructionError::ENTRY_MOV_SS);
    "Events must not be blocked by MOV SS.",
    |v| !v.is(Item::MovSsBlocking)?;

    "vmx.basic.launch-clear", [] @items [Launched, IsResume] @report Report::Fail(InstructionError::VMLAUNCH_NOT_CLEAR);
    "VMLAUNCH wants a VMCS whose launch state is clear.",
    |v| v.is(Item::IsResume)? || !v.is(Item::Launched)?;

    "vmx.basic.resume-launched", [] @items [Launched, IsResume]
    @report Report::Fail(InstructionError::VMRESUME_NOT_LAUNCHED);
    "VMRESUME wants a VMCS whose launch state is launched.",
    |v| !v.is(Item::IsResume)? || v.is(Item::Launched)?;
}

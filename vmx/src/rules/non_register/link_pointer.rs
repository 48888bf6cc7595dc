//! "Checks on Guest Non-Register State": the VMCS link pointer, unless it is all ones.

use crate::context::Item;
use crate::definitions::controls::{EntryControls as Entry, SecondaryControls as Secondary};
use crate::definitions::field::Field;
use crate::rules::execution_controls::PAGE;
use crate::rules::view::{Missing, View};
use crate::rules::{ExitReason, Report, rules};
use rootmode_arch::HostPhysical;

/// The pointer when there is no linked VMCS.
const NONE: u64 = !0;
/// Bit 31 of a VMCS region's first 4 bytes: it is a shadow VMCS.
const SHADOW: u64 = 1 << 31;

const BAD_LINK: Report = Report::Exit { reason: ExitReason::INVALID_GUEST_STATE, qualification: 4 };

impl<const PARTIAL: bool> View<'_, PARTIAL> {
    /// The first 4 bytes of the linked VMCS region; `None` if there is none or its address is invalid.
    #[inline(always)]
    fn linked(&self) -> Result<Option<u64>, Missing> {
        let link = self.get(Field::LinkPointer)?;
        if link & PAGE != 0 || !self.fits(link)? {
            return Ok(None);
        }
        Ok(Some(self.memory(HostPhysical(link))? & 0xffff_ffff))
    }
}

rules! {
    group NonRegister;
    @applies |v| v.get(Field::LinkPointer)? != NONE;

    "vmx.guest.link-pointer.alignment", [LinkPointer] @report BAD_LINK;
    "Bits 11:0 of the VMCS link pointer must be 0.",
    |v| v.zero(Field::LinkPointer, PAGE)?;

    "vmx.guest.link-pointer.width", [LinkPointer] @report BAD_LINK;
    "The VMCS link pointer must not exceed the physical-address width.",
    |v| v.in_width(Field::LinkPointer)?;

    "vmx.guest.link-pointer.revision", [LinkPointer] @report BAD_LINK;
    "Bits 30:0 of the linked VMCS region must be the processor's VMCS revision identifier.",
    |v| match v.linked()? {
        None => true,
        Some(word) => word & !SHADOW == u64::from(v.basic()?.revision()),
    };

    "vmx.guest.link-pointer.shadow", [LinkPointer] @report BAD_LINK;
    "Bit 31 (shadow-VMCS indicator) of the linked VMCS region must equal \"VMCS shadowing\".",
    |v| match v.linked()? {
        None => true,
        Some(word) => (word & SHADOW != 0) == v.secondary()?.contains(Secondary::VMCS_SHADOWING),
    };

    "vmx.guest.link-pointer.current", [LinkPointer] @items [CurrentVmcs] @report BAD_LINK;
    "If the processor is not in SMM, or \"entry to SMM\" is 1, the VMCS link pointer must not be the current-VMCS pointer.",
    |v| v.is(Item::InSmm)? && !v.entry()?.contains(Entry::ENTRY_TO_SMM)
        || v.get(Field::LinkPointer)? != v.item(Item::CurrentVmcs)?;

    "vmx.guest.link-pointer.executive", [LinkPointer, ExecutiveVmcsPointer] @report BAD_LINK;
    "If the processor is in SMM and \"entry to SMM\" is 0, the VMCS link pointer must not be the executive-VMCS pointer.",
    |v| !v.is(Item::InSmm)?
        || v.entry()?.contains(Entry::ENTRY_TO_SMM)
        || v.get(Field::LinkPointer)? != v.get(Field::ExecutiveVmcsPointer)?;
}

//! Fields by the types of their bits.

use super::{Clean, EventInfo, Field, IntCtl, NestedControl, TlbControl, VirtExt, Vmcb};
use crate::encode::ExitCode;
use rootmode_arch::{Cr0, Cr4, Dr6, Dr7, Efer, RFlags};

macro_rules! typed {
    ($($get:ident $set:ident $field:ident $type:ident($int:ty) $text:literal;)*) => {
        #[allow(clippy::unnecessary_cast, reason = "the macro serves several integer widths")]
        impl Vmcb {
            $(
                #[doc = concat!($text, ", if known.")]
                pub fn $get(&self) -> Option<$type> {
                    self.get(Field::$field).map(|value| $type(value as $int))
                }
                #[doc = concat!("Stores ", $text, ".")]
                pub fn $set(&mut self, value: $type) {
                    self.set(Field::$field, value.0 as u64);
                }
            )*
        }
    };
}

typed! {
    int_ctl set_int_ctl IntCtl IntCtl(u32) "the virtual interrupt controls";
    nested_control set_nested_control NestedControl NestedControl(u64) "the nested paging and encryption enables";
    virt_ext set_virt_ext VirtExt VirtExt(u64) "the LBR, VMLOAD, IBS and PMC enables";
    clean set_clean CleanBits Clean(u32) "the clean bits";
    exit_code set_exit_code ExitCode ExitCode(u64) "EXITCODE";
    cr0 set_cr0 Cr0 Cr0(u64) "CR0";
    cr4 set_cr4 Cr4 Cr4(u64) "CR4";
    efer set_efer Efer Efer(u64) "EFER";
    rflags set_rflags Rflags RFlags(u64) "RFLAGS";
    dr6 set_dr6 Dr6 Dr6(u64) "DR6";
    dr7 set_dr7 Dr7 Dr7(u64) "DR7";
}

impl Vmcb {
    /// EVENTINJ with its error code; `None` if the event is not known, or has an error code that is not.
    pub fn event_injection(&self) -> Option<EventInfo> {
        self.event(Field::EventInj, Field::EventInjError)
    }
    /// Stores EVENTINJ with its error code.
    pub fn set_event_injection(&mut self, event: EventInfo) {
        self.set(Field::EventInj, event.0);
        self.set(Field::EventInjError, event.0 >> 32);
    }
    /// EXITINTINFO with its error code; `None` if the event is not known, or has an error code that is not.
    pub fn exit_interruption(&self) -> Option<EventInfo> {
        self.event(Field::ExitIntInfo, Field::ExitIntInfoError)
    }
    /// Stores EXITINTINFO with its error code.
    pub fn set_exit_interruption(&mut self, event: EventInfo) {
        self.set(Field::ExitIntInfo, event.0);
        self.set(Field::ExitIntInfoError, event.0 >> 32);
    }
    /// What VMRUN flushes; `None` if it is not known or reserved.
    pub fn tlb_control(&self) -> Option<TlbControl> {
        self.get(Field::TlbControl).and_then(|value| TlbControl::from_byte(value as u8))
    }
    /// Stores what VMRUN flushes.
    pub fn set_tlb_control(&mut self, command: TlbControl) {
        self.set(Field::TlbControl, command as u64);
    }

    fn event(&self, info: Field, code: Field) -> Option<EventInfo> {
        let info = EventInfo(self.get(info)?);
        match info.error_code() {
            Some(_) => Some(EventInfo(info.0 | self.get(code)? << 32)),
            None => Some(EventInfo(info.0 | self.get(code).unwrap_or(0) << 32)),
        }
    }
}

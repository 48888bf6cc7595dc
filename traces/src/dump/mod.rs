//! What Linux prints when an entry fails: KVM's `dump_vmcs` and `dump_vmcb`, QEMU's registers, `FIELD = value` lists.
//!
//! [`parse()`] takes any text (a whole `dmesg`, a mail, a bug report) and never fails: what could be read becomes
//! [`Dump`]s whose every value knows its line, and everything that looked like a part of a dump but could not be
//! read is named by line in [`Parsed::unreadable`].
//! [`print_vmcs`] and [`print_vmcb`] write the same text as a given kernel would.
//!
//! The formats, and which kernel prints which line, are in `traces/FORMAT.md`.
//!
//! ```
//! let text = "[  12.345678] kvm_intel: CR0: actual=0x0000000080000011, shadow=0x0000000080000011, gh_mask=ff\n\
//!             [  12.345679] kvm_intel: RFLAGS=0x00000000         DR7 = 0x0000000000000400\n";
//! let parsed = rootmode_traces::dump::parse(text);
//! let vmcs = parsed.dumps[0].vmcs().unwrap();
//! assert_eq!(vmcs.value(rootmode_vmx::Field::GuestRflags), Some(0));
//! assert_eq!(vmcs.line(rootmode_vmx::Field::GuestRflags), Some(2));
//! ```

mod labels;
mod line;
mod list;
mod merge;
mod names;
mod number;
mod parse;
mod print;
mod qemu;
mod store;
mod svm_lines;
mod template;
mod types;
mod vmx_lines;

pub use names::{capability_msr_name, lookup_capability_msr, lookup_vmcb_field, lookup_vmcs_field};
pub use parse::parse;
pub use print::{Kernel, VmcbSurroundings, VmcsSurroundings, print_vmcb, print_vmcs};
pub use types::{
    Dump, DumpState, DumpedVmcb, DumpedVmcs, EferOrigin, MsrEntry, Parsed, Reason, Settings, Source, Sourced,
    Unreadable, Vendor, VmcbKey,
};

//! AMD SVM: definitions, VMRUN rules, intercept decisions; and the half that drives the CPU.
//!
//! The pure half is `no_std` and allocates nothing; a real hypervisor can link it with `default-features = false`:
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`vmcb`] | where is which field, which bit intercepts what, what does a page or a dump say |
//! | [`bitmap`] | which accesses do MSR and I/O permission maps intercept |
//! | [`capabilities`] | what can this processor do |
//! | [`rules`] | would VMRUN enter this VMCB; if not, which rules are broken, and what is the nearest valid value |
//! | [`decide`] | does this event exit, with which code and information |
//! | [`encode`] | exit codes and the EXITINFO fields |
//! | [`boundary`] | states just inside and just outside every rule, for tests |
//!
//! Why did VMRUN fail?
//!
//! ```
//! use rootmode_svm::capabilities::GENOA;
//! use rootmode_svm::rules::{EntryContext, Host, Verdict, check_entry, nearest};
//! use rootmode_svm::{Field, Intercept, Intercepts, Vmcb};
//!
//! let mut vmcb = Vmcb::zeroed();
//! vmcb.set_intercepts(Intercepts::NONE.with(Intercept::VMRUN));
//! vmcb.set(Field::Efer, 0x1000);
//! let cx = EntryContext::new(&GENOA, &vmcb).with_host(Host::LONG_MODE);
//! let Verdict::Refused(rule) = check_entry(&cx) else { panic!("ASID 0 is the host's") };
//! assert_eq!(rule.id, "svm.asid.zero");
//! assert_eq!(nearest(&cx, rule).iter().next().map(|correction| correction.value), Some(1));
//! ```
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod bitmap;
pub mod boundary;
pub mod capabilities;
pub mod decide;
#[cfg(feature = "drive")]
pub mod drive;
pub mod encode;
pub mod rules;
pub mod vmcb;

pub use bitmap::{Access, Iopm, Msrpm, PermissionMaps};
pub use capabilities::Processor;
pub use encode::ExitCode;
pub use vmcb::{Field, Intercept, Intercepts, Vmcb, Vmsa};

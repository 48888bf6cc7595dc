//! The x86 architecture as types and tables: registers and their bits, addresses, descriptors,
//! vectors, MSRs, CPUID features, [`Event`] (everything that can be intercepted),
//! [`record`] (everything observable) and [`Choices`] (everything that is not determined).
//!
//! No behaviour lives here. The crate is `no_std`; with `default-features = false` it also allocates nothing.
//!
//! ```
//! use rootmode_arch::{Cr0, Event, EventClass, Stage};
//! let cr0 = Cr0(0x8000_0031);
//! assert!(cr0.contains(Cr0::PE | Cr0::PG));
//! assert_eq!(Event::Hlt.class(), EventClass::Hlt);
//! assert!(Stage::BeforeExceptions < Stage::AfterPrivilege);
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod bits;

pub mod address;
pub mod choices;
pub mod cpuid;
pub mod encryption;
pub mod event;
pub mod msr;
pub mod record;
pub mod registers;
pub mod segment;
pub mod vector;

pub use address::{GuestPhysical, HostPhysical, Linear};
pub use bits::Bit;
pub use choices::{Choices, Hardware, Site, Tame};
pub use cpuid::{Feature, FeatureSet, Vendor};
pub use event::{Event, EventClass, EventClasses, Reaction, Stage};
pub use registers::{Cr0, Cr3, Cr4, DebugCtl, Dr6, Dr7, Efer, Gpr, RFlags};
pub use segment::{AccessRights, DescriptorTable, Segment, SegmentName, Selector};

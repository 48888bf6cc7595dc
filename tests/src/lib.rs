//! What crosses crates: scenarios, properties, oracles, conformance.

#[cfg(target_os = "linux")]
pub mod bench;
#[cfg(target_os = "linux")]
pub mod clients;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod conformance;
pub mod documents;
pub mod dump_fuzz;
pub mod explained;
pub mod full;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod fuzz;
pub mod judges;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod msr_maps;
pub mod mutation;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod native;
pub mod oracles;
pub mod speed;
pub mod table;
pub mod transparency;

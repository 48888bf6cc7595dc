//! The MSRs that govern speculation, of which there is none (SDM Vol. 4 "Architectural MSRs").

use crate::support::Rig;
use iced_x86::code_asm::*;
use rootmode_arch::{Feature, vector};
use rootmode_cpu::{Model, RunEnd};

const HANDLER: u64 = 0x1_8000;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const FLUSH_CMD: u32 = 0x10b;
const ARCH_CAPABILITIES: u32 = 0x10a;

/// WRMSR of `write`, or RDMSR: what RDMSR gives afterwards (0 after a write), or `None` for #GP.
fn access(model: Model, index: u32, write: Option<u64>) -> Option<u64> {
    let mut rig = Rig::with_model(model);
    rig.gate(vector::GP, HANDLER, 0xe, 0, 0);
    rig.code_at(HANDLER, |a| a.hlt().unwrap());
    rig.code(|a| {
        a.mov(ecx, index).unwrap();
        match write {
            Some(value) => {
                a.mov(eax, value as u32).unwrap();
                a.mov(edx, (value >> 32) as u32).unwrap();
                a.wrmsr().unwrap();
                a.xor(eax, eax).unwrap();
            }
            None => a.rdmsr().unwrap(),
        }
        a.hlt().unwrap();
    });
    assert_eq!(rig.run(100), RunEnd::Asleep);
    let cpu = rig.cpu();
    (cpu.rip < HANDLER).then_some(cpu.gpr[0])
}

#[test]
fn each_bit_comes_with_its_feature() {
    let model = |features: &[Feature]| {
        let intel = Model::max_intel();
        let all =
            [Feature::SpecCtrl, Feature::Stibp, Feature::Ssbd, Feature::FlushL1d, Feature::ArchCapabilities];
        let none = all.iter().fold(*intel.features(), |set, feature| set.without(*feature));
        Model::new(intel.vendor(), none.with_all(features))
    };
    for (features, index, write, expected) in [
        (&[Feature::SpecCtrl][..], SPEC_CTRL, Some(1), Some(0)),
        (&[Feature::SpecCtrl], SPEC_CTRL, Some(2), None),
        (&[Feature::SpecCtrl, Feature::Stibp, Feature::Ssbd], SPEC_CTRL, Some(7), Some(0)),
        (&[Feature::SpecCtrl, Feature::Stibp, Feature::Ssbd], SPEC_CTRL, Some(8), None),
        (&[Feature::SpecCtrl], SPEC_CTRL, None, Some(0)),
        (&[], SPEC_CTRL, None, None),
        (&[Feature::SpecCtrl], PRED_CMD, Some(1), Some(0)),
        (&[Feature::SpecCtrl], PRED_CMD, Some(2), None),
        (&[Feature::SpecCtrl], PRED_CMD, None, None),
        (&[], PRED_CMD, Some(0), None),
        (&[Feature::FlushL1d], FLUSH_CMD, Some(1), Some(0)),
        (&[Feature::FlushL1d], FLUSH_CMD, None, None),
        (&[], FLUSH_CMD, Some(1), None),
        // RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO; and IBRS_ALL, with an IBRS to stay on.
        (&[Feature::ArchCapabilities], ARCH_CAPABILITIES, None, Some(0x179)),
        (&[Feature::ArchCapabilities, Feature::SpecCtrl], ARCH_CAPABILITIES, None, Some(0x17b)),
        (&[Feature::ArchCapabilities], ARCH_CAPABILITIES, Some(0), None),
        (&[], ARCH_CAPABILITIES, None, None),
    ] {
        assert_eq!(access(model(features), index, write), expected, "{features:?} {index:#x} {write:?}");
    }
    assert_eq!(access(Model::max_amd(), SPEC_CTRL, Some(7)), Some(0));
    assert_eq!(access(Model::max_amd(), 0x1a0, None), None, "IA32_MISC_ENABLE is Intel's");
}

//! VMX capabilities by flag: every control of the tables, and the single bits of IA32_VMX_BASIC, IA32_VMX_MISC and
//! IA32_VMX_EPT_VPID_CAP.

use rootmode_arch::cpuid::same_flag;
use rootmode_cpu::Model;
use rootmode_vmx::Control;
use rootmode_vmx::definitions::capabilities::{Basic, EptVpid, Misc};
use rootmode_vmx::definitions::controls::Word;
use rootmode_vmx::definitions::models::Model as Part;
use rootmode_vmx::drive::offered::{Offer, capabilities};

/// Something that the capability MSRs report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    Control(Control),
    /// A bit of IA32_VMX_BASIC.
    Basic(u8),
    /// A bit of IA32_VMX_MISC.
    Misc(u8),
    /// A bit of IA32_VMX_EPT_VPID_CAP.
    EptVpid(u8),
}

/// Every capability with its flag.
pub(super) fn all() -> impl Iterator<Item = (String, Capability)> {
    let controls = Word::ALL.into_iter().flat_map(|word| {
        word.rows().iter().map(move |row| {
            let flag = row.flag.map_or_else(|| control_flag(word, row.ident), str::to_owned);
            (flag, Capability::Control(Control { word, bit: row.bit }))
        })
    });
    let basic = Basic::TABLE.iter().map(|bit| {
        // QEMU's spelling of those that it knows.
        let own = match Basic(1 << bit.bit) {
            Basic::INS_OUTS_INFORMATION => "vmx-ins-outs".to_owned(),
            Basic::TRUE_CONTROLS => "vmx-true-ctls".to_owned(),
            Basic::ERROR_CODE_OPTIONAL => "vmx-any-errcode".to_owned(),
            _ => flag("vmx-", bit.name),
        };
        (own, Capability::Basic(bit.bit))
    });
    let misc = Misc::TABLE.iter().map(|bit| (flag("vmx-", bit.name), Capability::Misc(bit.bit)));
    let ept_vpid = EptVpid::TABLE.iter().map(|bit| {
        let front = if bit.name.starts_with("INV") { "vmx-" } else { "vmx-ept-" };
        (flag(front, bit.name), Capability::EptVpid(bit.bit))
    });
    controls.chain(basic).chain(misc).chain(ept_vpid)
}

/// `CONSTANT_NAME` as a flag.
fn flag(front: &str, name: &str) -> String {
    format!("{front}{}", name.to_ascii_lowercase().replace('_', "-"))
}

/// The flag that follows from a control's constant: QEMU says neither "enable" nor "use", and "exit" for "exiting".
fn control_flag(word: Word, ident: &str) -> String {
    let front = match word {
        Word::Exit | Word::SecondaryExit => "vmx-exit-",
        Word::Entry => "vmx-entry-",
        _ => "vmx-",
    };
    let name = ident.strip_prefix("ENABLE_").or_else(|| ident.strip_prefix("USE_")).unwrap_or(ident);
    flag(front, &name.replace("EXITING", "EXIT"))
}

/// The capability that command lines call `flag`.
pub(super) fn from_flag(flag: &str) -> Option<Capability> {
    all().find(|(own, _)| same_flag(own, flag)).map(|(_, capability)| capability)
}

impl Capability {
    /// `offer` with it, if it works, or without it.
    pub(super) fn set(self, mut offer: Offer, on: bool) -> Offer {
        match self {
            Self::Control(control) if on => offer = offer.with(control),
            Self::Control(control) => offer = offer.without(control),
            Self::Basic(bit) => {
                let bit = Basic(1 << bit);
                offer.basic = offer.basic.set(bit, on && Offer::FULL.basic.contains(bit));
            }
            Self::Misc(bit) => {
                let bit = Misc(1 << bit);
                offer.misc = offer.misc.set(bit, on && Offer::FULL.misc.contains(bit));
            }
            Self::EptVpid(bit) => {
                let bit = EptVpid(1 << bit);
                offer.ept_vpid = offer.ept_vpid.set(bit, on && Offer::FULL.ept_vpid.contains(bit));
            }
        }
        offer
    }

    /// Whether the capability MSRs of a processor of `model` that offers `offer` report it.
    pub(super) fn reported(self, offer: &Offer, model: &Model) -> bool {
        let all = capabilities(offer, model);
        match self {
            Self::Control(control) => all.supports(control) == Some(true),
            Self::Basic(bit) => all.basic().is_some_and(|basic| basic.contains(Basic(1 << bit))),
            Self::Misc(bit) => all.misc().is_some_and(|misc| misc.contains(Misc(1 << bit))),
            Self::EptVpid(bit) => all.ept_vpid().is_some_and(|ept_vpid| ept_vpid.contains(EptVpid(1 << bit))),
        }
    }

    /// Whether a real part reports it.
    pub(super) fn is_of(self, part: &Part) -> bool {
        match self {
            Self::Control(control) => part.has(control),
            Self::Basic(bit) => part.basic.contains(Basic(1 << bit)),
            Self::Misc(bit) => part.misc.contains(Misc(1 << bit)),
            Self::EptVpid(bit) => part.ept_vpid.contains(EptVpid(1 << bit)),
        }
    }
}

/// The flags of what a processor of `model` that offers `offer` reports.
pub(super) fn flags(offer: &Offer, model: &Model) -> Vec<String> {
    all().filter(|(_, capability)| capability.reported(offer, model)).map(|(flag, _)| flag).collect()
}

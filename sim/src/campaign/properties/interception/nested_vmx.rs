//! vmcs02's MSR bitmap: no MSR reaches L2 unless both hypervisors let it; L2's x2APIC accesses reach its own page.

use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::interception::{Access, Accesses, Configuration, Intercepts, Kernel};
use rootmode_models::kvm::nested::{NestedBitmap, VirtualApic, Vmcs12};
use rootmode_models::kvm::{Filter, Regressions};
use rootmode_vmx::bitmap::MsrBitmap;

use super::draw::{self, L1Memory, MapDraw, Pool};
use super::oracle::{self, VMX};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "vmx-nested-entry-history",
        about: "After any sequence of entries by an honest L1, vmcs02's bitmap is what L0, L1 and the virtual APIC demand.",
        source: "catalogue A4; P-A18",
        cost: 1,
        check: history,
    },
    Property {
        name: "vmx-l2-is-filtered-at-once",
        about: "A filter that changes while L2 runs holds for L2's next instruction.",
        source: "catalogue A3, M35; decision 1",
        cost: 1,
        check: filtered,
    },
];

const BASE: u64 = 0x30_0000;

/// The MSRs that L2 may reach if both let it (catalogue A4, step 5).
fn merged(kernel: Kernel) -> Vec<(u32, Access)> {
    let mut list: Vec<_> = [0xc000_0100, 0xc000_0101, 0xc000_0102, 0x48]
        .into_iter()
        .flat_map(|msr| Access::ALL.map(|access| (msr, access)))
        .collect();
    list.extend([(0x49, Access::Write), (0x10b, Access::Write)]);
    if kernel >= Kernel::V6_17 {
        list.extend([(0xe7, Access::Read), (0xe8, Access::Read)]);
    }
    list
}

/// The bitmap that the three demand, built from the descriptions.
fn expected(l0: &MapDraw, l1: &MapDraw, apic: VirtualApic, kernel: Kernel) -> Vec<u8> {
    let mut map = vec![0xff_u8; 4096];
    let mut open = |msr, access| {
        if let Some((byte, bit)) = oracle::vmx_position(msr, access) {
            map[byte] &= !(1 << bit);
        }
    };
    for (msr, access) in merged(kernel) {
        if !l0.intercepts(msr, access) && !l1.intercepts(msr, access) {
            open(msr, access);
        }
    }
    let mut own = Vec::new();
    if apic.x2apic {
        if apic.registers {
            own.extend((0x800..=0x8ff).map(|msr| (msr, Access::Read)));
        }
        own.extend([(0x808, Access::Read), (0x808, Access::Write)]);
        if apic.interrupts {
            own.extend([(0x80b, Access::Write), (0x83f, Access::Write)]);
        }
    }
    for (msr, access) in own {
        if !l1.intercepts(msr, access) {
            open(msr, access);
        }
    }
    map
}

fn apic(c: &mut dyn Choices) -> VirtualApic {
    let bits = c.choose(Site::State, 8);
    VirtualApic { x2apic: bits & 1 != 0, registers: bits & 2 != 0, interrupts: bits & 4 != 0 }
}

fn flip_l0(
    c: &mut dyn Choices,
    pool: &Pool,
    config: &Configuration,
    map: &mut MapDraw,
    vcpu: &mut Intercepts<MsrBitmap>,
) -> String {
    let (msr, access) = (pool.msr(c), draw::access(c));
    let only = if access == Access::Read { Accesses::R } else { Accesses::W };
    let was_open = map.toggle((msr, access));
    vcpu.set_intercept(config, &Filter::off(), msr, only, was_open);
    format!("L0 {} {access} of {}", if was_open { "intercepts" } else { "passes through" }, oracle::name(msr))
}

fn history(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let kernel = Kernel::ALL[3 - c.choose(Site::State, 4) as usize];
    let config = Configuration { regressions: bugs, kernel, ..Configuration::plain(Vendor::Intel) };
    let pool = Pool::draw(c);
    let mut vcpu = Intercepts::closed();
    let mut l0 = MapDraw { fill: true, flipped: Vec::new() };
    for _ in 0..c.choose(Site::State, 5) {
        flip_l0(c, &pool, &config, &mut l0, &mut vcpu);
    }
    let mut l1 = pool.map(c);
    let mut vmcs12 = Vmcs12 {
        use_bitmaps: true,
        bitmap: BASE,
        apic: apic(c),
        enlightened: c.flip(Site::Swarm),
        clean: false,
    };
    let mut nested = NestedBitmap::default();
    let mut steps: Vec<String> = Vec::new();
    let mut changed = true;
    for _ in 0..=c.choose(Site::Sequence, 3) {
        match c.choose(Site::Sequence, 6) {
            1 => {
                vmcs12.apic = apic(c);
                changed = true;
                steps.push(format!("L1 sets {:?}", vmcs12.apic));
            }
            2 => {
                let (msr, access) = (pool.msr(c), draw::access(c));
                l1.toggle((msr, access));
                changed = true;
                steps.push(format!("L1 flips {access} of {}", oracle::name(msr)));
            }
            3 => steps.push(flip_l0(c, &pool, &config, &mut l0, &mut vcpu)),
            4 => {
                vmcs12.use_bitmaps = !vmcs12.use_bitmaps;
                changed = true;
                steps.push(format!("L1 sets \"use MSR bitmaps\" to {}", vmcs12.use_bitmaps));
            }
            _ => {}
        }
        let hole = (c.choose(Site::Fault, 12) == 11).then_some(BASE + 100);
        vmcs12.clean = !changed && c.choose(Site::State, 4) != 3;
        let mut memory = L1Memory {
            base: BASE,
            size: 4096,
            map: &l1,
            layout: oracle::vmx_position,
            hole,
            reads: Vec::new(),
        };
        let in_use = nested.prepare(&mut vcpu, &vmcs12, kernel, &mut memory, bugs);
        let failed = hole.is_some() && !memory.reads.is_empty();
        changed = failed || !vmcs12.use_bitmaps;
        steps.push(format!("entry, clean bit {}: bitmap in use {in_use}", vmcs12.clean));
        let describe = |e: Counterexample| -> Verdict {
            let e = e.with("L1's bitmap", format!("all {}, but {:x?}", u8::from(l1.fill), l1.flipped));
            steps.iter().enumerate().fold(e, |e, (n, s)| e.with(format!("step {}", n + 1), s)).into()
        };
        let due = vmcs12.use_bitmaps && !failed;
        if in_use != due {
            return describe(Counterexample::new(format!("L2 runs with a bitmap: {in_use}; expected {due}")));
        }
        if !in_use {
            continue;
        }
        let map = expected(&l0, &l1, vmcs12.apic, kernel);
        if let Some((msr, access)) = VMX.first_difference(nested.map.as_page(), &map) {
            let position = oracle::vmx_position(msr, access);
            let exits = oracle::exits(nested.map.as_page(), position);
            let verb = if exits { "exits, and should not" } else { "does not exit, and should" };
            return describe(
                Counterexample::new(format!("{access} of {} by L2 {verb}", oracle::name(msr)))
                    .with("where", oracle::place(position))
                    .with("L0 passes through", format!("{:x?}", l0.flipped))
                    .with("L1's virtual APIC", format!("{:?}", vmcs12.apic)),
            );
        }
    }
    Verdict::Holds
}

fn filtered(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let config = Configuration { regressions: bugs, spec_ctrl: 1, ..Configuration::plain(Vendor::Intel) };
    let mut vcpu = Intercepts::<MsrBitmap>::closed();
    vcpu.recalculate(&config, &Filter::off(), rootmode_models::kvm::interception::Cause::Created);
    let l1 = MapDraw { fill: false, flipped: Vec::new() };
    let vmcs12 = Vmcs12 { use_bitmaps: true, bitmap: BASE, apic: apic(c), ..Vmcs12::default() };
    let mut memory = L1Memory {
        base: BASE,
        size: 4096,
        map: &l1,
        layout: oracle::vmx_position,
        hole: None,
        reads: Vec::new(),
    };
    let mut nested = NestedBitmap::default();
    nested.prepare(&mut vcpu, &vmcs12, config.kernel, &mut memory, bugs);
    let filter = draw::filter(c);
    vcpu.recalculation_requested = true;
    if vcpu.before_entry(&config, &filter.build()) {
        nested.tighten(&vcpu, bugs);
    }
    for _ in 0..4 {
        let (msr, access) = (draw::named_msr(c), draw::access(c));
        let exits = oracle::exits(nested.map.as_page(), oracle::vmx_position(msr, access));
        if !exits && !oracle::allows(&filter, msr, access) {
            return Counterexample::new(format!(
                "a filter denies {access} of {} while L2 runs, and L2 still does it without an exit",
                oracle::name(msr)
            ))
            .with("filter", format!("{filter:x?}"))
            .into();
        }
    }
    Verdict::Holds
}

//! Random SVM views.

use super::draw::{Draw, Mode};
use rootmode_arch::{Cr0, EventClass, RFlags};
use rootmode_svm::decide::{Controls, IpiOutcome, PauseFilter, State, Traits};
use rootmode_svm::encode::IpiFailure;
use rootmode_svm::vmcb::{IntCtl, NestedControl, VirtExt};
use rootmode_svm::{Intercepts, PermissionMaps};

/// Permission maps whose bits are a function of a seed: nothing is filled in advance.
#[derive(Clone, Copy, Debug)]
pub struct HashedMaps {
    seed: u64,
    /// 0: all zeros, 1: all ones, 2: sparse, else even.
    density: u64,
}

impl HashedMaps {
    fn bit(self, map: u64, bit: u32) -> bool {
        let mut draw = Draw::new(self.seed ^ map << 40 ^ u64::from(bit) << 8);
        match self.density {
            0 => false,
            1 => true,
            2 => draw.one_in(8),
            _ => draw.one_in(2),
        }
    }
}

impl PermissionMaps for HashedMaps {
    fn msrpm(&self, bit: u32) -> bool {
        assert!(bit < 0xc000, "bit {bit} lies beyond the three ranges");
        self.bit(1, bit)
    }
    fn iopm(&self, bit: u32) -> bool {
        assert!(bit < 0x1_0003, "bit {bit} lies beyond the last port");
        self.bit(2, bit)
    }
}

/// What a view borrows.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Controls.
    pub controls: Controls,
    /// State.
    pub state: State,
    /// Maps.
    pub maps: HashedMaps,
}

/// A random view, and what the operands of an event should be near to.
pub fn case(draw: &mut Draw, _: EventClass) -> (Case, Mode) {
    let long = draw.one_in(2);
    let protected = long || !draw.one_in(4);
    let traits = Traits {
        decode_assists: draw.one_in(2),
        nrip_save: draw.one_in(2),
        pause_filter: draw.one_in(2),
        pause_filter_threshold: draw.one_in(2),
        avic: draw.one_in(2),
        // No decision depends on it.
        x2avic: false,
        virtual_vmload: draw.one_in(2),
        // Read-only guest page tables change what a nested page fault reports about table walks: not drawn.
        read_only_tables: false,
        extended_lvt: draw.one_in(2),
        sev: draw.one_in(2),
        host_64_bit: draw.one_in(2),
        smm_locked: draw.one_in(2),
    };
    let controls = Controls {
        intercepts: Intercepts(std::array::from_fn(|_| draw.word() as u32)),
        int_ctl: IntCtl(draw.word() as u32),
        nested: NestedControl(draw.word() & 0b111),
        virt_ext: VirtExt(draw.word() & 0b11),
        pause_filter_count: draw.below(3) as u16,
        pause_filter_threshold: (draw.below(3) * draw.below(1500)) as u16,
        sev_features: draw.word() & 0x1_003f,
        traits,
    };
    let paused = draw.below(3000);
    let mut failures = [None; 7];
    for (failure, cause) in failures.iter_mut().zip(IpiFailure::ALL) {
        *failure = Some(cause);
    }
    let state = State {
        cr0: Cr0(draw.bits() & !1 | u64::from(protected)),
        rflags: RFlags(draw.word() | 2),
        next_rip: draw.bits(),
        address_size: draw.of(if long { &[4, 8] } else { &[2, 4] }),
        pause: PauseFilter {
            left: draw.below(3) as u16,
            last: (!draw.one_in(4)).then_some(998_500 + paused),
        },
        bus_lock_counter: draw.below(2) as u16,
        virtual_interrupt_pending: draw.one_in(2),
        invlpgb_illegal: draw.one_in(2),
        ipi: IpiOutcome {
            icr: draw.bits(),
            failure: failures[draw.below(7) as usize],
            index: draw.below(0x1000) as u16,
        },
    };
    let maps = HashedMaps { seed: draw.bits(), density: draw.below(5) };
    let mode = Mode { protected, long, near: [state.cr0.0; 8], all_registers: true };
    (Case { controls, state, maps }, mode)
}

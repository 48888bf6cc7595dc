//! The processor's part of the machine's digest.

use super::{BranchRecords, ControlFlow, Cpu, RESET_BASE};
use rootmode_mmu::{Digest, PagingMode};

impl Cpu {
    /// Adds everything that software can observe to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&self.gpr);
        digest.all(&[self.rip, self.saved_flags().0, u64::from(self.cpl), self.activity as u64, self.tick]);
        let bits = [self.sti_shadow, self.mov_ss_shadow, self.nmi_blocked].map(u64::from);
        digest.all(&bits);
        for segment in &self.segments {
            let rights = u64::from(segment.rights.0) | u64::from(segment.limit) << 32;
            digest.all(&[u64::from(segment.selector.0), rights, segment.base]);
        }
        digest.all(&[
            self.cr0.0,
            self.cr2,
            self.cr3.0,
            self.cr4.0,
            u64::from(self.cr8()),
            self.efer.0,
            self.xcr0,
            self.xss,
        ]);
        self.vectors.digest(digest);
        digest.all(&self.dr);
        let keys = u64::from(self.pkru) | u64::from(self.pkrs) << 32;
        digest.all(&[self.dr6, self.dr7, keys, self.pending_debug]);
        if self.paging.mode == PagingMode::Pae {
            digest.all(&self.pdptes);
        }
        for table in [self.gdtr, self.idtr] {
            digest.all(&[table.base, u64::from(table.limit)]);
        }
        digest.all(&self.msrs.values());
        self.apic.digest(digest);
        self.interrupts.digest(digest);
        for delivery in [self.delivering, self.injected] {
            match delivery {
                None => digest.u64(0),
                Some(d) => {
                    let code = d.error_code.map_or(0, |code| 1 << 32 | u64::from(code));
                    let rip = d.return_rip.map_or([0, 0], |rip| [1, rip]);
                    let kind = u64::from(d.vector)
                        | (d.kind as u64) << 8
                        | u64::from(d.length) << 16
                        | 1 << 24
                        | u64::from(d.blocks_nmis) << 25
                        | u64::from(d.resumes) << 26;
                    digest.all(&[kind, code, rip[0], rip[1], d.detail]);
                }
            }
        }
        if self.control_flow != ControlFlow::default() {
            let flow = &self.control_flow;
            digest.all(&[flow.user, flow.supervisor, flow.ssp, flow.table]);
            digest.all(&flow.levels);
        }
        if self.smm || self.smbase != RESET_BASE {
            digest.all(&[u64::from(self.smm), u64::from(self.smbase)]);
        }
        if self.branches != BranchRecords::default() {
            digest.all(&self.branches.values());
        }
        self.monitor.digest(digest);
        self.machine_check.digest(digest);
        self.memory_types.digest(digest);
        self.settled_counters().digest(digest);
        digest.u64(self.clocks());
        let tag = self.tag;
        digest.all(&[u64::from(tag.space), u64::from(tag.pcid), tag.root]);
        digest.all(&[self.published.tsc_offset, u64::from(self.published.guest)]);
        if let Some(log) = self.published.modification_log {
            digest.u64(log.index.into());
        }
        self.tlb.digest(digest);
    }
}

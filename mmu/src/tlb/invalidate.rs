//! What invalidates cached translations (SDM Vol. 3A "Invalidation of TLBs and Paging-Structure Caches",
//! Vol. 3C "Operations That Invalidate Cached Mappings"; APM Vol. 2 "TLB Management", "TLB Control").

use super::{Entry, Tlb};
use rootmode_arch::{HostPhysical, Linear};

impl Tlb {
    fn drop_if(&mut self, mut stale: impl FnMut(&Entry) -> bool) {
        for word in 0..self.live.len() {
            let mut left = self.live[word];
            while left != 0 {
                let index = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                if self.entries[index].as_ref().is_some_and(&mut stale) {
                    self.clear(index);
                }
            }
        }
        self.micro.clear();
    }

    /// Everything, of every address space.
    pub fn flush_all(&mut self) {
        self.drop_if(|_| true);
    }

    /// INVLPG: the page of `linear` in address space `space` for `pcid`, and global ones of any PCID. Every split piece of
    /// a large page goes.
    pub fn flush_page(&mut self, space: u32, pcid: u16, linear: Linear) {
        self.drop_if(|e| e.tag.space == space && (e.tag.pcid == pcid || e.rights.global) && e.covers(linear));
    }

    /// INVPCID type 0: like [`Self::flush_page`], but global translations stay.
    pub fn flush_page_of_pcid(&mut self, space: u32, pcid: u16, linear: Linear) {
        self.drop_if(|e| e.tag.space == space && e.tag.pcid == pcid && !e.rights.global && e.covers(linear));
    }

    /// MOV to CR3, INVPCID type 1: all non-global translations of `space` for `pcid`.
    pub fn flush_pcid(&mut self, space: u32, pcid: u16) {
        self.drop_if(|e| e.tag.space == space && e.tag.pcid == pcid && !e.rights.global);
    }

    /// INVPCID type 3: all non-global translations of `space`.
    pub fn flush_non_global(&mut self, space: u32) {
        self.drop_if(|e| e.tag.space == space && !e.rights.global);
    }

    /// INVPCID type 2, INVVPID type 1, flush of one ASID: everything of `space`.
    pub fn flush_space(&mut self, space: u32) {
        self.drop_if(|e| e.tag.space == space);
    }

    /// INVVPID type 2: everything of every VPID but 0.
    pub fn flush_all_but_host(&mut self) {
        self.drop_if(|e| e.tag.space != 0);
    }

    /// INVVPID type 0: the page of `linear` in `space`, whatever its PCID.
    pub fn flush_page_of_space(&mut self, space: u32, linear: Linear) {
        self.drop_if(|e| e.tag.space == space && e.covers(linear));
    }

    /// INVVPID type 3: `space`, except global translations.
    pub fn flush_space_but_global(&mut self, space: u32) {
        self.flush_non_global(space);
    }

    /// INVEPT type 1: everything that came through the second stage rooted at `root`.
    pub fn flush_root(&mut self, root: HostPhysical) {
        self.drop_if(|e| e.tag.root == root.0 | 1);
    }

    /// INVEPT type 2: everything that came through any second stage.
    pub fn flush_all_roots(&mut self) {
        self.drop_if(|e| e.tag.root != 0);
    }

    /// Everything that leads to the host-physical page of `host`: its meaning changed (a watch, an MMIO window, APIC base).
    pub fn flush_host_page(&mut self, host: HostPhysical) {
        self.drop_if(|e| e.host == host.page_base().0);
    }

    /// The entry for exactly this page and tag: a page fault or a refused access drops it.
    pub fn drop_entry(&mut self, tag: super::Tag, linear: Linear) {
        self.drop_if_in_set(linear, |e| e.page == linear.page_number() && e.matches(tag));
    }

    fn drop_if_in_set(&mut self, linear: Linear, mut stale: impl FnMut(&Entry) -> bool) {
        let first = Self::set(linear.page_number()) * super::WAYS;
        for index in first..first + super::WAYS {
            if self.entries[index].as_ref().is_some_and(&mut stale) {
                self.clear(index);
            }
        }
        self.micro.drop_page(linear.page_number());
    }
}

impl Entry {
    /// Whether the guest page that the entry was split from contains `linear`.
    fn covers(&self, linear: Linear) -> bool {
        self.page << 12 >> self.guest_shift == linear.0 >> self.guest_shift
    }
}

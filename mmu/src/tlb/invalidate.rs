//! What invalidates cached translations (SDM Vol. 3A "Invalidation of TLBs and Paging-Structure Caches",
//! Vol. 3C "Operations That Invalidate Cached Mappings"; APM Vol. 2 "TLB Management", "TLB Control").

use super::{Entry, Tlb};
use rootmode_arch::{HostPhysical, Linear};

impl Tlb {
    fn drop_if(&mut self, stale: impl Fn(&Entry) -> bool) {
        let mut from = 0;
        while let Some(at) = self.live.next(from) {
            if stale(&self.entries[at]) {
                self.clear(at);
            }
            from = at + 1;
        }
        self.micro.clear();
    }

    /// Of the translations of `linear`, in its set or split from a larger page around it.
    fn drop_page_if(&mut self, linear: Linear, stale: impl Fn(&Entry) -> bool) {
        let page = linear.page_number();
        let first = Self::first(page);
        for at in first..first + super::WAYS {
            if self.pages[at] == page && stale(&self.entries[at]) {
                self.clear(at);
            }
        }
        self.micro.drop_page(page);
        let mut from = 0;
        while let Some(at) = self.pieces.next(from, linear.page_number()) {
            let page = self.pages[at];
            if stale(&self.entries[at]) && self.entries[at].covers(page, linear) {
                self.clear(at);
                self.micro.drop_page(page);
            }
            from = at + 1;
        }
        self.micro.code_lost = true;
    }

    /// Everything, of every address space.
    pub fn flush_all(&mut self) {
        self.drop_if(|_| true);
    }

    /// INVLPG: the page of `linear` in address space `space` for `pcid`, and global ones of any PCID. Every split piece of
    /// a large page goes.
    pub fn flush_page(&mut self, space: u32, pcid: u16, linear: Linear) {
        self.drop_page_if(linear, |e| e.tag.space == space && (e.tag.pcid == pcid || e.rights.global));
    }

    /// INVPCID type 0: like [`Self::flush_page`], but global translations stay.
    pub fn flush_page_of_pcid(&mut self, space: u32, pcid: u16, linear: Linear) {
        self.drop_page_if(linear, |e| e.tag.space == space && e.tag.pcid == pcid && !e.rights.global);
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
        self.drop_page_if(linear, |e| e.tag.space == space);
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
        let page = linear.page_number();
        if let Some(at) = self.place(tag, page) {
            self.clear(at);
        }
        self.micro.drop_page(page);
    }
}

impl Entry {
    /// Whether the guest page that the entry was split from contains `linear`; `page` is the entry's own.
    const fn covers(&self, page: u64, linear: Linear) -> bool {
        page << 12 >> self.guest_shift == linear.0 >> self.guest_shift
    }
}

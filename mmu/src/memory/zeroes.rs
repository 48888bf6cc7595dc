//! [`Zeroes`]: a large array of bytes that costs nothing until it is written.

use memmap2::MmapMut;

/// From here on the host is asked for its large pages: a guest that jumps about in much RAM misses the host's own TLB else.
#[cfg(target_os = "linux")]
const LARGE: usize = 64 << 20;

/// An array of bytes, zero until written, of pages that the host gives when they are touched.
#[derive(Debug)]
pub(super) struct Zeroes(MmapMut);

impl Zeroes {
    /// `bytes` zeroes. `None`: the host has no room for them.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let map = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            // Only a hint: a host without large pages is slower, not wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Some(Self(map))
    }
}

impl Default for Zeroes {
    fn default() -> Self {
        Self::new(0).expect("a host that runs this program has room for a page")
    }
}

impl std::ops::Deref for Zeroes {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Zeroes {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

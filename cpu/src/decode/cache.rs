//! Decoded basic blocks, cached by host-physical address.
//!
//! A block never crosses a page. The lines that it was decoded from are marked as code; a store to one of them raises the page's
//! code version, and a block of another version is stale. Which blocks are cached is not observable.

use super::{CodeMode, Decoded, decode, resolve};
use rootmode_arch::{FeatureSet, HostPhysical};
use rootmode_mmu::{PhysicalMemory, Watch};

const SLOTS: usize = 4096;
/// Instructions a block holds at most.
const LONGEST: usize = 32;

/// A decoded basic block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    start: HostPhysical,
    version: u32,
    mode: CodeMode,
    /// Its instructions, in order.
    pub(crate) instructions: Box<[Decoded]>,
}

/// A direct-mapped cache of blocks.
#[derive(Clone, Debug)]
pub(crate) struct BlockCache {
    slots: Vec<Option<Block>>,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS] }
    }
}

impl BlockCache {
    /// The block at `start`, decoded now if it is not cached or stale.
    /// `None`: its first instruction crosses into the next page.
    #[inline]
    pub(crate) fn block(
        &mut self,
        memory: &mut PhysicalMemory,
        start: HostPhysical,
        mode: CodeMode,
        features: &FeatureSet,
    ) -> Option<&Block> {
        let slot = (start.0 ^ start.0 >> 12) as usize & (SLOTS - 1);
        let version = memory.code_version(start);
        let valid = self.slots[slot]
            .as_ref()
            .is_some_and(|b| b.start == start && b.version == version && b.mode == mode);
        if !valid {
            self.slots[slot] = Some(build(memory, start, version, mode, features)?);
        }
        self.slots[slot].as_ref()
    }
}

#[cold]
fn build(
    memory: &mut PhysicalMemory,
    start: HostPhysical,
    version: u32,
    mode: CodeMode,
    features: &FeatureSet,
) -> Option<Block> {
    let mut page = [0; 4096];
    let bytes = &mut page[start.page_offset() as usize..];
    memory.read(start, bytes);
    let mut instructions = Vec::new();
    let mut at = 0;
    while instructions.len() < LONGEST {
        let Some(instruction) = decode(&bytes[at..], mode) else { break };
        let decoded = resolve(&instruction, &bytes[at..], mode, features);
        at += usize::from(decoded.current.length);
        instructions.push(decoded);
        if decoded.ends_block || at >= bytes.len() {
            break;
        }
    }
    if instructions.is_empty() {
        return None;
    }
    memory.watch(start, at as u64, Watch::CODE);
    Some(Block { start, version, mode, instructions: instructions.into() })
}

//! Physical memory, hardware page walkers, TLBs.

//! Tensors come and go at every node; the C library should keep their memory instead of returning it to the system,
//! which would hand out zeroed pages again at every node (a fifth of the time of a training step).

use std::hint::black_box;
use std::sync::Once;

/// Just below the largest block whose release teaches glibc anything (32 MiB on 64-bit machines).
const LESSON: usize = (32 << 20) - (64 << 10);

/// Teaches glibc's malloc to keep freed memory. Releasing a block that was mapped from the system raises the size from
/// which blocks are mapped to that block's size, and the free memory kept at the end of a heap to twice that (`mallopt`
/// manual page, "dynamic mmap threshold"). Other C libraries learn nothing and lose nothing: the block is never touched.
pub(crate) fn keep_freed() {
    static TAUGHT: Once = Once::new();
    TAUGHT.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LESSON))));
}

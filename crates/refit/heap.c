/* Activations of 224×224 images are tensors of some 25 MB. They are freed layer by layer, but below glibc's largest
   threshold of its own, 32 MB, they stay in its heaps. Whatever is larger than this goes back to the system at once; the
   other stages use such tensors again and again, and would lose a tenth of their speed. */
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>

__attribute__((constructor)) static void give_back(void) {
    if (!getenv("MALLOC_MMAP_THRESHOLD_") && !getenv("GLIBC_TUNABLES"))
        mallopt(M_MMAP_THRESHOLD, 16 << 20);
}
#endif

/* Activations of 224×224 images are tensors of 6 to 26 MB, which are freed layer by layer. glibc keeps such in its heaps,
   one for every thread. Here what is larger than 7 MiB goes back to the system at once, the rest lies in one heap (a pair
   of ResNet-50s on 256 images: 3.97 GiB, with a heap for every thread 4.08), and 32 MiB of its free end stay for what comes
   next. The other stages use such tensors again and again, and would lose a tenth of their speed. */
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>

__attribute__((constructor)) static void give_back(void) {
    if (getenv("MALLOC_MMAP_THRESHOLD_") || getenv("GLIBC_TUNABLES"))
        return;
    mallopt(M_MMAP_THRESHOLD, 7 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
    mallopt(M_ARENA_MAX, 1);
}
#endif

#pragma once
// The one macro of the sources: a function that host and device code both compile.
// Internal linkage and forced inlining keep it out of the symbol table, so the copy that was compiled for
// AVX-512 can never be linked into the baseline kernels.
#ifdef __CUDACC__
#define HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define HOST_DEVICE static inline __attribute__((always_inline))
#endif

#pragma once
// HOST_DEVICE: a function that host and device code both compile.
// Internal linkage and forced inlining keep it out of the symbol table, so the copy that was compiled for
// AVX-512 can never be linked into the baseline kernels.
// UNROLL: the loop that follows has a constant, small number of rounds and indexes registers.
// NO_UNROLL: the loop that follows would cost registers that a kernel does not have.
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define UNROLL _Pragma("GCC unroll 32")
#define NO_UNROLL
#define HOST_DEVICE static inline __attribute__((always_inline))
#endif

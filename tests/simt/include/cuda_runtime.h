#pragma once
// What CUDA gives to kernels and to the code that launches them, for g++: found before the real header when the
// kernels are compiled for the CPU. A kernel that needs more of CUDA than is here gets it added here.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt.h"

// What is registered for CUDA becomes a CPU kernel. (The build renames the library: -Dpyaction=pyaction_simt.)
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, key, m) _STABLE_TORCH_LIBRARY_IMPL(ns, CPU, m, C10_UID)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Shared memory is all that is thread-local in the library, so that its linker puts it in one piece (emulator.cpp).
// One block runs at a time.
#define __shared__ static thread_local

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {
  }
};

struct uint3 {
  unsigned x, y, z;
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define SIMT_VECTORS(scalar_t, name)                                              \
  struct alignas(2 * sizeof(scalar_t)) name##2 {                                  \
    scalar_t x, y;                                                                \
  };                                                                              \
  struct alignas(16) name##4 {                                                    \
    scalar_t x, y, z, w;                                                          \
  };                                                                              \
  inline name##2 make_##name##2(scalar_t x, scalar_t y) {                         \
    return {x, y};                                                                \
  }                                                                               \
  inline name##4 make_##name##4(scalar_t x, scalar_t y, scalar_t z, scalar_t w) { \
    return {x, y, z, w};                                                          \
  }
SIMT_VECTORS(float, float)
SIMT_VECTORS(double, double)
SIMT_VECTORS(int, int)
SIMT_VECTORS(unsigned, uint)

// --- numbers ---------------------------------------------------------------------------------------------
// As on a GPU, the smaller of a number and NaN is the number.
template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
  }
}

template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
  }
}

inline float rsqrtf(float value) {
  return 1.0f / std::sqrt(value);
}

inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}

inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}

// --- atomics: a thread is only interrupted at barriers ---------------------------------------------------
template <typename T, typename Update>
T simt_atomic(T* address, Update update) {
  const T before = *address;
  *address = update(before);
  return before;
}

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  return simt_atomic(address, [&](T before) { return static_cast<T>(before + value); });
}

template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return simt_atomic(address, [&](T before) { return min(before, value); });
}

template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return simt_atomic(address, [&](T before) { return max(before, value); });
}

template <typename T>
T atomicExch(T* address, std::common_type_t<T> value) {
  return simt_atomic(address, [&](T) { return value; });
}

template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return simt_atomic(address, [&](T before) { return before == expected ? value : before; });
}

// --- barriers, shuffles, votes -----------------------------------------------------------------------------
inline void __syncthreads(simt::Place place = simt::Place()) {
  simt::sync_block(false, place);
}

inline int __syncthreads_count(int predicate, simt::Place place = simt::Place()) {
  return simt::sync_block(predicate != 0, place);
}

inline int __syncthreads_or(int predicate, simt::Place place = simt::Place()) {
  return simt::sync_block(predicate != 0, place) > 0;
}

inline int __syncthreads_and(int predicate, simt::Place place = simt::Place()) {
  return simt::sync_block(predicate == 0, place) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Place place = simt::Place()) {
  simt::exchange(mask, 0, "__syncwarp", place);
}

// The value of lane `source`, among the lanes that take part with one mask.
template <typename T>
T simt_shuffle(unsigned mask, T value, int source, const char* operation, simt::Place place) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves 8 bytes at most");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const simt::Lanes& lanes = simt::exchange(mask, bits, operation, place);
  std::memcpy(&value, &lanes[source], sizeof(T));
  return value;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, simt::Place place = simt::Place()) {
  const int first = simt::lane() & ~(width - 1);
  return simt_shuffle(mask, value, first + (source & (width - 1)), "__shfl_sync", place);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, simt::Place place = simt::Place()) {
  const int lane = simt::lane(), source = lane - static_cast<int>(delta);
  return simt_shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, "__shfl_up_sync", place);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, simt::Place place = simt::Place()) {
  const int lane = simt::lane(), source = lane + static_cast<int>(delta);
  return simt_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, "__shfl_down_sync", place);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int flips, int width = warpSize, simt::Place place = simt::Place()) {
  const int lane = simt::lane(), source = lane ^ flips;
  return simt_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, "__shfl_xor_sync", place);
}

inline unsigned simt_ballot(unsigned mask, bool predicate, const char* operation, simt::Place place) {
  const simt::Lanes& lanes = simt::exchange(mask, predicate ? 1 : 0, operation, place);
  unsigned ballot = 0;
  for (int i = 0; i < warpSize; ++i) {
    ballot |= lanes[i] == 1 ? 1u << i : 0u;
  }
  return ballot;
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Place place = simt::Place()) {
  return simt_ballot(mask, predicate != 0, "__ballot_sync", place);
}

inline int __any_sync(unsigned mask, int predicate, simt::Place place = simt::Place()) {
  return simt_ballot(mask, predicate != 0, "__any_sync", place) != 0;
}

inline int __all_sync(unsigned mask, int predicate, simt::Place place = simt::Place()) {
  return simt_ballot(mask, predicate == 0, "__all_sync", place) == 0;
}

// --- launches: everything on a stream happens at once ------------------------------------------------------
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorLaunchFailure };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

inline cudaError_t cudaGetLastError() {
  return simt::take_error() ? cudaErrorLaunchFailure : cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : simt::error_text();
}

inline cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(target, source, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t) {
  std::memset(target, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}

namespace simt {

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), as the build spells it: launch(kernel, grid, ...)(...).
template <typename... Parameters>
auto launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes = 0, cudaStream_t = nullptr) {
  return [=](Parameters... arguments) { run(grid, block, shared_bytes, [&] { kernel(arguments...); }); };
}

} // namespace simt

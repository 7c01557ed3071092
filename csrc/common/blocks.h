#pragma once
// Rows of numbers, a register at a time.
#include "common/vec.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename scalar_t>
struct BlockOf {
  using type = scalar_t; // double is there to check gradients with: one number at a time
};

template <>
struct BlockOf<float> {
  using type = Vec;
};

template <typename Block>
constexpr int kLanesOf = 1;

template <>
constexpr int kLanesOf<Vec> = kLanes;

// Calls body(zero, first) until all of [0, size) is done. `zero` is of the type to work in: a register, the last of
// which may overlap its neighbour (so body must not add to what it finds), or one number in rows shorter than that.
template <typename scalar_t, typename Block = typename BlockOf<scalar_t>::type, typename Body>
HOST_DEVICE void for_each_block(int size, const Body& body) {
  constexpr int kWidth = sizeof(Block) / sizeof(scalar_t);
  if (size < kWidth) {
    for (int first = 0; first < size; ++first) {
      body(scalar_t(0), first);
    }
    return;
  }
  for (int first = 0; first < size; first += kWidth) {
    body(Block{}, first + kWidth <= size ? first : size - kWidth);
  }
}

// What follows serves registers and numbers under one name.
HOST_DEVICE float lane_of(Vec block, int i) {
  return block.lanes[i];
}

template <typename scalar_t>
HOST_DEVICE scalar_t lane_of(scalar_t block, int) {
  return block;
}

HOST_DEVICE void load_block(const float* address, Vec& block) {
  block = load(address);
}

template <typename scalar_t>
HOST_DEVICE void load_block(const scalar_t* address, scalar_t& block) {
  block = *address;
}

template <typename scalar_t>
HOST_DEVICE void store(scalar_t* address, scalar_t block) {
  *address = block;
}

// first, first + 1, ...
HOST_DEVICE Vec counting_from(int first, Vec) {
  return counting() + Vec(static_cast<float>(first));
}

template <typename scalar_t>
HOST_DEVICE scalar_t counting_from(int first, scalar_t) {
  return static_cast<scalar_t>(first);
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction

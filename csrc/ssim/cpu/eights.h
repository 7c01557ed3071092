#pragma once
// The patches of paper 002, 8 x 8 pixels side by side, whose pixels stay in registers: each is read once.
#include "ssim/cpu/patches.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

constexpr int kEight = 8;

// As many whole patches as a register is wide, or a patch in several registers.
template <typename scalar_t, int kBytes>
struct Eights {
  using Lanes = typename Register<scalar_t, kBytes>::type;
  static constexpr int kRegisterLanes = kBytes / sizeof(scalar_t);
  static constexpr int kWidth = kRegisterLanes > kEight ? kRegisterLanes : kEight;
  static constexpr int kRegisters = kWidth / kRegisterLanes, kPatches = kWidth / kEight;
};

// Each lane plus the one `distance` away, in pairs.
template <int distance, typename Lanes>
HOST_DEVICE Lanes add_pairs(const Lanes& lanes) {
  constexpr int kCount = sizeof(Lanes) / sizeof(lanes[0]);
#if defined(__clang__)
  Lanes swapped = lanes;
  UNROLL
  for (int i = 0; i < kCount; ++i) {
    swapped[i] = lanes[i ^ distance];
  }
#else
  decltype(lanes < lanes) index = {};
  UNROLL
  for (int i = 0; i < kCount; ++i) {
    index[i] = i ^ distance;
  }
  const Lanes swapped = __builtin_shuffle(lanes, index);
#endif
  return lanes + swapped;
}

// The sum over each patch's columns, in all of its lanes. `sums`: of each column.
template <typename Shape, typename Lanes = typename Shape::Lanes>
HOST_DEVICE Lanes join_eights(const Lanes* sums) {
  Lanes sum = sums[0];
  UNROLL
  for (int i = 1; i < Shape::kRegisters; ++i) {
    sum += sums[i];
  }
  if constexpr (Shape::kRegisterLanes >= 2) {
    sum = add_pairs<1>(sum);
  }
  if constexpr (Shape::kRegisterLanes >= 4) {
    sum = add_pairs<2>(sum);
  }
  if constexpr (Shape::kRegisterLanes >= 8) {
    sum = add_pairs<4>(sum);
  }
  return sum;
}

// Calls body(shape, first) for blocks of whole patches in a row of them; the last may overlap its neighbour.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_eights(int map_width, const Body& body) {
  using Wide = Eights<scalar_t, kVectorBytes>;
  constexpr int kPatchBytes = kEight * static_cast<int>(sizeof(scalar_t));
  constexpr int kNarrowBytes = kPatchBytes < kVectorBytes ? kPatchBytes : kVectorBytes;
  using Narrow = Eights<scalar_t, kNarrowBytes>;
  const int width = map_width * kEight;
  if (width < Wide::kWidth) {
    for (int first = 0; first < width; first += Narrow::kWidth) {
      body(Narrow{}, first);
    }
    return;
  }
  for (int first = 0; first < width; first += Wide::kWidth) {
    body(Wide{}, first + Wide::kWidth <= width ? first : width - Wide::kWidth);
  }
}

// `across`: the weights of the columns of as many patches as a register is wide.
template <typename scalar_t>
HOST_DEVICE void weights_across(const SsimArguments<scalar_t>& a, scalar_t* across) {
  for (int i = 0; i < Eights<scalar_t, kVectorBytes>::kWidth; ++i) {
    across[i] = a.weights[i % kEight];
  }
}

// The moments of each patch of a block, in all of its lanes. The rows below come with the next row of patches.
template <typename Shape, typename scalar_t, typename Lanes = typename Shape::Lanes>
HOST_DEVICE WindowMoments<Lanes> eights_moments(const SsimArguments<scalar_t>& a, const scalar_t* image0,
                                                const scalar_t* image1, const scalar_t* across) {
  const int64_t width = a.width;
  Lanes sums[kMoments][Shape::kRegisters];
  UNROLL
  for (int i = 0; i < Shape::kRegisters; ++i) {
    const Lanes weights = load<Lanes>(across + i * Shape::kRegisterLanes);
    Lanes sum0 = {}, sum1 = {};
    UNROLL
    for (int k = 0; k < kEight; ++k) {
      const int64_t at = k * width + i * Shape::kRegisterLanes;
      __builtin_prefetch(image0 + at + kEight * width);
      __builtin_prefetch(image1 + at + kEight * width);
      sum0 += a.weights[k] * load<Lanes>(image0 + at);
      sum1 += a.weights[k] * load<Lanes>(image1 + at);
    }
    sums[0][i] = weights * sum0;
    sums[1][i] = weights * sum1;
  }
  WindowMoments<Lanes> m;
  m.mean0 = join_eights<Shape>(sums[0]);
  m.mean1 = join_eights<Shape>(sums[1]);
  UNROLL
  for (int i = 0; i < Shape::kRegisters; ++i) {
    const Lanes weights = load<Lanes>(across + i * Shape::kRegisterLanes);
    Lanes sum00 = {}, sum11 = {}, sum01 = {};
    UNROLL
    for (int k = 0; k < kEight; ++k) {
      const int64_t at = k * width + i * Shape::kRegisterLanes;
      const Lanes off0 = load<Lanes>(image0 + at) - m.mean0, off1 = load<Lanes>(image1 + at) - m.mean1;
      const Lanes weighted0 = a.weights[k] * off0, weighted1 = a.weights[k] * off1;
      sum00 += weighted0 * off0;
      sum11 += weighted1 * off1;
      sum01 += weighted0 * off1;
    }
    sums[2][i] = weights * sum00;
    sums[3][i] = weights * sum11;
    sums[4][i] = weights * sum01;
  }
  m.variance0 = join_eights<Shape>(sums[2]);
  m.variance1 = join_eights<Shape>(sums[3]);
  m.covariance = join_eights<Shape>(sums[4]);
  return m;
}

template <typename scalar_t>
void forward_eights(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end) {
  scalar_t across[Eights<scalar_t, kVectorBytes>::kWidth];
  weights_across(a, across);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t top = patch_top(a, row);
    for_each_eights<scalar_t>(a.map_width, [&](auto shape, int first) {
      using Shape = decltype(shape);
      using Lanes = typename Shape::Lanes;
      const auto moments = eights_moments<Shape>(a, a.image0 + top + first, a.image1 + top + first, across);
      const auto similarity = window_similarity<Lanes>(moments, a.c1 - Lanes{}, a.c2 - Lanes{});
      for (int i = 0; i < Shape::kPatches; ++i) {
        a.map[row * a.map_width + first / kEight + i] = similarity[i * kEight];
      }
    });
  }
}

// The gradient of one image in a block of patches.
template <typename Shape, typename scalar_t, typename Lanes = typename Shape::Lanes>
HOST_DEVICE void eights_grad(const SsimArguments<scalar_t>& a, const Lanes& constant, const Lanes& own,
                             const Lanes& other, const scalar_t* across, const scalar_t* image, const scalar_t* partner,
                             scalar_t* grad) {
  UNROLL
  for (int i = 0; i < Shape::kRegisters; ++i) {
    const Lanes weights = load<Lanes>(across + i * Shape::kRegisterLanes);
    const Lanes c = weights * constant, x = weights * own, y = weights * other;
    UNROLL
    for (int k = 0; k < kEight; ++k) {
      const int64_t at = k * int64_t{a.width} + i * Shape::kRegisterLanes;
      const scalar_t w = a.weights[k];
      __builtin_prefetch(grad + at + kEight * int64_t{a.width}, 1);
      store(grad + at, pixel_grad<Lanes>(w * c, w * x, w * y, load<Lanes>(image + at), load<Lanes>(partner + at)));
    }
  }
}

// Zeros to the right of the patches of a row and below.
template <typename scalar_t>
HOST_DEVICE void clear_around(const SsimArguments<scalar_t>& a, int64_t row, scalar_t* grad) {
  for (int k = 0; k < kEight; ++k) {
    for (int x = a.map_width * kEight; x < a.width; ++x) {
      grad[int64_t{k} * a.width + x] = 0;
    }
  }
  clear_below(a, row, grad);
}

template <typename scalar_t>
void grad_eights(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end) {
  scalar_t across[Eights<scalar_t, kVectorBytes>::kWidth];
  weights_across(a, across);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t top = patch_top(a, row);
    const scalar_t* grads = a.grad + row * a.map_width;
    for_each_eights<scalar_t>(a.map_width, [&](auto shape, int first) {
      using Shape = decltype(shape);
      using Lanes = typename Shape::Lanes;
      const scalar_t *image0 = a.image0 + top + first, *image1 = a.image1 + top + first;
      const auto moments = eights_moments<Shape>(a, image0, image1, across);
      Lanes grad = grads[first / kEight] - Lanes{};
      if constexpr (Shape::kPatches == 2) {
        UNROLL
        for (int lane = kEight; lane < Shape::kRegisterLanes; ++lane) {
          grad[lane] = grads[first / kEight + 1];
        }
      }
      const WindowGrad<Lanes> g = window_grad<Lanes>(moments, a.c1 - Lanes{}, a.c2 - Lanes{}, grad);
      if (a.grad0 != nullptr) {
        eights_grad<Shape>(a, g.constant0, g.own, g.other, across, image0, image1, a.grad0 + top + first);
      }
      if (a.grad1 != nullptr) {
        eights_grad<Shape>(a, g.constant1, g.own, g.other, across, image1, image0, a.grad1 + top + first);
      }
    });
    if (a.grad0 != nullptr) {
      clear_around(a, row, a.grad0 + top);
    }
    if (a.grad1 != nullptr) {
      clear_around(a, row, a.grad1 + top);
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
